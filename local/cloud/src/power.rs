//! `StopInstances` and `StartInstances`: of several at once, all or none.

use std::ops::RangeInclusive;

use crate::Cloud;
use crate::agenda::Work;
use crate::error::{Ec2Error, Ec2Result, IdKind};
use crate::faults::{FaultAction, STUCK_MS};
use crate::traits::SpotRequest;
use crate::world::{Attachment, AttachmentState, Instance, InstanceState, StateReason};

/// Why a start fails, unless a fault says otherwise [M, `StateReason`].
const NO_CAPACITY: &str = "Server.InsufficientInstanceCapacity";
/// Why a start fails whose key cannot be used [M, `StateReason`].
const CLIENT_ERROR: &str = "Client.InternalError";

/// An instance, and its state before and after a call.
pub(crate) type Turned = (String, InstanceState, InstanceState);

/// How a `StopInstances` wants it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stop {
    pub(crate) force: bool,
    pub(crate) hibernate: bool,
    pub(crate) dry_run: bool,
}

impl Cloud {
    /// `StopInstances`. Those that stop or stand already are left to it (inf),
    /// unless it is forced: then a stop that hangs ends as any other.
    pub(crate) fn stop_instances(&mut self, ids: &[String], how: Stop) -> Ec2Result<Vec<Turned>> {
        self.known_instances(ids)?;
        if how.dry_run {
            return Err(Ec2Error::dry_run());
        }
        for id in ids {
            check_stop(self.known_instance(id)?, how.hibernate)?;
        }
        let mut turned = Vec::new();
        for id in ids {
            let before = self.known_instance(id)?.state;
            if before == InstanceState::Running {
                let fault = self.strike(
                    "StopInstances",
                    std::slice::from_ref(id),
                    &[FaultAction::FailLater],
                );
                let span = fault.map(|_| STUCK_MS..=STUCK_MS);
                let reason =
                    if how.hibernate { StateReason::hibernated() } else { StateReason::by_hand() };
                self.begin_stop(id, reason, span);
            } else if before == InstanceState::Stopping && how.force {
                self.plan_stop(id, None);
            }
            turned.push((id.clone(), before, self.known_instance(id)?.state));
        }
        Ok(turned)
    }

    /// `StartInstances`. Those that start or run already are left to it (inf).
    pub(crate) fn start_instances(&mut self, ids: &[String], dry: bool) -> Ec2Result<Vec<Turned>> {
        self.known_instances(ids)?;
        if dry {
            return Err(Ec2Error::dry_run());
        }
        for id in ids {
            check_start(self.known_instance(id)?)?;
        }
        let mut turned = Vec::new();
        for id in ids {
            let before = self.known_instance(id)?.state;
            if before == InstanceState::Stopped {
                let fault = self.strike(
                    "StartInstances",
                    std::slice::from_ref(id),
                    &[FaultAction::FailLater],
                );
                let fails = fault.map(|fault| fault.code.unwrap_or_else(|| NO_CAPACITY.to_owned()));
                self.begin_start(id, fails);
            }
            turned.push((id.clone(), before, self.known_instance(id)?.state));
        }
        Ok(turned)
    }

    /// Well-formed ids of instances that there are; one error names all that
    /// are not.
    pub(crate) fn known_instances(&self, ids: &[String]) -> Ec2Result<()> {
        for id in ids {
            IdKind::Instance.check(id)?;
        }
        let missing: Vec<&str> =
            ids.iter().map(String::as_str).filter(|id| self.instances.get(*id).is_none()).collect();
        match missing.as_slice() {
            [] => Ok(()),
            [id] => Err(Ec2Error::not_found(IdKind::Instance, id)),
            _ => Err(Ec2Error::new(
                "InvalidInstanceID.NotFound",
                format!("The instance IDs '{}' do not exist", missing.join(", ")),
            )),
        }
    }

    /// A running instance stops, within that span of AWS's time or as all do.
    pub(crate) fn begin_stop(
        &mut self,
        id: &str,
        reason: StateReason,
        span: Option<RangeInclusive<u64>>,
    ) {
        self.turn(id, InstanceState::Stopping, Some(reason));
        self.plan_stop(id, span);
    }

    fn plan_stop(&mut self, id: &str, span: Option<RangeInclusive<u64>>) {
        let mut at = self.later(span.unwrap_or_else(|| self.config.pace.stop_ms.clone()));
        let now = self.now;
        if let Some(instance) = self.instances.get_mut(&id.to_owned()) {
            // Force makes none later.
            at = instance.turns_at.filter(|due| *due > now).map_or(at, |due| due.min(at));
            instance.turns_at = Some(at);
        }
        self.plan(at, Work::FinishStop(id.to_owned()));
    }

    /// A stopped instance starts; it fails with that code in the end.
    pub(crate) fn begin_start(&mut self, id: &str, fails: Option<String>) {
        let launched_at = self.now;
        self.turn(id, InstanceState::Pending, None);
        let at = self.later(self.config.pace.start_ms.clone());
        if let Some(instance) = self.instances.get_mut(&id.to_owned()) {
            // "The time that the instance was last launched" [M, `LaunchTime`].
            instance.launched_at = launched_at;
            instance.turns_at = Some(at);
            instance.start_fails = fails;
        }
        self.plan(at, Work::FinishStart(id.to_owned()));
    }

    /// Unless it was terminated meanwhile.
    pub(crate) fn finish_stop(&mut self, id: &str) {
        let Some(instance) = self.instances.get(id) else { return };
        if instance.state == InstanceState::Stopping && instance.turns(self.now) {
            let reason = instance.reason.clone();
            self.turn(id, InstanceState::Stopped, reason);
            self.release_busy(id);
        }
    }

    /// Unless it was terminated meanwhile. EC2 tells only afterwards that it
    /// found no capacity, or that a volume's key cannot be used.
    pub(crate) fn finish_start(&mut self, id: &str) {
        let Some(instance) = self.instances.get(id) else { return };
        if instance.state != InstanceState::Pending || !instance.turns(self.now) {
            return;
        }
        let volumes = instance.attachments.iter().filter_map(|a| self.volumes.get(&a.volume));
        let locked = volumes.filter_map(|v| v.kms_key.as_deref()).any(|arn| self.unusable(arn));
        let failure =
            instance.start_fails.clone().or_else(|| locked.then(|| CLIENT_ERROR.to_owned()));
        match failure {
            None => self.turn(id, InstanceState::Running, None),
            Some(code) => {
                self.turn(id, InstanceState::Stopped, Some(StateReason::of_start(code)));
                // It never ran: whatever was to be detached is free.
                self.release_busy(id);
            }
        }
    }
}

fn check_stop(instance: &Instance, hibernate: bool) -> Ec2Result<()> {
    let id = &instance.id;
    match instance.state {
        InstanceState::Stopping | InstanceState::Stopped => return Ok(()),
        InstanceState::Running => {}
        InstanceState::Pending | InstanceState::ShuttingDown | InstanceState::Terminated => {
            return Err(incorrect_state(id, "stopped"));
        }
    }
    if instance.traits.stop_protection {
        return Err(Ec2Error::new(
            "OperationNotPermitted",
            format!(
                "The instance '{id}' may not be stopped. \
                 Modify its 'disableApiStop' instance attribute and try again."
            ),
        ));
    }
    check_spot(instance)?;
    if hibernate && !instance.traits.hibernation {
        // The code (inf): (X) has it of a launch.
        return Err(Ec2Error::new(
            "UnsupportedHibernationConfiguration",
            format!("The instance '{id}' is not enabled for hibernation."),
        ));
    }
    Ok(())
}

fn check_start(instance: &Instance) -> Ec2Result<()> {
    let id = &instance.id;
    match instance.state {
        InstanceState::Pending | InstanceState::Running => return Ok(()),
        InstanceState::Stopped => {}
        InstanceState::Stopping | InstanceState::ShuttingDown | InstanceState::Terminated => {
            return Err(incorrect_state(id, "started"));
        }
    }
    check_spot(instance)?;
    let root =
        |a: &Attachment| a.device == instance.root_device && a.state != AttachmentState::Detaching;
    if !instance.attachments.iter().any(root) {
        // The message is EC2's, its code is read off it (inf).
        return Err(Ec2Error::invalid(format!(
            "Invalid value '{id}' for instanceId. \
             Instance does not have a volume attached at root ({})",
            instance.root_device
        )));
    }
    Ok(())
}

/// A Spot Instance of a one-time request neither stops nor starts (EC2 user
/// guide, Stop a Spot Instance).
fn check_spot(instance: &Instance) -> Ec2Result<()> {
    if instance.traits.spot == Some(SpotRequest::OneTime) {
        return Err(Ec2Error::new(
            "UnsupportedOperation",
            format!(
                "You can't stop or start the Spot Instance '{}' because it is associated \
                 with a one-time Spot Instance request.",
                instance.id
            ),
        ));
    }
    Ok(())
}

fn incorrect_state(id: &str, done: &str) -> Ec2Error {
    Ec2Error::new(
        "IncorrectInstanceState",
        format!("The instance '{id}' is not in a state from which it can be {done}."),
    )
}

impl StateReason {
    fn of_start(code: String) -> StateReason {
        let why = match code.as_str() {
            NO_CAPACITY => "Insufficient capacity to satisfy instance request",
            CLIENT_ERROR => "Client error on launch",
            _ => "The instance could not be started",
        };
        StateReason { message: format!("{code}: {why}"), code }
    }

    fn hibernated() -> StateReason {
        StateReason {
            code: "Client.UserInitiatedHibernate".to_owned(),
            message: "Client.UserInitiatedHibernate: User initiated hibernate".to_owned(),
        }
    }
}
