//! The outcome of calls, put into the row that announced them.

use super::plan::named;
use super::{Action, Call, Fate, Outcome, Restore, Status, launch};
use crate::limits::Limits;
use crate::operation::{CallError, FailureCode, RIGHTS};
use crate::time::Time;

/// Codes of a quota or of a volume that EC2 will not make, whatever we do.
/// Source: EC2 API reference, "Error codes".
const QUOTAS: &[&str] = &[
    "VolumeLimitExceeded",
    "MaxIOPSLimitExceeded",
    "ResourceLimitExceeded",
    "ActiveVolumeLimitExceeded",
];

/// Puts the outcomes of `actions` into `restore`: the intent as stored, or a newer row if
/// somebody else wrote in between (a reply is merged, never dropped).
pub fn apply(restore: &mut Restore, outcomes: &[(Action, Outcome)], limits: &Limits, now: Time) {
    let mut lasting = None;
    let mut failed = false;
    for (action, outcome) in outcomes {
        if let Outcome::Failed(error) = outcome {
            restore.trouble = Some(error.shown());
            failed = true;
        }
        let fault = if action.dry {
            tried(restore, &action.call, outcome)
        } else {
            done(restore, &action.call, outcome, now)
        };
        lasting = lasting.or(fault);
    }
    // One that was tried in part is tried again.
    for action in outcomes.iter().filter(|(action, outcome)| action.dry && !passed(outcome)) {
        uncheck(restore, &action.0.call);
    }
    if outcomes.iter().any(|(action, _)| !action.dry) {
        restore.acted_at = Some(now);
    }
    restore.troubles = if failed { restore.troubles.saturating_add(1) } else { 0 };
    if let Some((code, reason)) = lasting
        && matches!(restore.status, Status::InProgress)
        && restore.launched_at.is_none()
        && !restore.committed
    {
        restore.turn_back(code, reason, limits, now);
    } else if failed {
        restore.not_before = Some(now + restore.pause());
    }
}

/// Whether a dry run says that the call would be taken, or that only something stands in
/// its way that is so before the swap and not in it.
fn passed(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done | Outcome::Created(_) => true,
        Outcome::Failed(CallError::Rejected { code, .. }) => !RIGHTS.contains(&code.as_str()),
        Outcome::NotBegun | Outcome::Failed(_) => false,
    }
}

type Fault = (FailureCode, String);

/// A dry run.
fn tried(restore: &mut Restore, call: &Call, outcome: &Outcome) -> Option<Fault> {
    if let Outcome::Failed(error @ CallError::Rejected { code, .. }) = outcome {
        let said = error.clone().of(call.name()).sentence();
        let who = about(restore, call);
        if RIGHTS.contains(&code.as_str()) {
            return Some((
                FailureCode::PermissionDenied,
                format!(
                    "{who}: {said} Nothing was touched. Give the worker's role the right (template.yaml), and look for a policy that denies it; then restore again."
                ),
            ));
        }
        if code == "InvalidVolume.ZoneMismatch" {
            return Some((
                FailureCode::ZoneMismatch,
                format!("{who}: {said} Nothing was touched; restore again."),
            ));
        }
        if matches!(call, Call::CreateVolume { .. }) {
            return Some((
                volume_fault(code),
                format!(
                    "{who}: AWS would refuse CreateVolume with {said} Nothing was touched. Mend what AWS names, then restore again."
                ),
            ));
        }
    }
    if !passed(outcome) {
        return None;
    }
    for node in &mut restore.nodes {
        match call {
            Call::Stop(id) if *id == node.instance_id => node.checked = true,
            Call::CreateVolume { node_id, setting, .. } if *node_id == node.node_id => {
                for new in node.new.iter_mut().filter(|new| new.device == setting.device) {
                    new.checked = true;
                }
            }
            Call::Attach { instance_id, device, .. } if *instance_id == node.instance_id => {
                for new in node.new.iter_mut().filter(|new| new.device == *device) {
                    new.attachable = true;
                }
            }
            _ => {}
        }
    }
    None
}

/// One of the calls that a node or a volume will need was not answered.
fn uncheck(restore: &mut Restore, call: &Call) {
    for node in &mut restore.nodes {
        match call {
            Call::Stop(id) | Call::Start(id) if *id == node.instance_id => node.checked = false,
            Call::Detach { instance_id, device, .. }
            | Call::SetDeleteOnTermination { instance_id, device, .. }
                if *instance_id == node.instance_id =>
            {
                let covered = node.new.iter_mut().filter(|new| new.device == *device);
                let covered = covered.map(|new| new.checked = false).count();
                // What hangs where the backup has nothing is tried with the node.
                node.checked &= covered > 0;
            }
            // Whose volume it is the row does not say before it is frozen: all of them.
            Call::Keep(_) => {
                for new in node.new.iter_mut().filter(|new| new.volume_id.is_none()) {
                    new.checked = false;
                }
                node.checked = false;
            }
            _ => {}
        }
    }
}

/// Which node, and which device, a call is about.
fn about(restore: &Restore, call: &Call) -> String {
    let of = |found: &dyn Fn(&super::Node) -> bool| {
        restore.nodes.iter().find(|node| found(node)).map_or(String::new(), named)
    };
    match call {
        Call::CreateVolume { node_id, setting, .. } => {
            format!("{}, {}", of(&|node| node.node_id == *node_id), setting.device)
        }
        Call::Stop(id) | Call::Start(id) => of(&|node| node.instance_id == *id),
        Call::Detach { instance_id, device, .. }
        | Call::Attach { instance_id, device, .. }
        | Call::SetDeleteOnTermination { instance_id, device, .. } => {
            format!("{}, {device}", of(&|node| node.instance_id == *instance_id))
        }
        Call::Keep(id) | Call::Release(id) | Call::DeleteVolume(id) => format!("Volume {id}"),
    }
}

fn volume_fault(code: &str) -> FailureCode {
    match code {
        _ if QUOTAS.contains(&code) => FailureCode::Quota,
        "InsufficientVolumeCapacity" => FailureCode::Capacity,
        "InvalidSnapshot.NotFound" => FailureCode::SnapshotMissing,
        "InvalidZone.NotFound" | "InvalidVolume.ZoneMismatch" => FailureCode::ZoneMismatch,
        _ if code.to_ascii_lowercase().contains("kms") => FailureCode::KmsUnavailable,
        _ => FailureCode::VolumeFailed,
    }
}

/// A call that was meant. Gives the failure, if it is one that will not pass.
fn done(restore: &mut Restore, call: &Call, outcome: &Outcome, now: Time) -> Option<Fault> {
    let may_have_happened =
        outcome.is_success() || matches!(outcome, Outcome::Failed(CallError::Unknown(_)));
    restore.disturbed |= may_have_happened
        && matches!(
            call,
            Call::Stop(_)
                | Call::Detach { .. }
                | Call::Attach { .. }
                | Call::SetDeleteOnTermination { .. }
        );
    let who = about(restore, call);
    let rejected = match outcome {
        Outcome::Failed(CallError::Rejected { code, .. }) => Some(code.as_str()),
        _ => None,
    };
    let said = match outcome {
        Outcome::Failed(error) => error.clone().of(call.name()).sentence(),
        _ => String::new(),
    };
    match call {
        Call::CreateVolume { node_id, setting, attempt, .. } => {
            let node = restore.nodes.iter_mut().find(|node| node.node_id == *node_id)?;
            let new = node
                .new
                .iter_mut()
                .find(|new| new.device == setting.device && new.attempt == *attempt)?;
            match (outcome, rejected) {
                (Outcome::Created(id), _) => {
                    new.volume_id = Some(id.clone());
                    new.made_at = Some(now);
                    None
                }
                // Another attempt's request under this token, or a rate that the Region
                // has no more of: a new token, without the rate (EBS user guide, volume
                // initialization; AWS does not document the code).
                (_, Some(code))
                    if !RIGHTS.contains(&code)
                        && volume_fault(code) == FailureCode::VolumeFailed
                        && (new.with_rate || code == "IdempotentParameterMismatch") =>
                {
                    new.attempt += 1;
                    new.with_rate = false;
                    None
                }
                (_, Some(code)) if RIGHTS.contains(&code) => Some((
                    FailureCode::PermissionDenied,
                    format!(
                        "{who}: {said} Nothing was stopped. Give the worker's role the right (template.yaml); then restore again."
                    ),
                )),
                (_, Some(code)) => Some((
                    volume_fault(code),
                    format!(
                        "{who}: AWS refused CreateVolume with {said} Nothing was stopped. Mend what AWS names, then restore again."
                    ),
                )),
                _ => None,
            }
        }
        Call::Start(id) => {
            launch::started(restore, id, outcome, now);
            None
        }
        Call::Stop(_) => rejected
            .filter(|code| {
                RIGHTS.contains(code)
                    || matches!(*code, "OperationNotPermitted" | "UnsupportedOperation")
            })
            .map(|_| (FailureCode::StopFailed, format!("{who}: AWS refused to stop it: {said}"))),
        Call::Attach { .. } => rejected
            .filter(|code| {
                RIGHTS.contains(code)
                    || matches!(*code, "InvalidVolume.ZoneMismatch" | "AttachmentLimitExceeded")
            })
            .map(|_| (FailureCode::AttachFailed, format!("{who}: AWS refused to attach: {said}"))),
        Call::Detach { .. } | Call::SetDeleteOnTermination { .. } => rejected
            .filter(|code| RIGHTS.contains(code))
            .map(|_| (FailureCode::AttachFailed, format!("{who}: {said}"))),
        Call::Keep(id) | Call::Release(id) => {
            // A volume that is gone needs no tags.
            let gone = rejected.is_some_and(|code| code == "InvalidVolume.NotFound");
            if outcome.is_success() || gone {
                for left in restore.leftovers.iter_mut().filter(|left| left.volume_id == *id) {
                    left.tagged = true;
                }
            }
            // Released for good: nothing more is known of it.
            restore.leftovers.retain(|left| !(left.fate == Fate::Adopted && left.tagged));
            None
        }
        Call::DeleteVolume(_) => None,
    }
}
