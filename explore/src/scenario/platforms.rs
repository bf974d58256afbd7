//! What the platform saves of every region, and what it says that it saves.

use persist::Platform;
use serde::Deserialize;
use vmm::PlatformCapability;

use super::Scenario;
use super::regions::{Interface, Region};

/// What the platform says, by the platform capabilities of the NFIT, that it saves. Linux believes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// Nothing is said.
    Nothing,
    /// What has reached the memory controller.
    Adr,
    /// The caches, too: the kernel leaves out its flushes.
    Eadr,
}

impl Claim {
    /// What an honest platform says.
    fn of(platform: Platform) -> Claim {
        if platform == Platform::Eadr { Claim::Eadr } else { Claim::Adr }
    }

    /// As the tables have it.
    pub(crate) fn capability(self) -> PlatformCapability {
        match self {
            Claim::Nothing => PlatformCapability::None,
            Claim::Adr => PlatformCapability::MemoryController,
            Claim::Eadr => PlatformCapability::CpuCache,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Claim::Nothing => "nothing",
            Claim::Adr => "adr",
            Claim::Eadr => "eadr",
        }
    }
}

impl Region {
    /// Label areas of its DIMMs.
    pub(crate) fn label_areas(&self) -> usize {
        match &self.interface {
            Interface::Nvdimm { labels: true, topology, .. } => topology.dimms as usize,
            _ => 0,
        }
    }

    /// DIMMs that it is on.
    fn dimms(&self) -> u32 {
        match &self.interface {
            Interface::Nvdimm { topology, .. } => topology.dimms,
            Interface::VirtioPmem { .. } | Interface::Legacy => 0,
        }
    }

    /// What the platform says that it saves; `None` where nothing could say so.
    pub(crate) fn claim(&self) -> Option<Claim> {
        match self.interface {
            Interface::Nvdimm { claims, .. } => Some(claims.unwrap_or(Claim::of(self.platform))),
            Interface::VirtioPmem { .. } | Interface::Legacy => None,
        }
    }

    /// Why the region cannot be on this platform.
    pub(super) fn refuses(&self, platform: Platform) -> Option<String> {
        let virtio = matches!(self.interface, Interface::VirtioPmem { .. });
        match platform {
            Platform::HostSurvives => None,
            Platform::VirtioPmem if virtio => None,
            Platform::VirtioPmem => Some(
                "\"virtio-pmem\": only a [[virtio_pmem]] device takes the flushes that count there"
                    .to_owned(),
            ),
            Platform::Adr | Platform::Eadr | Platform::AdrLost if virtio => Some(format!(
                "\"{platform}\": a [[virtio_pmem]] device is memory of the host: write \"virtio-pmem\" or \"host-survives\""
            )),
            Platform::AdrLost if self.dimms() > 1 => Some(format!(
                "\"{platform}\": flush hints count there, and a region on several DIMMs has none"
            )),
            Platform::Adr | Platform::Eadr | Platform::AdrLost => None,
        }
    }

    /// For people: the platform, and what it says if that is not what it does.
    fn platform_text(&self) -> String {
        match self.claim() {
            Some(claim) if claim != Claim::of(self.platform) => {
                format!("{} (claims {})", self.platform, claim.name())
            }
            _ => self.platform.to_string(),
        }
    }
}

impl Scenario {
    /// Puts every region on this platform that can be on it. The NFIT says so, too, unless the scenario has it say
    /// something else.
    pub fn override_platform(&mut self, platform: Platform) -> Result<(), String> {
        let mut refusal = None;
        let mut any = false;
        for region in &mut self.regions {
            match region.refuses(platform) {
                None => {
                    region.platform = platform;
                    any = true;
                }
                Some(why) => refusal = Some(why),
            }
        }
        if let Some(why) = refusal.filter(|_| !any) {
            return Err(format!("no region of {} can be on the platform {why}", self.name));
        }
        self.platform_override = Some(platform);
        Ok(())
    }

    /// Whether any region is on this platform.
    pub(crate) fn has_platform(&self, platform: Platform) -> bool {
        self.regions.iter().any(|region| region.platform == platform)
    }

    /// For people: the platform, of each region in turn where they differ.
    pub(crate) fn platforms(&self) -> String {
        let mut texts: Vec<String> = self.regions.iter().map(Region::platform_text).collect();
        if texts.iter().all(|text| *text == texts[0]) {
            texts.truncate(1);
        }
        texts.join(", ")
    }
}
