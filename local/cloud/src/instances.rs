//! Instances: launched for a demo, terminated behind our back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use crate::Cloud;
use crate::agenda::Work;
use crate::world::{Attachment, Instance, InstanceState, StateReason, Volume};

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
        }
    }
}

/// A volume to launch with an instance.
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
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What the database wrote on it, as a short text.
    pub content: Option<String>,
}

impl VolumeSpec {
    /// A gp3 volume with its baseline performance, not encrypted, kept when
    /// the instance goes.
    pub fn gib(size_gib: u32) -> Self {
        VolumeSpec {
            size_gib,
            volume_type: "gp3".to_owned(),
            iops: Some(3000),
            throughput: Some(125),
            kms_key_id: None,
            delete_on_termination: false,
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

impl Cloud {
    /// Puts a running instance with its volumes into the world, as if it had
    /// long been there: no call is logged, no event sent.
    pub fn launch(&mut self, now: Timestamp, spec: InstanceSpec) -> Launched {
        self.advance(now);
        let instance_id = self.aws_id("i");
        let reservation = self.aws_id("r");
        let image = self.aws_id("ami");
        let mut attachments = Vec::new();
        let devices = std::iter::once(ROOT_DEVICE.to_owned())
            .chain(('f'..='p').map(|letter| format!("/dev/sd{letter}")))
            .chain(('b'..='z').flat_map(|a| ('a'..='z').map(move |b| format!("/dev/xvd{a}{b}"))));
        for (volume, device) in std::iter::once(spec.root).chain(spec.data).zip(devices) {
            attachments.push(Attachment {
                device,
                attached_at: self.now,
                delete_on_termination: volume.delete_on_termination,
                volume: self.add_volume(&spec.zone, volume),
            });
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
        };
        self.instances.insert(instance_id.clone(), instance);
        Launched { instance_id, root_volume_id, volume_ids }
    }

    fn add_volume(&mut self, zone: &str, spec: VolumeSpec) -> String {
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
            multi_attach: false,
            created_at: self.now,
            snapshot: None,
            tags: spec.tags,
            content: spec.content,
            snapshot_at: None,
        };
        self.volumes.insert(id.clone(), volume);
        id
    }

    /// Terminates an instance, as a person in the console does. Err says why
    /// not.
    pub fn terminate(&mut self, now: Timestamp, instance_id: &str) -> Result<(), String> {
        self.advance(now);
        let Some(instance) = self.instances.get_mut(&instance_id.to_owned()) else {
            return Err(format!("there is no instance {instance_id}"));
        };
        if instance.state != InstanceState::Running {
            return Ok(());
        }
        instance.state = InstanceState::ShuttingDown;
        instance.reason = Some(StateReason {
            code: "Client.UserInitiatedShutdown".to_owned(),
            message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
        });
        self.notify_instance(instance_id, InstanceState::ShuttingDown);
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
