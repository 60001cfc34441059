//! Volumes: written to, deleted.

use jiff::Timestamp;
use serde_json::json;

use crate::Cloud;
use crate::error::IdKind;
use crate::world::{Attachment, Instance, InstanceState};

impl Cloud {
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

    pub(crate) fn volume_state(&self, volume: &str) -> &'static str {
        match self.attachments_of(volume).next() {
            Some(_) => "in-use",
            None => "available",
        }
    }

    /// What the database on the node writes on its volume: a short text,
    /// carried on by snapshots. Refused while no running instance has it.
    pub fn write(&mut self, now: Timestamp, volume_id: &str, content: &str) -> Result<(), String> {
        self.advance(now);
        let state = self.attachments_of(volume_id).next().map(|(instance, _)| instance.state);
        let Some(volume) = self.volumes.get_mut(&volume_id.to_owned()) else {
            return Err(format!("there is no volume {volume_id}"));
        };
        match state {
            Some(InstanceState::Running) => {
                volume.content = Some(content.to_owned());
                Ok(())
            }
            Some(state) => {
                Err(format!("the instance of {volume_id} does not run: it is {}", state.name()))
            }
            None => Err(format!("{volume_id} is attached to no instance")),
        }
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
                if self.volumes.get(id).is_none() {
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
        let (region, account) = (&self.config.region, &self.config.account);
        let resources = vec![format!("arn:aws:ec2:{region}:{account}:volume/{id}")];
        let request_id = self.uuid();
        let detail = json!({
            "result": "deleted", "cause": "", "event": "deleteVolume", "request-id": request_id,
        });
        self.emit("EBS Volume Notification", resources, detail);
    }
}
