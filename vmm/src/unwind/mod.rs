//! Kernel stacks by the ORC tables that every stock kernel carries, since it has no frame pointers.
//! Linux: Documentation/x86/orc-unwinder.rst.
//!
//! Two layouts of the tables are known: that of Linux 6.1, and that of 6.4 and later, which is recognised by the
//! section `.orc_header`. Return addresses that ftrace or kretprobes have replaced are shown as they stand.

mod entry;
mod table;
mod walk;

use crate::Symbols;

pub use table::{OrcTable, UnwindError};

/// The registers that unwinding starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction being executed: not a return address.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// RBP
    pub rbp: u64,
    /// R10: entry code and functions that align their stack are found by it and the following ones.
    pub r10: u64,
    /// R13
    pub r13: u64,
    /// RDI
    pub rdi: u64,
    /// RDX
    pub rdx: u64,
    /// The processor is in user mode: there is no kernel stack.
    pub user: bool,
}

impl From<&cpu::State> for Registers {
    fn from(state: &cpu::State) -> Registers {
        let register = |number: usize| state.regs[number];
        Registers {
            rip: state.rip(),
            rsp: register(4),
            rbp: register(5),
            r10: register(10),
            r13: register(13),
            rdi: register(7),
            rdx: register(2),
            user: state.cpl() == 3,
        }
    }
}

/// Where a stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The kernel was entered from user mode.
    User {
        /// Where it will go on there.
        rip: u64,
    },
    /// The start of a kernel thread, or of the kernel.
    Bottom,
    /// No further frame could be found: code without entries, or a stack that cannot be read.
    Lost,
}

/// A kernel stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The current instruction, then what it returns to, then what that returns to, and so on.
    pub addresses: Vec<u64>,
    /// Whether each of them is where its frame was interrupted, not a return address.
    exact: Vec<bool>,
    /// What lies behind the last one.
    pub end: End,
}

/// An address on the stack, named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The address.
    pub address: u64,
    /// The function it lies in, and the offset in it.
    pub symbol: Option<(String, u64)>,
    /// The function's module.
    pub module: Option<String>,
}

impl Stack {
    /// Names the addresses. A return address counts to the function that holds the call before it.
    pub fn frames(&self, symbols: &Symbols) -> Vec<Frame> {
        let frame = |(&address, &exact): (&u64, &bool)| {
            let behind = u64::from(!exact);
            let found = symbols.find(address.wrapping_sub(behind));
            Frame {
                address,
                symbol: found.map(|(symbol, offset)| (symbol.name.clone(), offset + behind)),
                module: found.and_then(|(symbol, _)| symbol.module.clone()),
            }
        };
        self.addresses.iter().zip(&self.exact).map(frame).collect()
    }
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.symbol {
            Some((name, offset)) => write!(f, "{name}+{offset:#x}")?,
            None => write!(f, "{:#x}", self.address)?,
        }
        match &self.module {
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}

/// The kernel stack from `registers` on. `read_u64` reads guest memory at a linear address.
///
/// `tables` are those of the kernel and of the modules loaded, in any order.
pub fn unwind(tables: &[OrcTable], registers: Registers, read_u64: &dyn Fn(u64) -> Option<u64>) -> Stack {
    walk::walk(tables, registers, read_u64)
}

#[cfg(test)]
mod tests;
