//! Volumes: written to, attached, taken off, deleted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::error::IdKind;
use crate::instances::data_devices;
use crate::world::{Attachment, AttachmentState, Instance, InstanceState, Volume, VolumeState};
use crate::{Cloud, VolumeSpec};

/// Who has which volume attached, for what is about many volumes at once.
pub(crate) struct Attached<'a>(BTreeMap<&'a str, Vec<(&'a Instance, &'a Attachment)>>);

impl<'a> Attached<'a> {
    pub(crate) fn of(&self, volume: &str) -> &[(&'a Instance, &'a Attachment)] {
        self.0.get(volume).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn state(&self, volume: &Volume) -> &'static str {
        volume.state.name(!self.of(&volume.id).is_empty())
    }
}

impl Cloud {
    /// The attachments of these volumes; None: of all.
    pub(crate) fn attached(&self, volumes: Option<&BTreeSet<String>>) -> Attached<'_> {
        let mut attached: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for instance in self.instances.values() {
            let wanted = |id| volumes.is_none_or(|volumes| volumes.contains(id));
            for attachment in instance.attachments.iter().filter(|a| wanted(&a.volume)) {
                attached.entry(&attachment.volume).or_default().push((instance, attachment));
            }
        }
        Attached(attached)
    }

    /// Who has the volume attached.
    pub(crate) fn attachments_of<'a>(
        &'a self,
        volume: &'a str,
    ) -> impl Iterator<Item = (&'a Instance, &'a Attachment)> {
        self.instances.values().flat_map(move |instance| {
            let attached = instance.attachments.iter().filter(move |a| a.volume == volume);
            attached.map(move |attachment| (instance, attachment))
        })
    }

    /// What the database on the node writes on its volume: a short text,
    /// carried on by snapshots. Refused while no running instance has it
    /// attached: one that is being attached or detached is not mounted.
    pub fn write(&mut self, now: Timestamp, volume_id: &str, content: &str) -> Result<(), String> {
        self.advance(now);
        let attachment = self.attachments_of(volume_id).next();
        let state = attachment.map(|(instance, attachment)| (instance.state, attachment.state));
        let Some(volume) = self.volumes.get_mut(&volume_id.to_owned()) else {
            return Err(format!("there is no volume {volume_id}"));
        };
        match state {
            Some((InstanceState::Running, AttachmentState::Attached)) => {
                volume.content = Some(content.to_owned());
                Ok(())
            }
            Some((InstanceState::Running, state)) => {
                Err(format!("{volume_id} is not attached: it is {}", state.name()))
            }
            Some((state, _)) => {
                Err(format!("the instance of {volume_id} does not run: it is {}", state.name()))
            }
            None => Err(format!("{volume_id} is attached to no instance")),
        }
    }

    /// Makes a volume in the instance's zone and attaches it at the first data
    /// device that is free, as a person in the console does; gives the
    /// volume's id. It is `in-use` at once, and no event is sent. Err says why
    /// not: the instance is not there or ends, or has no device left.
    pub fn attach(
        &mut self,
        now: Timestamp,
        instance_id: &str,
        spec: VolumeSpec,
    ) -> Result<String, String> {
        self.advance(now);
        let Some(instance) = self.instances.get(instance_id) else {
            return Err(format!("there is no instance {instance_id}"));
        };
        if instance.state.ends() {
            let state = instance.state.name();
            return Err(format!("nothing can be attached to {instance_id}: it is {state}"));
        }
        let taken = |device: &String| instance.attachments.iter().any(|a| a.device == *device);
        let Some(device) = data_devices().find(|device| !taken(device)) else {
            return Err(format!("{instance_id} has no device left"));
        };
        let zone = instance.zone.clone();
        let goes = spec.delete_on_termination;
        let volume = self.add_volume(&zone, spec);
        let attachment = Attachment::made(volume.clone(), device, self.now, goes);
        if let Some(instance) = self.instances.get_mut(&instance_id.to_owned()) {
            instance.attachments.push(attachment);
        }
        Ok(volume)
    }

    /// Takes a data volume off its instance, as a person in the console does:
    /// it stays, `available` at once, and no event is sent. Err says why not:
    /// it is not there, on no instance, or a root volume.
    pub fn detach(&mut self, now: Timestamp, volume_id: &str) -> Result<(), String> {
        self.advance(now);
        if self.volumes.get(volume_id).is_none() {
            return Err(format!("there is no volume {volume_id}"));
        }
        let Some((instance, attachment)) = self.attachments_of(volume_id).next() else {
            return Err(format!("{volume_id} is attached to no instance"));
        };
        if attachment.device == instance.root_device {
            return Err(format!("{volume_id} is the root volume of {}", instance.id));
        }
        let instance_id = instance.id.clone();
        if let Some(instance) = self.instances.get_mut(&instance_id) {
            instance.attachments.retain(|a| a.volume != volume_id);
        }
        Ok(())
    }

    /// Deletes a snapshot or a volume, as a person in the console does: a
    /// pending snapshot goes when it ends, an attached volume is refused.
    pub fn delete(&mut self, now: Timestamp, id: &str) -> Result<(), String> {
        self.advance(now);
        match IdKind::of(id) {
            Some(IdKind::Snapshot) => {
                if !self.snapshots.get(id).is_some_and(crate::world::Snapshot::exists) {
                    return Err(format!("there is no snapshot {id}"));
                }
                self.remove_snapshot(id);
                Ok(())
            }
            Some(IdKind::Volume) => {
                let state = self.volumes.get(id).map(|v| v.state);
                if state.is_none_or(|state| state == VolumeState::Deleting) {
                    return Err(format!("there is no volume {id}"));
                }
                if let Some((instance, _)) = self.attachments_of(id).next() {
                    return Err(format!("{id} is attached to {}", instance.id));
                }
                self.remove_volume(id);
                Ok(())
            }
            Some(IdKind::Instance) | None => {
                Err(format!("{id} is neither a snapshot nor a volume"))
            }
        }
    }

    /// The removal itself, with its event: `EBS Volume Notification`,
    /// `deleteVolume` (E).
    pub(crate) fn remove_volume(&mut self, id: &str) {
        if self.volumes.remove(&id.to_owned()).is_none() {
            return;
        }
        self.notify_volume(id, "deleteVolume", "deleted", "");
    }
}
