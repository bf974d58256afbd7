//! Whose fault an error is: exit code 2 for usage, 3 for the host.

/// Bad usage or scenario.
pub const USAGE: u8 = 2;
/// Inconclusive, or trouble on the host.
pub const TROUBLE: u8 = 3;

/// The exit code that an error stands for.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<explore::ScenarioError>() || error.is::<Usage>() {
        return USAGE;
    }
    if let Some(error) = error.downcast_ref::<explore::replay::ReplayError>() {
        return if matches!(error, explore::replay::ReplayError::Host(_)) { TROUBLE } else { USAGE };
    }
    if let Some(error) = error.downcast_ref::<explore::machines::Error>() {
        return match error {
            explore::machines::Error::Images(error) => of_images(error),
            explore::machines::Error::Machine(error) => of_machine(error),
            other => other.exit_code(),
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
        vmm::Error::Config { .. } | vmm::Error::Kernel(_) => USAGE,
        _ => TROUBLE,
    }
}

/// Bad input of any kind is for the user to mend: names, files, and a network or disk that the run needs.
fn of_images(_: &images::Error) -> u8 {
    USAGE
}

/// Something on the command line makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);
