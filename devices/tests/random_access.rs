//! Whatever a guest does with the registers: no panic, deadlines move on, and a snapshot goes on as the original.

use devices::{
    FlushHints, IoApic, LapicEffect, LocalApic, Message, PciConfig, Pic, Pit, Power, Rtc, Serial,
    control_call, debug_exit, deliver,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Devices {
    now: u64,
    apics: Vec<LocalApic>,
    ioapic: IoApic,
    pit: Pit,
    pic: Pic,
    rtc: Rtc,
    serial: Serial,
    power: Power,
    pci: PciConfig,
    hints: FlushHints,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    ReadApic(u8, u64),
    WriteApic(u8, u64, u32),
    SetBase(u8, u64),
    SetDeadline(u8, u64),
    Acknowledge(u8),
    ReadIoApic(u64),
    WriteIoApic(u64, u32),
    Line(u8, bool),
    ReadPort(u16),
    WritePort(u16, u32),
    Receive(u8),
    Wait(u64),
    PowerLoss,
}

impl Devices {
    fn new() -> Devices {
        Devices {
            now: 0,
            apics: vec![LocalApic::new(0), LocalApic::new(1)],
            ioapic: IoApic::new(),
            pit: Pit::new(),
            pic: Pic::default(),
            rtc: Rtc::default(),
            serial: Serial::new(),
            power: Power::default(),
            pci: PciConfig::new(true),
            hints: FlushHints::new([(1, &[0xfd00_0000u64][..])]),
        }
    }

    /// Does one step and returns what the guest would see of it.
    fn step(&mut self, step: Step) -> u64 {
        let now = self.now;
        let seen = match step {
            Step::ReadApic(cpu, offset) => self.apic(cpu).read(offset, now).into(),
            Step::WriteApic(cpu, offset, value) => {
                let effect = self.apic(cpu).write(offset, value, now);
                self.carry_out(effect)
            }
            Step::SetBase(cpu, value) => {
                let taken = self.apic(cpu).set_base(value).is_some();
                self.apic(cpu).base() ^ u64::from(taken)
            }
            Step::SetDeadline(cpu, value) => {
                self.apic(cpu).set_tsc_deadline(value, now);
                self.apic(cpu).tsc_deadline(now)
            }
            Step::Acknowledge(cpu) => {
                let pending = self.apic(cpu).pending();
                assert_eq!(self.apic(cpu).acknowledge(), pending);
                pending.map_or(0, u64::from)
            }
            Step::ReadIoApic(offset) => self.ioapic.read(offset).into(),
            Step::WriteIoApic(offset, value) => {
                let messages = self.ioapic.write(offset, value);
                self.deliver(messages)
            }
            Step::Line(pin, level) => {
                let message = self.ioapic.set_irq(pin, level);
                self.deliver(message)
            }
            Step::ReadPort(port) => self.read_port(port),
            Step::WritePort(port, value) => self.write_port(port, value),
            Step::Receive(byte) => self.serial.receive(&[byte]) as u64,
            Step::Wait(time) => self.wait(time),
            Step::PowerLoss => {
                self.rtc = self.rtc.power_loss();
                0
            }
        };
        let message = self.ioapic.set_irq(devices::map::irq::SERIAL, self.serial.irq());
        seen ^ self.deliver(message) << 32
    }

    fn apic(&mut self, cpu: u8) -> &mut LocalApic {
        &mut self.apics[usize::from(cpu & 1)]
    }

    fn deliver(&mut self, messages: impl IntoIterator<Item = Message>) -> u64 {
        let signals = messages.into_iter().map(|message| deliver(&mut self.apics, &message).len() as u64 + 1);
        signals.sum()
    }

    fn carry_out(&mut self, effect: LapicEffect) -> u64 {
        match effect {
            LapicEffect::None => 0,
            LapicEffect::EndOfInterrupt { vector } => {
                let again = self.ioapic.end_of_interrupt(vector);
                1 + self.deliver(again)
            }
            LapicEffect::Send(message) => 1 + self.deliver([message]),
        }
    }

    fn read_port(&mut self, port: u16) -> u64 {
        let now = self.now;
        let byte = match port {
            0x40..=0x43 | 0x61 => self.pit.read(port, now),
            0x3f8..=0x3ff => self.serial.read((port - 0x3f8) as u8),
            0x70..=0x77 => self.rtc.read(port, now),
            0xcf8..=0xcff if port != 0xcf9 => return self.pci.read(port, 4).into(),
            _ => self.pic.read(port) ^ self.power.read(port),
        };
        byte.into()
    }

    fn write_port(&mut self, port: u16, value: u32) -> u64 {
        let (now, byte) = (self.now, value as u8);
        match port {
            0x40..=0x43 | 0x61 => self.pit.write(port, byte, now),
            0x3f8..=0x3ff => return self.serial.write((port - 0x3f8) as u8, byte).map_or(0, u64::from),
            0x70..=0x77 => self.rtc.write(port, byte, now),
            0xcf8..=0xcff if port != 0xcf9 => self.pci.write(port, 4, value),
            _ => {
                self.pic.write(port, byte);
                let event = self.power.write(port, byte).is_some();
                let call = control_call(port, 4, value).or(debug_exit(port, 1, value));
                let hint = self.hints.decode(u64::from(port) << 16, 8);
                return u64::from(event) + call.map_or(0, u64::from) + hint.map_or(0, u64::from);
            }
        }
        0
    }

    /// Time passes: what is due happens, and what is next lies ahead.
    fn wait(&mut self, time: u64) -> u64 {
        self.now = self.now.saturating_add(time);
        for apic in &mut self.apics {
            apic.expire(self.now);
            assert!(apic.deadline().is_none_or(|deadline| deadline > self.now));
        }
        let edge = self.pit.expire(self.now);
        assert!(self.pit.deadline().is_none_or(|deadline| deadline > self.now || self.now == u64::MAX));
        let message = edge.then(|| self.ioapic.pulse(devices::map::irq::PIT)).flatten();
        self.deliver(message)
    }
}

/// Register values: anything, and those with few bits set, which switch modes.
fn value() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0u32..256, (0u32..32).prop_map(|bit| 1 << bit), Just(0x1ff), Just(0x400ec)]
}

fn apic_offset() -> impl Strategy<Value = u64> {
    prop_oneof![4 => (0u64..0x40).prop_map(|register| register << 4), 1 => 0u64..0x1000]
}

fn ioapic_offset() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), Just(0x10), Just(0x40), 0u64..0x1000]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        0x40u16..0x44,
        Just(0x61),
        0x70u16..0x72,
        0x3f8u16..0x400,
        0xcf8u16..0xd00,
        any::<u16>(),
        0x20u16..0x22
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (any::<u8>(), apic_offset()).prop_map(|(cpu, offset)| Step::ReadApic(cpu, offset)),
        6 => (any::<u8>(), apic_offset(), value()).prop_map(|(cpu, at, value)| Step::WriteApic(cpu, at, value)),
        1 => (any::<u8>(), prop_oneof![any::<u64>(), Just(0xfee0_0900), Just(0xfee0_0000)])
            .prop_map(|(cpu, value)| Step::SetBase(cpu, value)),
        1 => (any::<u8>(), prop_oneof![any::<u64>(), 0..10_000u64]).prop_map(|(cpu, at)| Step::SetDeadline(cpu, at)),
        2 => any::<u8>().prop_map(Step::Acknowledge),
        1 => ioapic_offset().prop_map(Step::ReadIoApic),
        4 => (ioapic_offset(), value()).prop_map(|(offset, value)| Step::WriteIoApic(offset, value)),
        2 => (0u8..30, any::<bool>()).prop_map(|(pin, level)| Step::Line(pin, level)),
        4 => port().prop_map(Step::ReadPort),
        8 => (port(), value()).prop_map(|(port, value)| Step::WritePort(port, value)),
        1 => any::<u8>().prop_map(Step::Receive),
        2 => prop_oneof![0..10_000u64, 0..10_000_000_000u64, any::<u64>()].prop_map(Step::Wait),
        1 => Just(Step::PowerLoss),
    ]
}

proptest! {
    #[test]
    fn a_snapshot_goes_on_as_the_original(before in vec(step(), 0..200), after in vec(step(), 0..50)) {
        let mut devices = Devices::new();
        for step in before {
            devices.step(step);
        }
        let bytes = postcard::to_stdvec(&devices).expect("a snapshot is written");
        let mut restored: Devices = postcard::from_bytes(&bytes).expect("a snapshot is read");
        let mut cloned = devices.clone();
        for step in after {
            let seen = devices.step(step);
            prop_assert_eq!(restored.step(step), seen, "{:?} after restoring", step);
            prop_assert_eq!(cloned.step(step), seen, "{:?} after cloning", step);
        }
        prop_assert_eq!(postcard::to_stdvec(&restored).unwrap(), postcard::to_stdvec(&devices).unwrap());
    }
}
