//! Debian's programs run unchanged in the guest, and print what they print on the host.

use explore::{Scenario, Verdict};

use crate::comparison::{Comparison, Script};
use crate::support::{jobs, run};

const PYTHON_TESTS: &str = "libpython3.11-testsuite/usr/lib/python3.11/test";

const SHELL: Script = Script { name: "shell", text: include_str!("programs/shell.sh"), command: ". /shell" };
const SQLITE: Script =
    Script { name: "sqlite", text: include_str!("programs/sqlite.sh"), command: ". /sqlite" };
const OPENSSL: Script =
    Script { name: "openssl", text: include_str!("programs/openssl.sh"), command: ". /openssl" };
const COMPILER: Script =
    Script { name: "compiler", text: include_str!("programs/compiler.sh"), command: ". /compiler" };
const BUSYBOX: Script =
    Script { name: "busybox", text: include_str!("programs/busybox.sh"), command: "busybox sh /busybox" };
const MATHEMATICS: Script = Script {
    name: "mathematics",
    text: include_str!("programs/mathematics.py"),
    command: "python3 -S -B /mathematics",
};
const MATHEMATICS_IN_FULL: Script = Script { command: "python3 -S -B /mathematics all", ..MATHEMATICS };

/// The files of Python's own tests.
fn python_tests() -> Vec<String> {
    let files = ["test_math.py", "test_struct.py", "test_float.py", "test_cmath.py", "test_grammar.py"];
    let data = ["math_testcases.txt", "cmath_testcases.txt", "ieee754.txt", "formatfloat_testcases.txt"];
    let files = files.iter().chain(&data).chain(&["floating_points.txt"]);
    files.map(|file| format!("{PYTHON_TESTS}/{file}")).collect()
}

/// Packages with spaces between.
fn packages(names: &str) -> Vec<&str> {
    names.split_whitespace().collect()
}

#[test]
fn a_shell_python_a_database_and_openssl_print_what_they_print_on_the_host() {
    let tests = python_tests();
    let mut packages = packages("dash coreutils diffutils grep sed python3 sqlite3 openssl");
    packages.extend(tests.iter().map(String::as_str));
    let comparison = Comparison::new(&packages, &[&SHELL, &SQLITE, &OPENSSL, &MATHEMATICS]);
    comparison.agrees("debian-6.1", 512 << 20);
}

#[test]
fn programs_for_32_bit_processors_print_what_they_print_on_the_host() {
    let packages = packages(
        "dash:i386 coreutils:i386 diffutils:i386 grep:i386 sed:i386 sqlite3:i386 busybox-static:i386",
    );
    let comparison = Comparison::new(&packages, &[&SHELL, &SQLITE, &BUSYBOX]);
    for kernel in ["debian-6.1", "debian-6.12"] {
        comparison.agrees(kernel, 512 << 20);
    }
}

#[test]
#[ignore = "takes minutes: gcc alone unpacks 200 MB"]
fn a_compiler_prints_what_it_prints_on_the_host() {
    let packages = packages("dash coreutils grep gcc gcc-12 libc6 libc6-dev binutils");
    Comparison::new(&packages, &[&COMPILER]).agrees("debian-6.1", 1536 << 20);
}

#[test]
#[ignore = "takes minutes: the long ones of Python's tests, and x87 instead of SSE"]
fn python_in_full_prints_what_it_prints_on_the_host() {
    let tests = python_tests();
    let test_files = || tests.iter().map(String::as_str);
    let wide = packages("dash coreutils python3").into_iter().chain(test_files()).collect::<Vec<_>>();
    Comparison::new(&wide, &[&MATHEMATICS_IN_FULL]).agrees("debian-6.1", 512 << 20);
    let narrow = packages("dash:i386 coreutils:i386 python3:i386").into_iter().chain(test_files());
    Comparison::new(&narrow.collect::<Vec<_>>(), &[&MATHEMATICS]).agrees("debian-6.1", 512 << 20);
}

/// A run in which the program must end with status 0, and write what is then promised by fsync and found.
fn writes(program: &str, argv: &str, kernel: &str) {
    let text = format!(
        r#"
name = "program-{program}"
[machine]
kernel = "{kernel}"
memory = "512M"
programs = ["dash", "coreutils", "{program}"]
[[nvdimm]]
size = "64M"
[filesystem]
type = "ext4"
mount = "dax=always"
[[step]]
create = {{ file = "a", size = "4K" }}
[[step]]
exec = {argv}
[[step]]
fsync = "a"
[crash]
points = ["promises"]
budget = 8
states = 4
"#
    );
    let scenario = Scenario::parse(&text, program).unwrap_or_else(|error| panic!("{error}"));
    let report = run(&scenario, &jobs(1));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
}

#[test]
fn dash_and_coreutils_run_on_both_kernels() {
    let script = r#"["/bin/dash", "-c", "test \"$(printf 'b\\na\\n' | /usr/bin/sort | /usr/bin/sha256sum)\" = '911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2  -' && test $(/usr/bin/seq 1 100 | /usr/bin/wc -l) = 100"]"#;
    for kernel in ["debian-6.1", "debian-6.12"] {
        writes("dash", script, kernel);
    }
}
