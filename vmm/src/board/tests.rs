//! A driver of a virtio-pmem device, on the board: what is recorded, interrupted and refused.

use devices::virtio::{FlushAction, FlushFault};
use persist::EventKind;

use super::*;

const PMEM: u64 = 1 << 32;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUEST: u64 = 0x4000;
const ANSWER: u64 = 0x5000;

/// Registers of the transport (VIRTIO 1.3, 4.2.2).
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SELECT: u64 = 0x24;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const STATUS: u64 = 0x70;
const QUEUE_DESCRIPTORS: u64 = 0x80;
const QUEUE_AVAILABLE: u64 = 0x90;
const QUEUE_USED: u64 = 0xa0;
const DRIVEN: u64 = 0xf;
const NEEDS_RESET: u64 = 0x40;

fn view(tsc: u64) -> CpuView {
    CpuView { vcpu: 0, cpl: 0, rip: 0x77, rsp: 0, retired: tsc, tsc }
}

/// A board with an NVDIMM and a virtio-pmem device, recording.
fn board() -> Board {
    let nvdimm = Region { base: PMEM, size: 2 << 20, kind: RegionKind::Nvdimm, dimm: 1 };
    let device = Region { base: PMEM + (128 << 20), size: 2 << 20, kind: RegionKind::VirtioPmem, dimm: 0 };
    let banks = [
        (0, 1 << 20, BankKind::Ram),
        (nvdimm.base, nvdimm.size, BankKind::Pmem),
        (device.base, device.size, BankKind::Pmem),
    ];
    let wiring = Wiring {
        regions: vec![nvdimm, device],
        hints: FlushHints::default(),
        media_errors: false,
        smart: Vec::new(),
    };
    let mut board = Board::new(Memory::new(&banks, None).unwrap(), wiring, 1);
    board.recorder.on = true;
    board
}

fn write(board: &mut Board, register: u64, value: u64) {
    board.mmio_write(&view(100), map::VIRTIO + register, 4, value & 0xffff_ffff);
}

fn read(board: &mut Board, register: u64) -> u64 {
    board.mmio_read(&view(100), map::VIRTIO + register, 4)
}

/// Drives the device, with its rings at these places.
fn drive(board: &mut Board, rings: [u64; 3]) {
    write(board, DRIVER_FEATURES_SELECT, 1);
    write(board, DRIVER_FEATURES, 1);
    write(board, STATUS, DRIVEN);
    write(board, QUEUE_NUM, 8);
    for (register, at) in [QUEUE_DESCRIPTORS, QUEUE_AVAILABLE, QUEUE_USED].into_iter().zip(rings) {
        write(board, register, at);
        write(board, register + 4, at >> 32);
    }
    write(board, QUEUE_READY, 1);
}

/// A request in descriptors `2 * number` and the next, answered at `answer`, made available as number `number`.
fn flush(board: &mut Board, number: u16, answer: u64) {
    let head = 2 * number;
    let descriptor = |addr: u64, flags: u16, next: u16| {
        [&addr.to_le_bytes()[..], &4_u32.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let table = DESCRIPTORS + 16 * u64::from(head);
    board.memory.write(table, &descriptor(REQUEST, 1, head + 1));
    board.memory.write(table + 16, &descriptor(answer, 2, 0));
    board.memory.write(AVAILABLE + 4 + 2 * u64::from(number), &head.to_le_bytes());
    board.memory.write(AVAILABLE + 2, &(number + 1).to_le_bytes());
    write(board, QUEUE_NOTIFY, 0);
}

fn kinds(board: &mut Board) -> Vec<EventKind> {
    board.recorder.take().into_iter().map(|event| event.kind).collect()
}

#[test]
fn a_flush_is_recorded_when_it_is_submitted_and_when_it_is_answered() {
    let mut board = board();
    drive(&mut board, [DESCRIPTORS, AVAILABLE, USED]);
    assert!(board.set_flush_faults(1, &[FlushFault { which: Some(2), action: FlushAction::Fail }]));
    assert!(!board.set_flush_faults(0, &[]), "an NVDIMM has no flushes");
    flush(&mut board, 0, ANSWER);
    flush(&mut board, 1, ANSWER + 4);
    let due = board.deadline().expect("an answer is due");
    board.expire(due);
    let told = kinds(&mut board);
    let ids: Vec<u64> = told
        .iter()
        .filter_map(|kind| match kind {
            EventKind::DeviceFlushSubmitted { region: 1, id } => Some(*id),
            _ => None,
        })
        .collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{told:?}");
    let completed = |id, status| EventKind::DeviceFlushCompleted { region: 1, id, status };
    assert_eq!(told[2..], [completed(ids[0], 0), completed(ids[1], -1)]);
    assert_eq!(read(&mut board, INTERRUPT_STATUS), 1);
    let mut answers = [0; 8];
    board.memory.read(ANSWER, &mut answers);
    assert_eq!(answers, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn a_run_stops_between_two_answers_that_are_due_at_once() {
    let mut board = board();
    drive(&mut board, [DESCRIPTORS, AVAILABLE, USED]);
    flush(&mut board, 0, ANSWER);
    flush(&mut board, 1, ANSWER + 4);
    board.recorder.stop_at = Some(2);
    board.expire(u64::MAX);
    assert_eq!((kinds(&mut board).len(), board.take_stop()), (3, Some(Stop::Event(2))));
    board.expire(u64::MAX);
    assert_eq!(kinds(&mut board).len(), 1);
}

#[test]
fn rings_and_buffers_outside_of_ram_break_the_device_and_nothing_is_stored() {
    let elsewhere = [PMEM, PMEM + (128 << 20), map::LAPIC, 1 << 20, (1 << 20) - 8, !15];
    for place in elsewhere {
        for ring in 0..3 {
            let mut board = board();
            let mut rings = [DESCRIPTORS, AVAILABLE, USED];
            rings[ring] = place;
            drive(&mut board, rings);
            assert_eq!(read(&mut board, STATUS) & NEEDS_RESET, NEEDS_RESET, "ring {ring} at {place:#x}");
            assert_eq!(read(&mut board, INTERRUPT_STATUS), 2);
        }
    }
    for place in [PMEM, map::LAPIC, (1 << 20) - 2] {
        let mut board = board();
        drive(&mut board, [DESCRIPTORS, AVAILABLE, USED]);
        board.memory.take_written();
        flush(&mut board, 0, place);
        assert_eq!(read(&mut board, STATUS) & NEEDS_RESET, NEEDS_RESET, "an answer at {place:#x}");
        board.expire(u64::MAX);
        assert_eq!(kinds(&mut board), []);
        let mut bytes = [0; 4];
        board.memory.read(PMEM, &mut bytes);
        assert_eq!(bytes, [0; 4]);
    }
}

#[test]
fn a_snapshot_keeps_flushes_that_are_on_their_way() {
    let mut board = board();
    drive(&mut board, [DESCRIPTORS, AVAILABLE, USED]);
    flush(&mut board, 0, ANSWER);
    let state = board.state();
    board.expire(u64::MAX);
    let first = kinds(&mut board);
    board.set_state(state);
    board.expire(u64::MAX);
    assert_eq!(kinds(&mut board)[..], first[1..]);
}
