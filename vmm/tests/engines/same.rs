use iced_x86::code_asm::*;
use vmm::Stop;

use crate::guest::*;

#[test]
fn hello() {
    let code = assemble(|a| {
        for byte in b"hello\n" {
            a.mov(dx, 0x3f8)?;
            a.mov(al, *byte as i32)?;
            a.out(dx, al)?;
        }
        a.mov(dx, 0xf4)?;
        a.mov(eax, 7)?;
        a.out(dx, eax)?;
        a.hlt()
    });
    let mut machine = on_kvm(&config(&code)).unwrap();
    let stop = machine.run(1_000_000_000);
    println!("{stop:?} {:?} {:x?}", machine.kvm_counts(), machine.cpu_state());
    println!("{}", String::from_utf8_lossy(&machine.take_console()));
    println!("{:?}", machine.differences());
    assert_eq!(stop, Stop::DebugExit(7));
}

#[test]
fn time() {
    let code = assemble(|a| {
        a.rdtsc()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.mov(rbx, rax)?;
        a.mov(dx, 0xf4)?;
        a.mov(eax, 7)?;
        a.out(dx, eax)?;
        a.hlt()
    });
    let mut machine = on_kvm(&config(&code)).unwrap();
    for _ in 0..3 {
        let stop = machine.run(1_000_000_000);
        let host = unsafe { std::arch::x86_64::_rdtsc() };
        println!("{stop:?} guest {:x} host {host:x} state {:x} time {}", machine.cpu_state().regs[3], machine.cpu_state().tsc(), machine.time());
    }
}
