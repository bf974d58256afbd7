//! Programs: the user's own, whose output can be acknowledgements, and the one that checks what is left of them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use guest_protocol::{MAX_ACKNOWLEDGEMENT, MAX_CHECK_OUTPUT, MOUNT, Reply};

use crate::files::errno;
use crate::host::Host;
use crate::sys;

/// Where the check program finds what had been acknowledged.
const ACKNOWLEDGED: &str = "/tmp/acknowledged";

/// The program with the environment that all get.
fn program(argv: &[String]) -> Result<Command, Reply> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Reply::Bad { why: "exec needs a program".into() });
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(Path::new(MOUNT)).env_clear();
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/").env("LC_ALL", "C");
    Ok(command)
}

/// Runs a program whose output goes to the console.
pub fn exec(argv: &[String]) -> Reply {
    let status = program(argv).and_then(|mut program| program.status().map_err(errno("exec")));
    status.map_or_else(|reply| reply, |status| Reply::Exited { status: status.into_raw() })
}

/// Runs a program each of whose lines is an acknowledgement.
///
/// Meanwhile the agent comes first: what wakes it up, a line in the pipe, makes the kernel switch to it before the writer
/// is back from its system call, if there is one processor. With several, the writer may be ahead by a little; the
/// acknowledgement is late then, never early.
pub fn exec_heard(host: &mut Host, argv: &[String]) -> Reply {
    let spawn = |mut program: Command| program.stdout(Stdio::piped()).spawn().map_err(errno("exec"));
    sys::come_first(true);
    let ended = program(argv).and_then(spawn).and_then(|mut child| {
        hear(host, &mut child);
        child.wait().map_err(errno("wait"))
    });
    sys::come_first(false);
    ended.map_or_else(|reply| reply, |status| Reply::Exited { status: status.into_raw() })
}

/// Passes lines on until nobody can write any more.
fn hear(host: &mut Host, child: &mut Child) {
    let Some(output) = child.stdout.take() else { return };
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A program that never ends its line must not take all memory.
        let most = MAX_ACKNOWLEDGEMENT as u64 + 1;
        match output.by_ref().take(most).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => host.acknowledge(line.strip_suffix(b"\n").unwrap_or(&line)),
        }
    }
}

/// Runs a check program, alone.
pub fn check(argv: &[String], acknowledged: &[String]) -> Reply {
    sys::end_all_others();
    let reply = run_check(argv, acknowledged).unwrap_or_else(|reply| reply);
    sys::end_all_others();
    reply
}

fn run_check(argv: &[String], acknowledged: &[String]) -> Result<Reply, Reply> {
    let lines: String = acknowledged.iter().flat_map(|line| [line, "\n"]).collect();
    fs::write(ACKNOWLEDGED, lines).map_err(errno("write"))?;
    let input = fs::File::open(ACKNOWLEDGED).map_err(errno("open"))?;
    let (mut output, writer) = std::io::pipe().map_err(errno("pipe"))?;
    let mut program = program(argv)?;
    program.env("PMEMSIM_ACKNOWLEDGED", ACKNOWLEDGED);
    let error = writer.try_clone().map_err(errno("dup"))?;
    let child = program.stdin(input).stdout(writer).stderr(error).spawn();
    // It holds the ends that are written to, and they would never close.
    drop(program);
    let mut child = child.map_err(errno("exec"))?;
    let mut kept = Vec::new();
    let read = output.by_ref().take(MAX_CHECK_OUTPUT as u64).read_to_end(&mut kept);
    read.and_then(|_| std::io::copy(&mut output, &mut std::io::sink())).map_err(errno("read"))?;
    let status = child.wait().map_err(errno("wait"))?.into_raw();
    Ok(Reply::Checked { status, output: String::from_utf8_lossy(&kept).into_owned() })
}
