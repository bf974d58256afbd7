use persist::{DrainKind, EventKind, StorePath};
use proptest::prelude::*;

use super::*;

fn kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40), any::<u64>()).prop_map(
            |(addr, bytes, rep)| EventKind::Store {
                addr,
                bytes: bytes.into(),
                path: StorePath::CachedRep(rep)
            }
        ),
        Just(EventKind::Drain(DrainKind::Sfence)),
        any::<u32>().prop_map(|id| EventKind::Promise { id }),
    ]
}

/// Ascending numbers with gaps, anything else.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (1_u64..4, any::<(u8, u8, u64, u64, u32)>(), kind());
    proptest::collection::vec(event, 0..60).prop_map(|events| {
        let mut seq = 0;
        let event = |(step, (vcpu, cpl, rip, retired, copy_call), kind)| {
            seq += step;
            Event { seq: seq - 1, origin: Origin { vcpu, cpl, rip, retired, copy_call }, kind }
        };
        events.into_iter().map(event).collect()
    })
}

fn kept(events: &[Event], chunk: usize, in_memory: usize, scratch: &Path) -> Events {
    let mut kept = Events { chunk, in_memory, ..Events::new(scratch) };
    kept.extend(events.iter().cloned()).expect("there is room");
    kept
}

proptest! {
    #[test]
    fn events_are_the_same_in_memory_compressed_and_in_a_file(
        events in events(),
        chunk in 1_usize..20,
        in_memory in 0_usize..2000,
        ends in (0_u64..150, 0_u64..150),
    ) {
        let scratch = tempfile::tempdir().expect("a directory");
        let kept = kept(&events, chunk, in_memory, scratch.path());
        prop_assert_eq!(kept.len(), events.len() as u64);
        prop_assert_eq!(kept.last_seq(), events.last().map(|event| event.seq));
        prop_assert_eq!(kept.iter().collect::<Vec<_>>(), events.clone());
        let inside = |event: &Event| (ends.0..ends.1).contains(&event.seq);
        let between: Vec<Event> = events.iter().filter(|event| inside(event)).cloned().collect();
        prop_assert_eq!(kept.between(ends.0, ends.1).collect::<Vec<_>>(), between);
        prop_assert!(kept.check().is_ok());
    }

    #[test]
    fn what_is_taken_out_is_gone_and_the_rest_keeps_its_numbers(
        events in events(),
        chunk in 1_usize..20,
        in_memory in 0_usize..2000,
    ) {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut kept = kept(&events, chunk, in_memory, scratch.path());
        let wanted = |event: &Event| event.kind == EventKind::Drain(DrainKind::Sfence);
        let taken = kept.take_out(wanted).expect("there is room");
        let (fences, rest): (Vec<Event>, Vec<Event>) = events.into_iter().partition(wanted);
        prop_assert_eq!(taken, fences);
        prop_assert_eq!(kept.iter().collect::<Vec<_>>(), rest);
    }
}

fn fences(count: u64) -> impl Iterator<Item = Event> {
    let kind = EventKind::Drain(DrainKind::Sfence);
    (0..count).map(move |seq| Event { seq, origin: Origin::default(), kind: kind.clone() })
}

#[test]
fn no_more_stays_in_memory_than_is_said_and_the_file_has_no_name() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events: Vec<Event> = fences(5000).collect();
    let kept = kept(&events, 100, 500, scratch.path());
    assert!(kept.held <= 500 && kept.last.len() < 100, "{} bytes, {} events", kept.held, kept.last.len());
    assert!(kept.written > 0);
    assert_eq!(std::fs::read_dir(scratch.path()).expect("a directory").count(), 0);
    assert_eq!(kept.iter().count(), 5000);
}

#[test]
fn a_file_that_cannot_be_made_is_an_error_that_says_where() {
    let scratch = tempfile::NamedTempFile::new().expect("a file");
    let mut kept = Events { chunk: 10, in_memory: 0, ..Events::new(scratch.path()) };
    let error = kept.extend(fences(10)).expect_err("a file is no directory").to_string();
    assert!(
        error.contains("cannot write") && error.contains(&scratch.path().display().to_string()),
        "{error}"
    );
}

#[test]
fn a_full_disk_is_an_error() {
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut kept = Events { chunk: 10, in_memory: 0, file: Some(full), ..Events::new(Path::new("/dev")) };
    let error = kept.extend(fences(10)).expect_err("it is full").to_string();
    assert!(error.contains("No space left on device"), "{error}");
}

#[test]
fn what_cannot_be_read_again_ends_the_events_and_is_told() {
    let scratch = tempfile::tempdir().expect("a directory");
    let events: Vec<Event> = fences(35).collect();
    let kept = kept(&events, 10, 0, scratch.path());
    kept.file.as_ref().expect("a file").set_len(kept.written / 2).expect("it gets shorter");
    assert!(kept.iter().count() < 35);
    let error = kept.check().expect_err("it is known").to_string();
    assert!(error.contains("cannot read"), "{error}");
}
