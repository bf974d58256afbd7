//! Waiting for apt with an eye on the disk: on a full one it waits for ever.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Output};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// With less than this free, in bytes, nothing useful can be written any more.
const LEAST: u64 = 256 << 10;

/// What the child wrote and how it ended; `None` when it was killed because the file system of `place` is full.
pub(crate) fn output(mut child: Child, place: &Path) -> io::Result<Option<Output>> {
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if full(place) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    };
    let read = |reader: Option<JoinHandle<Vec<u8>>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    Ok(Some(Output { status, stdout: read(stdout), stderr: read(stderr) }))
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until an error is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn full(place: &Path) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) < LEAST)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn spawn(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn output_arrives_whole() {
        let dir = tempfile::tempdir().unwrap();
        let script = "head -c 300000 /dev/zero; echo no >&2; exit 3";
        let output = output(spawn(script), dir.path()).unwrap().expect("the disk is not full");
        assert_eq!(
            (output.stdout.len(), &output.stderr[..], output.status.code()),
            (300_000, &b"no\n"[..], Some(3))
        );
    }

    #[test]
    fn a_file_system_without_free_space_is_full() {
        // procfs has no blocks at all.
        assert!(full(Path::new("/proc")));
        assert!(output(spawn("sleep 1000"), Path::new("/proc")).unwrap().is_none());
    }
}
