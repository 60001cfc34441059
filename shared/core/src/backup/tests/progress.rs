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

/// A backup in progress of which everybody knows; a slot's, or somebody's.
fn told(slot: Option<Time>) -> Backup {
    Backup { schedule_slot: slot, outbox: Vec::new(), ..in_progress(&[3]) }
}

/// The ages at which it is looked at, when nothing moves and no event says anything, with
/// what the shell and the tick add to each pause at most.
fn ages(row: &Backup, late: Seconds) -> Vec<i64> {
    let limits = Limits::default();
    let mut row = row.clone();
    let mut now = next_look(&row, &limits, NOW);
    let mut ages = Vec::new();
    loop {
        now = now + late;
        ages.push((now - NOW).0);
        match go(&row, &there(&row, "pending", 0), now) {
            Step::Wait { until, note } => {
                row = note.unwrap_or(row);
                now = until;
            }
            step => {
                assert_eq!(failed(&recorded(step)), FailureCode::DeadlineExceeded);
                return ages;
            }
        }
    }
}

#[test]
fn the_pause_between_looks_grows_with_what_it_waits_for() {
    let minutes = |row: &Backup| {
        ages(row, Seconds(0)).into_iter().map(|age| age / 60).take(7).collect::<Vec<_>>()
    };
    assert_eq!(minutes(&told(None)), [1, 2, 4, 8, 16, 26, 36]);
    assert_eq!(minutes(&told(Some(NOW))), [15, 30, 60, 90, 120, 150, 180]);
    // A lost event costs no more than it has taken so far, or the least pause.
    for (row, looks) in [(told(None), LOOKS), (told(Some(NOW)), LOOKS_OF_SCHEDULES)] {
        let ages = ages(&row, Seconds(0));
        for pair in ages.windows(2) {
            let pause = Seconds(pair[1] - pair[0]);
            assert!(pause <= Seconds(pair[0]).max(looks.least), "{pair:?}");
            assert!(pause <= looks.most, "{pair:?}");
        }
    }
}

#[test]
fn it_is_looked_at_when_its_deadline_comes() {
    let day = Limits::default().in_progress.0;
    for row in [told(None), told(Some(NOW))] {
        for late in [0, 7, 120] {
            let last = *ages(&row, Seconds(late)).last().expect("a look");
            assert_eq!(last, day + late, "the last look decides");
        }
    }
}

#[test]
fn what_is_to_be_announced_or_removed_does_not_wait_for_the_snapshots() {
    let (limits, soon) = (Limits::default(), NOW + Seconds::hours(2) + LOOKS.least);
    let at = |row: &Backup| next_look(row, &limits, NOW + Seconds::hours(2));
    let row = told(Some(NOW));
    assert!(at(&row) > soon);
    let announces = Backup { outbox: in_progress(&[3]).outbox, ..row.clone() };
    assert_eq!(at(&announces), soon);
    assert_eq!(at(&Backup { sweep_until: Some(soon), ..row }), soon);
}

/// 10,000 schedules due at once: so many looks a second, in the worst minute, of what
/// begins at the rate of the releases and ends all at one age.
#[test]
fn the_looks_at_ten_thousand_backups_leave_room_in_the_bucket_of_describes() {
    const HERD: i64 = 10_000;
    const REFILL: f64 = 20.0;
    let ages = ages(&told(Some(NOW)), Seconds(0));
    let begins: Vec<i64> = (0..HERD).map(|number| number * 60 / 285).collect();
    let (mut worst, mut copying) = (0.0_f64, 0.0);
    // By how long the snapshots take; the last ones move no more.
    for ends in [120, 480, 960, 1_830, 2_430, 3_630, 7_200, i64::MAX] {
        let mut looks = BTreeMap::new();
        for begin in &begins {
            let waits = ages.iter().filter(|age| **age < ends);
            let end = Some(ends).filter(|ends| *ends < i64::MAX);
            for age in waits.copied().chain(end) {
                *looks.entry((begin + age) / 60).or_insert(0_u32) += 1;
            }
        }
        let most = f64::from(looks.values().copied().max().unwrap_or(0)) / 60.0;
        (worst, copying) = (worst.max(most), most);
    }
    assert!((9.0..=0.5 * REFILL).contains(&copying), "{copying} a second");
    assert!((copying..=0.75 * REFILL).contains(&worst), "{worst} a second");
}
