//! What a person may change, and when the row is due after it.

use super::*;
use crate::backup::{Change, patched};

/// A completed backup of which nothing is left to be done.
fn rests() -> Backup {
    Backup { outbox: Vec::new(), ..completed() }
}

fn expires(days: Option<u16>) -> Change {
    Change { expires_in_days: Some(days), ..Change::default() }
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let mut row = rests();
    (row.remarks, row.expires_at, row.due_at) = (Some("r".into()), Some(after(9)), Some(after(9)));
    row.pinned_by = Some(RestoreId(1));
    let named = Change { name: Some("new".into()), ..Change::default() };
    let next = patched(&row, &named, NOW).expect("patched");
    assert_eq!(next, Backup { name: "new".into(), ..row.clone() });
    let bare = Change { remarks: Some(None), ..Change::default() };
    assert_eq!(patched(&row, &bare, NOW), Ok(Backup { remarks: None, ..row.clone() }));
    let next = patched(&row, &expires(Some(2)), after(5)).expect("patched");
    let expiry = Some(after(5) + Seconds::days(2));
    assert_eq!(next, Backup { expires_at: expiry, due_at: expiry, ..row.clone() });
    let next = patched(&row, &expires(None), NOW).expect("patched");
    assert_eq!(next, Backup { expires_at: None, due_at: None, ..row });
}

#[test]
fn what_is_being_deleted_cannot_be_patched() {
    let refusal = patched(&deleting(), &expires(None), NOW).expect_err("refused");
    assert_eq!(refusal.code, Code::BackupDeleting);
}

#[test]
fn a_patch_takes_nothing_unfinished_out_of_the_index() {
    // It runs: its operation's time stays, and the expiry waits for its end.
    let mut running = in_progress(&[3]);
    (running.expires_at, running.due_at) = (Some(after(9)), Some(after(60)));
    for days in [None, Some(1)] {
        assert_eq!(
            patched(&running, &expires(days), NOW).map(|row| row.due_at),
            Ok(Some(after(60)))
        );
    }
    // Something is left to be said, at a time of its own.
    let mut row = rests();
    row.announce_requested(NOW);
    (row.expires_at, row.due_at) = (Some(after(999)), Some(after(60)));
    for days in [None, Some(1)] {
        assert_eq!(patched(&row, &expires(days), NOW).map(|row| row.due_at), Ok(Some(after(60))));
    }
    // Or at one that the expiry hid.
    row.due_at = row.expires_at;
    for days in [None, Some(1)] {
        assert_eq!(patched(&row, &expires(days), NOW).map(|row| row.due_at), Ok(Some(NOW)));
    }
    // Of a failed one: perhaps it waits for older ones to be pruned.
    let mut row = Backup { status: Status::Failed, due_at: Some(after(120)), ..rests() };
    row.expires_at = None;
    for days in [None, Some(1)] {
        assert_eq!(patched(&row, &expires(days), NOW).map(|row| row.due_at), Ok(Some(after(120))));
    }
    (row.expires_at, row.due_at) = (Some(after(999)), Some(after(999)));
    assert_eq!(patched(&row, &expires(None), NOW).map(|row| row.due_at), Ok(Some(NOW)));
    // An expiry that there was not before, and one that comes sooner.
    let mut row = rests();
    row.due_at = None;
    let day = Some(NOW + Seconds::days(1));
    assert_eq!(patched(&row, &expires(Some(1)), NOW).map(|row| row.due_at), Ok(day));
}
