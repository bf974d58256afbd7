//! Stops in front of functions of the guest.

use iced_x86::code_asm::*;
use vmm::Stop;

use crate::guest::*;

const MARK: u64 = 0x9e37_79b9_7f4a_7c15;

#[test]
fn a_run_stops_in_front_of_a_watched_address_each_time_and_goes_on() {
    let code = Guest::code(|g| {
        let mut again = g.create_label();
        g.mov(ecx, 3)?;
        g.set_label(&mut again)?;
        g.mov(rbx, MARK)?;
        g.inc(dword_ptr(rbp))?;
        g.dec(ecx)?;
        g.jne(again)
    });
    // The instruction is two bytes of opcode, then the mark.
    let at = code.windows(8).position(|bytes| bytes == MARK.to_le_bytes()).unwrap() as u64 - 2;
    let Some(mut machines) = on_both(&config(&code)) else { return };
    for machine in &mut machines {
        machine.set_watched(&[ENTRY + at]);
        machine.stop_at_symbols(true);
        machine.set_tracing(true);
        for round in 0..3 {
            assert_eq!(machine.run(BUDGET), Stop::Symbol(0), "{:?}", machine.engine());
            assert_eq!(machine.cpu_state().rip(), ENTRY + at);
            assert_eq!(word(machine, DATA), round);
        }
        assert_eq!(machine.run(BUDGET), Stop::DebugExit(21));
        assert_eq!(machine.take_events().len(), 3);
        machine.set_watched(&[]);
    }
}
