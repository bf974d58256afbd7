//! The user's check program: it runs in the recovered guest and says whether what had been acknowledged is there.

use guest_protocol::{Command, Reply};

use crate::conversation::{Conversation, Limits, Trouble};
use crate::oracle::acknowledged::Acknowledged;
use crate::recover::Broken;
use crate::scenario::{Check, Scenario};
use crate::target::Target;
use crate::verdict::Class;

/// What its faults are about.
pub(crate) const SUBJECT: &str = "check";
/// How it is said that the guest crashed, or came to no end, because of it.
pub(crate) const MEANWHILE: &str = "while the check program runs: ";

/// What a shell ends with when a command cannot be executed, or is not there (POSIX.1-2017, XCU 2.8.2).
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Runs the program.
pub(crate) fn command(check: &Check, told: &Acknowledged) -> Command {
    Command::Check { argv: check.command.clone(), acknowledged: told.texts().map(str::to_owned).collect() }
}

/// What it says is wrong, by how it ended: a wait status as waitpid(2) gives it.
pub(crate) fn judge(check: &Check, status: i32, output: &str) -> Result<Option<Broken>, Trouble> {
    let said = match output.trim() {
        "" => "it says nothing".to_owned(),
        output => output.to_owned(),
    };
    match (status & 0x7f, status >> 8 & 0xff) {
        (0, 0) => Ok(None),
        (0, code @ (CANNOT_EXECUTE | NOT_FOUND)) => Err(Trouble::Harness(format!(
            "the check program cannot be run, or cannot run what it needs (exit code {code}): {said}"
        ))),
        (0, code) => {
            let text = format!("the check program ends with exit code {code}: {said}");
            Ok(Some(Broken { class: check.broken, text }))
        }
        (signal, _) => {
            let text = format!("the check program is killed by signal {signal}: {said}");
            Ok(Some(Broken { class: Class::Corrupt, text }))
        }
    }
}

/// Runs the program where it was recorded, all other processes ended, but the power not cut: it has to find nothing
/// wrong, or what it says of crash states means nothing.
pub(crate) fn try_without_power_cut<T: Target>(
    scenario: &Scenario,
    target: &mut T,
    told: &Acknowledged,
) -> Result<(), Trouble> {
    let Some(check) = &scenario.check else { return Ok(()) };
    let mut conversation = Conversation::new(target, Limits::of_recovery(&scenario.limits));
    let without = |why: &str| Trouble::Harness(format!("although the power has not been cut, {why}"));
    match conversation.perform(&command(check, told)) {
        Ok(Reply::Checked { status, output }) => match judge(check, status, &output)? {
            None => Ok(()),
            Some(broken) => Err(without(&broken.text)),
        },
        Ok(Reply::Errno { errno, .. }) => Err(Trouble::Harness(format!(
            "the check program {} cannot be started: errno {errno}; is it in the initramfs, with all its libraries?",
            check.command[0]
        ))),
        Ok(other) => Err(Trouble::Harness(format!("checking: {other:?}"))),
        Err(Trouble::Crash(why)) => {
            Err(without(&format!("the check program does not come to its end: {why}")))
        }
        Err(trouble) => Err(trouble),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: i32) -> Result<Option<Class>, Trouble> {
        let check = Check { command: vec!["check".to_owned()], broken: Class::NotAtomic };
        judge(&check, status, "row 5 is missing\n").map(|broken| broken.map(|broken| broken.class))
    }

    #[test]
    fn the_exit_code_says_whether_promises_are_kept() {
        assert_eq!(said(0), Ok(None));
        assert_eq!((said(1 << 8), said(125 << 8)), (Ok(Some(Class::NotAtomic)), Ok(Some(Class::NotAtomic))));
    }

    #[test]
    fn a_check_program_that_crashes_has_met_something_damaged() {
        assert_eq!((said(11), said(6 | 0x80)), (Ok(Some(Class::Corrupt)), Ok(Some(Class::Corrupt))));
    }

    #[test]
    fn a_check_program_that_is_not_there_says_nothing() {
        assert!(matches!(said(127 << 8), Err(Trouble::Harness(why)) if why.contains("127")));
        assert!(matches!(said(126 << 8), Err(Trouble::Harness(_))));
    }
}
