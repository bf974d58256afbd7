//! Which scenarios can be recorded on an engine that tells no flushes and fences, and stores only as changed sectors.

use persist::{Granularity, Platform};

use super::{PointRule, Scenario};
use crate::options::RunOptions;

impl Scenario {
    /// Why a recording on KVM would say nothing about this scenario, if that is so.
    pub fn refuses_samples(&self, options: &RunOptions) -> Option<String> {
        let flushes = |platform| !matches!(platform, Platform::VirtioPmem | Platform::HostSurvives);
        if let Some(region) = self.regions.iter().find(|region| flushes(region.platform)) {
            let platform = region.platform;
            return Some(format!(
                "on the platform {platform} flushes and fences decide, which KVM does not tell: use virtio-pmem"
            ));
        }
        if options.granularity_of(self) != Granularity::Sector {
            return Some("KVM tells sectors: use --granularity sector".to_owned());
        }
        if options.strict_fences || self.crash.strict_fences {
            return Some("KVM does not tell fences: leave strict fences out".to_owned());
        }
        if self.plant.is_some() {
            return Some(
                "a plant takes single stores out of the recording, which KVM does not tell".to_owned(),
            );
        }
        if self.check.is_some() {
            return Some(
                "programs acknowledge between two looks at the machine: [check] needs --engine software"
                    .to_owned(),
            );
        }
        let window = self
            .crash
            .points
            .iter()
            .find(|rule| matches!(rule, PointRule::Window(_) | PointRule::EveryOfWindow(_)));
        window.map(|rule| format!("{rule} is bordered by fences, which KVM does not tell"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(region: &str, rest: &str, options: &RunOptions) -> Option<String> {
        let text = format!(
            "name = \"a\"\n[machine]\nkernel = \"k\"\n{region}\n[filesystem]\ntype = \"ext4\"\n\
             [[step]]\ncreate = {{ file = \"f\" }}\n[[step]]\nfsync = \"f\"\n{rest}"
        );
        Scenario::parse(&text, "a.toml").unwrap().refuses_samples(options)
    }

    #[test]
    fn what_needs_flushes_fences_or_single_stores_is_refused() {
        let usual = RunOptions::default();
        let virtio = "[[virtio_pmem]]\nsize = \"32M\"";
        assert_eq!(refusal(virtio, "", &usual), None);
        assert!(refusal("[[nvdimm]]\nsize = \"32M\"", "", &usual).unwrap().contains("adr"));
        assert!(refusal(virtio, "[crash]\npoints = [\"window:W2\"]", &usual).unwrap().contains("window:W2"));
        assert!(refusal(virtio, "[check]\ncommand = [\"/a\"]", &usual).unwrap().contains("[check]"));
        let words = RunOptions { granularity: Some(Granularity::Word), ..RunOptions::default() };
        assert!(refusal(virtio, "", &words).is_some());
        let strict = RunOptions { strict_fences: true, ..RunOptions::default() };
        assert!(refusal(virtio, "", &strict).is_some());
    }
}
