//! What a step may look like: exactly one action, and beside it only what means something there.

use super::step_schema::{Errno, RawFlush, RawPromise, RawStep};
use crate::oracle::model::Refusal;

/// The device-dax device of the first region, as steps name it.
pub(super) const DEVICE: &str = "dax0.0";
/// Mappings of it are in units of its alignment (`check_vma`, drivers/dax/device.c).
const DEVICE_ALIGN: u64 = 2 << 20;

pub(super) fn refuse<T>(key: &'static str, what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { key, what: what.into() })
}

/// One of the things that a step can do.
struct Action {
    key: &'static str,
    present: bool,
    /// Whether it can also be done to a device-dax device, where there is no file system.
    on_devices: bool,
}

/// All that a step can do, and whether this one does.
fn actions(step: &RawStep) -> impl Iterator<Item = Action> {
    let straight = step.store.is_some() || step.flush.is_some() || step.fence.is_some();
    let promise_alone = matches!(step.promise, Some(RawPromise::Alone(_)));
    let of_files = [
        ("mkdir", step.mkdir.is_some()),
        ("create", step.create.is_some()),
        ("write", step.write.is_some()),
        ("truncate", step.truncate.is_some()),
        ("fallocate", step.fallocate.is_some()),
        ("rename", step.rename.is_some()),
        ("link", step.link.is_some()),
        ("symlink", step.symlink.is_some()),
        ("unlink", step.unlink.is_some()),
        ("setxattr", step.setxattr.is_some()),
        ("removexattr", step.removexattr.is_some()),
        ("fsync", step.fsync.is_some()),
        ("fdatasync", step.fdatasync.is_some()),
        ("sync", step.sync.is_some()),
        ("syncfs", step.syncfs.is_some()),
        ("msync", step.msync.is_some()),
        ("poison", step.poison.is_some()),
        ("read", step.read.is_some()),
    ];
    let on_devices = [
        ("map", step.map.is_some()),
        ("touch", step.touch.is_some()),
        ("store, flush and fence", straight),
        ("munmap", step.munmap.is_some()),
        ("exec", step.exec.is_some()),
        ("marker", step.marker.is_some()),
        ("promise", promise_alone),
        ("observe", step.observe.is_some()),
        ("scrub", step.scrub.is_some()),
    ];
    let action = |on_devices| move |(key, present)| Action { key, present, on_devices };
    of_files.into_iter().map(action(false)).chain(on_devices.into_iter().map(action(true)))
}

/// Exactly one action, and companions only where they mean something.
pub(super) fn check_shape(step: &RawStep) -> Result<(), Refusal> {
    check_action(step)?;
    check_companions(step)?;
    check_outcome(step)
}

fn check_action(step: &RawStep) -> Result<(), Refusal> {
    let actions: Vec<&str> = actions(step).filter(|action| action.present).map(|action| action.key).collect();
    match actions[..] {
        [_] => Ok(()),
        [] => refuse(
            "step",
            "has no action: write exactly one of mkdir, create, write, truncate, fallocate, rename, link, symlink, unlink, setxattr, removexattr, fsync, fdatasync, sync, syncfs, map, touch, store, flush, fence, msync, munmap, exec, marker, promise, observe, read, poison, scrub",
        ),
        _ => refuse(
            "step",
            format!("has several actions ({}): write one [[step]] for each", actions.join(", ")),
        ),
    }
}

/// What stands beside an action.
fn check_companions(step: &RawStep) -> Result<(), Refusal> {
    if matches!(step.promise, Some(RawPromise::Beside))
        && step.store.is_none()
        && !matches!(step.flush, Some(RawFlush::Alone(_)))
    {
        return refuse(
            "promise",
            "\"contents\" stands beside store or flush; alone, write promise = { contents = { file = ... } }",
        );
    }
    if matches!(step.flush, Some(RawFlush::Beside(_))) && step.store.is_none() {
        return refuse(
            "flush",
            "a word stands beside store; alone, write flush = { map = ..., with = \"clwb\" }",
        );
    }
    if matches!(step.flush, Some(RawFlush::Alone(_))) && step.store.is_some() {
        return refuse("flush", "beside store, write the instruction only: flush = \"clwb\"");
    }
    let companions = [
        ("non_temporal", step.non_temporal.is_some()),
        ("race", step.race.is_some()),
        ("fault", step.fault.is_some()),
    ];
    for (key, present) in companions {
        if present && step.store.is_none() {
            return refuse(key, "stands beside store only");
        }
    }
    if step.scrub == Some(false) {
        return refuse("scrub", "write true, or leave the step out");
    }
    if step.acknowledge.is_some() && step.exec.is_none() {
        return refuse("acknowledge", "stands beside exec only");
    }
    if step.sync == Some(false) || step.syncfs == Some(false) {
        return refuse("sync", "write true, or leave the step out");
    }
    Ok(())
}

/// What the action is to promise, and how it is to end.
fn check_outcome(step: &RawStep) -> Result<(), Refusal> {
    let promises = step.fsync.is_some()
        || step.fdatasync.is_some()
        || step.sync.is_some()
        || step.syncfs.is_some()
        || step.msync.is_some();
    let reads = step.touch.is_some() || step.read.is_some();
    let can_fail = step.map.is_some() || reads || promises && step.sync.is_none();
    if step.fails.is_some() && !can_fail {
        return refuse("fails", "stands beside map, touch, read, fsync, fdatasync, syncfs and msync only");
    }
    if matches!(step.fails, Some(Errno::Sigbus)) != (step.fails.is_some() && step.touch.is_some()) {
        return refuse(
            "fails",
            "SIGBUS stands beside touch, which can end in no other way, and beside touch only",
        );
    }
    if step.waive == Some(true) && !promises {
        return refuse(
            "waive",
            "this step promises nothing by itself: only fsync, fdatasync, sync, syncfs and msync do",
        );
    }
    Ok(())
}

/// What can be done to a device: it is mapped, and mapped in units of its alignment.
pub(super) fn check_on_device(step: &RawStep) -> Result<(), Refusal> {
    if let Some(Action { key, .. }) = actions(step).find(|action| action.present && !action.on_devices) {
        let what = format!(
            "there is no file system on a device-dax device: map {DEVICE:?}, store, flush and fence, or let a program do so"
        );
        return refuse(key, what);
    }
    let Some(map) = &step.map else { return Ok(()) };
    if map.align.map(|align| align.0) != Some(DEVICE_ALIGN) {
        return refuse("map", format!("{DEVICE:?} is mapped in units of 2M: write align = \"2M\""));
    }
    let places = [map.at, map.size].into_iter().flatten();
    match places.map(|place| place.0).find(|place| !place.is_multiple_of(DEVICE_ALIGN)) {
        None => Ok(()),
        Some(place) => refuse("map", format!("{place:#x}: {DEVICE:?} is mapped in units of 2M")),
    }
}
