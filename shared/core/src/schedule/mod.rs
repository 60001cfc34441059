//! A deployment's schedule: its row, and what becomes of each of its slots.
//!
//! A slot is a UTC instant. What was once decided of a slot is never decided again: the
//! row remembers the latest one, however often the schedule is changed, deleted, and set
//! anew. The write that decides is the one that makes the backup ([`Turn::Start`]), or
//! that announces why there is none.
//!
//! ```text
//!            ┌──▶ started ──▶ completed | failed     (with the backup's last write)
//!   slot ────┤
//!            ├──▶ waiting ──▶ started | skipped      until the next slot
//!            └──▶ skipped
//! ```

#[cfg(test)]
mod tests;
mod timing;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backup::{Backup, BackupType, Status};
use crate::create::{self, Cause, NewBackup};
use crate::deployment::Deployment;
use crate::error::{Code, Refusal};
use crate::id::{BackupId, DeploymentId, NodeId, Nonce, TenantId};
use crate::limits::Limits;
use crate::operation::{FailureCode, Why};
use crate::refusals;
use crate::time::{Seconds, Time};

pub use timing::{Cron, Plan, Zone};

/// The first pause of a slot that waits; it doubles, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Seconds = Seconds(30);

/// The longest pause of a slot that waits.
const LONGEST_PAUSE: Seconds = Seconds(240);

/// How long a slot waits for a deployment that is not ready: as long as an upgrade may
/// take. One that is switched off for a month is told of much sooner.
const READY: Seconds = Seconds::hours(1);

/// Of the slots that an outage passed over, how many are told of one by one.
const PASSED: usize = 24;

/// The most announcements that a row keeps. A bus that takes none for months must not
/// make the row grow for ever: the oldest go, and those that come after say so.
const OUTBOX: usize = 50;

/// What a person sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// When, in which zone.
    #[serde(flatten)]
    pub plan: Plan,
    /// Days until each backup expires, 1 to 3650; None: never.
    pub expires_in_days: Option<u16>,
    /// The node to back up; None: all.
    pub node_id: Option<NodeId>,
    /// Whether it runs at all.
    pub enabled: bool,
}

/// A slot that found another operation, or the deployment not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The slot.
    pub slot: Time,
    /// What it met last.
    pub why: Why,
    /// How often it has asked.
    pub tries: u32,
    /// When it asks again.
    pub again_at: Time,
}

/// What became of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SlotResult)]
pub enum Outcome {
    /// Its backup is pending or in progress.
    Started,
    /// Its backup completed.
    Completed,
    /// Its backup failed.
    Failed,
    /// It made none.
    Skipped,
}

/// The latest slot of which something was decided, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The slot.
    pub slot: Time,
    /// What became of it.
    pub result: Outcome,
    /// Why it failed or was skipped.
    pub why: Option<Why>,
    /// Its backup, also when that is deleted by now.
    pub backup_id: Option<BackupId>,
}

/// A skipped slot that the bus has not surely been told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Lets a consumer drop doubles: made of the deployment and the slot.
    pub announcement_id: Nonce,
    /// The slot.
    pub slot: Time,
    /// When that was decided.
    pub at: Time,
    /// The node that the backup would have been of.
    pub node_id: Option<NodeId>,
    /// Why.
    pub why: Why,
}

/// The schedule's row. It outlives its setting: DELETE takes that away, and leaves what
/// was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Whose.
    pub deployment_id: DeploymentId,
    /// The deployment's tenant.
    pub tenant_id: TenantId,
    /// Grows with each write.
    pub revision: u64,
    /// The last write's mark.
    pub nonce: Nonce,
    /// What a person has set. None: there is no schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<Setting>,
    /// When that was set: slots up to then are not this setting's.
    pub set_at: Time,
    /// The registry's version of the deployment that it was set on.
    #[serde(default)]
    pub registry_version: u64,
    /// The latest slot of which something was decided. Never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Time>,
    /// The slot that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// What became of the latest slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// The latest slot that made a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_at: Option<Time>,
    /// What the bus has not surely taken.
    #[serde(default)]
    pub outbox: Vec<Skipped>,
    /// The first slot whose announcement had no room there any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untold_from: Option<Time>,
    /// When the row is due, as read. Written beside the row's value, never with it.
    #[serde(default, skip_serializing)]
    pub due_at: Option<Time>,
}

/// The deployment at one moment, as a slot finds it.
#[derive(Debug)]
pub struct Sight<'a> {
    /// The deployment, read consistently; None: there is none.
    pub deployment: Option<&'a Deployment>,
    /// Whether a backup of the schedule can give way: asked for at the limit alone.
    pub way: Way,
}

/// Whether one of the schedule's backups can give way to a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// None is there, or none need to.
    None,
    /// One is there, and an operator has paused deletions.
    Held,
    /// One is there.
    Free,
}

impl Way {
    /// Whether a refusal for want of room passes by itself.
    pub fn opens(self, code: Code) -> bool {
        self == Self::Held && code == Code::BackupLimitReached
    }
}

/// What to do about the schedule now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Rest,
    /// Store this.
    Record(Box<Schedule>),
    /// Store both in one transaction, with the deployment's row, which must have fewer
    /// than `room` backups.
    Start {
        /// The schedule after it.
        schedule: Box<Schedule>,
        /// The new backup.
        backup: Box<Backup>,
        /// The counts of backups at which it may be stored.
        room: create::Room,
    },
}

impl Schedule {
    /// The row after a PUT. The same setting again changes nothing: what waits goes on.
    pub fn set(before: Option<Self>, deployment: &Deployment, setting: Setting, now: Time) -> Self {
        // The row may be of a later version than the deployment when that was read: the control
        // plane has said something since, perhaps that it was deleted and is back. Then this is
        // not to go back to before that.
        let registry_version = deployment.registry.registry_version;
        let known = before.as_ref().map_or(0, |before| before.registry_version);
        let registry_version = registry_version.max(known);
        match before.map(|before| before.on(deployment)) {
            Some(before) if before.setting.as_ref() == Some(&setting) => {
                Self { registry_version, ..before }
            }
            Some(mut next) => {
                next.drop_open("The schedule was changed before the slot could run.", now);
                Self { setting: Some(setting), set_at: now, registry_version, ..next }
            }
            None => Self {
                deployment_id: deployment.deployment_id,
                tenant_id: deployment.registry.tenant_id.clone(),
                revision: 0,
                nonce: Nonce::default(),
                setting: Some(setting),
                set_at: now,
                registry_version,
                decided: None,
                waiting: None,
                last: None,
                last_run_at: None,
                outbox: Vec::new(),
                untold_from: None,
                due_at: None,
            },
        }
    }

    /// The row as it counts on the deployment: one that was deleted since has no schedule, also
    /// when it is back. Nobody is told of what waited: it went with the deployment.
    #[must_use]
    pub fn on(mut self, deployment: &Deployment) -> Self {
        if deployment.registry.deleted || self.registry_version < deployment.deleted_version {
            (self.setting, self.waiting) = (None, None);
        }
        self
    }

    /// The row after a DELETE.
    #[must_use]
    pub fn unset(mut self, now: Time) -> Self {
        self.drop_open("The schedule was deleted before the slot could run.", now);
        self.setting = None;
        self
    }

    /// The setting, if it runs.
    fn running(&self) -> Option<&Setting> {
        self.setting.as_ref().filter(|setting| setting.enabled)
    }

    /// Slots up to here are decided, or were never this setting's.
    fn behind(&self) -> Time {
        self.decided.map_or(self.set_at, |decided| decided.max(self.set_at))
    }

    /// The next slot after `now` that will be decided on; None: it does not run, or never
    /// fires again.
    pub fn next_run(&self, now: Time) -> Option<Time> {
        self.running()?.plan.next_after(self.behind().max(now))
    }

    /// When the row must be looked at.
    pub fn due(&self, now: Time) -> Option<Time> {
        // At the next tick, and at each until the bus takes it.
        let announce = (!self.outbox.is_empty()).then_some(now);
        let behind = self.waiting.as_ref().map_or(self.behind(), |waiting| waiting.slot);
        let next = self.running().and_then(|setting| setting.plan.next_after(behind));
        let again = self.waiting.as_ref().map(|waiting| waiting.again_at);
        [announce, next, again].into_iter().flatten().min()
    }

    /// Takes out of the outbox what the bus has.
    pub fn forget(&mut self, taken: &[Nonce]) {
        // The newest tells of those that had no room.
        if self.outbox.last().is_some_and(|newest| taken.contains(&newest.announcement_id)) {
            self.untold_from = None;
        }
        self.outbox.retain(|one| !taken.contains(&one.announcement_id));
    }

    /// Whether a slot wants a decision now.
    pub fn wants_turn(&self, now: Time) -> bool {
        let Some(setting) = self.running() else { return self.waiting.is_some() };
        match &self.waiting {
            Some(waiting) => {
                waiting.again_at <= now || setting.plan.latest_in(waiting.slot, now).is_some()
            }
            None => setting.plan.latest_in(self.behind(), now).is_some(),
        }
    }

    /// Decides what becomes of the slot whose time has come. `token` is the new backup's.
    pub fn turn(&self, sight: &Sight<'_>, limits: &Limits, token: Nonce, now: Time) -> Turn {
        let mut next = self.clone();
        let Some(deployment) = sight.deployment else {
            // The row comes after its deployment's, which stays for ever: somebody has removed it.
            (next.setting, next.waiting) = (None, None);
            return self.changed_to(next);
        };
        next = next.on(deployment);
        let Some(setting) = next.running().cloned() else {
            return self.changed_to(next);
        };
        let Some(slot) = next.candidate(&setting, now) else { return self.changed_to(next) };
        let request = NewBackup {
            name: format!("scheduled {slot}"),
            node_id: setting.node_id,
            backup_type: BackupType::Scheduled,
            remarks: None,
            expires_in_days: setting.expires_in_days,
        };
        let cause = Cause::Schedule { slot, gives_way: sight.way == Way::Free };
        match create::decide_for(cause, deployment, request, limits, token, now) {
            Ok((backup, room)) => {
                next.waiting = None;
                next.decided = Some(slot);
                next.last_run_at = Some(slot);
                next.last = Some(Last {
                    slot,
                    result: Outcome::Started,
                    why: None,
                    backup_id: Some(backup.id),
                });
                Turn::Start { schedule: Box::new(next), backup: Box::new(backup), room }
            }
            Err(refusal) if passes(refusal.code, now - slot) || sight.way.opens(refusal.code) => {
                let tries = next.waiting.as_ref().map_or(0, |waiting| waiting.tries);
                let again_at = now + pause(tries);
                let tries = tries.saturating_add(1);
                next.waiting = Some(Waiting { slot, why: refusal.into(), tries, again_at });
                self.changed_to(next)
            }
            Err(refusal) => {
                next.skip(slot, refusal.into(), now);
                self.changed_to(next)
            }
        }
    }

    /// The slot to decide on: the latest whose time has come, or the one that waits. Those
    /// before it are skipped.
    fn candidate(&mut self, setting: &Setting, now: Time) -> Option<Time> {
        if let Some(waiting) = self.waiting.clone() {
            if setting.plan.latest_in(waiting.slot, now).is_none() {
                return (waiting.again_at <= now).then_some(waiting.slot);
            }
            self.skip(waiting.slot, waiting.why, now);
        }
        let behind = self.behind();
        let slot = setting.plan.latest_in(behind, now)?;
        self.pass_over(setting, slot, now);
        Some(slot)
    }

    /// An outage has passed over the slots before this one: each is told of, and of many
    /// the latest, the first of which speaks for those before it.
    fn pass_over(&mut self, setting: &Setting, slot: Time, now: Time) {
        let behind = self.behind();
        let mut passed = Vec::new();
        let mut at = slot;
        while let Some(before) = setting.plan.latest_in(behind, at + Seconds(-1)) {
            at = before;
            passed.push(before);
            if passed.len() == PASSED {
                break;
            }
        }
        let first = setting.plan.next_after(behind).filter(|first| *first < at);
        for (index, one) in passed.into_iter().rev().enumerate() {
            let others = first
                .filter(|_| index == 0)
                .map(|first| format!(" So it is with all slots before it, from {first} on."));
            let reason = format!(
                "The service did not get to it before {slot}, and only the latest runs.{}",
                others.unwrap_or_default()
            );
            self.skip(one, Why { code: Code::Unavailable.as_str().to_owned(), reason }, now);
        }
    }

    /// A slot makes no backup: recorded and announced.
    fn skip(&mut self, slot: Time, mut why: Why, now: Time) {
        self.waiting = None;
        self.decided = self.decided.max(Some(slot));
        let (result, backup_id) = (Outcome::Skipped, None);
        self.last = Some(Last { slot, result, why: Some(why.clone()), backup_id });
        let over = (self.outbox.len() + 1).saturating_sub(OUTBOX);
        if let Some(last) = self.outbox.drain(..over).next_back() {
            // Of one that the bus has perhaps no word may change: the newest tells of them.
            let first = *self.untold_from.get_or_insert(last.slot);
            let note = format!(
                " The bus took no announcement for so long that none is left of the slots from \
                 {first} to {}, which were skipped as well.",
                last.slot
            );
            why.reason.push_str(&note);
        }
        let seconds = slot.unix();
        self.outbox.push(Skipped {
            announcement_id: Nonce(format!("{}-{seconds}-skipped", self.deployment_id)),
            slot,
            at: now,
            node_id: self.setting.as_ref().and_then(|setting| setting.node_id),
            why,
        });
    }

    /// What waits, or is due and not decided on, is dropped for a person's change, and told.
    fn drop_open(&mut self, reason: &str, now: Time) {
        let code = FailureCode::Superseded.as_str().to_owned();
        if let Some(waiting) = self.waiting.take() {
            let reason = format!("{reason} It waited because: {}", waiting.why.reason);
            self.skip(waiting.slot, Why { code: code.clone(), reason }, now);
        }
        let Some(setting) = self.running().cloned() else { return };
        if let Some(slot) = setting.plan.latest_in(self.behind(), now) {
            self.pass_over(&setting, slot, now);
            self.skip(slot, Why { code, reason: reason.to_owned() }, now);
        }
    }

    fn changed_to(&self, next: Self) -> Turn {
        if next == *self { Turn::Rest } else { Turn::Record(Box::new(next)) }
    }

    /// What the row says of a backup that has ended, in place of `started`. None: the
    /// latest slot is not that backup's.
    pub fn ended(&self, backup: &Backup) -> Option<Last> {
        let last = self.last.as_ref().filter(|last| last.backup_id == Some(backup.id))?;
        let (result, why) = match backup.status {
            Status::Completed => (Outcome::Completed, None),
            Status::Failed => (Outcome::Failed, backup.failure.clone().map(Why::from)),
            Status::Pending | Status::InProgress | Status::Deleting => return None,
        };
        Some(Last { result, why, ..last.clone() })
    }
}

/// A schedule that may be set on the deployment, or why not.
///
/// # Errors
/// `plan_not_supported`, `storage_not_supported`, `node_not_found`.
pub fn may_have(
    deployment: &Deployment,
    setting: &Setting,
    limits: &Limits,
) -> Result<(), Refusal> {
    create::supported(&deployment.registry, limits)?;
    let nodes = &deployment.registry.nodes;
    match setting.node_id {
        Some(id) if !nodes.iter().any(|node| node.node_id == id) => Err(refusals::no_node(id)),
        _ => Ok(()),
    }
}

/// Of the deployment's backups the one that gives way when another completes above the
/// limit: the oldest completed one of the schedule that no restore needs. `backups` in
/// any order.
pub fn gives_way<'a>(backups: impl IntoIterator<Item = &'a Backup>) -> Option<&'a Backup> {
    let of_schedule = backups.into_iter().filter(|one| {
        one.status == Status::Completed && one.pinned_by.is_none() && one.is_the_schedules()
    });
    of_schedule.min_by_key(|one| one.id)
}

/// Whether the refusal passes by itself, so that a slot waits that is `late` by so much.
fn passes(code: Code, late: Seconds) -> bool {
    match code {
        Code::BackupInProgress | Code::RestoreInProgress => true,
        Code::DeploymentNotReady => late < READY,
        _ => false,
    }
}

/// How long a slot waits after so many tries.
fn pause(tries: u32) -> Seconds {
    Seconds((FIRST_PAUSE.0 << tries.min(8)).min(LONGEST_PAUSE.0))
}
