//! A cell as the text of a scenario.

use std::fmt::Write;

use super::Cell;
use super::axes::{FileSystem, Other, Page, Platform};
use super::known::Known;

/// How the crash states of a cell are found.
const CRASH: &str = "explore = \"lazy\"\nbranches = 48\nbudget = 120\nstates = 6";
/// Rounds by which the second of two is behind the first, page after page. A round takes a turn of the other processor,
/// which is up to 8192 instructions: with each of these the second one comes while the first waits.
const DELAYS: [u32; 3] = [4, 12, 30];
/// The same for a huge page, which takes longer to zero. There is one only.
const HUGE_DELAYS: [u32; 1] = [80];

pub(super) fn of(cell: &Cell, kernel: &str) -> String {
    let (kind, mkfs) = cell.filesystem.made();
    let cpus = if cell.situation.other == Other::Nobody { 1 } else { 2 };
    let expect =
        Known::of(cell, kernel).map_or(String::new(), |known| format!("expect = {:?}\n", known.classes));
    let mut text = format!(
        "name = \"{}\"\ndescription = \"A cell of the matrix of synchronous faults.\"\n{expect}\n[machine]\nkernel = \"{kernel}\"\ncpus = {cpus}\n\n{}\n\n[filesystem]\ntype = \"{kind}\"\nmkfs = [{mkfs}]\nmount = \"dax=always\"\n\n[crash]\npoints = [{}]\nfrom_marker = 1\n{CRASH}\n",
        cell.name(),
        cell.platform.region(),
        points(cell)
    );
    for action in steps(cell) {
        // Writing to a string never fails.
        let _ = write!(text, "\n[[step]]\n{}\n", action.replace("SIZE", cell.page.file()));
    }
    text
}

/// Whether a fault of the cell waits for the journal.
fn waits(cell: &Cell) -> bool {
    cell.situation.synchronous && cell.platform.maps_sync()
}

fn points(cell: &Cell) -> String {
    let mut points = vec!["promises"];
    // Where a kernel does not flush the device behind data, nothing has to become durable any more.
    let flushed = cell.filesystem.has_journal() || cell.platform.promises_beside();
    points.extend(flushed.then_some("durable"));
    if waits(cell) && cell.situation.other != Other::Nobody {
        points.push("window:W9");
    } else if waits(cell) {
        points.push("window:W0");
        points.extend(cell.situation.zeroes.then_some("window:W1"));
        points.extend(["window:W2", "window:W3", "window:W4", "window:W5", "window:W6"]);
        points.extend((cell.platform != Platform::Eadr).then_some("window:W7"));
        points.push("window:W8");
    }
    points.iter().map(|point| format!("\"{point}\"")).collect::<Vec<_>>().join(", ")
}

fn steps(cell: &Cell) -> Vec<String> {
    let situation = &cell.situation;
    let mut steps: Vec<String> = situation.before.iter().map(|action| (*action).to_owned()).collect();
    steps.push("sync = true".to_owned());
    steps.push("marker = 1".to_owned());
    steps.extend(situation.open.iter().map(|action| (*action).to_owned()));
    if !cell.platform.maps_sync() {
        steps
            .push("map = { file = \"a\", as = \"refused\", sync = true }\nfails = \"EOPNOTSUPP\"".to_owned());
    }
    steps.push(map(cell));
    let (page, at) = cell.page.store_at();
    if situation.reads_first {
        steps.push(format!("touch = {{ map = \"m\", at = {page}, bytes = 4096 }}"));
    }
    match situation.other {
        Other::Nobody => store(cell, at, guard(cell, Some(waits(cell))), &mut steps),
        _ => race(cell, &mut steps),
    }
    for action in situation.then {
        match *action {
            "MAP" => steps.push(map(cell)),
            "STORE" => store(cell, at + 256, again(cell), &mut steps),
            "FAULT" => store(cell, at + 256, guard(cell, Some(true)), &mut steps),
            "PLAIN" => steps.push(format!("store = {{ map = \"m\", at = {}, bytes = 64 }}", at + 256)),
            "MSYNC" => steps.push(msync(at + 256)),
            "PUNCH" => steps.push(format!(
                "fallocate = {{ file = \"a\", at = {page}, bytes = \"{}\", mode = \"punch-hole\" }}",
                cell.page.size()
            )),
            other => steps.push(other.to_owned()),
        }
    }
    steps
}

fn map(cell: &Cell) -> String {
    let sync = if cell.platform.maps_sync() { ", sync = true" } else { "" };
    let align = if cell.page == Page::Pmd { ", align = \"2M\"" } else { "" };
    format!("map = {{ file = \"a\", as = \"m\"{sync}{align} }}")
}

fn msync(at: u64) -> String {
    format!("msync = {{ map = \"m\", at = {}, bytes = 4096 }}", at & !4095)
}

/// A store that is promised, by what stands beside it or by msync(2).
fn store(cell: &Cell, at: u64, guard: String, steps: &mut Vec<String>) {
    steps.push(format!(
        "store = {{ map = \"m\", at = {at:#x}, bytes = 128 }}{}{guard}",
        cell.platform.beside()
    ));
    if !cell.platform.promises_beside() {
        steps.push(msync(at));
    }
}

/// The guard of a store to a file all of whose blocks and sizes are durable: only one that was unmapped faults.
fn again(cell: &Cell) -> String {
    if !cell.situation.then.contains(&"MAP") {
        return String::new();
    }
    // With fast commits a fault also waits where nothing but the time of the file has changed, which it does with every
    // tick of the clock: ext4_inode_datasync_dirty() asks whether the inode is on the list of fast commits.
    guard(cell, (cell.filesystem != FileSystem::Ext4FastCommit).then_some(false))
}

fn guard(cell: &Cell, waits: Option<bool>) -> String {
    let waits = waits.map_or(String::new(), |waits| format!(", synchronous = {waits}"));
    format!("\nfault = {{ size = \"{}\"{waits} }}", cell.page.size())
}

/// One stores to a page, the other to the same page, and promises.
fn race(cell: &Cell, steps: &mut Vec<String>) {
    let process = if cell.situation.other == Other::Process { ", process = true" } else { "" };
    let delays = if cell.page == Page::Pmd { &HUGE_DELAYS[..] } else { &DELAYS[..] };
    for (delay, at) in delays.iter().zip((0_u64..).step_by(4096)) {
        steps.push(format!(
            "store = {{ map = \"m\", at = {:#x}, bytes = 64 }}{}{}\nrace = {{ at = {at:#x}, bytes = 64, delay = {delay}{process} }}",
            at + 64,
            cell.platform.beside(),
            guard(cell, Some(waits(cell)))
        ));
        if !cell.platform.promises_beside() {
            steps.push(msync(at));
        }
    }
}
