//! What the tests are made of: a hand-made EC2 that does at once what it is asked for,
//! and takes some looks for what takes time.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::*;
use crate::backup::{Presence, Snapshot, Volume};
use crate::deployment;
use crate::operation::CallError;
use crate::time::Seconds;

pub(super) const NOW: Time = Time::from_unix(1_800_000_000);

/// What EC2 answers to a call, once.
#[derive(Debug, Clone)]
pub(super) struct Strike {
    /// The operation; its dry run after `dry `; any dry run as `dry`.
    pub(super) on: &'static str,
    /// Of how many calls of it the last one is struck; 0: each.
    pub(super) nth: usize,
    pub(super) how: How,
}

#[derive(Debug, Clone)]
pub(super) enum How {
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
pub(super) struct World {
    pub(super) now: Time,
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    pub(super) volumes: BTreeMap<VolumeId, (String, Option<SnapshotId>, u8)>,
    pub(super) tokens: BTreeMap<(NodeId, String, u32), VolumeId>,
    pub(super) settings: Vec<Setting>,
    pub(super) registry: Vec<deployment::Node>,
    pub(super) kept: Vec<Kept>,
    pub(super) safety: Option<Safety>,
    pub(super) strikes: Vec<Strike>,
    /// Starts of this instance are given up by EC2, so many times, for this reason.
    pub(super) gives_up: Option<(InstanceId, u32, &'static str)>,
    /// This instance does not get on from the state that it is in.
    pub(super) stands: Option<InstanceId>,
    pub(super) counts: BTreeMap<&'static str, usize>,
    pub(super) calls: Vec<Call>,
    pub(super) tried: Vec<Call>,
    pub(super) crashed: bool,
    /// Looks until a state that is on its way is reached.
    pub(super) slow: u8,
    pub(super) moving: BTreeMap<InstanceId, u8>,
    /// Which restore a volume's tags name, if that is to be seen.
    pub(super) tagged: BTreeMap<VolumeId, RestoreId>,
    /// How often somebody looked.
    pub(super) looks: u32,
}

pub(super) fn volume(node: u64, n: u64) -> Volume {
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

pub(super) fn attached(volume: &Volume) -> Attached {
    Attached {
        volume_id: volume.volume_id.clone(),
        device: volume.device.clone(),
        state: "attached".into(),
        delete_on_termination: volume.delete_on_termination,
    }
}

/// A deployment of these nodes with two volumes each, and a backup of `of` them.
pub(super) fn world(nodes: &[u64], of: &[u64]) -> (Restore, World) {
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
        safety: None,
        strikes: Vec::new(),
        gives_up: None,
        stands: None,
        counts: BTreeMap::new(),
        calls: Vec::new(),
        tried: Vec::new(),
        crashed: false,
        slow: 1,
        moving: BTreeMap::new(),
        tagged: BTreeMap::new(),
        looks: 0,
    };
    (row(nodes, of), world)
}

/// The row of a restore that was just asked for: what a row has at the least.
fn row(nodes: &[u64], of: &[u64]) -> Restore {
    let node = |node: &u64| {
        json!({
            "node_id": node,
            "instance_id": format!("i-{node}"),
            "swaps": of.contains(node),
        })
    };
    let row = json!({
        "deployment_id": 611_298_765_432_109_056_u64,
        "id": 1,
        "tenant_id": "t",
        "region": "us-west-1",
        "backup_id": 1,
        "requested_at": NOW,
        "token": "token",
        "revision": 1,
        "nonce": "nonce",
        "status": "pending",
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
    });
    serde_json::from_value(row).expect("a row")
}

impl World {
    pub(super) fn machine(&mut self, id: &str) -> &mut Machine {
        self.machines.get_mut(&InstanceId::from(id)).expect(id)
    }

    /// How often this was called.
    pub(super) fn called(&self, name: &str) -> usize {
        self.calls.iter().filter(|call| call.name() == name).count()
    }

    pub(super) fn see(&self, look: &Look) -> Seen {
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
                of: self.tagged.get(id).copied(),
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
        if look.safety.is_some() {
            seen.safety = self.safety.clone();
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
    pub(super) fn pass(&mut self) {
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
            if self.stands.as_ref() == Some(&id) {
                continue;
            }
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

    pub(super) fn answer(&mut self, action: &Action) -> Outcome {
        if action.dry {
            self.tried.push(action.call.clone());
            let name = action.call.name();
            let struck =
                |one: &Strike| one.on == "dry" || one.on.strip_prefix("dry ") == Some(name);
            let Some(at) = self.strikes.iter().position(struck) else { return Outcome::Done };
            return Outcome::Failed(match self.strikes.remove(at).how {
                How::Refused(code) => {
                    CallError::Rejected { code: code.into(), message: "no".into() }
                }
                _ => CallError::Unknown("no answer".into()),
            });
        }
        self.calls.push(action.call.clone());
        let name = action.call.name();
        let count = self.counts.entry(name).or_default();
        *count += 1;
        let count = *count;
        let all = self.strikes.iter();
        let struck = all.clone().find(|one| one.on == name && [0, count].contains(&one.nth));
        let unknown = || Outcome::Failed(CallError::Unknown("no answer".into()));
        match struck.map(|one| one.how.clone()) {
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
