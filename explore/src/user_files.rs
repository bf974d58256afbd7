//! The user's own files in the guest: as they are, or compiled; and whether what the scenario runs is there.

use guest_protocol::Command;
use images::{Cache, Error, Initramfs};

use crate::scenario::Scenario;

/// Puts them into the initramfs, and looks whether all that is run can be run.
pub(crate) fn add(
    scenario: &Scenario,
    cache: &Cache,
    initramfs: &mut Initramfs,
    provenance: &mut Vec<(String, String)>,
) -> Result<(), Error> {
    let files = &scenario.machine.files;
    for file in files {
        let bytes = if let Some(text) = &file.text {
            text.clone().into_bytes()
        } else if let Some(from) = &file.from {
            let read = std::fs::read(from);
            read.map_err(|why| bad_program(&file.to, format!("{} cannot be read: {why}", from.display())))?
        } else if let Some(source) = &file.c {
            let packages = initramfs.compiled(cache, &file.to, source, &file.packages, &file.flags)?;
            provenance.extend(packages.into_iter().map(|package| (package.name, package.version)));
            continue;
        } else {
            continue;
        };
        initramfs.file(&file.to, 0o755, bytes)?;
    }
    let ours: Vec<&str> = files.iter().map(|file| file.to.as_str()).collect();
    initramfs.check_programs(&ours)?;
    for file in files.iter().filter(|file| file.text.is_none()) {
        let inner = file.to.trim_start_matches('/');
        let content =
            initramfs.files().find(|(path, _)| *path == inner || path.strip_prefix("usr/") == Some(inner));
        provenance
            .extend(content.map(|(_, bytes)| (file.to.clone(), blake3::hash(bytes).to_hex().to_string())));
    }
    let run = scenario.commands.iter().filter_map(|planned| match &planned.command {
        Command::Exec { argv } | Command::ExecHeard { argv } => argv.first(),
        _ => None,
    });
    let check = scenario.check.as_ref().and_then(|check| check.command.first());
    for program in run.chain(check) {
        if !initramfs.has_program(program) {
            let why =
                "is run, but is not in the guest: name its Debian package in programs, or give it in files";
            return Err(bad_program(program, why.to_owned()));
        }
    }
    Ok(())
}

fn bad_program(program: &str, why: String) -> Error {
    Error::BadProgram { program: program.to_owned(), why }
}
