//! A driver as it should be, and drivers as they should not be.

use proptest::prelude::*;
use virtio_bindings::virtio_config::*;
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;

/// Memory of the tests: 0 to 64 KiB, nothing behind.
const MEMORY: u64 = 0x10000;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUESTS: u64 = 0x4000;
const ANSWERS: u64 = 0x5000;
const INDIRECT: u64 = 0x6000;
const START: u64 = 1 << 32;
const SIZE: u64 = 64 << 20;
const LIVE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK;
const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;

/// Longer than any flush takes.
const LATER: u64 = 1 << 40;

struct Driver {
    device: VirtioPmem,
    memory: GuestMemoryMmap<()>,
    available: u16,
}

impl Driver {
    /// A device that has not been touched.
    fn new() -> Driver {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        Driver { device: VirtioPmem::new(START, SIZE), memory, available: 0 }
    }

    /// A device that is driven, its queue of `size` descriptors ready.
    fn ready(size: u32) -> Driver {
        let mut driver = Driver::new();
        driver.negotiate(1 << VIRTIO_F_VERSION_1);
        driver.set_up_queue(size);
        driver.write(VIRTIO_MMIO_STATUS, LIVE);
        driver
    }

    fn negotiate(&mut self, features: u64) {
        self.write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
        self.write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
        for half in 0..2 {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.write(VIRTIO_MMIO_STATUS, LIVE & !VIRTIO_CONFIG_S_DRIVER_OK);
    }

    fn set_up_queue(&mut self, size: u32) {
        self.write(VIRTIO_MMIO_QUEUE_SEL, 0);
        self.write(VIRTIO_MMIO_QUEUE_NUM, size);
        self.write(VIRTIO_MMIO_QUEUE_DESC_LOW, DESCRIPTORS as u32);
        self.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAILABLE as u32);
        self.write(VIRTIO_MMIO_QUEUE_USED_LOW, USED as u32);
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    fn read(&self, register: u32) -> u32 {
        self.device.read(register.into(), 4) as u32
    }

    fn write(&mut self, register: u32, value: u32) -> Vec<FlushEvent> {
        self.device.write(register.into(), 4, value.into(), 0, &self.memory)
    }

    fn descriptor(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.descriptor_at(DESCRIPTORS + 16 * u64::from(index), addr, len, flags, next);
    }

    fn descriptor_at(&self, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let bytes = [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.memory.write_slice(&bytes.concat(), GuestAddress(at)).unwrap();
    }

    /// A request of `kind` in descriptors `head` and `head + 1`.
    fn request(&self, head: u16, kind: u32) {
        let place = 8 * u64::from(head);
        self.memory.write_obj(kind, GuestAddress(REQUESTS + place)).unwrap();
        self.memory.write_obj(0x5555_5555_u32, GuestAddress(ANSWERS + place)).unwrap();
        self.descriptor(head, REQUESTS + place, 4, NEXT, head + 1);
        self.descriptor(head + 1, ANSWERS + place, 4, WRITE, 0);
    }

    fn make_available(&mut self, head: u16) {
        let size = self.device.queue_size();
        let slot = AVAILABLE + 4 + 2 * u64::from(self.available % size as u16);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.memory.write_obj(self.available, GuestAddress(AVAILABLE + 2)).unwrap();
    }

    fn ring_doorbell(&mut self) -> Vec<FlushEvent> {
        self.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0)
    }

    fn expire(&mut self, now: u64) -> Vec<FlushEvent> {
        std::iter::from_fn(|| self.device.expire(now, &self.memory)).collect()
    }

    fn u32_at(&self, at: u64) -> u32 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    fn answer(&self, head: u16) -> u32 {
        self.u32_at(ANSWERS + 8 * u64::from(head))
    }

    fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    fn is_broken(&self) -> bool {
        self.read(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }

    /// That the device is broken and has said so.
    fn assert_broken(&self) {
        assert!(self.is_broken());
        assert_eq!(self.read(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_CONFIG);
        assert!(self.device.irq());
        assert_eq!((self.used(), self.device.deadline()), (0, None), "nothing is answered");
    }
}

#[test]
fn a_driver_finds_the_device_and_its_range() {
    let mut driver = Driver::new();
    assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE), u32::from_le_bytes(*b"virt"));
    assert_eq!((driver.read(VIRTIO_MMIO_VERSION), driver.read(VIRTIO_MMIO_DEVICE_ID)), (2, 27));
    let config = |offset: u64, size| driver.device.read(0x100 + offset, size);
    assert_eq!((config(0, 8), config(8, 8)), (START, SIZE));
    assert_eq!((config(4, 4), config(4, 1), config(12, 8), config(u64::MAX - 0x100, 8)), (1, 1, 0, 0));
    driver.write(VIRTIO_MMIO_SHM_SEL, 0);
    let shared = [VIRTIO_MMIO_SHM_BASE_LOW, VIRTIO_MMIO_SHM_BASE_HIGH, VIRTIO_MMIO_SHM_LEN_LOW];
    assert_eq!(shared.map(|register| driver.read(register)), [0, 1, SIZE as u32]);
    driver.write(VIRTIO_MMIO_SHM_SEL, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_HIGH), u32::MAX, "there is no other region");
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0, "nor another queue");
}

#[test]
fn features_that_are_not_offered_and_no_version_1_are_refused() {
    for features in [1, 1 << VIRTIO_F_VERSION_1 | 1 << 5, 0] {
        let mut driver = Driver::new();
        driver.negotiate(features);
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK, 0, "{features:#x}");
    }
    let mut driver = Driver::new();
    driver.negotiate(1 << VIRTIO_F_VERSION_1 | 1);
    assert_ne!(driver.read(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK, 0);
}

#[test]
fn a_flush_is_answered_by_itself_when_its_time_has_come() {
    let mut driver = Driver::ready(8);
    driver.request(0, 0);
    driver.request(4, 0);
    driver.make_available(0);
    assert_eq!(driver.ring_doorbell(), [FlushEvent::Submitted { number: 0 }]);
    assert!(!driver.device.irq());
    driver.make_available(4);
    assert_eq!(driver.ring_doorbell(), [FlushEvent::Submitted { number: 1 }]);
    let due = driver.device.deadline().expect("an answer is due");
    assert_eq!(driver.expire(due - 1), []);
    let completed = |number| FlushEvent::Completed { number, status: 0 };
    assert_eq!(driver.expire(due), [completed(0), completed(1)]);
    assert_eq!((driver.answer(0), driver.answer(4), driver.used()), (0, 0, 2));
    assert_eq!([8, 4, 12].map(|offset| driver.u32_at(USED + offset)), [4, 0, 4], "heads and lengths");
    assert!(driver.device.irq());
    driver.write(VIRTIO_MMIO_INTERRUPT_ACK, driver.read(VIRTIO_MMIO_INTERRUPT_STATUS));
    assert!(!driver.device.irq());
}

#[test]
fn requests_that_are_no_flush_are_answered_with_failure() {
    let mut driver = Driver::ready(8);
    driver.request(0, 1);
    driver.request(2, 0);
    driver.descriptor(2, REQUESTS, 5, NEXT, 3);
    driver.descriptor(4, ANSWERS + 0x20, 4, WRITE, 0);
    for head in [0, 2, 4] {
        driver.make_available(head);
    }
    assert_eq!(driver.ring_doorbell(), [], "none of them is a flush");
    assert_eq!([0, 2, 4].map(|head| driver.answer(head)), [u32::MAX; 3]);
    assert_eq!(driver.used(), 3);
    assert!(!driver.is_broken());
}

#[test]
fn request_and_answer_may_be_in_pieces_and_the_answer_long() {
    let mut driver = Driver::ready(8);
    driver.memory.write_obj(0_u32, GuestAddress(REQUESTS)).unwrap();
    driver.descriptor(0, REQUESTS, 1, NEXT, 1);
    driver.descriptor(1, REQUESTS + 1, 3, NEXT, 2);
    driver.descriptor(2, ANSWERS, 3, WRITE | NEXT, 3);
    driver.descriptor(3, ANSWERS + 0x10, 100, WRITE, 0);
    driver.memory.write_slice(&[0x55; 0x20], GuestAddress(ANSWERS)).unwrap();
    driver.make_available(0);
    driver.ring_doorbell();
    driver.expire(LATER);
    assert_eq!((driver.u32_at(ANSWERS), driver.u32_at(ANSWERS + 0x10)), (0x5500_0000, 0x5555_5500));
    assert_eq!(driver.u32_at(USED + 8), 4);
}

#[test]
fn faults_do_what_they_say() {
    let mut driver = Driver::ready(8);
    driver.device.set_faults(&[
        FlushFault { which: Some(1), action: FlushAction::Fail },
        FlushFault { which: Some(2), action: FlushAction::Late(1_000_000) },
        FlushFault { which: Some(3), action: FlushAction::NeverAnswer },
    ]);
    for head in [0, 2, 4, 6] {
        driver.request(head, 0);
        driver.make_available(head);
    }
    assert_eq!(driver.ring_doorbell().len(), 4);
    let completed = |number, status| FlushEvent::Completed { number, status };
    assert_eq!(driver.expire(999_999), [completed(0, -1), completed(3, 0)]);
    assert_eq!(driver.expire(1_000_000), [completed(1, 0)]);
    assert_eq!((driver.expire(LATER), driver.device.deadline()), (vec![], None));
    assert_eq!([0, 2, 4, 6].map(|head| driver.answer(head)), [u32::MAX, 0, 0x5555_5555, 0]);
}

#[test]
fn a_reset_forgets_requests_and_everything_else() {
    for stop_queue in [false, true] {
        let mut driver = Driver::ready(8);
        driver.request(0, 0);
        driver.make_available(0);
        driver.ring_doorbell();
        driver.write(if stop_queue { VIRTIO_MMIO_QUEUE_READY } else { VIRTIO_MMIO_STATUS }, 0);
        assert_eq!(driver.expire(LATER), []);
        assert_eq!((driver.used(), driver.read(VIRTIO_MMIO_QUEUE_READY)), (0, 0));
        if !stop_queue {
            assert_eq!(driver.device.queue_size(), 64);
            assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0);
        }
    }
}

#[test]
fn nothing_is_taken_before_the_driver_drives() {
    let mut driver = Driver::new();
    driver.negotiate(1 << VIRTIO_F_VERSION_1);
    driver.set_up_queue(8);
    driver.request(0, 0);
    driver.make_available(0);
    assert_eq!(driver.ring_doorbell(), []);
    driver.write(VIRTIO_MMIO_STATUS, LIVE);
    assert_eq!(driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1), [], "another queue");
    assert_eq!(driver.ring_doorbell().len(), 1);
}

#[test]
fn queues_that_cannot_be_break_the_device() {
    let bad = [
        (VIRTIO_MMIO_QUEUE_NUM, 0),
        (VIRTIO_MMIO_QUEUE_NUM, 3),
        (VIRTIO_MMIO_QUEUE_NUM, 128),
        (VIRTIO_MMIO_QUEUE_NUM, 0x1_0008),
        (VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1008),
        (VIRTIO_MMIO_QUEUE_DESC_LOW, 0xfff0),
        (VIRTIO_MMIO_QUEUE_DESC_HIGH, 1),
        (VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0),
        (VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x2001),
        (VIRTIO_MMIO_QUEUE_AVAIL_HIGH, u32::MAX),
        (VIRTIO_MMIO_QUEUE_USED_LOW, 0x3002),
        (VIRTIO_MMIO_QUEUE_USED_LOW, 0xfffc),
    ];
    for (register, value) in bad {
        let mut driver = Driver::ready(8);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
        driver.write(register, value);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0, "{register:#x} = {value:#x}");
        driver.assert_broken();
    }
}

#[test]
fn a_device_that_breaks_before_it_is_driven_does_not_interrupt() {
    let mut driver = Driver::new();
    driver.negotiate(1 << VIRTIO_F_VERSION_1);
    driver.set_up_queue(3);
    assert!(driver.is_broken() && !driver.device.irq());
}

#[test]
fn chains_that_break_the_rules_break_the_device() {
    type Chain = fn(&Driver);
    let bad: [(&str, Chain); 10] = [
        ("no room for the answer", |driver| driver.descriptor(1, ANSWERS, 3, WRITE, 0)),
        ("nothing to write", |driver| driver.descriptor(1, ANSWERS, 4, 0, 0)),
        ("an empty piece", |driver| driver.descriptor(0, REQUESTS, 0, NEXT, 1)),
        ("a loop", |driver| driver.descriptor(1, ANSWERS, 4, WRITE | NEXT, 1)),
        ("a next one that is not there", |driver| driver.descriptor(1, ANSWERS, 4, WRITE | NEXT, 8)),
        ("to be read behind to be written", |driver| {
            driver.descriptor(0, ANSWERS, 4, WRITE | NEXT, 1);
            driver.descriptor(1, REQUESTS, 4, 0, 0);
        }),
        ("a request where no memory is", |driver| driver.descriptor(0, MEMORY - 3, 4, NEXT, 1)),
        ("an answer where no memory is", |driver| driver.descriptor(1, START, 4, WRITE, 0)),
        ("an answer that wraps around", |driver| driver.descriptor(1, u64::MAX - 1, 4, WRITE, 0)),
        ("an indirect table of odd length", |driver| {
            driver.descriptor(0, INDIRECT, 17, VRING_DESC_F_INDIRECT as u16, 0)
        }),
    ];
    for (what, change) in bad {
        let mut driver = Driver::ready(8);
        driver.request(0, 0);
        change(&driver);
        driver.make_available(0);
        assert_eq!(driver.ring_doorbell(), [], "{what}");
        driver.assert_broken();
        driver.request(2, 0);
        driver.make_available(2);
        assert_eq!(driver.ring_doorbell(), [], "{what}: it is broken until it is reset");
    }
}

#[test]
fn heads_that_are_not_there_or_in_use_and_too_many_break_the_device() {
    let mut driver = Driver::ready(8);
    driver.make_available(8);
    driver.ring_doorbell();
    driver.assert_broken();

    let mut driver = Driver::ready(8);
    driver.request(0, 0);
    driver.make_available(0);
    driver.make_available(0);
    assert_eq!(driver.ring_doorbell().len(), 1);
    driver.assert_broken();

    let mut driver = Driver::ready(8);
    driver.memory.write_obj(9_u16, GuestAddress(AVAILABLE + 2)).unwrap();
    driver.ring_doorbell();
    driver.assert_broken();
}

#[test]
fn a_long_indirect_chain_is_refused() {
    let mut driver = Driver::ready(8);
    for index in 0..1000 {
        let flags = if index == 999 { WRITE } else { NEXT };
        driver.descriptor_at(INDIRECT + 16 * index, REQUESTS, 4, flags, index as u16 + 1);
    }
    driver.descriptor(0, INDIRECT, 16_000, VRING_DESC_F_INDIRECT as u16, 0);
    driver.make_available(0);
    driver.ring_doorbell();
    driver.assert_broken();
}

#[test]
fn a_snapshot_goes_on_where_it_was() {
    let mut driver = Driver::ready(8);
    driver.request(0, 0);
    driver.make_available(0);
    driver.ring_doorbell();
    let snapshot = postcard::to_stdvec(&driver.device).unwrap();
    driver.device = postcard::from_bytes(&snapshot).unwrap();
    assert_eq!(driver.expire(LATER), [FlushEvent::Completed { number: 0, status: 0 }]);
    driver.request(2, 0);
    driver.make_available(2);
    assert_eq!(driver.ring_doorbell(), [FlushEvent::Submitted { number: 1 }]);
}

/// What a hostile driver does.
#[derive(Clone, Debug)]
enum Move {
    Register { offset: u64, size: usize, value: u64 },
    Descriptor { index: u16, addr: u64, len: u32, flags: u16, next: u16 },
    Available { slot: u16, head: u16 },
    AvailableIndex(u16),
    Doorbell,
    Expire,
    SetUp(u32),
}

fn place() -> impl Strategy<Value = u64> {
    let pages =
        [DESCRIPTORS, AVAILABLE, USED, REQUESTS, ANSWERS, INDIRECT, 0, MEMORY, START, u64::MAX - 0xfff];
    prop_oneof![
        4 => (prop::sample::select(pages.to_vec()), 0_u64..0x48).prop_map(|(page, offset)| page.wrapping_add(offset)),
        1 => any::<u64>(),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    let value = prop_oneof![any::<u32>().prop_map(u64::from), place(), 0_u64..70, Just(u64::from(LIVE))];
    let register = prop_oneof![(0_u64..0x50).prop_map(|word| 4 * word), 0_u64..0x210];
    let len = prop_oneof![0_u32..9, Just(16), Just(64), any::<u32>()];
    let flags = prop_oneof![4 => 0_u16..4, 1 => Just(4_u16), 1 => any::<u16>()];
    prop_oneof![
        2 => (register, prop::sample::select(vec![1, 2, 4, 4, 4, 8]), value)
            .prop_map(|(offset, size, value)| Move::Register { offset, size, value }),
        4 => (0_u16..10, place(), len, flags, 0_u16..10)
            .prop_map(|(index, addr, len, flags, next)| Move::Descriptor { index, addr, len, flags, next }),
        2 => (0_u16..10, 0_u16..10).prop_map(|(slot, head)| Move::Available { slot, head }),
        2 => prop_oneof![0_u16..12, any::<u16>()].prop_map(Move::AvailableIndex),
        3 => Just(Move::Doorbell),
        1 => Just(Move::Expire),
        1 => prop_oneof![Just(8), Just(4), 0_u32..70].prop_map(Move::SetUp),
    ]
}

fn contents(driver: &Driver) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY as usize];
    driver.memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// Bytes that the driver has named for the device to write, in whatever the memory reads as: every used ring, and what
/// write-only descriptors say, in the table or in an indirect one that it names.
fn named(driver: &Driver, memory: &[u8]) -> Vec<std::ops::Range<u64>> {
    let ring = driver.device.queue();
    let used = ring.used..ring.used.saturating_add(6 + 8 * u64::from(ring.size));
    let mut ranges: Vec<_> = std::iter::once(used).collect();
    let mut tables = vec![(ring.descriptors, u64::from(ring.size), true)];
    while let Some((table, count, direct)) = tables.pop() {
        for index in 0..count.min(MEMORY / 16) {
            let at = table.saturating_add(16 * index);
            let Some(bytes) = usize::try_from(at).ok().and_then(|at| memory.get(at..at.checked_add(16)?))
            else {
                break;
            };
            let addr = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let len = u64::from(u32::from_le_bytes(bytes[8..12].try_into().unwrap()));
            let flags = u16::from_le_bytes([bytes[12], bytes[13]]);
            if flags & WRITE != 0 {
                ranges.push(addr..addr.saturating_add(len));
            }
            if direct && u32::from(flags) & VRING_DESC_F_INDIRECT != 0 {
                tables.push((addr, len / 16, false));
            }
        }
    }
    ranges
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_driver_makes_the_device_panic_or_write_where_it_was_not_told_to(
        moves in prop::collection::vec(moves(), 1..60)
    ) {
        let mut driver = Driver::ready(8);
        driver.request(0, 0);
        driver.make_available(0);
        // An answer may be due long after its descriptor was overwritten.
        let mut allowed = Vec::new();
        let mut now = 0;
        for step in moves {
            match step {
                Move::Descriptor { index, addr, len, flags, next } => {
                    driver.descriptor(index, addr, len, flags, next);
                    driver.descriptor_at(INDIRECT + 16 * u64::from(index), addr, len, flags & !4, next);
                }
                Move::Available { slot, head } => {
                    driver.memory.write_obj(head, GuestAddress(AVAILABLE + 4 + 2 * u64::from(slot))).unwrap();
                }
                Move::AvailableIndex(index) => {
                    driver.memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
                }
                _ => {}
            }
            let before = contents(&driver);
            allowed.extend(named(&driver, &before));
            match step {
                Move::Register { offset, size, value } => {
                    driver.device.read(offset, size);
                    driver.device.write(offset, size, value, now, &driver.memory);
                }
                Move::Doorbell => drop(driver.ring_doorbell()),
                Move::Expire => {
                    now += 1 << 20;
                    driver.expire(now);
                }
                Move::SetUp(size) => {
                    driver.write(VIRTIO_MMIO_STATUS, 0);
                    driver.negotiate(1 << VIRTIO_F_VERSION_1);
                    driver.set_up_queue(size);
                    driver.write(VIRTIO_MMIO_STATUS, LIVE);
                }
                _ => {}
            }
            let after = contents(&driver);
            for at in (0..MEMORY).filter(|&at| before[at as usize] != after[at as usize]) {
                prop_assert!(allowed.iter().any(|range| range.contains(&at)), "{at:#x} was written");
            }
            prop_assert!(driver.device.pending() <= 64);
            prop_assert_eq!(driver.is_broken() && driver.device.deadline().is_some(), false);
        }
    }

    #[test]
    fn random_memory_and_registers_do_no_harm(
        memory in prop::collection::vec(any::<u8>(), 0x400),
        writes in prop::collection::vec((0_u64..0x210, prop::sample::select(vec![1, 2, 4, 8]), any::<u64>()), 0..30)
    ) {
        let mut driver = Driver::ready(64);
        for base in [DESCRIPTORS, AVAILABLE, INDIRECT] {
            driver.memory.write_slice(&memory, GuestAddress(base)).unwrap();
        }
        driver.ring_doorbell();
        for (offset, size, value) in writes {
            driver.device.read(offset, size);
            driver.device.write(offset, size, value, value, &driver.memory);
        }
        driver.expire(u64::MAX);
    }
}
