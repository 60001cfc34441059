//! A completed backup of which a snapshot may be gone.

use super::*;
use crate::limits::MISSING_AGAIN;

const GONE: &str = "snap-30";

/// A completed backup, of which EC2 said at `NOW` that a snapshot is not there.
fn noted_at_now() -> Backup {
    note_missing(&completed(), &SnapshotId::from(GONE), NOW).expect("remembered")
}

fn seen(presence: Presence) -> Seen {
    Seen { snapshots: [(SnapshotId::from(GONE), presence)].into(), ..Seen::default() }
}

fn again() -> Time {
    NOW + MISSING_AGAIN
}

#[test]
fn only_a_completed_backup_that_names_it_and_is_not_pinned_remembers_a_missing_snapshot() {
    let note = |row: &Backup, id: &str| note_missing(row, &SnapshotId::from(id), NOW);
    let row = completed();
    assert_eq!(note(&row, "snap-other"), None);
    assert_eq!(note(&Backup { pinned_by: Some(RestoreId(1)), ..row.clone() }, GONE), None);
    for status in Status::ALL.iter().filter(|status| **status != Status::Completed) {
        assert_eq!(note(&Backup { status: *status, ..row.clone() }, GONE), None);
    }
    // The hour counts from the first answer.
    let later = note_missing(&noted_at_now(), &SnapshotId::from(GONE), after(60));
    assert_eq!(later, None);
}

#[test]
fn a_second_not_found_an_hour_later_fails_the_backup_and_leaves_its_other_snapshots() {
    let row = noted_at_now();
    let early = after(MISSING_AGAIN.0 - 1);
    assert!(look(&row, early).is_empty(), "before the hour is over nothing is asked");
    let Step::Wait { until, note: None } = go(&row, &Seen::default(), early) else {
        panic!("decided too early")
    };
    assert!(until >= again());
    // Nor does a second answer count that comes too early.
    assert!(matches!(go(&row, &seen(Presence::NotFound), early), Step::Wait { .. }));

    let asked = look(&row, again());
    assert_eq!(asked.snapshots, [SnapshotId::from(GONE)]);
    assert!(asked.confirm_missing);
    let row = recorded(go(&row, &seen(Presence::NotFound), again()));
    assert_eq!(failed(&row), FailureCode::SnapshotMissing);
    assert_eq!(row.completed_at, None);
    assert!(row.is_lost());

    // Nothing more is asked, nothing is deleted, and the row still names all.
    assert!(look(&row, after(100_000)).is_empty());
    assert_eq!(go(&row, &Seen::default(), after(100_000)), Step::Rest);
    assert_eq!(row.snapshots().count(), 2);
}

#[test]
fn one_that_fails_before_it_was_complete_is_removed_as_ever() {
    let mut row = in_progress(&[3]);
    row.fail(FailureCode::SnapshotMissing, "r".into(), NOW);
    assert!(!row.is_lost() && row.removal_open());
    let (_, actions) = acted(go(&row, &there(&row, "completed", 100), NOW));
    assert_eq!(actions.len(), 2);
}

#[test]
fn a_snapshot_that_is_there_again_is_forgotten_as_missing() {
    let back = Presence::There(snapshot(3, 0, 1, "completed", 100));
    let row = recorded(go(&noted_at_now(), &seen(back), again()));
    assert_eq!((row.status, row.missing.as_ref()), (Status::Completed, None));
    assert_eq!(go(&row, &Seen::default(), again()), Step::Rest);
}

#[test]
fn an_empty_list_an_error_and_a_missing_right_never_fail_a_backup() {
    let row = noted_at_now();
    let kept = |step: Step| match step {
        Step::Wait { until, note } => {
            assert!(until > again());
            assert!(
                note.is_none_or(|row| row.status == Status::Completed && row.missing.is_some())
            );
        }
        other => panic!("{other:?}"),
    };
    kept(go(&row, &seen(Presence::Unlisted), again()));
    kept(go(&row, &Seen::default(), again()));
    for error in [
        CallError::Unknown("u".into()),
        CallError::Throttled { code: "RequestLimitExceeded".into() },
        CallError::Rejected { code: "UnauthorizedOperation".into(), message: "m".into() },
    ] {
        kept(step(&row, Err(&error), &Limits::default(), again()));
    }
}

#[test]
fn while_a_restore_needs_it_a_backup_is_not_called_failed() {
    let row = Backup { pinned_by: Some(RestoreId(1)), ..noted_at_now() };
    assert!(look(&row, again()).is_empty());
    assert!(matches!(go(&row, &seen(Presence::NotFound), again()), Step::Wait { .. }));
    let free = Backup { pinned_by: None, ..row };
    assert!(recorded(go(&free, &seen(Presence::NotFound), again())).is_lost());
}

#[test]
fn one_failed_for_a_missing_snapshot_is_deleted_by_its_user_with_all_that_is_left() {
    let row = recorded(go(&noted_at_now(), &seen(Presence::NotFound), again()));
    let Ok(Deletion::Begin(row)) = start_delete(&row) else { panic!("not deletable") };
    assert_eq!(row.missing, None);
    let (_, actions) = acted(go(&row, &there(&row, "completed", 100), again()));
    assert_eq!(actions.len(), 2);
}
