//! Ports and registers in memory.

use iced_x86::code_asm::*;
use vmm::Stop;

use crate::guest::*;

const LAPIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;
/// Neither memory nor a device.
const HOLE: u64 = 0xd000_0000;

#[test]
fn ports_of_each_width_are_read_and_written() {
    let code = Guest::code(|g| {
        for byte in b"hello\n" {
            g.mov(dx, 0x3f8)?;
            g.mov(al, i32::from(*byte))?;
            g.out(dx, al)?;
        }
        // PCI's configuration address is read back in doublewords; the host bridge answers, and nobody at device 31.
        for (at, address) in [(0, 0x8000_0000u32), (1, 0x8000_f800)] {
            g.mov(dx, 0xcf8)?;
            g.mov(eax, address)?;
            g.out(dx, eax)?;
            g.in_(eax, dx)?;
            g.mov(dword_ptr(rbp + 16 * at), eax)?;
            g.mov(dx, 0xcfc)?;
            g.in_(eax, dx)?;
            g.mov(dword_ptr(rbp + 16 * at + 4), eax)?;
            g.mov(dx, 0xcfe)?;
            g.in_(ax, dx)?;
            g.mov(word_ptr(rbp + 16 * at + 8), ax)?;
            g.in_(al, dx)?;
            g.mov(byte_ptr(rbp + 16 * at + 10), al)?;
        }
        // A port that nobody has.
        g.mov(dx, 0x999)?;
        g.in_(eax, dx)?;
        g.mov(dword_ptr(rbp + 64), eax)
    });
    let Some(mut machine) = same(&code) else { return };
    assert_eq!(word(&machine, DATA + 64) as u32, u32::MAX);
    assert!(machine.take_console().is_empty(), "it was compared already");
}

#[test]
fn strings_go_through_ports() {
    let code = Guest::code(|g| {
        g.mov(edi, (DATA + 0x100) as u32)?;
        g.mov(dx, 0x71)?;
        g.mov(ecx, 5)?;
        g.rep().insb()?;
        g.mov(dword_ptr(rbp), u32::from_le_bytes(*b"text") as i32)?;
        g.mov(dword_ptr(rbp + 4), u32::from_le_bytes(*b"\r\n..") as i32)?;
        g.mov(rsi, rbp)?;
        g.mov(dx, 0x3f8)?;
        g.mov(ecx, 6)?;
        g.rep().outsb()
    });
    let Some(mut machines) = on_both(&config(&code)) else { return };
    for machine in &mut machines {
        assert_eq!(machine.run(BUDGET), Stop::DebugExit(21));
        assert_eq!(machine.take_console(), b"text\r\n", "{:?}", machine.engine());
    }
}

#[test]
fn registers_in_memory_are_read_and_written_in_each_width() {
    let code = Guest::code(|g| {
        let loads = [HOLE, HOLE + 0x123, LAPIC + 0x20, LAPIC + 0x30, IOAPIC + 0x10];
        for (number, address) in loads.into_iter().enumerate() {
            let at = 32 * number as i32;
            g.mov(rbx, address)?;
            g.mov(al, byte_ptr(rbx))?;
            g.mov(byte_ptr(rbp + at), al)?;
            g.mov(ax, word_ptr(rbx))?;
            g.mov(word_ptr(rbp + at + 2), ax)?;
            g.mov(eax, dword_ptr(rbx))?;
            g.mov(dword_ptr(rbp + at + 4), eax)?;
            if address < IOAPIC {
                g.mov(rax, qword_ptr(rbx))?;
                g.mov(qword_ptr(rbp + at + 8), rax)?;
            }
        }
        // Task priority, through memory and CR8.
        g.mov(rbx, LAPIC + 0x80)?;
        g.mov(dword_ptr(rbx), 0x35)?;
        g.mov(rax, cr8)?;
        g.mov(qword_ptr(rbp + 0x200), rax)?;
        g.mov(eax, 7)?;
        g.mov(cr8, rax)?;
        g.mov(eax, dword_ptr(rbx))?;
        g.mov(dword_ptr(rbp + 0x208), eax)?;
        // The IOAPIC's version, by its window.
        g.mov(rbx, IOAPIC)?;
        g.mov(dword_ptr(rbx), 1)?;
        g.mov(eax, dword_ptr(rbx + 0x10))?;
        g.mov(dword_ptr(rbp + 0x20c), eax)?;
        // Read, change, write; and a copy from a device to memory.
        g.mov(rbx, LAPIC + 0xf0)?;
        g.or(dword_ptr(rbx), 0x100)?;
        g.mov(rsi, LAPIC + 0xf0)?;
        g.mov(edi, (DATA + 0x300) as u32)?;
        g.mov(ecx, 4)?;
        g.rep().movsd()?;
        g.mov(rbx, HOLE)?;
        g.mov(qword_ptr(rbx + 0x10), rax)?;
        g.mov(word_ptr(rbx + 0xfff), ax)
    });
    let Some(machine) = same(&code) else { return };
    assert_eq!(word(&machine, DATA + 8), u64::MAX);
    assert_eq!(word(&machine, DATA + 0x200), 3);
    assert_eq!(word(&machine, DATA + 0x208) as u32, 0x70);
}

#[test]
fn power_goes_off_and_resets() {
    let write = |port: i32, value: i32| {
        Guest::code(|g| {
            g.mov(dx, port)?;
            g.mov(al, value)?;
            g.out(dx, al)
        })
    };
    same_until(&write(0xcf9, 6), Stop::Reset);
    same_until(&write(0x64, 0xfe), Stop::Reset);
}
