//! Boot of a kernel to the agent's first instruction, and on to the base snapshot.

use std::time::Instant;

use anyhow::{Context, bail};
use explore::machines::COMMAND_LINE;
use images::{AGENT, Cache, Initramfs, Kernel, PMEM_MODULES};
use vmm::{BootProtocol, Machine, MachineConfig, Nvdimm, Stop};

use crate::say::say;

/// Instructions that no kernel needs to get there.
const BUDGET: u64 = 20_000_000_000;
/// Offset of `e_entry` in an ELF64 header.
const ELF_ENTRY: usize = 24;

pub fn measure(cache: &Cache, kernel: &str, append: &str, cpus: u8) -> anyhow::Result<u8> {
    let kernel = Kernel::get(cache, kernel)?;
    let mut initramfs = Initramfs::new();
    initramfs.modules(kernel.modules(&PMEM_MODULES)?);
    let config = MachineConfig {
        initrd: initramfs.finish(),
        modules: Vec::new(),
        kernel: kernel.vmlinux,
        command_line: format!("{COMMAND_LINE} {append}").trim_end().to_owned(),
        memory: 256 << 20,
        cpus,
        nvdimms: vec![Nvdimm { size: 64 << 20, ..Nvdimm::default() }],
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        seed: 1,
        protocol: BootProtocol::default(),
    };
    let mut machine = Machine::new(&config)?;
    machine.set_watched(&[agent_entry()?]);
    machine.stop_at_symbols(true);
    let started = Instant::now();
    let mut agent = None;
    loop {
        match machine.run(BUDGET) {
            Stop::Symbol(_) => {
                agent = agent.or(Some(machine.retired()));
                machine.stop_at_symbols(false);
            }
            Stop::Call(call) if call.number == guest_protocol::call::SNAPSHOT_HERE => break,
            Stop::Call(_) => machine.answer(0),
            other => bail!("{} does not reach the agent: {other:?}", kernel.release),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let millions = |count: u64| count as f64 / 1e6;
    say!("kernel                    {}", kernel.release)?;
    say!("command line              {}", config.command_line)?;
    say!("processors                {cpus}")?;
    say!("to the agent              {:.1} M instructions", millions(agent.unwrap_or_default()))?;
    say!("to the base snapshot      {:.1} M instructions", millions(machine.retired()))?;
    say!("speed                     {:.1} MIPS", millions(machine.retired()) / seconds)?;
    Ok(0)
}

/// Address of the agent's first instruction: it is a static program with a fixed address.
fn agent_entry() -> anyhow::Result<u64> {
    let bytes = AGENT.get(ELF_ENTRY..ELF_ENTRY + 8).context("the agent is no ELF file")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
}
