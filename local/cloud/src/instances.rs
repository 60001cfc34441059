//! Instances: launched for a demo, stopped, started, and terminated behind our
//! back. What the API does with them is in `power` and `traits`.
//!
//! ```text
//!  launch ─► Running ─► Stopping ─► Stopped ─► Pending ─► Running
//!                                     ▲           │ its start failed
//!                                     └───────────┘
//!  any of them ─► ShuttingDown ─► Terminated ─► forgotten
//! ```

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use crate::agenda::Work;
use crate::world::{Attachment, Instance, InstanceState, StateReason, Volume, VolumeState};
use crate::{Cloud, InstanceTraits};

/// The device of the root volume.
pub const ROOT_DEVICE: &str = "/dev/xvda";

/// From `shutting-down` to `terminated` (inf, as long as a stop).
const TERMINATION_MS: std::ops::RangeInclusive<u64> = 20_000..=60_000;
/// A terminated instance is described for "about an hour" (EC2 user guide,
/// Terminate instances).
const TERMINATED_SHOWN_MS: u64 = 3_600_000;

/// An instance to launch with its volumes.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// Its zone, a full name (`us-west-1a`).
    pub zone: String,
    /// Its type.
    pub instance_type: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The volume at [`ROOT_DEVICE`].
    pub root: VolumeSpec,
    /// The data volumes, at `/dev/sdf` and on.
    pub data: Vec<VolumeSpec>,
    /// What else it is.
    pub traits: InstanceTraits,
}

impl InstanceSpec {
    /// A running `m7g.large` with a root volume of 8 GiB and no data volume.
    pub fn in_zone(zone: impl Into<String>) -> Self {
        InstanceSpec {
            zone: zone.into(),
            instance_type: "m7g.large".to_owned(),
            tags: BTreeMap::new(),
            root: VolumeSpec { delete_on_termination: true, ..VolumeSpec::gib(8) },
            data: Vec::new(),
            traits: InstanceTraits::default(),
        }
    }
}

/// A volume to launch with an instance, or to attach to one.
#[derive(Debug, Clone)]
pub struct VolumeSpec {
    /// Its size.
    pub size_gib: u32,
    /// Its type.
    pub volume_type: String,
    /// Its provisioned IOPS, where the type has them.
    pub iops: Option<u32>,
    /// Its throughput in MiB/s, where the type has it.
    pub throughput: Option<u32>,
    /// The KMS key's ARN; with it the volume is encrypted.
    pub kms_key_id: Option<String>,
    /// Whether it goes with its instance.
    pub delete_on_termination: bool,
    /// Whether several instances may have it at once. Described, no more: here
    /// a volume is on one instance, and its type is not asked.
    pub multi_attach: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What the database wrote on it, as a short text.
    pub content: Option<String>,
}

impl VolumeSpec {
    /// A gp3 volume with its baseline performance, not encrypted, for one
    /// instance, kept when the instance goes.
    pub fn gib(size_gib: u32) -> Self {
        VolumeSpec {
            size_gib,
            volume_type: "gp3".to_owned(),
            iops: Some(3000),
            throughput: Some(125),
            kms_key_id: None,
            delete_on_termination: false,
            multi_attach: false,
            tags: BTreeMap::new(),
            content: None,
        }
    }
}

/// The ids of what was launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The instance.
    pub instance_id: String,
    /// The volume at [`ROOT_DEVICE`].
    pub root_volume_id: String,
    /// The data volumes, in the order of [`InstanceSpec::data`].
    pub volume_ids: Vec<String>,
}

/// The devices of data volumes, in the order in which they are given: as the
/// console recommends for Linux, then those for the volumes beyond (EC2 user
/// guide, Device names for volumes).
pub(crate) fn data_devices() -> impl Iterator<Item = String> {
    ('f'..='p')
        .map(|letter| format!("/dev/sd{letter}"))
        .chain(('b'..='z').flat_map(|a| ('a'..='z').map(move |b| format!("/dev/xvd{a}{b}"))))
}

impl Cloud {
    /// Puts a running instance with its volumes into the world, as if it had
    /// long been there: no call is logged, no event sent.
    pub fn launch(&mut self, now: Timestamp, spec: InstanceSpec) -> Launched {
        self.advance(now);
        let instance_id = self.aws_id("i");
        let reservation = self.aws_id("r");
        let image = self.aws_id("ami");
        let mut attachments = Vec::new();
        let devices = std::iter::once(ROOT_DEVICE.to_owned()).chain(data_devices());
        for (volume, device) in std::iter::once(spec.root).chain(spec.data).zip(devices) {
            let goes = volume.delete_on_termination;
            let volume = self.add_volume(&spec.zone, volume);
            attachments.push(Attachment::made(volume, device, self.now, goes));
        }
        let mut volume_ids: Vec<String> = attachments.iter().map(|a| a.volume.clone()).collect();
        let root_volume_id = volume_ids.remove(0);
        let instance = Instance {
            id: instance_id.clone(),
            reservation,
            zone: spec.zone,
            kind: spec.instance_type,
            image,
            state: InstanceState::Running,
            reason: None,
            launched_at: self.now,
            root_device: ROOT_DEVICE.to_owned(),
            attachments,
            tags: spec.tags,
            spot_request: spec.traits.spot.map(|_| self.spot_id()),
            traits: spec.traits,
            turns_at: None,
            start_fails: None,
        };
        self.instances.insert(instance_id.clone(), instance);
        Launched { instance_id, root_volume_id, volume_ids }
    }

    pub(crate) fn add_volume(&mut self, zone: &str, spec: VolumeSpec) -> String {
        let id = self.aws_id("vol");
        let volume = Volume {
            id: id.clone(),
            zone: zone.to_owned(),
            size_gib: spec.size_gib,
            kind: spec.volume_type,
            iops: spec.iops,
            throughput: spec.throughput,
            encrypted: spec.kms_key_id.is_some(),
            kms_key: spec.kms_key_id,
            multi_attach: spec.multi_attach,
            created_at: self.now,
            snapshot: None,
            tags: spec.tags,
            content: spec.content,
            snapshot_at: None,
            state: VolumeState::Ready,
            visible_at: None,
            fails: None,
            initialization: None,
        };
        self.volumes.insert(id.clone(), volume);
        id
    }

    /// Stops a running instance, as a person in the console does: it is
    /// `stopping` for 20 to 60 AWS seconds, then `stopped`. Its volumes stay
    /// attached. Of one that stops or stands already nothing changes (inf).
    /// Err says why not: it is not there, starts, or ends.
    pub fn stop(&mut self, now: Timestamp, instance_id: &str) -> Result<(), String> {
        self.advance(now);
        match self.state_of(instance_id)? {
            InstanceState::Running => {}
            InstanceState::Stopping | InstanceState::Stopped => return Ok(()),
            state => {
                return Err(format!("{instance_id} cannot be stopped: it is {}", state.name()));
            }
        }
        self.begin_stop(instance_id, StateReason::by_hand(), None);
        Ok(())
    }

    /// Starts a stopped instance, as a person in the console does: it is
    /// `pending` for 15 to 45 AWS seconds, then `running`. Of one that starts
    /// or runs already nothing changes (inf). Err says why not: it is not there,
    /// still stops, or ends.
    pub fn start(&mut self, now: Timestamp, instance_id: &str) -> Result<(), String> {
        self.advance(now);
        match self.state_of(instance_id)? {
            InstanceState::Stopped => {}
            InstanceState::Pending | InstanceState::Running => return Ok(()),
            state => {
                return Err(format!("{instance_id} cannot be started: it is {}", state.name()));
            }
        }
        self.begin_start(instance_id, None);
        Ok(())
    }

    /// The state of an instance; Err says that there is no such instance.
    pub(crate) fn state_of(&self, id: &str) -> Result<InstanceState, String> {
        let instance = self.instances.get(id);
        instance.map(|i| i.state).ok_or_else(|| format!("there is no instance {id}"))
    }

    /// Into another state, with its event.
    pub(crate) fn turn(&mut self, id: &str, state: InstanceState, reason: Option<StateReason>) {
        let Some(instance) = self.instances.get_mut(&id.to_owned()) else { return };
        instance.state = state;
        instance.reason = reason;
        self.notify_instance(id, state);
    }

    /// Terminates an instance, as a person in the console does, whether it
    /// runs or not. One that ends already is left to it. Err says why not.
    pub fn terminate(&mut self, now: Timestamp, instance_id: &str) -> Result<(), String> {
        self.advance(now);
        if self.state_of(instance_id)?.ends() {
            return Ok(());
        }
        self.turn(instance_id, InstanceState::ShuttingDown, Some(StateReason::by_hand()));
        let at = self.later(TERMINATION_MS);
        self.plan(at, Work::FinishTermination(instance_id.to_owned()));
        Ok(())
    }

    /// Volumes that go with their instance go, the others are free.
    pub(crate) fn finish_termination(&mut self, id: &str) {
        let Some(instance) = self.instances.get_mut(&id.to_owned()) else { return };
        instance.state = InstanceState::Terminated;
        let attachments = std::mem::take(&mut instance.attachments);
        for attachment in attachments.into_iter().filter(|a| a.delete_on_termination) {
            self.remove_volume(&attachment.volume);
        }
        self.notify_instance(id, InstanceState::Terminated);
        let at = self.now + self.span(TERMINATED_SHOWN_MS);
        self.plan(at, Work::ForgetInstance(id.to_owned()));
    }

    /// `EC2 Instance State-change Notification` (EC2 user guide).
    fn notify_instance(&mut self, id: &str, state: InstanceState) {
        let (region, account) = (&self.config.region, &self.config.account);
        let resources = vec![format!("arn:aws:ec2:{region}:{account}:instance/{id}")];
        let detail = json!({"instance-id": id, "state": state.name()});
        self.emit("EC2 Instance State-change Notification", resources, detail);
    }
}

impl StateReason {
    /// A person or a program asked for it [M, `StateReason`].
    pub(crate) fn by_hand() -> StateReason {
        StateReason {
            code: "Client.UserInitiatedShutdown".to_owned(),
            message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
        }
    }
}
