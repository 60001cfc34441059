//! Faults on demand: armed by a test, struck by calls and events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Cloud;
use crate::wire::{self, Reply};

/// `on` for events that EC2 and EBS send.
pub(crate) const ON_EVENT: &str = "event";
/// `on` for everything put on the stack's bus.
pub(crate) const ON_BUS: &str = "bus";

/// How long a stop or a detaching lasts, in milliseconds of AWS's time, that
/// [`FaultAction::FailLater`] keeps from ending.
pub(crate) const STUCK_MS: u64 = 15 * 60_000;

/// `DynamoDB`'s operations, for which [`Cloud::admit`] is asked.
const DYNAMODB: &[&str] = &[
    "BatchGetItem",
    "BatchWriteItem",
    "DeleteItem",
    "DescribeTable",
    "GetItem",
    "PutItem",
    "Query",
    "Scan",
    "TransactGetItems",
    "TransactWriteItems",
    "UpdateItem",
];

/// Calls whose work can fail after they were accepted.
const FAILS_LATER: &[&str] = &[
    "AttachVolume",
    "CreateSnapshot",
    "CreateSnapshots",
    "CreateVolume",
    "DetachVolume",
    STARTS,
    "StopInstances",
];
/// Whose work fails with a code.
const STARTS: &str = "StartInstances";

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultAction {
    /// The call is refused as one too many.
    Throttle,
    /// The call is refused with a code.
    Error,
    /// The call is carried out, then the connection breaks.
    LoseReply,
    /// The call is accepted, and its work fails in the end: a snapshot ends
    /// in `error`; a new volume vanishes or ends in `error`; an instance goes
    /// from `pending` back to `stopped`, with the fault's code as its reason;
    /// a volume that is being attached is free again; a detaching and a stop
    /// last 15 AWS minutes. It strikes only a call that is otherwise accepted,
    /// so never a dry run; of several instances each by itself.
    FailLater,
    /// The call is not carried out and not answered.
    Hang,
    /// The event vanishes.
    Drop,
    /// The event comes twice.
    Double,
    /// The event comes two AWS minutes late.
    Delay,
}

/// A fault to arm, as `POST /_local/faults` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// An API operation, `event` or `bus`.
    pub on: String,
    /// What happens.
    #[serde(rename = "do")]
    pub action: FaultAction,
    /// The error's code; only for [`FaultAction::Error`], and for
    /// [`FaultAction::FailLater`] of `StartInstances` the state's reason: by
    /// default `Server.InsufficientInstanceCapacity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How many times it strikes.
    #[serde(default = "once")]
    pub times: u64,
    /// Only calls (or events) that are about this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

fn once() -> u64 {
    1
}

/// An armed fault, and how often it struck.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fault {
    spec: FaultSpec,
    struck: u64,
}

/// What to do with a call to a service outside this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Carry it out and answer.
    Proceed,
    /// Carry it out, then break the connection.
    ProceedThenLoseReply,
    /// Do not carry it out; answer this.
    Refuse(Reply),
    /// Do not carry it out and do not answer.
    Hang,
}

/// What a fault does to a call before it is carried out.
pub(crate) enum Verdict {
    Proceed,
    LoseReply,
    Throttle,
    Error(Option<String>),
    Hang,
}

impl Cloud {
    /// Arms a fault, or says what is wrong with it.
    pub fn arm(&mut self, fault: FaultSpec) -> Result<(), String> {
        fault.check()?;
        let id = self.number();
        self.faults.insert(id, Fault { spec: fault, struck: 0 });
        Ok(())
    }

    /// All faults armed since the last [`Cloud::clear_faults`], also those
    /// used up, each with how often it `struck`.
    pub fn faults(&self) -> Value {
        let listed = self.faults.values().map(|fault| {
            let mut listed = json!(fault.spec);
            listed["struck"] = json!(fault.struck);
            listed
        });
        listed.collect()
    }

    /// Disarms and forgets all faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// What is to become of a call to a service outside this crate. Ask
    /// before it is carried out, and [`Cloud::record`] it after; a refusal
    /// and a hang are to be recorded too ([`Reply::code`] has the outcome).
    pub fn admit(
        &mut self,
        now: Timestamp,
        service: &str,
        operation: &str,
        resources: &[String],
    ) -> Admission {
        self.advance(now);
        let refuse = |code: &str| Admission::Refuse(wire::json_error(service, code, None));
        match self.verdict(operation, resources) {
            Verdict::Proceed => Admission::Proceed,
            Verdict::LoseReply => Admission::ProceedThenLoseReply,
            Verdict::Hang => Admission::Hang,
            Verdict::Throttle => refuse("ThrottlingException"),
            Verdict::Error(code) => {
                refuse(code.as_deref().unwrap_or(wire::internal_error(service)))
            }
        }
    }

    /// Strikes a call before it is carried out.
    pub(crate) fn verdict(&mut self, operation: &str, resources: &[String]) -> Verdict {
        use FaultAction::{Error, Hang, LoseReply, Throttle};
        let Some(fault) = self.strike(operation, resources, &[Error, Hang, LoseReply, Throttle])
        else {
            return Verdict::Proceed;
        };
        match fault.action {
            Error => Verdict::Error(fault.code),
            Hang => Verdict::Hang,
            LoseReply => Verdict::LoseReply,
            _ => Verdict::Throttle,
        }
    }

    /// The oldest armed fault that fits, one time less.
    pub(crate) fn strike(
        &mut self,
        on: &str,
        resources: &[String],
        actions: &[FaultAction],
    ) -> Option<FaultSpec> {
        let fits = |fault: &Fault| {
            fault.spec.on == on
                && fault.struck < fault.spec.times
                && actions.contains(&fault.spec.action)
                && fault.spec.resource.as_ref().is_none_or(|one| resources.contains(one))
        };
        let id = self.faults.iter().find(|(_, fault)| fits(fault)).map(|(id, _)| *id)?;
        let fault = self.faults.get_mut(&id)?;
        fault.struck += 1;
        Some(fault.spec.clone())
    }
}

impl FaultSpec {
    fn check(&self) -> Result<(), String> {
        use FaultAction::{Delay, Double, Drop, FailLater};
        let on = self.on.as_str();
        let of_events = on == ON_EVENT || on == ON_BUS;
        let ec2 = wire::ec2_operations().any(|name| name == on);
        if !(of_events || ec2 || on == wire::PUT_EVENTS || DYNAMODB.contains(&on)) {
            return Err(format!(
                "on: there is no {on} to strike; known are {ON_EVENT}, {ON_BUS}, {}, {}, {}",
                wire::ec2_operations().collect::<Vec<_>>().join(", "),
                wire::PUT_EVENTS,
                DYNAMODB.join(", "),
            ));
        }
        if matches!(self.action, Drop | Double | Delay) != of_events {
            return Err(format!(
                "do: drop, double and delay are for {ON_EVENT} and {ON_BUS}, \
                 throttle, error, lose_reply, fail_later and hang for operations, not for {on}"
            ));
        }
        if self.action == FailLater && !FAILS_LATER.contains(&on) {
            return Err(format!(
                "do: fail_later is for {}: {on} has done all its work when it answers",
                FAILS_LATER.join(", ")
            ));
        }
        let has_code =
            self.action == FaultAction::Error || (self.action == FailLater && on == STARTS);
        match &self.code {
            Some(_) if !has_code => {
                return Err(format!(
                    "code: only an error and a {STARTS} that fails later have one"
                ));
            }
            Some(code) if code.is_empty() || !code.bytes().all(is_code) => {
                return Err(format!("code: {code:?} is no error code"));
            }
            _ => {}
        }
        if self.times == 0 {
            return Err("times: it must strike at least once".to_owned());
        }
        match &self.resource {
            Some(id) if ec2 && crate::error::IdKind::of(id).is_none() => {
                Err(format!("resource: {id} is none of i-..., vol-..., snap-..."))
            }
            Some(id) if id.is_empty() => Err("resource: it is empty".to_owned()),
            _ => Ok(()),
        }
    }
}

fn is_code(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}
