//! `AttachVolume` and `DetachVolume`.
//!
//! ```text
//!  attach ─► Attaching ─► Attached ─► Detaching ─► gone
//!                └──► gone     └─► Busy ─┘ (when its instance has stopped)
//! ```

use crate::Cloud;
use crate::agenda::Work;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::faults::{FaultAction, STUCK_MS};
use crate::traits::attachment_limit;
use crate::world::{Attachment, AttachmentState, Instance, InstanceState, Volume, VolumeState};

/// What a `DetachVolume` names.
#[derive(Debug, Clone)]
pub(crate) struct Detachment {
    pub(crate) volume: String,
    pub(crate) instance: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
}

impl Cloud {
    /// `AttachVolume`: it is `attaching` for 2 to 8 AWS seconds, and will stay
    /// when its instance goes.
    pub(crate) fn attach_volume(
        &mut self,
        volume_id: &str,
        instance_id: &str,
        device: &str,
        dry_run: bool,
    ) -> Ec2Result<()> {
        if !is_device(device) {
            return Err(Ec2Error::invalid(format!(
                "Value ({device}) for parameter device is invalid. \
                 {device} is not a valid EBS device name."
            )));
        }
        self.known_volume(volume_id)?;
        self.known_instance(instance_id)?;
        if dry_run {
            return Err(Ec2Error::dry_run());
        }
        self.check_attach(
            self.known_volume(volume_id)?,
            self.known_instance(instance_id)?,
            device,
        )?;
        // Last, so that the fault strikes only a call that is accepted.
        let about = [volume_id.to_owned(), instance_id.to_owned()];
        let fails = self.strike("AttachVolume", &about, &[FaultAction::FailLater]).is_some();
        let until = self.later(self.config.pace.attach_ms.clone());
        let attachment = Attachment {
            state: AttachmentState::Attaching,
            until: Some(until),
            fails,
            ..Attachment::made(volume_id.to_owned(), device.to_owned(), self.now, false)
        };
        if let Some(instance) = self.instances.get_mut(&instance_id.to_owned()) {
            instance.attachments.push(attachment);
        }
        self.plan_attachment(until, instance_id, volume_id);
        Ok(())
    }

    fn check_attach(&self, volume: &Volume, instance: &Instance, device: &str) -> Ec2Result<()> {
        let incorrect = |message: String| Err(Ec2Error::new("IncorrectState", message));
        if !matches!(instance.state, InstanceState::Running | InstanceState::Stopped) {
            return incorrect(format!("Instance '{}' is not 'running'.", instance.id));
        }
        if self.attachments_of(&volume.id).next().is_some() {
            return Err(Ec2Error::new(
                "VolumeInUse",
                format!("{} is already attached to an instance", volume.id),
            ));
        }
        if volume.state != VolumeState::Ready {
            return incorrect(format!("Volume '{}' is not 'available'.", volume.id));
        }
        if volume.zone != instance.zone {
            return Err(Ec2Error::new(
                "InvalidVolume.ZoneMismatch",
                format!(
                    "The volume '{}' is not in the same availability zone as instance '{}'",
                    volume.id, instance.id
                ),
            ));
        }
        if instance.attachments.iter().any(|a| a.device == device) {
            return Err(Ec2Error::invalid(format!(
                "Invalid value '{device}' for unixDevice. \
                 Attachment point {device} is already in use"
            )));
        }
        if instance.attachments.len() >= attachment_limit(&instance.kind).0 {
            return Err(Ec2Error::new(
                "AttachmentLimitExceeded",
                format!("Volume attachment limit exceeded for instance '{}'.", instance.id),
            ));
        }
        Ok(())
    }

    /// `DetachVolume`; gives the instance. A volume in use by the operating
    /// system, so any of an instance that is not stopped, is `busy` until that
    /// has stopped, unless it is forced (M). Asked again it changes nothing
    /// (inf), but with force it begins anew.
    pub(crate) fn detach_volume(&mut self, which: &Detachment) -> Ec2Result<String> {
        let id = &which.volume;
        self.known_volume(id)?;
        if let Some(instance) = &which.instance {
            self.known_instance(instance)?;
        }
        if which.dry_run {
            return Err(Ec2Error::dry_run());
        }
        let Some((instance, attachment)) = self.attachments_of(id).next() else {
            // Whatever instance is named (seen on AWS).
            let state = self.known_volume(id)?.state.name(false);
            return Err(Ec2Error::new(
                "IncorrectState",
                format!("Volume '{id}' is in the '{state}' state."),
            ));
        };
        let other = which.instance.as_ref().is_some_and(|one| *one != instance.id)
            || which.device.as_ref().is_some_and(|one| *one != attachment.device);
        if other {
            return Err(Ec2Error::new(
                "InvalidAttachment.NotFound",
                format!("The volume '{id}' is not attached to that instance at that device."),
            ));
        }
        let stopped = instance.state == InstanceState::Stopped;
        if attachment.device == instance.root_device && !stopped {
            return Err(Ec2Error::new(
                "OperationNotPermitted",
                format!("Unable to detach root volume '{id}' from instance '{}'", instance.id),
            ));
        }
        let instance_id = instance.id.clone();
        let state = attachment.state;
        let asked = matches!(state, AttachmentState::Busy | AttachmentState::Detaching);
        if asked && !which.force {
            return Ok(instance_id);
        }
        let about = [id.clone(), instance_id.clone()];
        let stuck = self.strike("DetachVolume", &about, &[FaultAction::FailLater]).is_some();
        // What is only being attached is not mounted yet.
        let mounted = !stopped && state == AttachmentState::Attached;
        if mounted && !which.force && !stuck {
            self.turn_attachment(&instance_id, id, AttachmentState::Busy, None);
        } else {
            self.begin_detaching(&instance_id, id, stuck);
        }
        Ok(instance_id)
    }

    fn begin_detaching(&mut self, instance: &str, volume: &str, stuck: bool) {
        let until = if stuck {
            self.now + self.span(STUCK_MS)
        } else {
            self.later(self.config.pace.attach_ms.clone())
        };
        self.turn_attachment(instance, volume, AttachmentState::Detaching, Some(until));
        self.plan_attachment(until, instance, volume);
    }

    fn turn_attachment(
        &mut self,
        instance: &str,
        volume: &str,
        state: AttachmentState,
        until: Option<jiff::Timestamp>,
    ) {
        let instance = self.instances.get_mut(&instance.to_owned());
        if let Some(attachment) = instance.and_then(|one| one.attachment_mut(volume)) {
            attachment.state = state;
            attachment.until = until;
        }
    }

    fn plan_attachment(&mut self, at: jiff::Timestamp, instance: &str, volume: &str) {
        let (instance, volume) = (instance.to_owned(), volume.to_owned());
        self.plan(at, Work::FinishAttachment { instance, volume });
    }

    /// `attaching` or `detaching` ends, unless it did already otherwise.
    pub(crate) fn finish_attachment(&mut self, instance_id: &str, volume: &str) {
        let now = self.now;
        let Some(instance) = self.instances.get_mut(&instance_id.to_owned()) else { return };
        let Some(attachment) = instance.attachment_mut(volume).filter(|a| a.ends(now)) else {
            return;
        };
        attachment.until = None;
        match (attachment.state, attachment.fails) {
            (AttachmentState::Attaching, false) => attachment.state = AttachmentState::Attached,
            (AttachmentState::Attaching, true) => {
                instance.attachments.retain(|a| a.volume != volume);
                self.notify_volume(volume, "attachVolume", "failed", "An internal error occurred.");
            }
            (AttachmentState::Detaching, _) => instance.attachments.retain(|a| a.volume != volume),
            (AttachmentState::Attached | AttachmentState::Busy, _) => {}
        }
    }

    /// The instance has stopped: nothing of it is in use any more.
    pub(crate) fn release_busy(&mut self, instance_id: &str) {
        let Some(instance) = self.instances.get(instance_id) else { return };
        let busy = instance.attachments.iter().filter(|a| a.state == AttachmentState::Busy);
        let busy: Vec<String> = busy.map(|a| a.volume.clone()).collect();
        for volume in busy {
            self.begin_detaching(instance_id, &volume, false);
        }
    }

    /// The attachment that an answer shows.
    pub(crate) fn attachment(&self, volume: &str, instance: &str) -> Ec2Result<&Attachment> {
        let instance = self.known_instance(instance)?;
        let attachment = instance.attachments.iter().find(|a| a.volume == volume);
        attachment.ok_or_else(|| Ec2Error::not_found(IdKind::Volume, volume))
    }
}

/// `/dev/sdh`, `xvdba`, ... [M, `Device`]; the rules for each type of
/// instance are not simulated.
fn is_device(name: &str) -> bool {
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    let rest = ["sd", "xvd", "hd"].iter().find_map(|prefix| name.strip_prefix(prefix));
    rest.is_some_and(|rest| {
        let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = rest.len() - letters.len();
        (1..=2).contains(&letters.len())
            && letters.bytes().all(|b| b.is_ascii_lowercase())
            && digits <= 2
    })
}
