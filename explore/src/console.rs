//! A shell in a machine that has recovered.

use guest_protocol::Command;

use crate::conversation::{Conversation, Limits, Trouble};
use crate::record::prepared;
use crate::scenario::Scenario;
use crate::target::{HostError, Laboratory, Target};

/// Programs that have to be in the initramfs: a shell, and something to call from it.
pub const PROGRAMS: [&str; 2] = ["dash", "coreutils"];
/// The shell, as the guest starts it.
const SHELL: [&str; 2] = ["/bin/dash", "-i"];

/// A machine that has come up on these media of its first region, of which these lines are lost, mounted the file system where it goes, and begun a
/// shell on the serial console. It calls the control port when the shell has ended. What the guest said until then comes
/// along.
pub fn open<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    media: &[u8],
    poisoned: &[u64],
) -> Result<(L::Target, String), HostError> {
    let mut target = prepared(laboratory)?;
    target.set_tracing(false);
    let base = target.regions().first().map_or(0, |region| region.base);
    target.write_pmem(base, media);
    target.set_poisoned(poisoned);
    let limits = Limits::of_recovery(&scenario.limits);
    let mut conversation = Conversation::new(&mut target, limits);
    let begun = begin(scenario, &mut conversation);
    let said = String::from_utf8_lossy(&conversation.heard.console).into_owned();
    match begun {
        Ok(()) => Ok((target, said)),
        Err(Trouble::Crash(why) | Trouble::Harness(why)) => {
            Err(HostError(format!("the machine does not get to a shell: {why}\n{said}")))
        }
        Err(other) => Err(HostError(format!("the machine does not get to a shell: {other:?}"))),
    }
}

/// A file system that does not come back is no reason not to have a shell.
fn begin<T: Target>(scenario: &Scenario, conversation: &mut Conversation<T>) -> Result<(), Trouble> {
    let filesystem = &scenario.filesystem;
    conversation.perform(&Command::Attach { region: 0 })?;
    conversation.perform(&Command::Mount {
        region: 0,
        fs: filesystem.kind.clone(),
        options: filesystem.mount.clone(),
    })?;
    let buffer = conversation.reach_next()?;
    conversation.send(buffer, &Command::Exec { argv: SHELL.map(str::to_owned).to_vec() })
}
