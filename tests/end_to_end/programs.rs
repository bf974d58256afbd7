//! Debian's programs run unchanged in the guest.

use explore::{Scenario, Verdict};

use crate::support::{jobs, run};

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

#[test]
fn python_computes_on_debian_6_1() {
    let script = r#"["/usr/bin/python3", "-c", "import math, struct, json; assert math.isclose(math.sin(1.0), 0.8414709848078965, rel_tol=0, abs_tol=0); assert struct.pack('<d', math.pi).hex() == '182d4454fb210940'; assert json.loads('[1.5, 2]') == [1.5, 2]; assert 2**521 % 1000007 == pow(2, 521, 1000007)"]"#;
    writes("python3", script, "debian-6.1");
}
