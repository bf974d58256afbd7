//! Tests of Vinter (Kalbfleisch et al., "Vinter: Automatic Non-Volatile Memory Crash Consistency Testing for Full
//! Systems", USENIX ATC 2022), and its two verdicts.
//!
//! A test is two YAML files. Of the machine: `commands` with `trace_cmd_prefix` (mkfs and mount), `dump_cmd_prefix` and `recovery_cmd`, and `vm`
//! with `pmem_len` and `mem`. Of the test: `trace_cmd_suffix` with `hypercall checkpoint N` in it, `checkpoint_range` and
//! `dump_cmd_suffix`. The keys are those of vinter_common's config.rs, and the verdicts those of `report-results.py analyze`, both in
//! <https://github.com/KIT-OSG/vinter>: between two checkpoints an operation has a *single final state* if all crash states at the second
//! one are recovered to the same, and is *atomic* if all crash states in between are recovered to two at most.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::shell::{Command, commands, list};
use super::{ImportError, quoted};
use crate::scenario::Scenario;

/// The part of Vinter's file of a machine that means something here; the rest configures QEMU.
#[derive(Deserialize)]
struct VmFile {
    commands: VmCommands,
    vm: Vm,
}

#[derive(Deserialize)]
struct VmCommands {
    trace_cmd_prefix: Spanned<String>,
    #[serde(default)]
    dump_cmd_prefix: Option<Spanned<String>>,
}

#[derive(Deserialize)]
struct Vm {
    pmem_len: u64,
    mem: Spanned<String>,
}

/// Vinter's file of a test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    trace_cmd_suffix: Spanned<String>,
    checkpoint_range: Option<Spanned<(u32, u32)>>,
    dump_cmd_suffix: Spanned<String>,
}

/// A file of the user: its name, for messages, and what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Name.
    pub name: &'a str,
    /// Content.
    pub text: &'a str,
}

/// A test of Vinter.
#[derive(Clone, Debug)]
pub struct Test {
    /// What is recorded. It makes no promises: [`super::verdicts`] compares what is recovered.
    pub scenario: Scenario,
    /// The checkpoints from which on, and up to which, it is judged.
    pub range: (u32, u32),
}

/// What only looks: the whole tree is compared whatever is printed of it.
const LOOKS: [&str; 18] = [
    "fs-dump",
    "ls",
    "cat",
    "stat",
    "find",
    "echo",
    "mount",
    "umount",
    "sync",
    "true",
    "[",
    "test",
    "fsck.ext4",
    "e2fsck",
    "fsck.xfs",
    "hypercall",
    "md5sum",
    "sha256sum",
];

/// Reads a test. `kernel` is the kernel as scenarios name it: Vinter's files name one for QEMU.
pub fn read(vm: Source, test: Source, kernel: &str) -> Result<Test, ImportError> {
    let vm_file: VmFile = parse(vm)?;
    let test_file: TestFile = parse(test)?;
    for (source, command) in
        [(vm, vm_file.commands.dump_cmd_prefix.as_ref()), (test, Some(&test_file.dump_cmd_suffix))]
    {
        command.map_or(Ok(()), |command| check_dump(source, command))?;
    }
    let setup = Setup::read(vm, &vm_file.commands.trace_cmd_prefix)?;
    let mut steps = String::new();
    add_exec(&mut steps, &setup.rest);
    let found = add_trace(&mut steps, test, &test_file.trace_cmd_suffix)?;
    let range = range_of(test, &test_file, &found)?;
    // The smallest regions that these file systems fit on, and that machines have.
    let least = if setup.filesystem == "xfs" { 18 << 20 } else { 16 << 20 };
    let size = vm_file.vm.pmem_len.max(least).next_multiple_of(2 << 20);
    let memory = memory_of(vm, &vm_file.vm.mem)?;
    let mkfs: Vec<String> = setup.mkfs.iter().map(|word| quoted(word)).collect();
    let text = format!(
        "name = {}\ndescription = \"A test of Vinter.\"\n\n[machine]\nkernel = {}\nmemory = {memory}\nprograms = [\"dash\", \"coreutils\"]\n\n[[nvdimm]]\nsize = {size}\n\n[filesystem]\ntype = {}\nmkfs = [{}]\nmount = {}\n\n[crash]\npoints = [\"durable\"]\nfrom_marker = {}\nexplore = \"sample\"\nstates = 20\n{steps}",
        quoted(test.name),
        quoted(kernel),
        quoted(&setup.filesystem),
        mkfs.join(", "),
        quoted(&setup.options),
        range.0,
    );
    let scenario = Scenario::parse(&text, test.name)
        .map_err(|error| at(test, 1, format!("makes no scenario: {}: {}", error.key, error.what)))?;
    Ok(Test { scenario, range })
}

fn at(source: Source, line: u64, what: impl Into<String>) -> ImportError {
    let line = usize::try_from(line).unwrap_or(1).max(1);
    ImportError { file: source.name.to_owned(), line, what: what.into() }
}

fn parse<'a, T: Deserialize<'a>>(source: Source<'a>) -> Result<T, ImportError> {
    serde_saphyr::from_str(source.text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let text = error.to_string();
        // Behind the first line it shows the text around.
        at(source, line, text.lines().next().unwrap_or("is no YAML"))
    })
}

/// `256M`, as QEMU's -m takes it.
fn memory_of(source: Source, text: &Spanned<String>) -> Result<String, ImportError> {
    let bytes = text.value.parse::<crate::scenario::Bytes>();
    match bytes {
        Ok(bytes) => Ok(bytes.0.max(64 << 20).next_multiple_of(2 << 20).to_string()),
        Err(_) => Err(at(
            source,
            text.referenced.line(),
            format!("mem: {:?} is no size: write \"256M\"", text.value),
        )),
    }
}

/// What `trace_cmd_prefix` does: a file system, how it is mounted, and what is done then.
struct Setup {
    filesystem: String,
    mkfs: Vec<String>,
    options: String,
    rest: Vec<Command>,
}

impl Setup {
    fn read(source: Source, prefix: &Spanned<String>) -> Result<Setup, ImportError> {
        let wrong = |what: String| at(source, prefix.referenced.line(), format!("trace_cmd_prefix: {what}"));
        let mut setup =
            Setup { filesystem: String::new(), mkfs: Vec::new(), options: String::new(), rest: Vec::new() };
        let mut mounted = false;
        for command in commands(&prefix.value) {
            let words = command.words();
            match words[0].strip_prefix("mkfs.") {
                _ if mounted => setup.rest.push(command),
                Some(kind) => {
                    setup.filesystem = kind.to_owned();
                    setup.mkfs = mkfs_arguments(&words[1..]);
                }
                None if words[0] == "mount" => {
                    setup.mount(&words[1..]);
                    mounted = true;
                }
                None => {
                    return Err(wrong(format!("{:?} stands in front of mount: only mkfs can", command.text)));
                }
            }
        }
        if !mounted {
            return Err(wrong("nothing is mounted: write mount -t ext4 -o dax /dev/pmem0 /mnt".to_owned()));
        }
        if images::FilesystemKind::from_name(&setup.filesystem).is_none() {
            let what =
                format!("the file system {:?} is not known here: these are ext4 and xfs", setup.filesystem);
            return Err(wrong(what));
        }
        Ok(setup)
    }

    fn mount(&mut self, words: &[&str]) {
        let mut left = words.iter();
        while let Some(word) = left.next() {
            let mut value = |flag: &str| match word.strip_prefix(flag) {
                Some("") => left.next().map(|value| (*value).to_owned()),
                Some(value) => Some(value.to_owned()),
                None => None,
            };
            if let Some(kind) = value("-t") {
                self.filesystem = kind;
            } else if let Some(options) = value("-o") {
                self.options = options;
            }
        }
    }
}

/// What mkfs is told here, too: not the device, nor the size of blocks, which is 4096 bytes anyway, nor to be quiet.
fn mkfs_arguments(words: &[&str]) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut left = words.iter();
    while let Some(word) = left.next() {
        match *word {
            "-b" if left
                .as_slice()
                .first()
                .is_some_and(|size| ["4096", "size=4096", "4k"].contains(size)) =>
            {
                left.next();
            }
            "-q" | "-F" | "-f" => (),
            word if word.starts_with("/dev/") => (),
            word => arguments.push(word.to_owned()),
        }
    }
    arguments
}

/// State that a dump command shows otherwise than by looking cannot be compared.
fn check_dump(source: Source, command: &Spanned<String>) -> Result<(), ImportError> {
    for one in commands(&command.value) {
        let word = one.words()[0].trim_start_matches('(').to_owned();
        if !LOOKS.contains(&word.as_str()) && !word.is_empty() {
            let what = format!(
                "{word:?} in a dump command is not known here: what is compared is the whole tree, so it may only look ({})",
                LOOKS.join(", ")
            );
            return Err(at(source, command.referenced.line(), what));
        }
    }
    Ok(())
}

/// The guest's mount point instead of Vinter's.
fn in_guest(script: &str) -> String {
    let mut guest = String::new();
    let mut left = script;
    while let Some(start) = left.find("/mnt") {
        let (before, behind) = left.split_at(start);
        let behind = &behind["/mnt".len()..];
        guest += before;
        let goes_on = behind.starts_with(|c: char| c.is_alphanumeric() || "_-.".contains(c));
        guest += if goes_on { "/mnt" } else { guest_protocol::MOUNT };
        left = behind;
    }
    guest + left
}

fn add_exec(steps: &mut String, commands: &[Command]) {
    if !commands.is_empty() {
        let script = quoted(&in_guest(&list(commands)));
        *steps += &format!("\n[[step]]\nexec = [\"/bin/sh\", \"-c\", {script}]\n");
    }
}

/// The commands between the checkpoints, each part in a shell of its own. Returns the checkpoints.
fn add_trace(steps: &mut String, source: Source, suffix: &Spanned<String>) -> Result<Vec<u32>, ImportError> {
    let wrong = |what: String| at(source, suffix.referenced.line(), format!("trace_cmd_suffix: {what}"));
    let (mut found, mut part) = (Vec::new(), Vec::new());
    for command in commands(&suffix.value) {
        match command.words()[..] {
            ["hypercall", "checkpoint", number] => {
                add_exec(steps, &std::mem::take(&mut part));
                let number: u32 =
                    number.parse().map_err(|_| wrong(format!("{number:?} is no number of a checkpoint")))?;
                if found.contains(&number) {
                    return Err(wrong(format!("checkpoint {number} is there twice")));
                }
                found.push(number);
                *steps += &format!("\n[[step]]\nmarker = {number}\n");
            }
            ["hypercall", "success"] => (),
            ["hypercall", ..] => return Err(wrong(format!("{:?} is not known here", command.text))),
            _ if command.text.contains("hypercall") => {
                let what = format!(
                    "{:?}: checkpoints stand in the list itself, not inside of commands",
                    command.text
                );
                return Err(wrong(what));
            }
            _ => part.push(command),
        }
    }
    add_exec(steps, &part);
    Ok(found)
}

/// Without a range: from the first checkpoint to the last.
fn range_of(source: Source, test: &TestFile, found: &[u32]) -> Result<(u32, u32), ImportError> {
    let line = test.trace_cmd_suffix.referenced.line();
    let (Some(first), Some(last)) = (found.iter().min(), found.iter().max()) else {
        return Err(at(source, line, "trace_cmd_suffix: has no \"hypercall checkpoint N\""));
    };
    let Some(range) = &test.checkpoint_range else { return Ok((*first, *last)) };
    let (line, (from, to)) = (range.referenced.line(), range.value);
    if from >= to {
        return Err(at(source, line, format!("checkpoint_range: [{from}, {to}] has nothing in it")));
    }
    match (from..=to).find(|number| !found.contains(number)) {
        Some(missing) => {
            Err(at(source, line, format!("checkpoint_range: there is no \"hypercall checkpoint {missing}\"")))
        }
        None => Ok((from, to)),
    }
}
