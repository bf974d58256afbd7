//! Interrupt messages between the IOAPIC and the local APICs (SDM volume 3, 11.6 and 11.11).

use crate::LocalApic;

/// Which local APICs a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// By APIC ID; 0xff is all.
    Physical(u8),
    /// By the logical destination register; 0xff is all.
    Logical(u8),
    /// Every processor.
    All,
    /// Every processor but this one.
    AllExcept(u8),
}

/// What a message does at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Interrupt with the message's vector.
    Fixed,
    /// As `Fixed`, at one of the destinations.
    LowestPriority,
    /// System management interrupt: nothing here handles it.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI: begin at the vector's page.
    StartUp,
    /// Interrupt whose vector comes from the 8259: which never delivers here.
    ExtInt,
}

impl Delivery {
    /// Decodes bits 10:8 of an ICR, LVT or redirection entry.
    pub(crate) fn from_bits(bits: u32) -> Option<Delivery> {
        Some(match bits & 7 {
            0 => Delivery::Fixed,
            1 => Delivery::LowestPriority,
            2 => Delivery::Smi,
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            6 => Delivery::StartUp,
            7 => Delivery::ExtInt,
            _ => return None,
        })
    }
}

/// One interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// For whom.
    pub destination: Destination,
    /// What to do.
    pub delivery: Delivery,
    /// Vector, or page of the start-up code.
    pub vector: u8,
    /// Level-triggered: the local APIC announces its end.
    pub level: bool,
}

/// What a processor itself, not its local APIC, has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Take a non-maskable interrupt.
    Nmi,
    /// Reset and wait for a start-up IPI.
    Init,
    /// Begin in real mode at `page` * 4096, if waiting for it.
    StartUp {
        /// Guest-physical address divided by 4096.
        page: u8,
    },
}

/// Delivers `message`: interrupts go into the local APICs (`apics[i]` belongs to processor i), the rest is returned
/// for the processors.
pub fn deliver(apics: &mut [LocalApic], message: &Message) -> Vec<(usize, Signal)> {
    let signal = match message.delivery {
        Delivery::Fixed | Delivery::LowestPriority => {
            inject(apics, message);
            return Vec::new();
        }
        Delivery::Smi | Delivery::ExtInt => return Vec::new(),
        Delivery::Nmi => Signal::Nmi,
        Delivery::Init => Signal::Init,
        Delivery::StartUp => Signal::StartUp { page: message.vector },
    };
    let targets = apics.iter().enumerate().filter(|(_, apic)| apic.accepts(message.destination));
    targets.map(|(index, _)| (index, signal)).collect()
}

/// Puts an interrupt into every destination, or into the first of those with the lowest priority.
fn inject(apics: &mut [LocalApic], message: &Message) {
    let targets = apics.iter_mut().filter(|apic| apic.accepts(message.destination));
    if message.delivery == Delivery::LowestPriority {
        if let Some(apic) = targets.filter(|apic| apic.enabled()).min_by_key(|apic| apic.priority()) {
            apic.inject(message.vector, message.level);
        }
    } else {
        targets.for_each(|apic| apic.inject(message.vector, message.level));
    }
}
