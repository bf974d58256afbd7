//! Small guests that want the machine to hang.

mod small_guest;

use proptest::prelude::*;
use vmm::{Machine, Stop};

fn run(code: &[u8]) -> Stop {
    Machine::new(&small_guest::config(code)).unwrap_or_else(|error| panic!("{error}")).run(1_000_000)
}

#[test]
fn a_timer_that_never_wakes_a_halted_processor_does_not_hang_the_machine() {
    // PIT channel 0 in mode 2, its IOAPIC pin masked as at power-on; interrupts off; halt.
    let code = [0xfa, 0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x10, 0xe6, 0x40, 0xe6, 0x40, 0xf4, 0xeb, 0xfd];
    assert_eq!(run(&code), Stop::Idle);
}

#[test]
fn a_processor_halted_for_good_is_idle() {
    assert_eq!(run(&[0xfa, 0xf4]), Stop::Idle);
}

#[test]
fn an_endless_loop_ends_with_the_budget() {
    assert_eq!(run(&[0xeb, 0xfe]), Stop::Budget);
}

/// A control call as a guest can make it: EAX, RDI, RSI, and the size of the OUT.
type ControlCall = (u32, u64, u64, usize);

/// Calls one after the other, then a halt.
fn calling(calls: &[ControlCall]) -> Vec<u8> {
    let mut code = vec![0xfa, 0x66, 0xba, 0x50, 0x0d]; // cli; mov dx, 0xd50
    for (number, first, second, size) in calls {
        code.push(0xb8); // mov eax, number
        code.extend(number.to_le_bytes());
        code.extend([0x48, 0xbf]); // mov rdi, first
        code.extend(first.to_le_bytes());
        code.extend([0x48, 0xbe]); // mov rsi, second
        code.extend(second.to_le_bytes());
        match size {
            1 => code.push(0xee),           // out dx, al
            2 => code.extend([0x66, 0xef]), // out dx, ax
            4 => code.push(0xef),           // out dx, eax
            _ => code.push(0xed),           // in eax, dx
        }
    }
    code.push(0xf4); // hlt
    code
}

fn control_call() -> impl Strategy<Value = ControlCall> {
    let number = prop_oneof![0..12u32, any::<u32>()];
    let word = || prop_oneof![0..0x40_0000u64, any::<u64>(), Just(u64::MAX)];
    (number, word(), word(), prop_oneof![Just(4), Just(4), Just(1), Just(2), Just(0)])
}

/// All of RAM but for the page tables, which get accessed bits.
fn memory(machine: &Machine) -> Vec<u8> {
    let mut bytes = vec![0; 30 << 20];
    machine.read_pmem(2 << 20, &mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn control_calls_with_anything_in_them_write_nothing(calls in proptest::collection::vec(control_call(), 1..20)) {
        let mut machine = Machine::new(&small_guest::config(&calling(&calls))).unwrap();
        machine.set_tracing(true);
        let before = memory(&machine);
        let mut told = Vec::new();
        let end = loop {
            match machine.run(1_000_000) {
                Stop::Call(call) => {
                    // As a host does that believes what it is told.
                    let mut message = vec![0; call.second.min(1 << 20) as usize];
                    let there = machine.read_guest(call.first, &mut message).is_ok();
                    prop_assert!(!there || call.first < 4 << 30);
                    machine.translate(call.first);
                    machine.answer(-1);
                    told.push((call.number, call.first, call.second));
                }
                stop => break stop,
            }
        };
        prop_assert_eq!(end, Stop::Idle);
        // Promises and markers are recorded, everything else comes to the host; only 32-bit OUTs are calls.
        let is_declared = |number: u32| [guest_protocol::call::PROMISE, guest_protocol::call::MARKER].contains(&number);
        let whole = calls.iter().filter(|(.., size)| *size == 4);
        let (declared, expected): (Vec<_>, Vec<_>) =
            whole.map(|&(number, first, second, _)| (number, first, second)).partition(|it| is_declared(it.0));
        prop_assert_eq!(told, expected);
        prop_assert_eq!(machine.take_events().len(), declared.len());
        prop_assert!(memory(&machine) == before);
    }
}
