//! Which engine, on the command line, and what it did.

use vmm::{Engine, KvmCounts, Machine};

/// An engine's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineName {
    /// Processors of our own
    #[default]
    Software,
    /// The host's processor
    Kvm,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Engine {
        match name {
            EngineName::Software => Engine::Software,
            EngineName::Kvm => Engine::Kvm,
        }
    }
}

/// A line about a run on KVM.
pub fn summary(machine: &Machine, counts: KvmCounts) -> String {
    let KvmCounts { exits, assists, assisted_instructions, forgotten } = counts;
    let lacking: Vec<String> = machine.differences().into_iter().map(|it| it.name).collect();
    let lacking = if lacking.is_empty() { "nothing".to_owned() } else { lacking.join(", ") };
    format!(
        "kvm: {} ms, {exits} exits, {assists} assists with {assisted_instructions} instructions, page tables \
         forgotten {forgotten} times; processors lack {lacking}",
        machine.time() / 1_000_000
    )
}
