//! What is left on the media when the power goes: the persistence domain, fed with the events of one machine.

use std::ops::Range;
use std::sync::Arc;

use persist::{Domain, Event, Platform, Settings};

/// What of the stores in flight survives a power cut. What is durable always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// Nothing that is in flight.
    Durable,
    /// Everything, as if only the processors had stopped.
    Everything,
    /// What a crash state drawn from this seed has.
    Random(u64),
}

/// Knows at every moment what would be left on the media.
pub struct PowerSupply {
    domain: Domain,
    regions: Vec<Range<u64>>,
    media: Arc<Initial>,
}

/// The content at first.
struct Initial {
    regions: Vec<(u64, Vec<u8>)>,
}

impl persist::Media for Initial {
    fn line(&self, addr: u64) -> [u8; 64] {
        let content = self.regions.iter().find_map(|(base, bytes)| {
            let at = usize::try_from(addr.checked_sub(*base)?).ok()?;
            bytes.get(at..at + 64)?.try_into().ok()
        });
        content.unwrap_or([0; 64])
    }
}

impl PowerSupply {
    /// That of a machine whose events have not begun. Memory of virtio-pmem devices is durable when its device says so,
    /// everything else when it has reached the memory controller (ADR). Keeps a copy of all regions.
    pub fn of(machine: &vmm::Machine) -> PowerSupply {
        let regions = machine.regions();
        let platform = |region: &vmm::Region| match region.kind {
            // What firmware has written to a label area is durable when it says so.
            vmm::RegionKind::VirtioPmem | vmm::RegionKind::Labels => Platform::VirtioPmem,
            vmm::RegionKind::Nvdimm | vmm::RegionKind::Legacy => Platform::Adr,
        };
        let modelled = regions.iter().map(|region| persist::Region {
            range: region.base..region.base + region.size,
            platform: platform(region),
            dimm: region.dimm,
        });
        let modelled: Vec<persist::Region> = modelled.collect();
        let content = |region: &vmm::Region| {
            let mut bytes = vec![0; region.size as usize];
            machine.read_pmem(region.base, &mut bytes);
            (region.base, bytes)
        };
        let media = Arc::new(Initial { regions: regions.iter().map(content).collect() });
        PowerSupply {
            regions: modelled.iter().map(|region| region.range.clone()).collect(),
            domain: Domain::of_regions(Settings::default(), modelled, media.clone()),
            media,
        }
    }

    /// The next event. Every event of the machine has to come here, in order.
    pub fn apply(&mut self, event: &Event) {
        self.domain.apply(event);
    }

    /// Guest-physical ranges of the regions.
    pub fn regions(&self) -> &[Range<u64>] {
        &self.regions
    }

    /// The content of every region if the power goes now.
    pub fn media(&self, survives: Survives) -> Vec<Vec<u8>> {
        let point = self.domain.crash_point();
        let choice = match survives {
            Survives::Durable => point.nothing(),
            Survives::Everything => point.everything(),
            Survives::Random(seed) => point.random(seed, 0),
        };
        let mut media: Vec<Vec<u8>> = self.media.regions.iter().map(|(_, bytes)| bytes.clone()).collect();
        for (address, line) in point.content(&choice).lines() {
            let region = self.regions.iter().position(|range| range.contains(address));
            if let Some(region) = region {
                let at = (address - self.regions[region].start) as usize;
                media[region][at..at + 64].copy_from_slice(line);
            }
        }
        media
    }
}
