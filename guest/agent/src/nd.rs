//! The nvdimm bus: regions are bound to their driver to attach pmem, and unbound to let go of it. So are DIMMs with label
//! areas: their driver reads the labels once, when it is bound (`nvdimm_probe`, drivers/nvdimm/dimm.c), and the labels say
//! which namespaces a region has.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEVICES: &str = "/sys/bus/nd/devices";
const DRIVER: &str = "/sys/bus/nd/drivers/nd_region";
const DIMM_DRIVER: &str = "/sys/bus/nd/drivers/nvdimm";

/// Unbinds every region, then every DIMM, and waits until what hung on them is gone.
pub fn unbind_all() {
    for (driver, kind) in [(DRIVER, "region"), (DIMM_DRIVER, "nmem")] {
        settle();
        for name in names(driver).into_iter().filter(|name| name.starts_with(kind)) {
            if let Err(error) = fs::write(format!("{driver}/unbind"), &name) {
                println!("agent: unbinding {name}: {error}");
            }
        }
    }
    settle();
}

/// Binds every DIMM whose labels can be read and that is not bound.
fn bind_dimms() -> Result<()> {
    for name in names(DEVICES).into_iter().filter(|name| name.starts_with("nmem")) {
        let commands = fs::read_to_string(format!("{DEVICES}/{name}/commands")).unwrap_or_default();
        let labelled = commands.split_whitespace().any(|command| command == "get_data");
        if labelled && !Path::new(&format!("{DIMM_DRIVER}/{name}")).exists() {
            fs::write(format!("{DIMM_DRIVER}/bind"), &name)?;
        }
    }
    Ok(())
}

/// Binds the region and waits for its device; returns the device's path.
pub fn attach(region: u32) -> Result<PathBuf> {
    bind_dimms()?;
    scrub()?;
    if !Path::new(&format!("{DRIVER}/region{region}")).exists() {
        fs::write(format!("{DRIVER}/bind"), format!("region{region}"))?;
    }
    // Devices below a region come one after the other: namespace, then what its info block says, then the disk.
    for _ in 0..2000 {
        settle();
        if let Some(device) = block_device(region).or_else(|| dax_device(region)) {
            return Ok(device);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::from_raw_os_error(libc::ENODEV))
}

/// Has firmware scrub everything, where it can, and waits until the kernel has the results: `scrub_show` (drivers/acpi/nfit/core.c)
/// ends with a plus while that lasts, and a scrub that is under way refuses another one.
pub fn scrub() -> Result<()> {
    for name in names(DEVICES).into_iter().filter(|name| name.starts_with("ndbus")) {
        let place = format!("{DEVICES}/{name}/nfit/scrub");
        if !Path::new(&place).exists() {
            continue;
        }
        wait_for_scrub(&place)?;
        fs::write(&place, "1")?;
        wait_for_scrub(&place)?;
    }
    Ok(())
}

fn wait_for_scrub(place: &str) -> Result<()> {
    // The kernel looks every second at first, then more seldom.
    for _ in 0..2000 {
        if !fs::read_to_string(place)?.trim_end().ends_with('+') {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Error::from_raw_os_error(libc::ETIMEDOUT))
}

/// The block device of the region, once it can be opened.
pub fn block_device(region: u32) -> Option<PathBuf> {
    device("/sys/block", region)
}

/// The device-dax device of the region, once it can be opened.
pub fn dax_device(region: u32) -> Option<PathBuf> {
    device("/sys/bus/dax/devices", region)
}

fn device(devices: &str, region: u32) -> Option<PathBuf> {
    let part = format!("/region{region}/");
    for name in names(devices) {
        let place = fs::canonicalize(format!("{devices}/{name}")).ok()?;
        let device = Path::new("/dev").join(&name);
        if place.to_string_lossy().contains(&part) && device.exists() {
            return Some(device);
        }
    }
    None
}

/// Waits until probing and removing on every nvdimm bus has come to rest (`wait_probe`, drivers/nvdimm/core.c).
fn settle() {
    for name in names(DEVICES).into_iter().filter(|name| name.starts_with("ndbus")) {
        let _ = fs::read(format!("{DEVICES}/{name}/wait_probe"));
    }
}

/// Names in a directory, sorted; none when there is no such directory.
fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
