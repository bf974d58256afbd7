//! Whose fault an error is: exit code 2 for usage, 3 for the host. And how errors are told.

use explore::Scenario;
use explore::machines::Error as MachinesError;
use explore::replay::ReplayError;

use crate::say::Unheard;

/// Bad usage or scenario.
pub const USAGE: u8 = 2;
/// Inconclusive, or trouble on the host.
pub const TROUBLE: u8 = 3;

/// Nobody reads what is printed any more: what a shell says of a program that SIGPIPE has ended.
const UNHEARD: u8 = 141;

/// Whether there is nothing to complain of: who reads what is printed has seen enough.
pub fn is_quiet(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(Unheard::is_quiet)
}

/// The exit code that an error stands for.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if is_quiet(error) {
        return UNHEARD;
    }
    if error.is::<explore::ScenarioError>() || error.is::<Usage>() {
        return USAGE;
    }
    if let Some(error) = error.downcast_ref::<ReplayError>() {
        return if matches!(error, ReplayError::Host(_)) { TROUBLE } else { USAGE };
    }
    if let Some(error) = error.downcast_ref::<MachinesError>() {
        return match error {
            MachinesError::Images(error) => of_images(error),
            MachinesError::Machine(error) => of_machine(error),
            // A cache that takes no more is for the user to mend, as it is for `images`.
            MachinesError::Boot { .. } | MachinesError::Snapshot { .. } => USAGE,
        };
    }
    match (error.downcast_ref::<vmm::Error>(), error.downcast_ref::<images::Error>()) {
        (Some(error), _) => of_machine(error),
        (_, Some(error)) => of_images(error),
        _ => TROUBLE,
    }
}

fn of_machine(error: &vmm::Error) -> u8 {
    match error {
        vmm::Error::Config { .. } | vmm::Error::Kernel(_) | vmm::Error::Payload(_) => USAGE,
        _ => TROUBLE,
    }
}

/// Bad input of any kind is for the user to mend: names, files, and a network or disk that the run needs.
fn of_images(_: &images::Error) -> u8 {
    USAGE
}

/// The error for people: every cause that is not in the text already, then what to do about it.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    if let Some(MachinesError::Snapshot { .. }) = error.downcast_ref() {
        text += "; free some space, run `pmemsim images clean`, or set XDG_CACHE_HOME to another place";
    }
    text
}

/// Something on the command line makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The place in a scenario that asks for what cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {key}")]
pub struct Place {
    file: String,
    line: usize,
    key: &'static str,
}

/// Adds the file, line and key of the scenario that an error comes from, when one of its keys is to blame.
pub fn in_scenario(error: MachinesError, file: &std::path::Path, scenario: &Scenario) -> anyhow::Error {
    let key = key_of(&error, scenario);
    let error = anyhow::Error::from(error);
    match key {
        Some(key) => {
            let line = 1 + scenario.text.lines().position(|line| begins_with(line, key)).unwrap_or(0);
            error.context(Place { file: file.display().to_string(), line, key })
        }
        None => error,
    }
}

fn key_of(error: &MachinesError, scenario: &Scenario) -> Option<&'static str> {
    use images::Error as Images;
    let machine = &scenario.machine;
    match error {
        MachinesError::Boot { .. } | MachinesError::Machine(vmm::Error::Kernel(_)) => Some("kernel"),
        MachinesError::Images(error) => match error {
            Images::UnknownKernel { .. } | Images::BadKernel { .. } | Images::BadModule { .. } => {
                Some("kernel")
            }
            Images::Io { path, .. } if path.as_os_str() == machine.kernel.as_str() => Some("kernel"),
            Images::NoSuchPackage { wanted, .. } if wanted.ends_with(&machine.kernel) => Some("kernel"),
            Images::NoSuchPackage { .. } | Images::BadProgram { .. } => Some("programs"),
            Images::BadImage { why } if why.contains("mke2fs") || why.contains("mkfs") => Some("mkfs"),
            Images::BadImage { .. } => Some("size"),
            _ => None,
        },
        MachinesError::Machine(vmm::Error::Config { what, .. }) => {
            let keys = [("memory", "memory"), ("flush hints", "flush_hints"), ("command line", "append")];
            let found = keys.iter().find(|(word, _)| what.contains(word)).map(|(_, key)| *key);
            Some(found.unwrap_or("[machine]"))
        }
        _ => None,
    }
}

fn begins_with(line: &str, key: &str) -> bool {
    line.trim_start()
        .strip_prefix(key)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let source = std::io::Error::other("the cable is cut");
        let error = images::Error::Io { action: "read", path: "/k".into(), source };
        let error = anyhow::Error::from(error).context("a.toml:3: kernel");
        assert_eq!(message(&error), "a.toml:3: kernel: cannot read /k: the cable is cut");
        assert_eq!(exit_code(&error), USAGE);
    }

    #[test]
    fn a_key_is_found_as_a_whole_word() {
        assert!(begins_with("  kernel = 1", "kernel"));
        assert!(!begins_with("kernels = 1", "kernel"));
        assert!(!begins_with("# kernel", "kernel"));
    }
}
