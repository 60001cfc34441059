//! From the first snapshot to the last: what completes, what fails.

use super::*;

#[test]
fn completed_needs_each_snapshot_described_as_completed() {
    let row = in_progress(&[3]);
    let mut seen = there(&row, "completed", 100);
    if let Some(Presence::There(last)) = seen.snapshots.values_mut().last() {
        last.state = "pending".into();
    }
    let (_, note) = noted(go(&row, &seen, after(60)));
    assert_eq!((note.status, note.progress), (Status::InProgress, 99));
    let done = recorded(go(&row, &there(&row, "completed", 100), after(61)));
    assert_eq!((done.status, done.completed_at), (Status::Completed, Some(after(61))));
    assert_eq!(go(&done, &Seen::default(), after(62)), Step::Rest);
}

#[test]
fn one_failed_snapshot_fails_the_backup_and_all_of_it_is_removed() {
    let row = in_progress(&[3]);
    let mut seen = there(&row, "completed", 100);
    if let Some(Presence::There(last)) = seen.snapshots.values_mut().last() {
        last.state = "error".into();
    }
    let row = recorded(go(&row, &seen, after(60)));
    assert_eq!(failed(&row), FailureCode::SnapshotFailed);
    assert!(row.removal_open());
    let (mut row, actions) = acted(go(&row, &seen, after(61)));
    assert_eq!(actions.len(), 2);
    answer(&mut row, actions, |_| Outcome::Deleted, after(61));
    assert_eq!(row.status, Status::Failed);
    assert!(look(&row, after(62)).is_empty(), "a pause before the next look");
    let gone = absent(&row, &Presence::NotFound);
    let rest = recorded(go(&row, &gone, after(120)));
    assert!(!rest.removal_open());
    assert_eq!((rest.snapshots().count(), rest.size_bytes), (0, None));
    assert_eq!(go(&rest, &Seen::default(), after(121)), Step::Rest);
}

#[test]
fn a_missing_snapshot_counts_only_by_its_own_not_found_and_when_it_is_old_enough() {
    let row = in_progress(&[3]);
    let early = go(&row, &absent(&row, &Presence::NotFound), after(5));
    assert!(matches!(early, Step::Wait { .. }), "EC2 does not show it yet: {early:?}");
    let unlisted = go(&row, &absent(&row, &Presence::Unlisted), after(VISIBLE.0 + 60));
    assert!(matches!(unlisted, Step::Wait { .. }), "an empty list proves nothing: {unlisted:?}");
    let gone = recorded(go(&row, &absent(&row, &Presence::NotFound), after(VISIBLE.0)));
    assert_eq!(failed(&gone), FailureCode::SnapshotMissing);
}

#[test]
fn a_backup_that_does_not_move_for_a_day_fails_and_one_that_moves_does_not() {
    let limits = Limits::default();
    let row = in_progress(&[3]);
    let (_, moved) = noted(go(&row, &there(&row, "pending", 10), after(3600)));
    assert_eq!(moved.moved_at, Some(after(3600)));
    let day = NOW + limits.in_progress;
    let stuck = there(&moved, "pending", 10);
    assert!(matches!(go(&moved, &stuck, day), Step::Wait { .. }));
    let late = after(3600) + limits.in_progress;
    assert_eq!(failed(&recorded(go(&moved, &stuck, late))), FailureCode::DeadlineExceeded);
}

#[test]
fn looks_that_fail_back_off_and_keep_the_cause() {
    let row = in_progress(&[3]);
    let error = CallError::Unknown("HTTP 500".into());
    let (first, row) = noted(step(&row, Err(&error), &Limits::default(), NOW));
    let (second, _) = noted(step(&row, Err(&error), &Limits::default(), NOW));
    assert!(first < second);
    assert!(row.trouble.is_some());
}

#[test]
fn a_backup_is_completed_when_ec2_says_that_its_last_snapshot_was() {
    let row = in_progress(&[3]);
    let mut seen = there(&row, "completed", 100);
    for (presence, at) in seen.snapshots.values_mut().zip([70, 50]) {
        if let Presence::There(snapshot) = presence {
            snapshot.completed_at = Some(after(at));
        }
    }
    assert_eq!(recorded(go(&row, &seen, after(300))).completed_at, Some(after(70)));
    // EC2's answer came seconds after the look began.
    let early = recorded(go(&row, &seen, after(62)));
    assert_eq!(early.completed_at, Some(after(70)));
    // And what is told of it did not happen before it.
    assert_eq!(early.outbox.last().map(|told| told.at), Some(after(70)));
}
