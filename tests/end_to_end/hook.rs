//! The library: a machine with a hook, and power cuts from a test.

use pmemsim::{EventKind, Machine, Survives, Then};

#[test]
fn a_hook_fails_a_flush_and_cuts_the_power_behind_the_next() {
    let mut machine = Machine::builder()
        .kernel("debian-6.1")
        .virtio_pmem(16 << 20)
        .sh("printf first > /dev/pmem0; sync /dev/pmem0 || echo told
             printf second > /dev/pmem0; sync /dev/pmem0 && echo synced; sleep 1")
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let start = machine.regions()[0].start;
    let (mut failed, mut answers) = (false, Vec::new());
    let end = machine.run(|event| match event.kind {
        EventKind::Store { addr, .. } if addr == start && !failed => {
            failed = true;
            Then::FailNextFlush
        }
        EventKind::DeviceFlushCompleted { status, .. } => {
            answers.push(status);
            if failed && status == 0 { Then::Cut } else { Then::Continue }
        }
        _ => Then::Continue,
    });
    assert!(end.expect("the guest goes on").is_cut());
    assert!(machine.console().contains("told"), "{}", machine.console());
    assert!(answers.iter().any(|status| *status != 0), "{answers:?}");
    // What the second flush covered is durable; nothing that was in flight has to be.
    assert_eq!(&machine.media(Survives::Durable)[0][..6], b"second");
}
