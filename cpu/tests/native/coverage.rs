//! The list in the docs of what is compared with hardware and what deviates, and the check that no form that CPUID
//! offers is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{
    case::LAYOUT,
    cases,
    features::Offered,
    forms::{self, Set},
    guest::Guest,
    operands::Form,
    random::Random,
    skips, transcendental,
};
use iced_x86::{Code, Mnemonic};

/// Instances of a form that are tried.
const INSTANCES: usize = 16;

/// Where hardware of the two vendors differs, or the SDM leaves something open: what, and what this model does. Each
/// has its exception in `cpu/tests/native/skips.rs` or `x87.rs`.
const DEVIATIONS: [(&str, &str); 33] = [
    (
        "RCPPS, RCPSS, RSQRTPS, RSQRTSS",
        "within the documented error; compared within twice that (SDM vol. 2, RCPPS)",
    ),
    (
        "FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1",
        "correctly rounded; hardware is compared within one unit in the last place (SDM vol. 1, 8.3.10), C1 and PE of an exact result not at all, operands outside of the documented range not at all",
    ),
    (
        "FCOMI, FUCOMI with an unmasked exception",
        "flags stay (SDM); AMD sets them. C1 is cleared; AMD leaves it",
    ),
    ("FCOM, FUCOM, FICOM, FTST with an unmasked exception", "C0, C2, C3 stay (SDM); AMD sets them"),
    (
        "Last x87 instruction and operand",
        "always kept, as by Intel; AMD keeps them only while an exception is pending, and then they are compared. The opcode is kept for unmasked exceptions alone",
    ),
    ("Near branch with an operand size prefix in 64-bit code", "64 bits, as by Intel; 16 on AMD"),
    ("LSS, LFS, LGS, far JMP and CALL with REX.W", "64-bit offsets, as by Intel; AMD has none"),
    (
        "Far CALL in 64-bit code without REX.W",
        "uses all of RSP; AMD 32 bits of it, and it leaves what it pushed before a fault",
    ),
    ("Far returns", "check the selector before the outer stack is read (SDM); AMD reads first"),
    ("MOVSXD r16, m", "reads 2 bytes, as by Intel; 4 on AMD"),
    ("0F 0D with a register", "a NOP, as by Intel; #UD on AMD, where it was 3DNow!"),
    ("SHLD, SHRD of a word by more than 16", "undefined (SDM): not compared"),
    ("LOOPE with F2, LOOPNE with F3", "the prefix is ignored; AMD takes it for the condition"),
    ("INT1", "reported behind the instruction (SDM); under a hypervisor in front of it"),
    ("LOCK on VERR, VERW", "#UD (SDM vol. 2, LOCK); AMD executes them"),
    (
        "An unaligned operand on a page that is not there, with alignment checks",
        "#PF (SDM vol. 3, table 6-2); #AC on AMD",
    ),
    ("FXSAVE, FXRSTOR to an unaligned area with alignment checks", "#GP; the SDM allows #AC, AMD raises it"),
    (
        "An undefined instruction that is also too long or goes on in a page that is not there",
        "one of the faults, as is the processor's choice",
    ),
    (
        "Which part of FNSTENV, FNSAVE, FXSAVE or of a far transfer CR2 names",
        "any: the order is the processor's own",
    ),
    (
        "Flags of a repeated string comparison that faults",
        "those from before it (SDM); AMD leaves those of the last iteration",
    ),
    (
        "PUSH of a segment register with 32 bits",
        "writes 2 bytes and leaves the others (SDM vol. 2, PUSH); AMD writes 4",
    ),
    ("PUSHA that faults", "has pushed nothing; AMD leaves what it pushed before the fault"),
    ("POPA that faults", "has popped nothing; AMD has loaded what it popped before the fault"),
    (
        "RETF with an immediate on a 16-bit stack",
        "moves SP (SDM); on AMD there is a carry into the upper half of ESP",
    ),
    (
        "Near and far CALL out of the code segment",
        "refused before anything is pushed (SDM); AMD pushes first, so that a fault of the stack comes first",
    ),
    (
        "Far CALL from 32-bit or 16-bit code to 64-bit code",
        "pushes on the stack of the caller's mode (SDM); AMD by all of RSP, whose upper half is undefined there: not compared",
    ),
    (
        "A far pointer whose selector lies behind the limit",
        "refused before its offset is read; AMD reads the offset first",
    ),
    ("SYSRET outside of 64-bit mode at CPL 3", "#UD (SDM); #GP on AMD"),
    ("MASKMOVQ that faults", "has entered MMX state, as on AMD; the SDM leaves it open"),
    (
        "Operands that go on from 4 GiB to 0",
        "wrap around; whether they may is the processor's choice (SDM vol. 3, 5.3): not compared",
    ),
    (
        "x87 state across the end of the canonical addresses",
        "#GP before any page fault, as for every other operand; AMD accesses the first parts first",
    ),
    ("RPL of a null selector", "kept until an IRET clears it; not compared"),
    (
        "CPUID, RDTSC, RDTSCP, RDRAND, RDSEED",
        "values of the model's own; only their width and the flags are compared",
    ),
];

/// Forms that the comparison never runs on the host, and the test that covers them instead.
const OWN_TESTS: [(&str, &str); 5] = [
    ("Syscall", "cpu/src/tests/traps.rs, cpu/src/tests/single_step.rs"),
    ("Sysenter", "cpu/src/tests/modes/compatibility.rs"),
    ("Smsw", "cpu/src/tests/modes/real.rs"),
    ("Str", "cpu/src/tests/control.rs"),
    ("Sgdt, Sidt, Sldt", "cpu/src/tests/tables.rs"),
];

fn offered(guest: &mut Guest) -> Offered {
    Offered::new(|leaf| guest.cpuid(leaf))
}

/// Raises #UD by definition (outside of system management mode, at CPL 3, always), or calls a kernel, of which there
/// is none here.
fn is_not_tried(form: Form) -> bool {
    use Mnemonic as M;
    match form.code.mnemonic() {
        M::Ud0 | M::Ud1 | M::Ud2 | M::Rsm | M::Stac | M::Clac | M::Syscall | M::Sysenter => true,
        M::Sysret => form.bits != 64,
        _ => false,
    }
}

/// Vectors that instances of a form end with.
fn vectors(guest: &mut Guest, form: Form, memory: &[u8], random: &mut Random) -> Vec<u8> {
    let made = (0..INSTANCES).filter_map(|_| cases::of_form(form, memory, random));
    let of_form: Vec<_> = made.filter(|made| made.instruction.code() == form.code).collect();
    of_form.iter().filter_map(|made| guest.run(&made.case)).map(|outcome| outcome.vector).collect()
}

#[test]
fn every_form_that_cpuid_offers_executes_and_no_other_does() {
    let mut guest = Guest::new(true);
    let offered = offered(&mut guest);
    let memory = vec![0x5a; LAYOUT.memory_len()];
    let mut random = Random::new(11);
    let (mut missing, mut extra, mut checked) = (Vec::new(), Vec::new(), (0, 0));
    let all = [64, 32, 16].into_iter().flat_map(|bits| Code::values().map(move |code| Form { code, bits }));
    for form in all.filter(|form| forms::is_valid(form.code, form.bits)) {
        let code = form.code;
        if offered.has(code) && !is_not_tried(form) {
            let vectors = vectors(&mut guest, form, &memory, &mut random);
            // None: a form that only processors of another vendor read, or an instruction with its WAIT.
            checked.0 += !vectors.is_empty() as u32;
            if !vectors.is_empty() && vectors.iter().all(|vector| *vector == 6) {
                missing.push(form);
            }
        } else if !offered.has(code) && !skips::has_older_meaning(code.mnemonic()) {
            let vectors = vectors(&mut guest, form, &memory, &mut random);
            checked.1 += !vectors.is_empty() as u32;
            // Its bytes may cross into a page that is not there, or leave a segment with a limit.
            let executed = |vector: &u8| !matches!(vector, 6 | 14) && (*vector != 13 || form.bits == 64);
            if vectors.iter().any(executed) {
                extra.push(form);
            }
        }
    }
    eprintln!("{} forms execute, {} that are not offered do not", checked.0, checked.1);
    assert!(missing.is_empty(), "offered by CPUID, but undefined: {missing:?}");
    assert!(extra.is_empty(), "not offered by CPUID, but executed: {extra:?}");
}

/// The list as it stands in the docs.
fn list() -> String {
    let mut guest = Guest::new(false);
    let offered = offered(&mut guest);
    let mut text = String::new();
    text.push_str(
        "# What of the processor is compared with hardware\n\n\
         Generated by `cpu/tests/native` from the model's own CPUID answer and iced-x86's tables of instruction forms: \
         `PMEMSIM_NATIVE_LIST=1 cargo test --release -p cpu --test native list`. The test without that variable checks \
         that this file is what it would write.\n\n\
         Natively means: executed on the processor that runs the test and on ours, in user mode of 64-bit code and, in \
         the same process, of 32-bit and 16-bit code in segments of an LDT, with random registers, flags, memory, segments, prefixes, alignment checks, single steps and faulting addresses; \
         registers, flags, segments, memory, x87 and SSE state and the exception must agree. In addition random bytes \
         are executed on both.\n\n\
         ## Forms that CPUID offers\n\n\
         | set | 64-bit code | of these natively | 32-bit code | natively | 16-bit code | natively |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let mut own: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for set in Set::ALL {
        let of = |bits| {
            let forms = forms::offered(&offered, bits);
            forms
                .into_iter()
                .filter(|form| Set::of(form.code) == set)
                .map(|form| form.code)
                .collect::<Vec<_>>()
        };
        let every = [64, 32, 16].into_iter().flat_map(of).collect::<BTreeSet<_>>();
        for code in every {
            if let Some(why) = skips::form(code) {
                own.entry(why).or_default().push(format!("{code:?}"));
            }
        }
        let _ = write!(text, "| {} |", set.name());
        for bits in [64, 32, 16] {
            let forms = of(bits);
            let native = forms.iter().filter(|code| skips::form(**code).is_none()).count();
            let _ = write!(text, " {} | {native} |", forms.len());
        }
        text.push('\n');
    }
    text.push_str("\n## Not run natively\n\n");
    for (why, forms) in &own {
        let _ = writeln!(text, "- {why}: {}.", forms.join(", "));
    }
    text.push_str("\nTheir own tests:\n\n");
    for (name, test) in OWN_TESTS {
        let _ = writeln!(text, "- {name}: {test}.");
    }
    text.push_str(
        "\nPrivileged instructions are run natively as far as user mode goes, where they must be refused; what they do \
         is tested in `cpu/src/tests`.\n\n\
         ## Where processors differ, and what this one does\n\n| what | this model |\n|---|---|\n",
    );
    for (what, model) in DEVIATIONS {
        let _ = writeln!(text, "| {what} | {model} |");
    }
    text.push_str(&measured());
    text
}

/// How often the last place of an x87 result differs.
fn measured() -> String {
    let of = |(code, different): (Code, u64)| format!("{:?} {different}", code.mnemonic()).to_uppercase();
    let counts = transcendental::MEASURED.map(of).join(", ");
    format!(
        "\n## x87 results that are rounded otherwise\n\nOf {} random operands each (seed {}, rounding to nearest, 64 bits \
         of precision) the result differed from that of {} in its last place, and never by more: {counts}. The test \
         measures anew and fails when it is more than one unit, or more than twice as often and one in a hundred.\n",
        transcendental::INSTANCES,
        transcendental::SEED,
        transcendental::HOST,
    )
}

#[test]
fn the_list_in_the_docs_is_what_the_tests_do() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cpu-coverage.md");
    let list = list();
    if std::env::var_os("PMEMSIM_NATIVE_LIST").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).expect("docs can be made");
        std::fs::write(path, &list).expect("the list can be written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == list, "docs/cpu-coverage.md is old: write it anew with PMEMSIM_NATIVE_LIST=1");
}
