//! What an instance is beside its volumes and its state: what forbids to stop
//! it, what it is bought as, who runs it. And its attributes by the API.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Cloud;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::world::{AttachmentState, Instance};

/// What an instance is, where it is not just any. That it belongs to Auto
/// Scaling is the tag `aws:autoscaling:groupName`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceTraits {
    /// Stop protection: `disableApiStop`. By hand it is stopped all the same.
    pub stop_protection: bool,
    /// Termination protection: `disableApiTermination`. Shown, no more:
    /// nothing terminates by the API here.
    pub termination_protection: bool,
    /// It is a Spot Instance, of such a request.
    pub spot: Option<SpotRequest>,
    /// Whether it was launched with hibernation enabled.
    pub hibernation: bool,
    /// The service that manages it. Shown, no more.
    pub operator: Option<String>,
}

/// How long a Spot request lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpotRequest {
    /// Until its instance is gone: it cannot be stopped.
    OneTime,
    /// Until it is cancelled.
    Persistent,
}

impl SpotRequest {
    /// Its name [M, `SpotInstanceType`].
    pub(crate) fn name(self) -> &'static str {
        match self {
            SpotRequest::OneTime => "one-time",
            SpotRequest::Persistent => "persistent",
        }
    }
}

impl InstanceTraits {
    pub(crate) fn is_plain(&self) -> bool {
        *self == InstanceTraits::default()
    }
}

/// One attribute to change: a call changes one only (M).
#[derive(Debug, Clone)]
pub(crate) enum Change {
    StopProtection(bool),
    TerminationProtection(bool),
    /// By device.
    DeleteOnTermination(Vec<(String, bool)>),
}

impl Cloud {
    /// Makes an instance that is there another kind of instance. Err: it is
    /// not there.
    pub fn set_traits(
        &mut self,
        now: Timestamp,
        instance_id: &str,
        traits: InstanceTraits,
    ) -> Result<(), String> {
        self.advance(now);
        self.state_of(instance_id)?;
        let request = traits.spot.map(|_| self.spot_id());
        if let Some(instance) = self.instances.get_mut(&instance_id.to_owned()) {
            instance.traits = traits;
            instance.spot_request = match request {
                Some(new) => instance.spot_request.take().or(Some(new)),
                None => None,
            };
        }
        Ok(())
    }

    /// Puts a tag on an instance, as AWS's own services do: also one whose key
    /// begins with `aws:`, which no call can set. Err: it is not there.
    pub fn tag_as_aws(
        &mut self,
        now: Timestamp,
        instance_id: &str,
        key: &str,
        value: &str,
    ) -> Result<(), String> {
        self.advance(now);
        self.state_of(instance_id)?;
        if let Some(instance) = self.instances.get_mut(&instance_id.to_owned()) {
            instance.tags.insert(key.to_owned(), value.to_owned());
        }
        Ok(())
    }

    /// The id of a Spot request: eight letters and digits.
    pub(crate) fn spot_id(&mut self) -> String {
        format!("sir-{:08x}", self.rng.u32(..))
    }

    /// An instance by its id, as EC2's front end knows it.
    pub(crate) fn known_instance(&self, id: &str) -> Ec2Result<&Instance> {
        IdKind::Instance.check(id)?;
        self.instances.get(id).ok_or_else(|| Ec2Error::not_found(IdKind::Instance, id))
    }

    /// `ModifyInstanceAttribute`.
    pub(crate) fn modify_instance(&mut self, id: &str, change: Change, dry: bool) -> Ec2Result<()> {
        self.known_instance(id)?;
        if dry {
            return Err(Ec2Error::dry_run());
        }
        let Some(instance) = self.instances.get_mut(&id.to_owned()) else { return Ok(()) };
        match change {
            Change::StopProtection(on) => {
                // "You can't enable stop protection for Spot Instances" (EC2
                // user guide); the code (inf).
                if on && instance.traits.spot.is_some() {
                    return Err(Ec2Error::new(
                        "UnsupportedOperation",
                        format!("Stop protection cannot be enabled for the Spot Instance '{id}'."),
                    ));
                }
                instance.traits.stop_protection = on;
            }
            Change::TerminationProtection(on) => instance.traits.termination_protection = on,
            Change::DeleteOnTermination(devices) => {
                // "for volumes that are currently attached" [M,
                // `BlockDeviceMappings`]; that one on its way is not (inf).
                let attached = |device: &str| {
                    let here = instance.attachments.iter().find(|a| a.device == device);
                    here.is_some_and(|a| a.state == AttachmentState::Attached)
                };
                if let Some((device, _)) = devices.iter().find(|(device, _)| !attached(device)) {
                    return Err(Ec2Error::new(
                        "InvalidInstanceAttributeValue",
                        format!("No device is currently mapped at {device}"),
                    ));
                }
                for attachment in &mut instance.attachments {
                    let named = devices.iter().rfind(|(device, _)| *device == attachment.device);
                    if let Some((_, goes)) = named {
                        attachment.delete_on_termination = *goes;
                    }
                }
            }
        }
        Ok(())
    }
}

/// How many volumes an instance of a type can have, its root volume included,
/// and the limit's kind [M, `EbsInfo`]: on the newest families a limit of
/// their own, on others one shared with network interfaces, of which 28 less
/// one interface are left (EBS user guide, Volume limits; the sizes (inf)).
pub(crate) fn attachment_limit(instance_type: &str) -> (usize, &'static str) {
    let family = instance_type.split('.').next().unwrap_or_default();
    let newest = ["m7i", "c7i", "r7i", "m8g", "c8g", "r8g"];
    if newest.iter().any(|one| family.starts_with(one)) {
        (32, "dedicated")
    } else {
        (27, "shared")
    }
}
