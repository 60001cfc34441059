//! After the end: what is left over is tagged, released, deleted, or forgotten.

use super::drive::{drive, drive_until, next, stands};
use super::world::{How, Strike, World, attached, volume, world};
use super::*;
use crate::limits::VISIBLE;

/// Over with the backup's volumes on, and the time of the old ones come.
fn due() -> (Restore, World) {
    let (restore, mut world) = world(&[3], &[3]);
    let done = drive(restore, &mut world);
    world.now = done.old_volumes_kept_until.expect("kept");
    (done, world)
}

fn named(row: &Restore, id: &VolumeId) -> bool {
    row.leftovers.iter().any(|left| left.volume_id == *id)
}

/// Failed before anything was stopped, with a volume that nobody heard of.
fn unheard(how: How) -> (Restore, World) {
    let (restore, mut world) = world(&[3], &[3]);
    let refused = How::Refused("VolumeLimitExceeded");
    world.strikes = vec![
        Strike { on: "CreateVolume", nth: 1, how },
        Strike { on: "CreateVolume", nth: 2, how: refused },
    ];
    let row = drive_until(restore, &mut world, |row| row.status == Status::Failed);
    assert_eq!(stands(&row), (Status::Failed, Some(FailureCode::Quota)));
    assert_eq!(row.leftovers, []);
    (row, world)
}

#[test]
fn a_volume_of_a_call_that_nobody_heard_of_is_swept_by_its_tags() {
    let (row, mut world) = unheard(How::Unheard);
    let stray = world.tokens.values().next().cloned().expect("made");
    assert!(world.volumes.contains_key(&stray));
    let done = drive(row, &mut world);
    assert!(world.calls.contains(&Call::DeleteVolume(stray.clone())));
    assert!(!world.volumes.contains_key(&stray));
    assert_eq!((done.leftovers, done.sweep_until), (Vec::new(), None));
}

#[test]
fn a_volume_that_shows_late_is_swept_too_and_the_looking_ends() {
    let (row, mut world) = unheard(How::Unheard);
    let (stray, shown) = world.volumes.pop_last().expect("made");
    assert!(world.tokens.values().any(|id| *id == stray));
    let until = row.sweep_until.expect("looked for");
    assert!(until >= world.now + Seconds::minutes(9));
    world.now = until + Seconds(-5);
    world.volumes.insert(stray.clone(), shown);
    let done = drive(row, &mut world);
    assert!(!world.volumes.contains_key(&stray));
    assert_eq!(done.sweep_until, None);
    // There was none: the looking ends as well.
    let (row, mut world) = unheard(How::Lost);
    assert_eq!(drive(row, &mut world).sweep_until, None);
    assert_eq!(world.called("DeleteVolume"), 0);
}

#[test]
fn what_bears_the_tags_and_is_somebodys_is_not_swept() {
    let (row, world) = unheard(How::Lost);
    let there = |snapshot: &str, instances: &[&str]| SeenVolume::There {
        state: "available".into(),
        snapshot_id: Some(SnapshotId::from(snapshot)),
        instances: instances.iter().map(|id| InstanceId::from(*id)).collect(),
        of: None,
    };
    for (shown, ours) in [
        (there("snap-3-0", &[]), true),
        // Copied with its tags from a copy of ours, or taken into use.
        (there("snap-other", &[]), false),
        (there("snap-3-0", &["i-9"]), false),
        (SeenVolume::NotFound, false),
    ] {
        let id = VolumeId::from("vol-stray");
        let step = next(&row, &world, |seen| drop(seen.tagged.insert(id.clone(), shown)));
        let swept = matches!(step, Step::Record(next) if named(&next, &id));
        assert_eq!(swept, ours);
    }
}

#[test]
fn a_delete_that_is_refused_is_tried_again_until_the_volume_is_gone() {
    for how in [How::Refused("RequestLimitExceeded"), How::Lost, How::Unheard, How::Crash] {
        let (done, mut world) = due();
        world.strikes = vec![Strike { on: "DeleteVolume", nth: 1, how: how.clone() }];
        let over = drive(done, &mut world);
        assert_eq!(over.leftovers, [], "{how:?}");
        assert_eq!(world.volumes.len(), 2, "{how:?}: those in use stay");
        let again = usize::from(matches!(how, How::Refused(_) | How::Lost));
        assert_eq!(world.called("DeleteVolume"), 2 + again, "{how:?}");
    }
}

#[test]
fn a_delete_that_is_refused_for_long_is_tried_ever_more_seldom() {
    let (done, mut world) = due();
    world.strikes = vec![every("DeleteVolume", "UnauthorizedOperation")];
    let began = world.now;
    let row = drive_until(done, &mut world, |row| row.troubles >= 20);
    assert!(world.now - began >= Seconds::hours(1), "{:?}", world.now - began);
    world.strikes.clear();
    assert_eq!(drive(row, &mut world).leftovers, []);
}

#[test]
fn tags_that_are_refused_are_tried_again_until_they_are_off_or_on() {
    for on in ["DeleteTags", "CreateTags"] {
        let (restore, mut world) = world(&[3], &[3]);
        world.strikes = vec![every(on, "RequestLimitExceeded")];
        let row = drive_until(restore, &mut world, |row| row.troubles > 2);
        assert_eq!(row.status, Status::Completed, "the end does not wait for tags");
        assert!(row.leftovers.iter().any(|left| !left.tagged), "{on}");
        world.strikes.clear();
        let done = drive(row, &mut world);
        assert!(done.leftovers.iter().all(|left| left.tagged && left.fate == Fate::Deleted));
        assert_eq!(done.leftovers.len(), 2, "{on}: the new ones are released, the old ones marked");
    }
}

#[test]
fn a_volume_that_a_later_restore_has_tagged_is_that_ones_to_look_after() {
    // A new one whose tags are not off yet, an old one whose tags are not on yet, and an
    // old one whose time is not over.
    for (on, volume) in [("DeleteTags", "vol-new"), ("CreateTags", "vol-3-0"), ("", "vol-3-0")] {
        let (restore, mut world) = world(&[3], &[3]);
        world.strikes = vec![every(on, "RequestLimitExceeded")];
        let row = drive_until(restore, &mut world, |row| {
            row.status == Status::Completed && (on.is_empty() || row.troubles > 5)
        });
        let new = row.nodes[0].new[0].volume_id.clone().expect("made");
        let volume = if volume == "vol-new" { new } else { VolumeId::from(volume) };
        assert!(named(&row, &volume), "{on}");
        world.strikes.clear();
        world.now = world.now + VISIBLE;
        // What an earlier one has tagged is this one's, as what it has tagged itself.
        let about = |call: &&Call| matches!(call, Call::Keep(id) | Call::Release(id) | Call::DeleteVolume(id) if *id == volume);
        for of in [row.id.0 - 1, row.id.0] {
            world.tagged.insert(volume.clone(), RestoreId(of));
            let mut world = world.clone();
            world.calls.clear();
            let done = drive(row.clone(), &mut world);
            world.now = world.now + Seconds::days(2);
            drive(done, &mut world);
            assert!(world.calls.iter().any(|call| about(&call)), "{on}, of {of}");
        }
        world.tagged.insert(volume.clone(), RestoreId(row.id.0 + 1));
        world.calls.clear();
        let done = drive(row, &mut world);
        assert!(!named(&done, &volume), "{on}");
        world.now = world.now + Seconds::days(2);
        drive(done, &mut world);
        assert_eq!(world.calls.iter().filter(about).count(), 0, "{on}: {:?}", world.calls);
        assert!(world.volumes.contains_key(&volume));
    }
}

#[test]
fn a_volume_that_is_gone_is_forgotten_and_not_asked_for() {
    let (done, mut world) = due();
    let gone = VolumeId::from("vol-3-0");
    world.volumes.remove(&gone);
    world.now = world.now + VISIBLE;
    let over = drive(done, &mut world);
    assert!(!world.calls.contains(&Call::DeleteVolume(gone)));
    assert_eq!(over.leftovers, []);
}

#[test]
fn a_volume_that_is_gone_before_its_tags_are_off_or_on_needs_none() {
    for on in ["DeleteTags", "CreateTags"] {
        let (restore, mut world) = world(&[3], &[3]);
        world.strikes = vec![every(on, "InvalidVolume.NotFound")];
        let done = drive(restore, &mut world);
        assert!(done.leftovers.iter().all(|left| left.tagged), "{on}");
        assert_eq!(world.called(on), 2, "{on}: once each");
    }
}

#[test]
fn a_volume_that_was_just_made_is_not_forgotten_because_ec2_does_not_know_it_yet() {
    let (restore, mut world) = world(&[3], &[3]);
    world.strikes =
        vec![Strike { on: "CreateVolume", nth: 2, how: How::Refused("VolumeLimitExceeded") }];
    let row = drive_until(restore, &mut world, |row| row.status == Status::Failed);
    let [left] = &row.leftovers[..] else { panic!("{row:#?}") };
    let id = left.volume_id.clone();
    let unknown = |seen: &mut Seen| drop(seen.volumes.insert(id.clone(), SeenVolume::NotFound));
    assert!(matches!(next(&row, &world, unknown), Step::Wait { note: None, .. }));
    drive(row, &mut world);
    assert!(!world.volumes.contains_key(&id));
}

#[test]
fn a_volume_is_not_deleted_before_its_time_nor_while_it_hangs_somewhere() {
    let (done, mut world) = due();
    let old = VolumeId::from("vol-3-0");
    world.now = world.now + Seconds(-1);
    assert!(matches!(next(&done, &world, |_| {}), Step::Wait { note: None, .. }));
    world.now = done.completed_at.expect("over") + Seconds::minutes(5);
    let mut row = done;
    for left in &mut row.leftovers {
        left.not_before = None;
    }
    let other = Machine { attached: vec![attached(&volume(3, 0))], ..Machine::default() };
    world.machines.insert(InstanceId::from("i-9"), other);
    let Step::Act { actions, .. } = next(&row, &world, |_| {}) else { panic!("no delete") };
    let only = Call::DeleteVolume(VolumeId::from("vol-3-1"));
    assert_eq!(actions, [Action { call: only, dry: false }]);
    // Nor one that goes already.
    world.volumes.get_mut(&old).expect("old").0 = "deleting".into();
    world.machines.remove(&InstanceId::from("i-9"));
    let Step::Act { actions, .. } = next(&row, &world, |_| {}) else { panic!("no delete") };
    assert_eq!(actions.len(), 1);
}

#[test]
fn a_volume_that_the_backup_does_not_cover_is_kept_for_ever() {
    let (restore, mut world) = world(&[3], &[3]);
    let mut extra = volume(3, 5);
    extra.volume_id = VolumeId::from("vol-extra");
    world.volumes.insert(extra.volume_id.clone(), ("in-use".into(), None, 0));
    let machine = world.machines.get_mut(&InstanceId::from("i-3")).expect("i-3");
    machine.attached.push(attached(&extra));
    machine.volumes.push(extra);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    let left = done.leftovers.iter().find(|left| left.volume_id.as_str() == "vol-extra");
    assert_eq!(left.map(|left| left.fate), Some(Fate::Kept));
    world.now = world.now + Seconds::days(30);
    let later = drive(done, &mut world);
    assert!(world.volumes.contains_key(&VolumeId::from("vol-extra")));
    assert_eq!(later.leftovers.len(), 1);
}

#[test]
fn an_old_volume_that_somebody_attached_again_is_released() {
    let (restore, mut world) = world(&[3], &[3]);
    let done = drive(restore, &mut world);
    let old = VolumeId::from("vol-3-0");
    let other = Machine {
        attached: vec![Attached {
            volume_id: old.clone(),
            device: "/dev/sdz".into(),
            state: "attached".into(),
            delete_on_termination: false,
        }],
        ..Machine::default()
    };
    world.machines.insert(InstanceId::from("i-other"), other);
    world.volumes.get_mut(&old).expect("old").0 = "in-use".into();
    world.now = done.old_volumes_kept_until.expect("kept");
    let over = drive(done, &mut world);
    assert!(world.volumes.contains_key(&old));
    assert_eq!(over.leftovers, []);
}

#[test]
fn an_old_volume_whose_tags_were_refused_is_tagged_before_it_is_deleted() {
    let (restore, mut world) = world(&[3], &[3]);
    world.strikes = vec![every("CreateTags", "RequestLimitExceeded")];
    let row = drive_until(restore, &mut world, |row| row.status == Status::Completed);
    world.now = row.old_volumes_kept_until.expect("kept");
    let row = drive_until(row, &mut world, |row| row.troubles > 3);
    assert!(world.volumes.contains_key(&VolumeId::from("vol-3-0")));
    world.strikes.clear();
    let over = drive(row, &mut world);
    assert_eq!(over.leftovers, []);
}

#[test]
fn an_old_volume_that_was_in_use_for_an_hour_is_nobodys_to_delete() {
    let (restore, mut world) = world(&[3], &[3]);
    let done = drive(restore, &mut world);
    let old = VolumeId::from("vol-3-0");
    let end = done.completed_at.expect("over");
    let other = Machine {
        attached: vec![Attached { device: "/dev/sdz".into(), ..attached(&volume(3, 0)) }],
        ..Machine::default()
    };
    let somebody = InstanceId::from("i-other");
    world.machines.insert(somebody.clone(), other);
    // So soon it may be what EC2 still shows of the restore.
    world.now = end + Seconds::minutes(30);
    let row = drive(done, &mut world);
    assert!(row.leftovers.iter().any(|left| left.volume_id == old));
    world.now = end + Seconds::hours(3);
    let row = drive(row, &mut world);
    world.machines.remove(&somebody);
    world.now = row.old_volumes_kept_until.expect("kept");
    let over = drive(row, &mut world);
    assert!(world.volumes.contains_key(&old), "it was released when it was in use");
    assert!(!world.volumes.contains_key(&VolumeId::from("vol-3-1")));
    assert_eq!(over.leftovers, []);
}
