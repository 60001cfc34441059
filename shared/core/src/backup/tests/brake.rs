//! What an operator has paused: which calls are left out, and which deadlines wait.

use super::*;
use crate::brake::{Brake, HELD, Switch};

/// The limits while this has been paused since then.
fn paused(switch: Switch, since: i64) -> Limits {
    let mut brake = Brake::default();
    brake.pause(switch, false, None, after(since));
    Limits { hold: brake.hold(), ..Limits::default() }
}

fn under(limits: &Limits, backup: &Backup, seen: &Seen, now: Time) -> Step {
    step(backup, Ok(seen), limits, now)
}

const fn until(now: Time) -> Step {
    Step::Wait { until: Time::from_unix(now.unix() + HELD.0), note: None }
}

#[test]
fn nothing_is_begun_while_writes_are_paused_and_no_deadline_passes() {
    let (row, seen) = (backup(&[3, 7]), instances(&[3, 7], 2));
    let limits = paused(Switch::Writes, 0);
    let days = after(3 * 24 * 3600);
    assert_eq!(under(&limits, &row, &seen, days), until(days));
    assert!(is_held(&row, &limits.hold), "and EC2 need not be looked at for it");
    // Resumed after three days: what is left of the quarter of an hour counts from there.
    let mut brake = Brake::default();
    brake.pause(Switch::Writes, false, None, after(60));
    brake.resume(Switch::Writes, days);
    let limits = Limits { hold: brake.hold(), ..Limits::default() };
    let last = days + Seconds(limits.pending.0 - 60);
    assert!(!is_held(&row, &limits.hold));
    assert_eq!(acted(under(&limits, &row, &seen, last + Seconds(-1))).1.len(), 2);
    let row = recorded(under(&limits, &row, &seen, last));
    assert_eq!(failed(&row), FailureCode::DeadlineExceeded);
}

#[test]
fn a_call_that_was_made_before_is_still_looked_after() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    answer(&mut row, actions, |_| Outcome::Failed(CallError::Unknown("lost".into())), after(15));
    let limits = paused(Switch::Writes, 16);
    assert!(!is_held(&row, &limits.hold));
    let whole = Seen { tagged: vec![snapshot(3, 0, 1, "pending", 0)], ..Seen::default() };
    let row = recorded(under(&limits, &row, &whole, after(20)));
    assert_eq!(row.status, Status::InProgress);
    let done = recorded(under(&limits, &row, &there(&row, "completed", 100), after(300)));
    assert_eq!(done.status, Status::Completed, "to look is no write");
}

#[test]
fn a_backup_in_progress_does_not_time_out_for_a_pause() {
    let row = in_progress(&[3]);
    let (_, row) = noted(go(&row, &there(&row, "pending", 10), after(60)));
    let stuck = there(&row, "pending", 10);
    let late = NOW + Limits::default().in_progress + Seconds(120);
    assert!(matches!(go(&row, &stuck, late), Step::Record(_)), "without one it does");
    assert!(matches!(under(&paused(Switch::Writes, 3600), &row, &stuck, late), Step::Wait { .. }));
}

#[test]
fn nothing_is_deleted_while_deletions_are_paused_and_what_is_not_a_delete_goes_on() {
    for switch in [Switch::Deletions, Switch::Writes] {
        let limits = paused(switch, 0);
        let row = deleting();
        let seen = there(&row, "completed", 100);
        assert_eq!(acted(go(&row, &seen, after(400))).1.len(), 2, "without the brake");
        assert_eq!(under(&limits, &row, &seen, after(400)), until(after(400)), "{switch}");
        assert!(is_held(&row, &limits.hold));
        // And nothing that is not there is taken for deleted.
        let gone = absent(&row, &Presence::Unlisted);
        assert_eq!(under(&limits, &row, &gone, after(400)), until(after(400)), "{switch}");
    }
    let limits = paused(Switch::Deletions, 0);
    let (row, seen) = (backup(&[3, 7]), instances(&[3, 7], 2));
    assert_eq!(acted(under(&limits, &row, &seen, NOW)).1.len(), 2);
    assert!(!is_held(&row, &limits.hold));
}

#[test]
fn a_stray_waits_and_the_new_attempt_beside_it_does_not() {
    let throttled =
        || Outcome::Failed(CallError::Throttled { code: "RequestLimitExceeded".into() });
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 2), NOW));
    answer(&mut row, actions, |_| Outcome::Failed(CallError::Unknown("lost".into())), after(15));
    // Half of the set was made, and shows when the node is free again.
    let half = vec![snapshot(3, 0, 1, "pending", 0)];
    let seen = Seen { tagged: half, ..instances(&[3], 2) };
    let row = recorded(go(&row, &seen, after(15 + SETTLE.0)));
    let calls = |limits: &Limits| {
        let (_, actions) = acted(under(limits, &row, &seen, after(15 + SETTLE.0)));
        let creates = |one: &&Action| matches!(one, Action::CreateSnapshots { .. });
        (actions.iter().filter(creates).count(), actions.len())
    };
    assert_eq!(calls(&Limits::default()), (1, 2), "the stray goes");
    assert_eq!(calls(&paused(Switch::Deletions, 0)), (1, 1));
    let (mut next, actions) =
        acted(under(&paused(Switch::Deletions, 0), &row, &seen, after(15 + SETTLE.0)));
    answer(&mut next, actions, |_| throttled(), after(15 + SETTLE.0));
    assert_eq!(next.sweep_until, row.sweep_until, "it is still to be swept");
}

#[test]
fn a_stray_keeps_nothing_from_a_backup_in_progress_while_deletions_are_paused() {
    let limits = paused(Switch::Deletions, 0);
    let mut row = in_progress(&[3]);
    row.sweep_until = Some(NOW + SWEEP);
    let mut seen = there(&row, "pending", 10);
    // Of an earlier attempt.
    row.nodes[0].take = match row.nodes[0].take.clone() {
        Take::Taken { set, .. } => Take::Taken { attempt: 2, set },
        other => panic!("{other:?}"),
    };
    seen.tagged = vec![snapshot(3, 5, 1, "completed", 100)];
    assert_eq!(acted(under(&Limits::default(), &row, &seen, after(60))).1.len(), 1);
    let (_, moved) = noted(under(&limits, &row, &seen, after(60)));
    assert_eq!((moved.progress, moved.moved_at), (10, Some(after(60))), "what it sees is kept");
    let late = after(60) + limits.in_progress;
    assert_eq!(
        failed(&recorded(under(&limits, &moved, &seen, late))),
        FailureCode::DeadlineExceeded
    );
}

#[test]
fn what_was_throttled_before_a_pause_does_not_count_the_pause_twice() {
    let throttled =
        || Outcome::Failed(CallError::Throttled { code: "RequestLimitExceeded".into() });
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    answer(&mut row, actions, |_| throttled(), after(60));
    let mut brake = Brake::default();
    brake.pause(Switch::Writes, false, None, after(120));
    brake.resume(Switch::Writes, after(10_920));
    let limits = Limits { hold: brake.hold(), ..Limits::default() };
    // One minute was throttled; the three hours are the pause's.
    let (row, _) = acted(under(&limits, &row, &instances(&[3], 1), after(10_920)));
    assert_eq!(row.throttled, Seconds(60));
}
