//! Whole restores against a hand-made EC2 that does at once what it is asked for, and
//! takes some looks for what takes time.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::backup::{Presence, Snapshot, Volume};
use crate::deployment;
use crate::limits::Limits;
use crate::operation::CallError;
use crate::time::Seconds;

const NOW: Time = Time::from_unix(1_800_000_000);

/// What EC2 answers to a call, once.
#[derive(Debug, Clone)]
struct Strike {
    /// The operation.
    on: &'static str,
    /// Of how many calls of it the last one is struck.
    nth: usize,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Refused(&'static str),
    /// Carried out, and nobody heard of it.
    Unheard,
    /// Not carried out, and nobody heard of it.
    Lost,
    /// The worker dies before it stores what the call came to.
    Crash,
}

/// The hand-made EC2, and the table beside the row.
#[derive(Debug, Clone)]
struct World {
    now: Time,
    machines: BTreeMap<InstanceId, Machine>,
    volumes: BTreeMap<VolumeId, (String, Option<SnapshotId>, u8)>,
    tokens: BTreeMap<(NodeId, String, u32), VolumeId>,
    settings: Vec<Setting>,
    registry: Vec<deployment::Node>,
    kept: Vec<Kept>,
    strikes: Vec<Strike>,
    /// Starts of this instance are given up by EC2, so many times, for this reason.
    gives_up: Option<(InstanceId, u32, &'static str)>,
    counts: BTreeMap<&'static str, usize>,
    calls: Vec<Call>,
    crashed: bool,
    /// Looks until a state that is on its way is reached.
    slow: u8,
    moving: BTreeMap<InstanceId, u8>,
    /// How often somebody looked.
    looks: u32,
}

fn volume(node: u64, n: u64) -> Volume {
    Volume {
        volume_id: VolumeId(format!("vol-{node}-{n}")),
        device: format!("/dev/sd{}", char::from(b'f' + u8::try_from(n).expect("small"))),
        size_gib: 50,
        volume_type: "gp3".into(),
        iops: Some(3000),
        throughput: Some(125),
        kms_key_id: None,
        availability_zone: "us-west-1a".into(),
        delete_on_termination: n == 0,
        multi_attach: false,
        tags: vec![("Name".into(), format!("data {n}")), ("aws:x".into(), "y".into())],
    }
}

fn attached(volume: &Volume) -> Attached {
    Attached {
        volume_id: volume.volume_id.clone(),
        device: volume.device.clone(),
        state: "attached".into(),
        delete_on_termination: volume.delete_on_termination,
    }
}

/// A deployment of these nodes with two volumes each, and a backup of `of` them.
fn world(nodes: &[u64], of: &[u64]) -> (Restore, World) {
    let id = |node: u64| InstanceId(format!("i-{node}"));
    let mut machines = BTreeMap::new();
    let mut volumes = BTreeMap::new();
    let mut kept = Vec::new();
    for &node in nodes {
        let data: Vec<Volume> = (0..2).map(|n| volume(node, n)).collect();
        for one in &data {
            volumes.insert(one.volume_id.clone(), ("in-use".to_owned(), None, 0));
        }
        let machine = Machine {
            state: "running".into(),
            zone: "us-west-1a".into(),
            launched_at: Some(Time::from_unix(1_700_000_000)),
            root_device: "/dev/xvda".into(),
            attached: data.iter().map(attached).collect(),
            volumes: data.clone(),
            ..Machine::default()
        };
        machines.insert(id(node), machine);
        if of.contains(&node) {
            kept.extend(data.into_iter().enumerate().map(|(n, volume)| Kept {
                node_id: NodeId(node),
                snapshot_id: SnapshotId(format!("snap-{node}-{n}")),
                size_gib: 50,
                volume: Some(volume),
            }));
        }
    }
    let registry: Vec<_> = nodes
        .iter()
        .map(|&node| deployment::Node { node_id: NodeId(node), instance_id: id(node) })
        .collect();
    let world = World {
        now: NOW,
        machines,
        volumes,
        tokens: BTreeMap::new(),
        settings: Vec::new(),
        registry,
        kept,
        strikes: Vec::new(),
        gives_up: None,
        counts: BTreeMap::new(),
        calls: Vec::new(),
        crashed: false,
        slow: 1,
        moving: BTreeMap::new(),
        looks: 0,
    };
    (row(nodes, of), world)
}

/// The row of a restore that was just asked for.
fn row(nodes: &[u64], of: &[u64]) -> Restore {
    let node = |&node: &u64| Node {
        node_id: NodeId(node),
        instance_id: InstanceId(format!("i-{node}")),
        swaps: of.contains(&node),
        checked: false,
        was_running: None,
        launched_at: None,
        old: Vec::new(),
        new: Vec::new(),
        launch: Launch::No,
        start_asked_at: None,
        start_not_before: None,
        start_refusals: 0,
        missing: false,
    };
    Restore {
        deployment_id: DeploymentId(611_298_765_432_109_056),
        id: RestoreId(1),
        tenant_id: TenantId::from("t"),
        region: "us-west-1".into(),
        backup_id: BackupId(1),
        safety_backup_id: None,
        requested_at: NOW,
        token: Nonce::from("token"),
        revision: 1,
        nonce: Nonce::from("nonce"),
        lease: None,
        status: Status::Pending,
        phase: None,
        reached: None,
        progress: 0,
        nodes: nodes.iter().map(node).collect(),
        planned: false,
        frozen_at: None,
        touched_at: None,
        stopped_at: None,
        launched_at: None,
        started_at: None,
        completed_at: None,
        failure: None,
        refused_since: None,
        was_stuck: false,
        leftovers: Vec::new(),
        old_volumes_kept_until: None,
        sweep_until: None,
        troubles: 0,
        trouble: None,
        not_before: None,
        outbox: Vec::new(),
        due_at: None,
    }
}

impl World {
    fn see(&self, look: &Look) -> Seen {
        let volume = |id: &VolumeId| match self.volumes.get(id) {
            None => SeenVolume::NotFound,
            Some((state, snapshot_id, _)) => SeenVolume::There {
                state: state.clone(),
                snapshot_id: snapshot_id.clone(),
                instances: self
                    .machines
                    .iter()
                    .filter(|(_, one)| one.attached.iter().any(|there| there.volume_id == *id))
                    .map(|(id, _)| id.clone())
                    .collect(),
            },
        };
        let mut seen = Seen {
            volumes: look.volumes.iter().map(|id| (id.clone(), volume(id))).collect(),
            ..Seen::default()
        };
        for id in &look.instances {
            seen.instances.insert(id.clone(), self.machines[id].clone());
        }
        if look.kept {
            seen.kept = self.kept.clone();
            for kept in &self.kept {
                let snapshot = Snapshot {
                    snapshot_id: kept.snapshot_id.clone(),
                    volume_id: VolumeId::from("vol-x"),
                    size_gib: kept.size_gib,
                    state: "completed".into(),
                    state_message: None,
                    progress: 100,
                    node_id: None,
                    attempt: None,
                    completed_at: None,
                    description: String::new(),
                };
                seen.snapshots.insert(kept.snapshot_id.clone(), Presence::There(snapshot));
            }
        }
        if look.settings {
            seen.settings = self.settings.clone();
        }
        if look.registry {
            seen.registry = Some(self.registry.clone());
        }
        if look.tagged {
            let made = self.tokens.values().filter(|id| self.volumes.contains_key(*id));
            seen.tagged = made.map(|id| (id.clone(), volume(id))).collect();
        }
        seen
    }

    /// What is on its way gets on.
    fn pass(&mut self) {
        self.now = self.now + Seconds(3);
        for (state, _, left) in self.volumes.values_mut() {
            if state == "creating" {
                if *left == 0 {
                    *state = "available".into();
                } else {
                    *left -= 1;
                }
            }
        }
        let due: Vec<_> =
            self.moving.iter().filter(|(_, left)| **left == 0).map(|(id, _)| id.clone()).collect();
        for left in self.moving.values_mut() {
            *left = left.saturating_sub(1);
        }
        for id in due {
            self.moving.remove(&id);
            let now = self.now;
            let gives_up =
                self.gives_up.as_mut().filter(|(one, times, _)| *one == id && *times > 0);
            let Some(machine) = self.machines.get_mut(&id) else { continue };
            match machine.state.as_str() {
                "stopping" => {
                    machine.state = "stopped".into();
                    machine.state_reason = Some("Client.UserInitiatedShutdown".into());
                }
                "pending" => {
                    if let Some((_, times, why)) = gives_up {
                        *times -= 1;
                        machine.state = "stopped".into();
                        machine.state_reason = Some((*why).to_owned());
                    } else {
                        machine.state = "running".into();
                        machine.launched_at = Some(now);
                        machine.state_reason = None;
                    }
                }
                _ => {}
            }
        }
    }

    /// Carries a call out, as EC2 does.
    fn carry_out(&mut self, call: &Call) -> Outcome {
        let refused = |code: &str| {
            Outcome::Failed(CallError::Rejected { code: code.into(), message: "no".into() })
        };
        match call {
            Call::CreateVolume { node_id, setting, snapshot_id, attempt, .. } => {
                let token = (*node_id, setting.device.clone(), *attempt);
                let fresh = VolumeId(format!("vol-new-{}", self.tokens.len()));
                let id = self.tokens.entry(token).or_insert(fresh).clone();
                let made = ("creating".to_owned(), Some(snapshot_id.clone()), self.slow);
                self.volumes.entry(id.clone()).or_insert(made);
                return Outcome::Created(id);
            }
            Call::Stop(id) => {
                let machine = self.machines.get_mut(id).expect("an instance");
                if machine.state == "running" {
                    machine.state = "stopping".into();
                    self.moving.insert(id.clone(), self.slow);
                }
            }
            Call::Start(id) => {
                let machine = self.machines.get_mut(id).expect("an instance");
                if machine.state == "stopped" {
                    machine.state = "pending".into();
                    self.moving.insert(id.clone(), self.slow);
                }
            }
            Call::Detach { instance_id, volume_id, .. } => {
                let machine = self.machines.get_mut(instance_id).expect("an instance");
                assert_eq!(machine.state, "stopped", "a volume is taken off a running node");
                machine.attached.retain(|one| one.volume_id != *volume_id);
                self.volumes.get_mut(volume_id).expect("a volume").0 = "available".into();
            }
            Call::Attach { instance_id, volume_id, device } => {
                let machine = self.machines.get_mut(instance_id).expect("an instance");
                assert_eq!(machine.state, "stopped", "a volume is put on a running node");
                if machine.attached.iter().any(|one| one.device == *device) {
                    return refused("InvalidParameterValue");
                }
                let Some(volume) = self.volumes.get_mut(volume_id) else {
                    return refused("InvalidVolume.NotFound");
                };
                volume.0 = "in-use".into();
                machine.attached.push(Attached {
                    volume_id: volume_id.clone(),
                    device: device.clone(),
                    state: "attached".into(),
                    delete_on_termination: false,
                });
            }
            Call::SetDeleteOnTermination { instance_id, device, to } => {
                let machine = self.machines.get_mut(instance_id).expect("an instance");
                for one in machine.attached.iter_mut().filter(|one| one.device == *device) {
                    one.delete_on_termination = *to;
                }
            }
            Call::DeleteVolume(id) => {
                self.volumes.remove(id);
            }
            Call::Keep(_) | Call::Release(_) => {}
        }
        Outcome::Done
    }

    fn answer(&mut self, action: &Action) -> Outcome {
        if action.dry {
            let denied = self
                .strikes
                .iter()
                .position(|one| one.on == "dry" && matches!(one.how, How::Refused(_)));
            if let Some(at) = denied
                && let How::Refused(code) = self.strikes.remove(at).how
            {
                return Outcome::Failed(CallError::Rejected {
                    code: code.into(),
                    message: "no".into(),
                });
            }
            return Outcome::Done;
        }
        self.calls.push(action.call.clone());
        let name = action.call.name();
        let count = self.counts.entry(name).or_default();
        *count += 1;
        let count = *count;
        let strike = self.strikes.iter().position(|one| one.on == name && one.nth == count);
        let unknown = || Outcome::Failed(CallError::Unknown("no answer".into()));
        match strike.map(|at| self.strikes.remove(at).how) {
            None => self.carry_out(&action.call),
            Some(How::Refused(code)) => {
                Outcome::Failed(CallError::Rejected { code: code.into(), message: "no".into() })
            }
            Some(How::Unheard) => {
                self.carry_out(&action.call);
                unknown()
            }
            Some(How::Lost) => unknown(),
            Some(How::Crash) => {
                self.carry_out(&action.call);
                self.crashed = true;
                unknown()
            }
        }
    }
}

/// What must never be, at each step.
fn check(restore: &Restore, world: &World) {
    for (id, machine) in &world.machines {
        let devices: BTreeSet<_> = machine.attached.iter().map(|one| &one.device).collect();
        assert_eq!(devices.len(), machine.attached.len(), "two volumes at one device of {id}");
    }
    if restore.touched_at.is_some() {
        let ready = restore.new_volumes().all(|(_, new)| new.available);
        assert!(ready, "touched before every new volume was available");
    }
    let old = restore.nodes.iter().flat_map(|node| &node.old);
    let kept = restore.old_volumes_kept_until.is_none_or(|until| world.now < until);
    for old in old.filter(|_| kept) {
        assert!(world.volumes.contains_key(&old.volume_id), "{} is gone", old.volume_id);
    }
}

/// Lets it go on until nothing more is to be done for a while.
fn drive(mut restore: Restore, world: &mut World) -> Restore {
    let limits = Limits::default();
    for _ in 0..5000 {
        check(&restore, world);
        let now = world.now;
        let seen = world.see(&look(&restore, now));
        world.looks += 1;
        restore.revision += 1;
        match step(&restore, Ok(&seen), &limits, now) {
            Step::Record(next) => {
                assert!(
                    next.status == restore.status || restore.status.may_become(next.status),
                    "{:?} became {:?}",
                    restore.status,
                    next.status
                );
                restore = next;
            }
            Step::Plan { next, settings } => {
                world.settings = settings;
                restore = next;
            }
            Step::Freeze { next, registry } => {
                assert_eq!(registry, world.registry);
                restore = next;
            }
            Step::Act { intent, actions } => {
                restore = intent;
                let outcomes: Vec<_> =
                    actions.into_iter().map(|one| (one.clone(), world.answer(&one))).collect();
                if std::mem::take(&mut world.crashed) {
                    // The lease of the dead one runs out first.
                    world.now = world.now + Seconds(60);
                } else {
                    apply(&mut restore, &outcomes, &limits, now);
                }
                world.pass();
            }
            Step::Wait { until, note } => {
                restore = note.unwrap_or(restore);
                let stuck = restore.status == Status::Stuck;
                if stuck || (!restore.status.active() && until > now + Seconds(600)) {
                    return restore;
                }
                world.pass();
                if until > world.now {
                    world.now = until;
                }
            }
            Step::Rest => return restore,
        }
    }
    panic!("no end: {restore:#?}")
}

/// Every node that ran runs, and each of these has exactly its new or its old set.
fn on(restore: &Restore, world: &World, new: bool) {
    for node in &restore.nodes {
        let machine = &world.machines[&node.instance_id];
        assert_eq!(machine.state == "running", node.was_running == Some(true), "{machine:?}");
        if !node.swaps {
            continue;
        }
        let have: BTreeSet<_> = machine
            .attached
            .iter()
            .map(|one| (one.device.clone(), one.volume_id.clone(), one.delete_on_termination))
            .collect();
        let want: BTreeSet<_> = if new {
            let all = node.new.iter();
            all.map(|one| {
                let id = one.volume_id.clone().expect("made");
                (one.device.clone(), id, one.delete_on_termination)
            })
            .collect()
        } else {
            let all = node.old.iter();
            all.map(|one| (one.device.clone(), one.volume_id.clone(), one.delete_on_termination))
                .collect()
        };
        assert_eq!(have, want, "node {}", node.node_id);
    }
}

#[test]
fn every_node_gets_the_backups_volumes_and_runs_again() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
    assert!(done.started_at > done.stopped_at && done.stopped_at.is_some());
    // As the old one had it.
    assert!(done.nodes[0].new[0].delete_on_termination);
    assert!(!done.nodes[0].new[1].delete_on_termination);
    let tags = &world.settings[0].tags;
    assert_eq!(tags, &[("Name".to_owned(), "data 0".to_owned())], "AWS's own are not copied");
    // No call between the first stop and the last start makes a volume.
    let names: Vec<_> = world.calls.iter().map(Call::name).collect();
    let stop = names.iter().position(|name| *name == "StopInstances").expect("a stop");
    assert!(!names[stop..].contains(&"CreateVolume"));
    let start = names.iter().position(|name| *name == "StartInstances").expect("a start");
    assert!(!names[start..].iter().any(|name| ["AttachVolume", "DetachVolume"].contains(name)));
    // The old ones are kept, tagged, until their time is over; the new ones are released.
    let until = done.old_volumes_kept_until.expect("kept");
    assert_eq!(done.leftovers.len(), 4);
    assert!(done.leftovers.iter().all(|left| left.fate == Fate::Deleted && left.tagged));
    world.now = until;
    let over = drive(done, &mut world);
    assert_eq!(over.leftovers, []);
    assert!(!world.volumes.contains_key(&VolumeId::from("vol-3-0")));
}

#[test]
fn who_did_not_run_does_not_run_after() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "stopped".into();
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
}

#[test]
fn a_node_that_the_backup_does_not_have_is_stopped_and_started_only() {
    let (restore, mut world) = world(&[3, 7], &[3]);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
    let seven = &world.machines[&InstanceId::from("i-7")];
    assert!(seven.attached.iter().all(|one| one.volume_id.as_str().starts_with("vol-7-")));
}

/// The operations of a restore that goes well, each with how often it is called.
fn recorded() -> Vec<(&'static str, usize)> {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    world.counts.into_iter().collect()
}

#[test]
fn a_crash_or_a_lost_answer_at_any_call_delays_and_changes_nothing() {
    for (on_call, count) in recorded() {
        for nth in 1..=count {
            for how in [How::Crash, How::Unheard, How::Lost] {
                let (restore, mut world) = world(&[3, 7], &[3, 7]);
                world.strikes = vec![Strike { on: on_call, nth, how: how.clone() }];
                let done = drive(restore, &mut world);
                assert_eq!(done.status, Status::Completed, "{on_call} {nth} {how:?}");
                on(&done, &world, true);
                assert_eq!(world.tokens.len(), 4, "{on_call} {nth} {how:?}: no volume too many");
            }
        }
    }
}

#[test]
fn two_crashes_do_not_either() {
    let all: Vec<_> = recorded()
        .into_iter()
        .flat_map(|(name, count)| (1..=count).map(move |nth| (name, nth)))
        .collect();
    for (at, first) in all.iter().enumerate() {
        for second in &all[at..] {
            let (restore, mut world) = world(&[3, 7], &[3, 7]);
            world.strikes =
                [first, second].map(|(on, nth)| Strike { on, nth: *nth, how: How::Crash }).to_vec();
            let done = drive(restore, &mut world);
            assert_eq!(done.status, Status::Completed, "{first:?} {second:?}");
            on(&done, &world, true);
        }
    }
}

#[test]
fn what_is_refused_before_the_first_stop_touches_nothing() {
    for (on_call, code, failure) in [
        ("dry", "UnauthorizedOperation", FailureCode::PermissionDenied),
        ("CreateVolume", "VolumeLimitExceeded", FailureCode::Quota),
        ("CreateVolume", "InvalidSnapshot.NotFound", FailureCode::SnapshotMissing),
        ("CreateVolume", "UnauthorizedOperation", FailureCode::PermissionDenied),
    ] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        let before = world.machines.clone();
        world.strikes = vec![Strike { on: on_call, nth: 2, how: How::Refused(code) }];
        let done = drive(restore, &mut world);
        assert_eq!(done.status, Status::Failed, "{on_call} {code}");
        assert_eq!(done.failure.as_ref().map(|one| one.code), Some(failure), "{on_call} {code}");
        assert_eq!(world.machines, before, "{on_call} {code}");
        let left = world.tokens.values().filter(|id| world.volumes.contains_key(*id));
        assert_eq!(left.count(), 0, "{on_call} {code}: what was made is deleted");
    }
}

#[test]
fn a_region_that_has_no_initialization_left_makes_them_without() {
    let (restore, mut world) = world(&[3], &[3]);
    world.strikes =
        vec![Strike { on: "CreateVolume", nth: 1, how: How::Refused("SomeRateLimitExceeded") }];
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    assert_eq!(done.nodes[0].new[0].attempt, 2, "under a token of its own");
    assert!(!done.nodes[0].new[0].with_rate && done.nodes[0].new[1].with_rate);
}

#[test]
fn what_cannot_be_swapped_is_undone() {
    for (on_call, nth, code) in [
        ("StopInstances", 2, "OperationNotPermitted"),
        ("AttachVolume", 1, "AttachmentLimitExceeded"),
        ("AttachVolume", 3, "InvalidVolume.ZoneMismatch"),
        ("DetachVolume", 2, "UnauthorizedOperation"),
    ] {
        let (restore, mut world) = world(&[3, 7], &[3, 7]);
        world.strikes = vec![Strike { on: on_call, nth, how: How::Refused(code) }];
        let done = drive(restore, &mut world);
        assert_eq!(done.status, Status::RolledBack, "{on_call} {code}");
        on(&done, &world, false);
        assert!(done.failure.is_some());
        let left = world.tokens.values().filter(|id| world.volumes.contains_key(*id));
        assert_eq!(left.count(), 0, "{on_call} {code}: what was made is deleted");
    }
}

#[test]
fn a_crash_at_any_call_of_the_way_back_changes_nothing_either() {
    let strike =
        Strike { on: "AttachVolume", nth: 3, how: How::Refused("AttachmentLimitExceeded") };
    let (restore, mut first) = world(&[3, 7], &[3, 7]);
    first.strikes = vec![strike.clone()];
    drive(restore, &mut first);
    for (on_call, count) in first.counts {
        for nth in 1..=count {
            let (restore, mut world) = world(&[3, 7], &[3, 7]);
            world.strikes = vec![Strike { on: on_call, nth, how: How::Crash }, strike.clone()];
            if on_call == "AttachVolume" && nth == 3 {
                continue;
            }
            let done = drive(restore, &mut world);
            assert!(!done.status.active(), "{on_call} {nth}: {:?}", done.status);
            on(&done, &world, done.status == Status::Completed);
        }
    }
}

#[test]
fn a_start_without_capacity_is_asked_for_until_it_runs() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 40, "Server.InsufficientInstanceCapacity"));
    let done = drive(restore, &mut world);
    assert_eq!(done.status, Status::Completed);
    on(&done, &world, true);
    let starts =
        world.calls.iter().filter(|call| matches!(call, Call::Start(id) if id.as_str() == "i-7"));
    assert!(starts.count() > 40);
    // And nobody looks each three seconds for hours.
    assert!(world.looks < 40 * 12, "{} looks", world.looks);
}

#[test]
fn a_key_that_keeps_every_node_from_its_start_leads_back() {
    let (restore, mut world) = world(&[3], &[3]);
    world.gives_up = Some((InstanceId::from("i-3"), 1000, "Client.InternalError"));
    // On its old volumes it starts.
    let mut limit = 0;
    let mut row = restore;
    loop {
        limit += 1;
        assert!(limit < 10, "{row:?}");
        let before = row.status;
        row = drive_until(row, &mut world, |row| row.status != before);
        if row.status == Status::RollingBack {
            world.gives_up = None;
        }
        if !row.status.active() {
            break;
        }
    }
    assert_eq!(row.status, Status::RolledBack);
    on(&row, &world, false);
    // They may hold what was written after all: a person decides.
    let kept = row.leftovers.iter().filter(|left| left.fate == Fate::Kept);
    assert_eq!(kept.count(), 2);
}

/// As [`drive`], but no further than this.
fn drive_until(
    mut restore: Restore,
    world: &mut World,
    until: impl Fn(&Restore) -> bool,
) -> Restore {
    let limits = Limits::default();
    for _ in 0..5000 {
        if until(&restore) {
            return restore;
        }
        let now = world.now;
        let seen = world.see(&look(&restore, now));
        match step(&restore, Ok(&seen), &limits, now) {
            Step::Record(next) | Step::Freeze { next, .. } => restore = next,
            Step::Plan { next, settings } => {
                world.settings = settings;
                restore = next;
            }
            Step::Act { intent, actions } => {
                restore = intent;
                let outcomes: Vec<_> =
                    actions.into_iter().map(|one| (one.clone(), world.answer(&one))).collect();
                apply(&mut restore, &outcomes, &limits, now);
                world.pass();
            }
            Step::Wait { until, note } => {
                restore = note.unwrap_or(restore);
                world.pass();
                world.now = world.now.max(until);
            }
            Step::Rest => return restore,
        }
    }
    panic!("no end: {restore:#?}")
}

#[test]
fn a_node_that_is_terminated_before_the_first_start_leads_back() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.phase == Some(Phase::Swapping));
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "terminated".into();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::RolledBack);
    assert_eq!(done.failure.as_ref().map(|one| one.code), Some(FailureCode::NodeMissing));
    let three = &world.machines[&InstanceId::from("i-3")];
    assert_eq!(three.state, "running");
    assert!(three.attached.iter().all(|one| one.volume_id.as_str().starts_with("vol-3-")));
}

#[test]
fn a_node_that_is_terminated_after_the_first_start_leaves_it_stuck_and_the_others_running() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.gives_up = Some((InstanceId::from("i-7"), 1000, "Server.InsufficientInstanceCapacity"));
    let row = drive_until(restore, &mut world, |row| row.nodes[0].launch == Launch::Yes);
    world.machines.get_mut(&InstanceId::from("i-7")).expect("i-7").state = "terminated".into();
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Stuck);
    assert_eq!(world.machines[&InstanceId::from("i-3")].state, "running");
}

#[test]
fn a_changed_registry_before_the_first_stop_supersedes_it() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    let row = drive_until(restore, &mut world, |row| row.planned);
    world.registry[1].instance_id = InstanceId::from("i-8");
    let done = drive(row, &mut world);
    assert_eq!(done.status, Status::Failed);
    assert_eq!(done.failure.as_ref().map(|one| one.code), Some(FailureCode::Superseded));
    assert!(world.machines.values().all(|machine| machine.state == "running"));
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
fn the_way_back_has_deadlines_of_its_own_and_waits_until_what_was_asked_shows() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.strikes =
        vec![Strike { on: "AttachVolume", nth: 1, how: How::Refused("AttachmentLimitExceeded") }];
    let row = drive_until(restore, &mut world, |row| row.status == Status::RollingBack);
    assert_eq!((row.phase, row.reached), (None, None));
    assert!(row.not_before.is_some_and(|at| at > world.now));
    let row = drive_until(row, &mut world, |row| row.phase == Some(Phase::Swapping));
    assert!(row.reached.is_some_and(|(phase, _)| phase == Phase::Swapping));
}

#[test]
fn a_node_of_which_the_backup_has_nothing_is_not_emptied() {
    let (restore, mut world) = world(&[3, 7], &[3, 7]);
    world.kept.retain(|kept| kept.node_id == NodeId(3));
    let done = drive(restore, &mut world);
    assert_eq!(done.failure.map(|one| one.code), Some(FailureCode::SnapshotMissing));
    assert!(world.calls.is_empty());
}
