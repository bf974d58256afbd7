//! A finding under a debugger, forward and backward, and a shell in the machine that recovered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use explore::RunOptions;
use explore::scenario::Explore;

use crate::support::{jobs, run, scenario};

/// A report with a finding, in a directory of its own.
struct Found {
    _directory: tempfile::TempDir,
    report: PathBuf,
    id: String,
}

impl Found {
    /// The same for all tests.
    fn get() -> &'static Found {
        static FOUND: OnceLock<Found> = OnceLock::new();
        FOUND.get_or_init(Found::new)
    }

    fn new() -> Found {
        let options = RunOptions { explore: Some(Explore::Sample), budget: Some(6), ..jobs(2) };
        let report = run(&scenario("controls/no-clwb"), &options);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("report.json");
        std::fs::write(&path, report.to_json()).expect("to write");
        let finding = report.findings.first().unwrap_or_else(|| panic!("nothing was found: {report}"));
        Found { _directory: directory, report: path, id: finding.id.clone() }
    }

    fn replay(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
        command.arg("replay").arg(&self.report).arg(&self.id).args(arguments);
        command
    }

    /// Begins a replay that waits for gdb, and says on which port.
    fn debugged(&self, arguments: &[&str]) -> (Child, u16) {
        let mut command = self.replay(&["--gdb", "0"]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("the command starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("it is piped")).read_line(&mut line).expect("it says so");
        let port = line.trim().trim_end_matches('\'').rsplit(':').next().and_then(|port| port.parse().ok());
        (child, port.unwrap_or_else(|| panic!("no port: {line}")))
    }
}

/// What a debugger does, by the protocol.
struct Gdb(TcpStream);

impl Gdb {
    fn connect(port: u16) -> Gdb {
        let mut gdb = Gdb(TcpStream::connect(("127.0.0.1", port)).expect("it listens"));
        let features = gdb.say("qSupported:multiprocess+;swbreak+;hwbreak+");
        assert!(features.contains("ReverseStep+") && features.contains("ReverseContinue+"), "{features}");
        gdb
    }

    /// Sends a packet, and returns what is answered.
    fn say(&mut self, packet: &str) -> String {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("${packet}#{sum:02x}").as_bytes()).expect("it hears");
        let mut answer = Vec::new();
        let mut next = || {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("it answers");
            byte[0]
        };
        while next() != b'$' {}
        loop {
            match next() {
                b'#' => break,
                // So many more of the last one.
                b'*' => {
                    let (more, last) =
                        (usize::from(next() - 29), *answer.last().expect("something is repeated"));
                    answer.extend(std::iter::repeat_n(last, more));
                }
                byte => answer.push(byte),
            }
        }
        next();
        next();
        self.0.write_all(b"+").expect("it hears");
        String::from_utf8(answer).expect("the protocol is text")
    }

    /// All registers, in hexadecimal.
    fn registers(&mut self) -> String {
        self.say("g")
    }

    /// The register with this number among those of 64 bits: RSP is 7, RIP is 16.
    fn register(&mut self, number: usize) -> u64 {
        let registers = self.registers();
        let bytes = &registers[16 * number..16 * (number + 1)];
        u64::from_str_radix(bytes, 16).expect("hexadecimal").swap_bytes()
    }
}

const RSP: usize = 7;
const RIP: usize = 16;
/// Instructions that are gone back one by one.
const STEPS: usize = 40;

#[test]
fn a_recovery_goes_forward_and_backward_under_a_debugger() {
    let found = Found::get();
    let (mut child, port) = found.debugged(&[]);
    let mut gdb = Gdb::connect(port);
    assert!(gdb.say("?").starts_with('T') || gdb.say("?").starts_with('S'));
    let mut way = vec![gdb.registers()];
    for _ in 0..STEPS {
        gdb.say("s");
        way.push(gdb.registers());
    }
    for registers in way.iter().rev().skip(1) {
        gdb.say("bs");
        assert_eq!(gdb.registers(), *registers, "it has never been here");
    }
    assert!(gdb.say("bs").contains("replaylog:begin"));
    assert_eq!(gdb.registers(), way[0]);

    // What calls a function stores below the stack pointer.
    let stack = gdb.register(RSP) - 8;
    let word = |gdb: &mut Gdb| gdb.say(&format!("m{stack:x},8"));
    let before = word(&mut gdb);
    assert_eq!(gdb.say(&format!("Z2,{stack:x},8")), "OK");
    let stop = gdb.say("c");
    assert!(stop.contains("watch:"), "{stop}");
    assert_ne!(word(&mut gdb), before);
    let (changed, there) = (word(&mut gdb), gdb.registers());
    assert!(gdb.say("bc").contains("replaylog:begin"), "it is the first change");
    assert_eq!(gdb.registers(), way[0]);
    assert_eq!(gdb.say(&format!("z2,{stack:x},8")), "OK");

    // The place of that store, as a breakpoint.
    gdb.say("s");
    let begin = gdb.registers();
    let at = u64::from_str_radix(&there[16 * RIP..16 * (RIP + 1)], 16).expect("hexadecimal").swap_bytes();
    assert_eq!(gdb.say(&format!("Z0,{at:x},1")), "OK");
    let stop = gdb.say("c");
    assert!(stop.contains("swbreak"), "{stop}");
    assert_eq!((gdb.register(RIP), word(&mut gdb)), (at, changed));
    assert_eq!(gdb.say(&format!("z0,{at:x},1")), "OK");
    let end = gdb.say("c");
    assert!(end.contains("replaylog:end"), "{end}");
    // From the end of the history back to its beginning.
    assert!(gdb.say("bc").contains("replaylog:begin"));
    gdb.say("s");
    assert_eq!(gdb.registers(), begin);
    assert!(gdb.say("M1000,1:00").starts_with('E'), "nothing can be changed");
    assert_eq!(gdb.say("D"), "OK");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn gdb_of_debian_debugs_a_recording() {
    if Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: there is no gdb on this host (apt-get install -y gdb)");
        return;
    }
    let found = Found::get();
    let (mut child, port) = found.debugged(&["--recording"]);
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-batch", "-ex", "set architecture i386:x86-64"]);
    let remote = format!("target remote 127.0.0.1:{port}");
    for command in
        [&remote, "stepi", "p/x $rip", "stepi 100", "reverse-stepi 100", "p/x $rip", "x/i $rip", "detach"]
    {
        gdb.args(["-ex", command]);
    }
    let output = gdb.output().expect("gdb runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    assert!(value("$1 = ").is_some() && value("$1 = ") == value("$2 = "), "{text}");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_shell_in_the_recovered_machine_shows_what_is_there() {
    let found = Found::get();
    let mut command = found.replay(&["--console"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let typed = b"stat -c '%n has %s bytes' /mnt/pmem/*\nexit\n";
    child.stdin.take().expect("it is piped").write_all(typed).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("/mnt/pmem/a has "), "{text}");
}
