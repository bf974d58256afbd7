use std::io::Write;
use vmm::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let kernel = std::fs::read(&a[1]).unwrap();
    let initrd = std::fs::read(&a[2]).unwrap();
    let budget: u64 = a[3].parse().unwrap();
    let append = a.get(4).cloned().unwrap_or_default();
    let cfg = MachineConfig { kernel, initrd, command_line: format!("{} cryptomgr.notests=1 {append}", "quiet console=ttyS0"), memory: 256<<20, nvdimms: vec![Nvdimm{size:64<<20, flush_hints:1, persistence: PlatformCapability::MemoryController}], seed: 1, protocol: if std::env::var("PVH").is_ok() { BootProtocol::Pvh } else { BootProtocol::Linux64 } };
    let mut m = Machine::new(&cfg).unwrap();
    let t = std::time::Instant::now();
    let end = budget;
    loop {
        let left = end - m.retired();
        let stop = m.run(left.min(2_000_000));
        std::io::stdout().write_all(&m.take_console()).unwrap();
        match stop {
            Stop::Budget if m.retired() < end => {}
            Stop::Call(c) => { println!("[call {c:?} at {}]", m.retired()); if c.number == 9 || c.number == 2 { let mut b = vec![0; (c.second as usize).min(200)]; let _ = m.read_guest(c.first, &mut b); println!("{}", String::from_utf8_lossy(&b)); } m.answer(0); if c.number == 4 { break } }
            s => { println!("{s:?}"); break }
        }
    }
    let s = m.cpu_state();
    println!("retired {} in {:?}: {:.1} MIPS tsc {}", m.retired(), t.elapsed(), m.retired() as f64 / t.elapsed().as_secs_f64() / 1e6, s.tsc());
    println!("rip {:x} rsp {:x} cr2 {:x} cr3 {:x} cr0 {:x} cr4 {:x} rflags {:x} halted {}", s.rip(), s.regs[4], s.cr2, s.cr3, s.cr0, s.cr4, s.rflags, s.halted);
    println!("{:x?}", &s.regs[..16]);
    let mut b = [0u8; 16]; if m.read_guest(s.rip(), &mut b).is_ok() { println!("code {b:02x?}"); }
}
