use super::*;
use crate::{Signal, deliver};

fn enabled(id: u8) -> LocalApic {
    let mut apic = LocalApic::new(id);
    apic.write(register::SPURIOUS, 0x1ff, 0);
    apic
}

#[test]
fn identity_and_version_read() {
    let mut apic = LocalApic::new(3);
    assert_eq!(apic.read(0x20, 0), 3 << 24);
    assert_eq!(apic.read(0x30, 0), 0x50014);
    assert_eq!(apic.base(), 0xfee0_0800);
    assert_eq!(LocalApic::new(0).base(), 0xfee0_0900);
}

#[test]
fn disabled_by_software_nothing_is_accepted_and_lvt_stays_masked() {
    let mut apic = LocalApic::new(0);
    apic.inject(0x40, false);
    apic.write(register::LVT_TIMER, 0x40, 0);
    assert_eq!(apic.read(register::LVT_TIMER, 0), MASKED | 0x40);
    assert_eq!(apic.pending(), None);
    let mut apic = enabled(0);
    apic.write(register::LVT_TIMER, 0x40, 0);
    assert_eq!(apic.read(register::LVT_TIMER, 0), 0x40);
    apic.write(register::SPURIOUS, 0xff, 0);
    assert_eq!(apic.read(register::LVT_TIMER, 0), MASKED | 0x40);
}

#[test]
fn higher_priority_class_interrupts_a_lower_one() {
    let mut apic = enabled(0);
    apic.inject(0x41, false);
    assert_eq!(apic.acknowledge(), Some(0x41));
    apic.inject(0x4f, false);
    assert_eq!(apic.pending(), None, "same class waits");
    apic.inject(0x50, false);
    assert_eq!(apic.acknowledge(), Some(0x50));
    assert_eq!(apic.read(register::PROCESSOR_PRIORITY, 0), 0x50);
    assert_eq!(apic.read(register::IN_SERVICE + 0x20, 0), 1 << 1 | 1 << 16);
    apic.write(register::END_OF_INTERRUPT, 0, 0);
    assert_eq!(apic.pending(), None);
    apic.write(register::END_OF_INTERRUPT, 0, 0);
    assert_eq!(apic.acknowledge(), Some(0x4f));
}

#[test]
fn task_priority_and_cr8_hold_back() {
    let mut apic = enabled(0);
    apic.inject(0x55, false);
    apic.set_cr8(5);
    assert_eq!(apic.pending(), None);
    assert_eq!(apic.read(register::TASK_PRIORITY, 0), 0x50);
    apic.write(register::TASK_PRIORITY, 0x4f, 0);
    assert_eq!(apic.cr8(), 4);
    assert_eq!(apic.pending(), Some(0x55));
}

#[test]
fn end_of_a_level_interrupt_is_announced() {
    let mut apic = enabled(0);
    apic.inject(0x60, true);
    apic.acknowledge();
    assert_eq!(apic.write(register::END_OF_INTERRUPT, 0, 0), LapicEffect::EndOfInterrupt { vector: 0x60 });
    apic.inject(0x60, false);
    apic.acknowledge();
    assert_eq!(apic.write(register::END_OF_INTERRUPT, 0, 0), LapicEffect::None);
    assert_eq!(apic.write(register::END_OF_INTERRUPT, 0, 0), LapicEffect::None, "nothing in service");
}

#[test]
fn tsc_deadline_interrupts_once() {
    let mut apic = enabled(0);
    apic.write(register::LVT_TIMER, 2 << 17 | 0xec, 0);
    apic.set_tsc_deadline(1000, 10);
    assert_eq!(apic.deadline(), Some(1000));
    apic.expire(999);
    assert_eq!(apic.pending(), None);
    apic.expire(1000);
    assert_eq!(apic.acknowledge(), Some(0xec));
    assert_eq!((apic.deadline(), apic.tsc_deadline(1000)), (None, 0));
    apic.write(register::END_OF_INTERRUPT, 0, 1001);
    apic.set_tsc_deadline(500, 1002);
    assert_eq!(apic.pending(), Some(0xec), "a deadline in the past interrupts at once");
}

#[test]
fn masked_timer_counts_but_has_no_deadline() {
    let mut apic = enabled(0);
    apic.write(register::DIVIDE_CONFIGURATION, 0b1011, 0);
    apic.write(register::LVT_TIMER, MASKED | 1 << 17 | 0x40, 0);
    apic.write(register::INITIAL_COUNT, 100, 0);
    assert_eq!(apic.deadline(), None);
    assert_eq!(apic.read(register::CURRENT_COUNT, 30), 70);
    apic.write(register::LVT_TIMER, 1 << 17 | 0x40, 250);
    assert_eq!(apic.pending(), None, "what passed while masked does not interrupt");
    assert_eq!(apic.deadline(), Some(300));
}

#[test]
fn illegal_vectors_are_errors() {
    let mut apic = enabled(0);
    apic.write(register::LVT_ERROR, 0xfe, 0);
    apic.inject(3, false);
    assert_eq!(apic.acknowledge(), Some(0xfe));
    assert_eq!(apic.read(register::ERROR_STATUS, 0), 0, "shown only after a write");
    apic.write(register::ERROR_STATUS, 0, 0);
    assert_eq!(apic.read(register::ERROR_STATUS, 0), RECEIVE_ILLEGAL_VECTOR);
    apic.write(register::ERROR_STATUS, 0, 0);
    assert_eq!(apic.read(register::ERROR_STATUS, 0), 0);
    assert_eq!(apic.write(register::COMMAND_LOW, 0x4_0005, 0), LapicEffect::None);
    apic.write(register::ERROR_STATUS, 0, 0);
    assert_eq!(apic.read(register::ERROR_STATUS, 0), SEND_ILLEGAL_VECTOR);
}

#[test]
fn commands_become_messages() {
    let mut apics = [enabled(0), enabled(1), enabled(2)];
    apics[0].write(register::COMMAND_HIGH, 1 << 24, 0);
    let LapicEffect::Send(fixed) = apics[0].write(register::COMMAND_LOW, 0x40f0, 0) else { panic!() };
    assert_eq!(fixed.destination, Destination::Physical(1));
    assert!(deliver(&mut apics, &fixed).is_empty());
    assert_eq!(apics.each_ref().map(LocalApic::pending), [None, Some(0xf0), None]);

    let LapicEffect::Send(to_self) = apics[2].write(register::COMMAND_LOW, 0x4_00f1, 0) else { panic!() };
    deliver(&mut apics, &to_self);
    assert_eq!(apics[2].pending(), Some(0xf1));

    let LapicEffect::Send(start) = apics[0].write(register::COMMAND_LOW, 0xc_4609, 0) else { panic!() };
    assert_eq!(deliver(&mut apics, &start), [1, 2].map(|index| (index, Signal::StartUp { page: 9 })));
    assert_eq!(apics[0].write(register::COMMAND_LOW, 0x8500, 0), LapicEffect::None, "INIT de-assert");
    let LapicEffect::Send(init) = apics[0].write(register::COMMAND_LOW, 0xc500, 0) else { panic!() };
    assert_eq!(deliver(&mut apics, &init), [(1, Signal::Init)]);
}

#[test]
fn logical_destinations_are_flat_or_clusters() {
    let mut apic = enabled(1);
    apic.write(register::LOGICAL_DESTINATION, 0x0200_0000, 0);
    assert!(apic.accepts(Destination::Logical(0x03)));
    assert!(!apic.accepts(Destination::Logical(0x01)));
    apic.write(register::DESTINATION_FORMAT, 0, 0);
    apic.write(register::LOGICAL_DESTINATION, 0x1200_0000, 0);
    assert!(apic.accepts(Destination::Logical(0x12)));
    assert!(apic.accepts(Destination::Logical(0xf2)));
    assert!(!apic.accepts(Destination::Logical(0x22)));
    assert!(apic.accepts(Destination::Logical(0xff)));
}

#[test]
fn lowest_priority_chooses_the_idlest() {
    let mut apics = [enabled(0), enabled(1)];
    apics[0].write(register::TASK_PRIORITY, 0x80, 0);
    let message = Message {
        destination: Destination::All,
        delivery: Delivery::LowestPriority,
        vector: 0x90,
        level: false,
    };
    deliver(&mut apics, &message);
    assert_eq!(apics.each_ref().map(LocalApic::pending), [None, Some(0x90)]);
}

#[test]
fn apic_base_refuses_what_is_not_there() {
    let mut apic = enabled(0);
    assert_eq!(apic.set_base(0xfee0_0d00), None, "x2APIC");
    assert_eq!(apic.set_base(0xfec0_0900), None, "moved");
    assert_eq!(apic.set_base(0xfee0_0100), Some(()));
    assert_eq!(apic.base(), 0xfee0_0100);
    assert_eq!(apic.read(register::VERSION, 0), u32::MAX);
    assert!(!apic.accepts(Destination::All));
    assert_eq!(apic.set_base(0xfee0_0900), Some(()));
    assert_eq!(apic.read(register::SPURIOUS, 0), 0xff, "disabled and enabled: as at power-on");
}
