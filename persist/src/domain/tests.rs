//! What drains and flushes do under `adr`, and what a crash point keeps.

use crate::testing::Execution;
use crate::{DrainKind, EventKind, FlushKind, Granularity, ModelFaults, Origin, Settings, StorePath};

const X: u64 = 0x1000;
const Y: u64 = 0x1040;

fn line() -> Execution {
    Execution::new(Granularity::Line)
}

#[test]
fn clflush_is_complete_once_another_instruction_was_executed() {
    let mut run = line();
    run.cached(X, 1);
    assert!(!run.flush(X, FlushKind::Clflush));
    assert_eq!(run.byte(X), [0, 1]);
    assert!(run.cached(Y, 1));
    assert_eq!(run.byte(X), [1]);
}

#[test]
fn promises_and_markers_do_not_complete_a_clflush() {
    let mut run = line();
    run.cached(X, 1);
    run.flush(X, FlushKind::Clflush);
    assert!(!run.event(EventKind::Marker { id: 0 }));
    assert!(!run.promise());
    assert_eq!(run.byte(X), [0, 1]);
    run.nop();
    assert!(run.promise(), "an instruction lies between");
    assert_eq!(run.byte(X), [1]);
}

#[test]
fn a_symbol_does_not_complete_a_clflush_right_before_it() {
    let mut run = line();
    run.cached(X, 1);
    run.flush(X, FlushKind::Clflush);
    assert!(!run.event(EventKind::Symbol { index: 0 }));
    assert!(
        run.event(EventKind::Symbol { index: 1 }),
        "the first instruction behind the symbol was executed"
    );
}

#[test]
fn another_processor_does_not_complete_a_clflush() {
    let mut run = line();
    run.cached(X, 1);
    run.flush(X, FlushKind::Clflush);
    run.origin.vcpu = 1;
    run.nop();
    assert!(!run.sfence());
    assert_eq!(run.byte(X), [0, 1]);
}

#[test]
fn a_processor_that_has_gone_on_has_completed_its_clflush() {
    let mut run = line();
    run.cached(X, 1);
    run.flush(X, FlushKind::Clflush);
    assert!(run.event(EventKind::Retired));
    assert_eq!(run.byte(X), [1]);
    run.cached(Y, 1);
    run.flush(Y, FlushKind::Clflush);
    run.origin.retired -= 1;
    assert!(!run.event(EventKind::Retired), "it stopped right behind the CLFLUSH");
}

fn strict(granularity: Granularity) -> Execution {
    Execution::with(Settings { granularity, strict_fences: true, ..Settings::default() })
}

#[test]
fn under_strict_fences_a_lock_hands_over_and_a_fence_anywhere_makes_durable() {
    let mut run = strict(Granularity::Line);
    run.cached(X, 1);
    run.clwb(X);
    run.store(Y, &[1; 8], StorePath::NonTemporal);
    assert!(!run.drain(DrainKind::Locked));
    let point = run.point();
    assert!(point.handed_over().iter().eq([0, 1]));
    assert_eq!(point.in_flight()[0].handed_over_by, Some(3));
    run.cached(X, 2);
    run.origin.vcpu = 1;
    assert!(run.sfence());
    assert_eq!((run.byte(X), run.byte(Y)), (vec![1, 2], vec![1]));
}

#[test]
fn under_strict_fences_what_was_not_handed_over_waits_for_its_own_processor() {
    let mut run = strict(Granularity::Line);
    run.cached(X, 1);
    run.clwb(X);
    run.drain(DrainKind::Serialising);
    run.cached(Y, 1);
    run.clwb(Y);
    run.origin.vcpu = 1;
    assert!(run.drain(DrainKind::Mfence));
    assert_eq!((run.byte(X), run.byte(Y)), (vec![1], vec![0, 1]));
}

#[test]
fn strict_fences_leave_clflush_alone() {
    let mut run = strict(Granularity::Line);
    run.cached(X, 1);
    run.flush(X, FlushKind::Clflush);
    assert!(run.cached(Y, 1));
    assert_eq!(run.byte(X), [1]);
}

#[test]
fn under_strict_fences_wbinvd_hands_over() {
    let mut run = strict(Granularity::Line);
    run.cached(X, 1);
    assert!(!run.drain(DrainKind::WriteBackAll));
    assert!(run.sfence());
    assert!(run.point().in_flight().is_empty());
}

#[test]
fn a_clflush_covers_only_what_was_stored_before_it() {
    let mut run = line();
    run.cached(X, 1);
    run.flush(X, FlushKind::Clflush);
    run.cached(X, 2);
    assert_eq!(run.byte(X), [1, 2]);
}

#[test]
fn any_processor_can_write_back_what_an_agent_stored() {
    let mut run = line();
    run.origin.vcpu = Origin::DEVICE;
    run.store(X, &[1; 100], StorePath::Agent);
    assert_eq!((run.byte(X), run.byte(Y)), (vec![0, 1], vec![0, 1]));
    run.origin.vcpu = 1;
    run.clwb(X);
    assert!(run.sfence());
    assert_eq!((run.byte(X), run.byte(Y)), (vec![1], vec![0, 1]));
}

#[test]
fn wbinvd_writes_back_the_lines_that_its_processor_stored_last() {
    let mut run = line();
    run.cached(X, 1);
    run.cached(Y, 1);
    run.origin.vcpu = 1;
    run.cached(Y + 8, 1);
    run.origin.vcpu = 0;
    assert!(run.drain(DrainKind::WriteBackAll));
    assert_eq!((run.byte(X), run.byte(Y)), (vec![1], vec![0, 1]));
}

#[test]
fn iterations_of_one_rep_execution_are_unordered() {
    let mut run = line();
    run.cached(X, 1);
    for byte in 0..2 {
        run.store(X + 1 + byte, &[1], StorePath::CachedRep(7));
    }
    run.cached(X + 3, 1);
    // 0, then 1 with any of the two iterations, then all.
    assert_eq!(run.point().count().states, 6);
    assert!(run.point().closure([2]).iter().eq([0, 2]));
}

#[test]
fn a_store_between_iterations_orders_them() {
    let mut run = line();
    run.store(X, &[1], StorePath::CachedRep(7));
    run.cached(X + 8, 1);
    run.store(X + 1, &[1], StorePath::CachedRep(7));
    assert_eq!(run.point().count().states, 4);
}

#[test]
fn a_drain_covers_what_a_flushed_part_comes_after() {
    let mut run = line();
    run.store(X, &[1; 8], StorePath::NonTemporal);
    run.origin.vcpu = 1;
    run.cached(X, 2);
    run.clwb(X);
    assert!(run.sfence());
    assert!(run.point().in_flight().is_empty());
}

#[test]
fn a_flush_that_failed_to_be_fenced_is_named() {
    let mut run = line();
    run.cached(X, 1);
    run.clwb(X);
    run.clwb(X);
    run.cached(X, 2);
    let point = run.point();
    let flushed: Vec<_> = point.in_flight().iter().map(|part| part.flushed_by).collect();
    assert_eq!(flushed, [Some(1), None]);
}

#[test]
fn parts_of_one_epoch_have_equal_numbers() {
    let mut run = line();
    run.cached(X, 1);
    run.sfence();
    run.cached(X, 2);
    run.store(Y, &[1; 8], StorePath::NonTemporal);
    run.sfence();
    run.cached(X, 3);
    let epochs: Vec<u64> = run.point().in_flight().iter().map(|part| part.epoch).collect();
    assert_eq!(epochs, [0, 0, 1]);
}

#[test]
fn a_crash_point_stays_what_it_was() {
    let mut run = line();
    run.cached(X, 1);
    run.clwb(X);
    run.sfence();
    run.cached(X, 2);
    let before = run.point();
    let (contents, id) = (before.line_contents(X, 10), before.state_id(&before.everything()));
    run.clwb(X);
    run.sfence();
    run.cached(X, 3);
    assert_eq!(before.line_contents(X, 10), contents);
    assert_eq!(before.state_id(&before.everything()), id);
    assert_eq!(before.in_flight()[0].flushed_by, None);
    assert_eq!(before.durable_line(X)[0], 1);
}

fn faulty(faults: ModelFaults) -> Execution {
    Execution::with(Settings { faults, ..Settings::default() })
}

#[test]
fn a_model_can_be_broken_to_take_stores_as_durable() {
    let mut run = faulty(ModelFaults { stores_are_durable: true, ..ModelFaults::default() });
    assert!(run.cached(X, 1));
    assert!(run.store(Y, &[1; 8], StorePath::NonTemporal));
    run.origin = Origin { copy_call: 1, ..Origin::default() };
    assert!(run.store(X, &[2; 8], StorePath::NonTemporal));
    assert!(run.point().in_flight().is_empty());
}

#[test]
fn a_model_can_be_broken_to_ignore_sfence() {
    let mut run = faulty(ModelFaults { ignore_sfence: true, ..ModelFaults::default() });
    run.cached(X, 1);
    run.clwb(X);
    assert!(!run.sfence());
    assert!(run.drain(DrainKind::Mfence));
}

#[test]
fn a_model_can_be_broken_to_drain_at_promises() {
    for promises_drain in [false, true] {
        let mut run = faulty(ModelFaults { promises_drain, ..ModelFaults::default() });
        run.cached(X, 1);
        run.clwb(X);
        assert_eq!(run.promise(), promises_drain);
    }
}

#[test]
fn a_poisoned_line_makes_another_state_until_it_is_cleared_to_zeros() {
    let mut run = line();
    run.cached(X, 1);
    let point = run.point();
    let before = point.state_id(&point.nothing());
    assert!(run.event(EventKind::Poisoned { addr: X, len: 64 }));
    assert!(!run.event(EventKind::Poisoned { addr: X, len: 64 }), "it was so before");
    let point = run.point();
    assert_eq!(point.poisoned(), [X]);
    assert_eq!(point.content(&point.everything()).poisoned(), [X]);
    assert_ne!(point.state_id(&point.nothing()), before);
    assert!(run.event(EventKind::PoisonCleared { addr: X, len: 128 }));
    let point = run.point();
    assert!(point.poisoned().is_empty());
    assert_eq!(run.byte(X), [0], "what was in flight has no effect any more");
    run.cached(X, 2);
    assert_eq!(run.byte(X), [0, 2]);
}

#[test]
fn a_machine_that_comes_up_on_a_content_has_its_poison() {
    let mut run = line();
    run.event(EventKind::Poisoned { addr: Y, len: 64 });
    let point = run.point();
    let content = point.content(&point.nothing());
    let again = line().domain.holding(&content).crash_point();
    assert_eq!(again.poisoned(), [Y]);
    assert_eq!(again.state_id(&again.nothing()), point.state_id(&point.nothing()));
}
