//! An operator's orders, in every phase.

use super::drive::{drive, drive_until, on, stands};
use super::world::{How, Strike, World, attached, volume, world};
use super::*;
use crate::backup;

/// As the worker obeys: with what the order wants to be looked at.
fn order(restore: &Restore, world: &World, order: Order) -> Restore {
    let seen = world.see(&look_for_order(restore, order));
    obey(restore, order, Nonce::from("order"), &seen, &Limits::default(), world.now)
}

const ORDERS: [Order; 4] = [Order::Retry, Order::RollBack, Order::RollForward, Order::Release];

fn refusal(restore: &Restore) -> &str {
    let answer = restore.answers.last().expect("an answer");
    answer.refused.as_deref().unwrap_or_default()
}

/// Node 7's start is refused until it is stuck; node 3 runs on the backup's data.
fn stuck() -> (Restore, World) {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 10_000, "Client.InternalError"));
    let row = drive(restore, &mut world);
    assert_eq!(row.status, Status::Stuck);
    assert_eq!(world.machines[&InstanceId::from("i-3")].state, "running");
    (row, world)
}

#[test]
fn a_retry_goes_on_with_every_deadline_anew() {
    let (row, mut world) = stuck();
    world.gives_up = None;
    let done = drive(order(&row, &world, Order::Retry), &mut world);
    assert_eq!((done.status, &done.failure), (Status::Completed, &None));
    on(&done, &world, true);
    // It was stuck: nothing is deleted by a timer.
    assert!(done.leftovers.iter().all(|left| left.fate == Fate::Kept));
    // And if what stood in the way still does, it is stuck again, and not at once.
    let (row, mut world) = stuck();
    let began = world.now;
    let again = drive(order(&row, &world, Order::Retry), &mut world);
    assert_eq!(again.status, Status::Stuck);
    assert!(world.now - began >= Limits::default().starting);
}

#[test]
fn a_restore_is_called_back_from_where_it_is_stuck_and_nothing_is_lost() {
    let (row, mut world) = stuck();
    let back = order(&row, &world, Order::RollBack);
    assert_eq!(back.status, Status::RollingBack);
    world.gives_up = None;
    let done = drive(back, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    on(&done, &world, false);
    assert_eq!(done.failure.as_ref().map(|one| one.code), Some(FailureCode::StartFailed));
    let kept = done.leftovers.iter().filter(|left| left.fate == Fate::Kept);
    assert_eq!(kept.count(), 4, "node 3 wrote on them");
}

#[test]
fn a_way_back_without_an_old_volume_is_not_ordered_and_one_that_is_stuck_leads_forward() {
    // Stuck forward: an old volume of node 3 is gone.
    let (row, mut world) = stuck();
    let gone = world.volumes.remove(&VolumeId::from("vol-3-0")).expect("a volume");
    let refused = order(&row, &world, Order::RollBack);
    assert_eq!(refused.status, Status::Stuck);
    assert_eq!(refusal(&refused), "Node 3 (i-3): volume vol-3-0 is gone from EC2");
    let mut seen = world.see(&look_for_order(&row, Order::RollBack));
    seen.volumes.insert(VolumeId::from("vol-3-0"), SeenVolume::Unlisted);
    let (id, limits) = (Nonce::from("order"), Limits::default());
    let refused = obey(&row, Order::RollBack, id, &seen, &limits, world.now);
    assert!(refusal(&refused).contains("EC2 does not show volume vol-3-0; order again"));
    // It goes back, and the volume is deleted on the way.
    world.volumes.insert(VolumeId::from("vol-3-0"), gone);
    world.gives_up = None;
    let row = order(&row, &world, Order::RollBack);
    world.volumes.remove(&VolumeId::from("vol-3-0"));
    let row = drive(row, &mut world);
    assert_eq!(stands(&row), (Status::Stuck, Some(FailureCode::VolumeFailed)));
    for ordered in [Order::RollBack, Order::Release] {
        assert_ne!(refusal(&order(&row, &world, ordered)), "", "{ordered:?}");
    }
    let done = drive(order(&row, &world, Order::RollForward), &mut world);
    assert_eq!((stands(&done), done.back), ((Status::Completed, None), false));
    on(&done, &world, true);
    // Node 7 ran on its old volumes meanwhile.
    assert!(done.leftovers.iter().all(|left| left.fate == Fate::Kept));
    assert_eq!(world.called("DeleteVolume"), 0);
}

#[test]
fn forward_is_ordered_on_the_way_back_only_with_every_node_and_volume_at_hand() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes =
        vec![Strike { on: "AttachVolume", nth: 3, how: How::Refused("AttachmentLimitExceeded") }];
    let there = |row: &Restore| row.back && row.phase == Some(Phase::Swapping);
    let row = drive_until(restore, &mut world, there);
    let forward = |world: &World| order(&row, world, Order::RollForward);
    let mut without = world.clone();
    without.volumes.remove(&row.nodes[1].new[0].volume_id.clone().expect("a volume"));
    assert!(
        refusal(&forward(&without)).contains("Node 7 (i-7): volume vol-new-2 is gone from EC2")
    );
    let mut without = world.clone();
    without.machine("i-7").state = "terminated".into();
    assert!(refusal(&forward(&without)).contains("Node 7 (i-7): its instance is gone"));
    let mut elsewhere = world.clone();
    let theirs = elsewhere.machine("i-7").attached.clone();
    elsewhere.machine("i-3").attached.extend(theirs);
    let new = row.nodes[0].new[0].volume_id.clone().expect("a volume");
    elsewhere.machine("i-7").attached[0].volume_id = new;
    assert!(refusal(&forward(&elsewhere)).contains("hangs on i-7; detach it first"));
    let done = drive(forward(&world), &mut world);
    assert_eq!((refusal(&done), stands(&done)), ("", (Status::Completed, None)));
    on(&done, &world, true);
}

#[test]
fn a_release_is_refused_while_a_node_stands_and_obeyed_when_all_run() {
    let (row, mut world) = stuck();
    let refused = order(&row, &world, Order::Release);
    assert_eq!(refused.status, Status::Stuck);
    assert!(refusal(&refused).contains("Node 7 (i-7) ran before and is "));
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "running".into();
    let done = drive(order(&row, &world, Order::Release), &mut world);
    assert_eq!((done.status, refusal(&done)), (Status::Completed, ""));
    on(&done, &world, true);
    let old: Vec<_> =
        done.leftovers.iter().map(|left| (left.volume_id.as_str(), left.fate)).collect();
    let kept = ["vol-3-0", "vol-3-1", "vol-7-0", "vol-7-1"].map(|id| (id, Fate::Kept));
    assert_eq!(old, kept);
}

#[test]
fn a_release_of_one_that_could_touch_nothing_yet_is_obeyed() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes =
        vec![Strike { on: "StopInstances", nth: 0, how: How::Refused("IncorrectInstanceState") }];
    let row = drive_until(restore, &mut world, |row| row.troubles > 2);
    assert!(row.touched_at.is_some() && !row.disturbed);
    let row = order(&row, &world, Order::Release);
    assert_eq!(refusal(&row), "");
    world.strikes.clear();
    let done = drive(row, &mut world);
    assert_eq!(stands(&done), (Status::Failed, Some(FailureCode::Superseded)));
    assert!(world.machines.values().all(|one| one.state == "running"));
}

#[test]
fn a_release_waits_until_ec2_shows_what_it_was_last_asked_for() {
    let (row, _) = stuck();
    let acted = row.acted_at.expect("calls");
    assert_eq!(shows_at(&row, Order::Release), Some(acted + Seconds(15)));
    assert_eq!(shows_at(&row, Order::Retry), None);
}

#[test]
fn a_retry_is_obeyed_without_a_look() {
    let (row, world) = stuck();
    assert!(look_for_order(&row, Order::Retry).is_empty());
    let retried = order(&row, &world, Order::Retry);
    assert_eq!((refusal(&retried), retried.status), ("", Status::InProgress));
}

#[test]
fn a_release_on_the_old_volumes_is_a_way_back_by_hand() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Swapping));
    for (id, node) in [("i-3", 3), ("i-7", 7)] {
        let machine = world.machine(id);
        machine.state = "running".into();
        machine.attached = (0..2).map(|n| attached(&volume(node, n))).collect();
    }
    let done = order(&row, &world, Order::Release);
    assert_eq!(refusal(&done), "");
    assert_eq!(stands(&done), (Status::RolledBack, Some(FailureCode::Superseded)));
}

#[test]
fn what_hangs_on_an_instance_that_the_restore_does_not_know_is_left_to_that_one() {
    let (row, mut world) = stuck();
    // The platform has replaced node 7's instance by hand.
    let seven = world.machine("i-7");
    let theirs = std::mem::take(&mut seven.attached);
    seven.state = "terminated".into();
    let taken: Vec<_> = theirs.iter().map(|there| there.volume_id.clone()).collect();
    world.machines.insert(
        InstanceId::from("i-9"),
        Machine { state: "running".into(), attached: theirs, ..Machine::default() },
    );
    let released = order(&row, &world, Order::Release);
    assert_eq!((refusal(&released), released.status), ("", Status::Failed));
    for left in &released.leftovers {
        let hangs =
            taken.contains(&left.volume_id) || ids(&row.nodes[0].new).contains(&left.volume_id);
        assert_eq!(left.fate, if hangs { Fate::Adopted } else { Fate::Kept }, "{left:?}");
    }
    assert_eq!(released.leftovers.len(), 8);
}

#[test]
fn a_release_is_refused_while_nodes_are_on_different_sides() {
    let (row, mut world) = stuck();
    let seven = world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7");
    seven.state = "running".into();
    seven.attached.pop();
    assert!(refusal(&order(&row, &world, Order::Release)).contains("has not the whole set"));
    let seven = world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7");
    seven.attached = row.nodes[1]
        .old
        .iter()
        .map(|old| Attached {
            volume_id: old.volume_id.clone(),
            device: old.device.clone(),
            state: "attached".into(),
            delete_on_termination: old.delete_on_termination,
        })
        .collect();
    assert!(refusal(&order(&row, &world, Order::Release)).contains("some nodes are on"));
}

#[test]
fn a_node_that_is_gone_is_released_with_what_hung_on_it_kept() {
    let (row, mut world) = stuck();
    let seven = world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7");
    seven.state = "terminated".into();
    seven.attached.clear();
    let done = drive(order(&row, &world, Order::Release), &mut world);
    assert_eq!(done.status, Status::Failed);
    assert!(!done.status.active());
    let kept = done.leftovers.iter().filter(|left| left.fate == Fate::Kept).count();
    // The old ones of both, and the new ones that hang nowhere.
    assert_eq!((kept, done.leftovers.len()), (6, 6));
}

#[test]
fn every_order_is_obeyed_in_every_phase_and_the_deployment_is_whole_after() {
    let phases = [Phase::Preparing, Phase::Stopping, Phase::Swapping, Phase::Starting];
    for phase in phases {
        for ordered in ORDERS {
            for back in [false, true] {
                let (restore, mut world) = world(&[3, 7], &[3, 7]);
                let mut row = restore;
                if back {
                    let how = How::Refused("AttachmentLimitExceeded");
                    world.strikes = vec![Strike { on: "AttachVolume", nth: 3, how }];
                    row = drive_until(row, &mut world, |row| row.status == Status::RollingBack);
                }
                let there = |row: &Restore| row.phase == Some(phase) || !row.status.active();
                row = drive_until(row, &mut world, there);
                row = order(&row, &world, ordered);
                let done = drive(row, &mut world);
                let what = format!("{ordered:?} in {phase:?}, back: {back}");
                assert!(!done.status.active(), "{what}: {:?}", done.status);
                if done.frozen_at.is_some() {
                    on(&done, &world, done.status == Status::Completed);
                } else {
                    assert_eq!(done.status, Status::Failed, "{what}");
                    assert!(world.machines.values().all(|one| one.state == "running"), "{what}");
                }
            }
        }
    }
}

#[test]
fn what_is_over_is_over() {
    let (restore, mut world) = world(&[3], &[3]);
    let done = drive(restore, &mut world);
    for ordered in ORDERS {
        let after = order(&done, &world, ordered);
        assert!(refusal(&after).contains("the restore is over: completed"));
        assert_eq!(Restore { answers: Vec::new(), ..after }, done);
    }
}

#[test]
fn an_order_that_comes_again_has_its_answer() {
    let (row, world) = stuck();
    let seen = Seen::default();
    let order = |row: &Restore, id: &str| {
        obey(row, Order::Release, Nonce::from(id), &seen, &Limits::default(), world.now)
    };
    let row = order(&order(&row, "first"), "second");
    assert!(row.answer_to(&Nonce::from("first")).is_some());
    let many = (0..20).fold(row, |row, n| order(&row, &n.to_string()));
    assert_eq!(many.answers.len(), 8);
}

#[test]
fn a_release_before_anything_was_stopped_is_a_way_back_and_keeps_nothing() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.frozen_at.is_some());
    let done = drive(order(&row, &world, Order::Release), &mut world);
    assert_eq!((done.status, done.stopped_at), (Status::Failed, None));
    assert_eq!(done.leftovers, []);
    assert_eq!(world.volumes.len(), 4, "what was made is deleted");
}

#[test]
fn a_release_with_a_node_on_volumes_of_somebody_elses_keeps_all_that_hangs_nowhere() {
    let (row, mut world) = stuck();
    let theirs = [0, 1].map(|n| {
        attached(&Volume { volume_id: VolumeId(format!("vol-theirs-{n}")), ..volume(7, n) })
    });
    let seven = world.machine("i-7");
    (seven.state, seven.attached) = ("running".into(), theirs.to_vec());
    let released = order(&row, &world, Order::Release);
    let adopted = released.leftovers.iter().filter(|left| left.fate == Fate::Adopted);
    assert!(adopted.map(|left| &left.volume_id).eq(&ids(&row.nodes[0].new)), "what node 3 runs on");
    let done = drive(released, &mut world);
    assert_eq!((done.status, refusal(&done)), (Status::Failed, ""));
    let kept: Vec<_> = done.leftovers.iter().filter(|left| left.fate == Fate::Kept).collect();
    assert_eq!((kept.len(), done.leftovers.len()), (6, 6));
    world.now = world.now + Seconds::days(30);
    drive(done, &mut world);
    assert_eq!(world.called("DeleteVolume"), 0);
}

fn ids(news: &[New]) -> Vec<VolumeId> {
    news.iter().filter_map(|new| new.volume_id.clone()).collect()
}

#[test]
fn a_release_is_refused_while_a_node_has_volumes_of_both_sides_or_is_not_shown() {
    let (row, mut world) = stuck();
    let old = volume(7, 0);
    let seven = world.machine("i-7");
    seven.state = "running".into();
    seven.attached.retain(|one| one.device != old.device);
    seven.attached.push(attached(&old));
    let refused = order(&row, &world, Order::Release);
    assert_eq!(refused.status, Status::Stuck);
    assert!(refusal(&refused).contains("Node 7 (i-7) has volumes of the backup and of before"));
    let mut shown = world.see(&look_for_order(&row, Order::Release));
    shown.instances.remove(&InstanceId::from("i-7"));
    let id = Nonce::from("order");
    let refused = obey(&row, Order::Release, id, &shown, &Limits::default(), world.now);
    assert_eq!(refused.status, Status::Stuck);
    assert!(refusal(&refused).contains("Node 7 (i-7) is not shown by EC2; order again"));
}

#[test]
fn an_order_while_the_safety_backup_is_made_ends_it_untouched_or_lets_it_go_on() {
    for ordered in ORDERS {
        let (mut restore, mut world) = world(&[3, 7], &[3, 7]);
        restore.safety_backup_id = Some(BackupId(2));
        let there = |row: &Restore| row.phase == Some(Phase::Safeguarding);
        let row = drive_until(restore, &mut world, there);
        let row = order(&row, &world, ordered);
        assert_eq!(refusal(&row), "");
        world.safety = Some(Safety::There(backup::Status::Completed, None));
        let done = drive(row, &mut world);
        if matches!(ordered, Order::Retry | Order::RollForward) {
            assert_eq!(stands(&done), (Status::Completed, None));
        } else {
            assert_eq!(stands(&done), (Status::Failed, Some(FailureCode::Superseded)));
            assert!(world.calls.is_empty() && world.tried.is_empty(), "{ordered:?}");
        }
    }
}

#[test]
fn a_retry_before_the_first_stop_takes_no_deadline_away() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Stopping));
    let row = order(&row, &world, Order::Retry);
    world.stands = Some(InstanceId::from("i-7"));
    let row = drive_until(row, &mut world, |row| row.status == Status::RollingBack);
    assert_eq!(row.failure.map(|one| one.code), Some(FailureCode::StopFailed));
}

#[test]
fn a_node_without_its_volumes_is_not_released() {
    let (row, mut world) = stuck();
    let seven = world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7");
    seven.state = "running".into();
    seven.attached.clear();
    let refused = order(&row, &world, Order::Release);
    assert_eq!(refused.status, Status::Stuck);
    assert!(refusal(&refused).contains("has 0 data volumes, and is to have 2"));
}
