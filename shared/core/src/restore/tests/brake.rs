//! Restores while an operator has paused something.

use super::drive::{drive, drive_until, on, stands};
use super::world::{Strike, World, world};
use super::*;
use crate::brake::{Brake, HELD, HELD_DOWN, Hold, Switch};
use crate::time::Time;

/// A pause since then.
fn since(switch: Switch, even: bool, at: Time) -> Brake {
    let mut brake = Brake::default();
    brake.pause(switch, even, None, at);
    brake
}

/// One step under this.
fn under(hold: Hold, row: &Restore, world: &World) -> Step {
    let limits = Limits { hold, ..Limits::default() };
    step(row, Ok(&world.see(&look(row, world.now))), &limits, world.now)
}

/// Goes on under a hold until it waits as one that is held does, and says what it is then.
fn held(hold: &Hold, mut row: Restore, world: &mut World) -> Restore {
    for _ in 0..100 {
        match under(hold.clone(), &row, world) {
            Step::Record(next) => row = next,
            Step::Plan { next, settings } => {
                world.settings = settings;
                row = next;
            }
            Step::Wait { until, note } if until >= world.now + HELD_DOWN => {
                assert!(note.is_none(), "{note:?}");
                return row;
            }
            Step::Wait { until, note } => {
                world.now = until;
                row = note.unwrap_or(row);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it does not wait: {row:#?}")
}

#[test]
fn a_restore_that_has_stopped_nothing_waits_as_long_as_writes_are_paused() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let began = world.now;
    let brake = since(Switch::Writes, false, began);
    let row = held(&brake.hold_of_restore(None), restore, &mut world);
    assert_eq!((world.calls.len(), world.tried.len()), (0, 0), "nor a dry run");
    world.now = began + Seconds::days(3);
    let row = held(&brake.hold_of_restore(None), row, &mut world);
    assert_eq!((row.status, row.phase), (Status::InProgress, Some(Phase::Preparing)));
    // What is left of its deadline counts from the end of the pause.
    let mut over = brake.clone();
    over.resume(Switch::Writes, world.now);
    let step = under(over.hold_of_restore(None), &row, &world);
    // Of what the volumes are like now.
    let Step::Plan { next: row, settings } = step else { panic!("{step:?}") };
    world.settings = settings;
    let step = under(over.hold_of_restore(None), &row, &world);
    assert!(matches!(step, Step::Act { .. }), "{step:?}");
    let mut late = world.clone();
    late.now = late.now + Limits::default().preparing;
    let Step::Record(failed) = under(over.hold_of_restore(None), &row, &late) else { panic!() };
    assert_eq!(stands(&failed), (Status::Failed, Some(FailureCode::DeadlineExceeded)));
}

#[test]
fn nothing_is_frozen_nor_stopped_in_a_pause() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let ready = |row: &Restore| row.new_volumes().all(|(_, new)| new.attachable);
    let row = drive_until(restore, &mut world, |row| row.planned && ready(row));
    let brake = since(Switch::Writes, false, world.now);
    let row = held(&brake.hold_of_restore(row.touched_at), row, &mut world);
    assert_eq!((row.frozen_at, row.touched_at), (None, None));
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
}

#[test]
fn past_its_first_stop_it_goes_on_to_its_end_unless_it_is_said() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Swapping));
    assert!(row.touched_at.is_some());
    let goes_on = since(Switch::Writes, false, world.now).hold_of_restore(row.touched_at);
    assert!(
        !matches!(under(goes_on, &row, &world), Step::Wait { until, .. } if until >= world.now + HELD_DOWN)
    );
    let brake = since(Switch::Writes, true, world.now);
    let calls = world.calls.len();
    let row = held(&brake.hold_of_restore(row.touched_at), row, &mut world);
    // For longer than any deadline of a downtime, looked after all the time.
    let mut row = row;
    let paused = world.now;
    while world.now - paused < Seconds::hours(3) {
        world.now = world.now + HELD;
        row.due_at = Some(world.now);
        row = held(&brake.hold_of_restore(row.touched_at), row, &mut world);
    }
    assert_eq!(world.calls.len(), calls);
    assert_eq!((row.status, row.phase), (Status::InProgress, Some(Phase::Swapping)));
    let mut over = brake;
    over.resume(Switch::Writes, world.now);
    let step = under(over.hold_of_restore(row.touched_at), &row, &world);
    assert!(matches!(step, Step::Act { .. }), "{step:?}");
    let late = under(Hold::default(), &row, &world);
    assert!(matches!(&late, Step::Record(next) if next.status == Status::RollingBack), "{late:?}");
}

#[test]
fn the_old_volumes_stay_while_deletions_are_paused() {
    let (restore, mut world) = world(&[3], &[3]);
    world.strikes = Vec::<Strike>::new();
    let done = drive(restore, &mut world);
    world.now = done.old_volumes_kept_until.expect("kept");
    let hold = since(Switch::Deletions, false, world.now).hold_of_restore(None);
    let row = held(&hold, done, &mut world);
    assert_eq!(world.called("DeleteVolume"), 0);
    let over = drive(row, &mut world);
    assert_eq!((world.called("DeleteVolume"), over.leftovers.len()), (2, 0));
}

#[test]
fn what_nobody_could_see_and_what_was_paused_count_once_and_towards_nothing() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Swapping));
    let began = world.now;
    let at = |minutes| began + Seconds::minutes(minutes);
    let mut brake = since(Switch::Writes, true, began);
    brake.resume(Switch::Writes, at(30));
    let hold = brake.hold_of_restore(row.touched_at);
    // EC2 shows nothing from the 20th to the 50th minute.
    let mut row = row;
    row.unseen_since = Some(at(20));
    (world.now, row.due_at) = (at(50), Some(at(50)));
    let step = under(hold.clone(), &row, &world);
    assert!(matches!(step, Step::Act { .. }), "nothing could be done until now: {step:?}");
    // And nobody came from the 50th to the 80th.
    (world.now, row.due_at) = (at(80), Some(at(50)));
    let Step::Record(mut row) = under(hold.clone(), &row, &world) else { panic!("no excuse") };
    row.due_at = Some(world.now);
    let step = under(hold, &row, &world);
    assert!(matches!(step, Step::Act { .. }), "{step:?}");
}
