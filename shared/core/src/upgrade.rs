//! The backup before an upgrade: one for each upgrade id ever, and always an answer.
//!
//! ```text
//!   Deployment Upgrade Requested ─┬─▶ waiting ─┬─▶ running ──▶ answered
//!                                 │            │ (15 minutes, or a refusal that
//!                                 └────────────┴──▶ answered      does not pass)
//! ```
//!
//! The answer is the backup's own `Backup Completed` or `Backup Failed`, which bears the
//! upgrade's id; if it could not even start, a `Backup Failed` without a backup. The row
//! stays for ever: the same request again gets the same answer, by the same id.

use serde::{Deserialize, Serialize};

use crate::announce::Kind;
use crate::backup::{Backup, BackupType, Status};
use crate::create::{self, Cause, NewBackup};
use crate::deployment::Deployment;
use crate::error::Code;
use crate::id::{BackupId, DeploymentId, Nonce, TenantId};
use crate::limits::Limits;
use crate::operation::Why;
use crate::schedule::Way;
use crate::time::{Seconds, Time};

/// How long the backup waits for the deployment's slot. The upgrade waits as long.
pub const WAITS: Seconds = Seconds::minutes(15);

/// The pause between two tries; the tick comes once a minute.
const PAUSE: Seconds = Seconds(30);

/// When the bus has not taken an answer: how long until it is tried again.
const ANNOUNCE_AGAIN: Seconds = Seconds(60);

/// The answer to a request, as it is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Lets a consumer drop doubles: of a backup, that of its own announcement.
    pub announcement_id: Nonce,
    /// `Backup Completed` or `Backup Failed`.
    pub kind: Kind,
    /// When it came about.
    pub at: Time,
    /// The backup; None: it could not start.
    pub backup_id: Option<BackupId>,
    /// Why it failed.
    pub failure: Option<Why>,
}

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// The backup cannot begin yet.
    Waiting {
        /// When it is tried again.
        again_at: Time,
    },
    /// The backup is pending or in progress; its last write answers.
    Running {
        /// Which.
        backup_id: BackupId,
    },
    /// It is answered.
    Answered {
        /// How.
        answer: Answer,
    },
}

/// The row of one upgrade id of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Which deployment is upgraded.
    pub deployment_id: DeploymentId,
    /// Its tenant; None: there is no such deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    /// The control plane's id of the upgrade.
    pub upgrade_id: String,
    /// When it was first asked for.
    pub requested_at: Time,
    /// Random, for the ids of what it announces itself.
    pub token: Nonce,
    /// Grows with each write.
    pub revision: u64,
    /// The last write's mark.
    pub nonce: Nonce,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// Answers that the bus has not surely taken.
    #[serde(default)]
    pub outbox: Vec<Answer>,
    /// When the row is due, as read. Written beside the row's value, never with it.
    #[serde(default, skip_serializing)]
    pub due_at: Option<Time>,
}

/// What to do about a request now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Nothing: its backup runs, or it is answered.
    Rest,
    /// Store this.
    Record(Box<Upgrade>),
    /// Store both in one transaction, with the deployment's row, which must have fewer
    /// than `room` backups.
    Start {
        /// The request after it.
        upgrade: Box<Upgrade>,
        /// The new backup.
        backup: Box<Backup>,
        /// The counts of backups at which it may be stored.
        room: create::Room,
    },
}

impl Upgrade {
    /// A request that is seen for the first time.
    pub fn new(deployment_id: DeploymentId, upgrade_id: String, token: Nonce, now: Time) -> Self {
        Self {
            deployment_id,
            tenant_id: None,
            upgrade_id,
            requested_at: now,
            nonce: token.clone(),
            token,
            revision: 0,
            state: State::Waiting { again_at: now },
            outbox: Vec::new(),
            due_at: None,
        }
    }

    /// When the row must be looked at.
    pub fn due(&self, now: Time) -> Option<Time> {
        let announce = (!self.outbox.is_empty()).then(|| now + ANNOUNCE_AGAIN);
        let again = match self.state {
            State::Waiting { again_at } => Some(again_at),
            State::Running { .. } | State::Answered { .. } => None,
        };
        [announce, again].into_iter().flatten().min()
    }

    /// The same request came again: an answer that was given is given again.
    pub fn repeat(&mut self) {
        if let State::Answered { answer } = &self.state
            && !self.outbox.contains(answer)
        {
            self.outbox.push(answer.clone());
        }
    }

    /// Answers a request whose backup has ended without telling it: this row could not be read
    /// then. `backup`: as it is now; None: it is gone. One that goes answers no more.
    pub fn catch_up(&mut self, backup: Option<&Backup>, now: Time) {
        if !matches!(self.state, State::Running { .. }) {
            return;
        }
        let there = backup.filter(|backup| backup.status != Status::Deleting);
        let id = there.map(|backup| backup.id);
        match there.map(|backup| (backup.status, backup.failure.clone())) {
            Some((Status::Pending | Status::InProgress, _)) => {}
            Some((Status::Completed, _)) => self.answer(Kind::BackupCompleted, id, None, now),
            Some((_, Some(why))) => self.answer(Kind::BackupFailed, id, Some(why.into()), now),
            None | Some((_, None)) => {
                let code = Code::BackupNotFound.as_str().to_owned();
                let reason = "The backup before this upgrade was deleted.".to_owned();
                self.fail(Why { code, reason }, now);
            }
        }
    }

    /// Takes out of the outbox what the bus has.
    pub fn forget(&mut self, taken: &[Nonce]) {
        self.outbox.retain(|one| !taken.contains(&one.announcement_id));
    }

    /// Decides whether the backup begins. `way`: whether a backup of the schedule can go in
    /// exchange; asked for at the limit alone. `token` is the new backup's.
    pub fn turn(
        &self,
        deployment: Option<&Deployment>,
        way: Way,
        limits: &Limits,
        token: Nonce,
        now: Time,
    ) -> Turn {
        if !matches!(self.state, State::Waiting { .. }) {
            return Turn::Rest;
        }
        let mut next = self.clone();
        next.tenant_id = deployment.map(|found| found.registry.tenant_id.clone());
        let Some(deployment) = deployment.filter(|found| !found.registry.deleted) else {
            let code = Code::DeploymentNotFound.as_str().to_owned();
            let reason = "There is no such deployment.".to_owned();
            next.fail(Why { code, reason }, now);
            return Turn::Record(Box::new(next));
        };
        let request = NewBackup {
            name: format!("before upgrade {}", self.upgrade_id),
            node_id: None,
            backup_type: BackupType::PreUpgrade,
            remarks: None,
            expires_in_days: None,
        };
        let cause = Cause::Upgrade { id: self.upgrade_id.clone(), gives_way: way == Way::Free };
        match create::decide_for(cause, deployment, request, limits, token, now) {
            Ok((backup, room)) => {
                next.state = State::Running { backup_id: backup.id };
                Turn::Start { upgrade: Box::new(next), backup: Box::new(backup), room }
            }
            Err(refusal) => {
                let busy = matches!(refusal.code, Code::BackupInProgress | Code::RestoreInProgress)
                    || way.opens(refusal.code);
                if busy {
                    next.wait(refusal.into(), limits, now);
                } else {
                    next.fail(refusal.into(), now);
                }
                Turn::Record(Box::new(next))
            }
        }
    }

    /// What to do while the deployment's rows cannot be read: perhaps somebody mends them
    /// before the upgrade has waited for long enough.
    pub fn unreadable(&self, limits: &Limits, now: Time) -> Turn {
        if !matches!(self.state, State::Waiting { .. }) {
            return Turn::Rest;
        }
        let mut next = self.clone();
        let code = Code::Unavailable.as_str().to_owned();
        let reason = "The deployment's records cannot be read.".to_owned();
        next.wait(Why { code, reason }, limits, now);
        Turn::Record(Box::new(next))
    }

    /// It cannot start yet; once it has waited for long enough, it could not.
    fn wait(&mut self, why: Why, limits: &Limits, now: Time) {
        let left = Seconds(WAITS.0 - limits.passed(self.requested_at, now).0);
        if left > Seconds(0) {
            self.state = State::Waiting { again_at: now + PAUSE.min(left) };
        } else {
            self.fail(why, now);
        }
    }

    /// It could not start.
    fn fail(&mut self, why: Why, now: Time) {
        self.answer(Kind::BackupFailed, None, Some(why), now);
    }

    /// An answer that no backup announces.
    fn answer(&mut self, kind: Kind, backup_id: Option<BackupId>, failure: Option<Why>, now: Time) {
        let announcement_id = Nonce(format!("{}-{}", self.token, kind.word()));
        let answer = Answer { announcement_id, kind, at: now, backup_id, failure };
        self.outbox.push(answer.clone());
        self.state = State::Answered { answer };
    }

    /// The answer that the end of `backup` is, which it announces itself. None: the
    /// backup is not this request's, or has not ended.
    pub fn answered_by(&self, backup: &Backup) -> Option<State> {
        let ours = matches!(self.state, State::Running { backup_id } if backup_id == backup.id);
        let kind = match backup.status {
            Status::Completed => Kind::BackupCompleted,
            Status::Failed => Kind::BackupFailed,
            Status::Pending | Status::InProgress | Status::Deleting => return None,
        };
        let said = backup.outbox.iter().find(|one| ours && one.kind == kind)?;
        Some(State::Answered {
            answer: Answer {
                announcement_id: said.announcement_id.clone(),
                kind,
                at: said.at,
                backup_id: Some(backup.id),
                failure: said.failure.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::tests::deployment;

    const NOW: Time = Time::from_unix(1_800_000_000);

    fn request() -> Upgrade {
        Upgrade::new(deployment().deployment_id, "u-1".into(), Nonce::from("t"), NOW)
    }

    fn turn(upgrade: &Upgrade, deployment: Option<&Deployment>, now: Time) -> Turn {
        upgrade.turn(deployment, Way::None, &Limits::default(), Nonce::from("b"), now)
    }

    fn answer(turn: Turn) -> (Answer, Upgrade) {
        let Turn::Record(next) = turn else { panic!("{turn:?}") };
        let State::Answered { answer } = &next.state else { panic!("{next:?}") };
        (answer.clone(), *next)
    }

    fn code(answer: &Answer) -> &str {
        &answer.failure.as_ref().expect("a failure").code
    }

    #[test]
    fn the_backup_is_named_after_the_upgrade_and_begins_while_it_goes_on() {
        let mut busy = deployment();
        busy.registry.status = "upgrading".into();
        let Turn::Start { upgrade, backup, room } = turn(&request(), Some(&busy), NOW) else {
            panic!("not started");
        };
        assert_eq!(backup.name, "before upgrade u-1");
        assert_eq!(backup.backup_type, BackupType::PreUpgrade);
        assert_eq!(backup.upgrade_id.as_deref(), Some("u-1"));
        assert_eq!((backup.expires_at, room.below), (None, 5));
        assert_eq!(upgrade.state, State::Running { backup_id: backup.id });
        assert_eq!(turn(&upgrade, Some(&busy), NOW + WAITS), Turn::Rest, "one for an id, ever");
    }

    #[test]
    fn a_busy_slot_is_waited_for_a_quarter_of_an_hour_and_then_answered() {
        let mut busy = deployment();
        busy.active_backup = Some(BackupId(3));
        let mut waits = request();
        for minute in 0..15 {
            let Turn::Record(next) = turn(&waits, Some(&busy), NOW + Seconds::minutes(minute))
            else {
                panic!("minute {minute}");
            };
            assert!(matches!(next.state, State::Waiting { .. }), "minute {minute}");
            assert!(next.due(NOW).expect("due") <= NOW + WAITS);
            waits = *next;
        }
        let (said, after) = answer(turn(&waits, Some(&busy), NOW + WAITS));
        assert_eq!((said.kind, code(&said)), (Kind::BackupFailed, "backup_in_progress"));
        assert_eq!(after.outbox, [said]);
        let free = turn(&waits, Some(&deployment()), NOW + Seconds::minutes(14));
        assert!(matches!(free, Turn::Start { .. }));
    }

    #[test]
    fn a_deployment_that_cannot_be_read_is_waited_for_as_long_and_then_answered() {
        let limits = Limits::default();
        let Turn::Record(waits) = request().unreadable(&limits, NOW) else { panic!("no word") };
        assert_eq!(waits.state, State::Waiting { again_at: NOW + PAUSE });
        assert!(matches!(turn(&waits, Some(&deployment()), NOW + PAUSE), Turn::Start { .. }));
        let (said, after) = answer(waits.unreadable(&limits, NOW + WAITS));
        assert_eq!((said.kind, code(&said)), (Kind::BackupFailed, "unavailable"));
        assert_eq!(after.unreadable(&limits, NOW + WAITS), Turn::Rest, "answered once");
    }

    #[test]
    fn a_request_that_missed_its_backups_end_catches_up_with_it() {
        let Turn::Start { upgrade, backup, .. } = turn(&request(), Some(&deployment()), NOW) else {
            panic!("not started");
        };
        let caught = |backup: Option<&Backup>| {
            let mut late = (*upgrade).clone();
            late.catch_up(backup, NOW + WAITS);
            match &late.state {
                State::Answered { answer } => {
                    assert_eq!(late.outbox, std::slice::from_ref(answer));
                    Some((answer.kind, answer.backup_id, late.tenant_id.is_some()))
                }
                _ => None,
            }
        };
        assert_eq!(caught(Some(&backup)), None, "it runs");
        let mut failed = (*backup).clone();
        failed.end_as_failed_for_test(NOW);
        assert_eq!(caught(Some(&failed)), Some((Kind::BackupFailed, Some(backup.id), true)));
        let completed = Backup { status: Status::Completed, ..(*backup).clone() };
        assert_eq!(caught(Some(&completed)), Some((Kind::BackupCompleted, Some(backup.id), true)));
        let deleting = Backup { status: Status::Deleting, ..(*backup).clone() };
        assert_eq!(caught(Some(&deleting)), Some((Kind::BackupFailed, None, true)));
        assert_eq!(caught(None), Some((Kind::BackupFailed, None, true)));
        let mut waits = request();
        waits.catch_up(None, NOW);
        assert_eq!(waits, request(), "none runs");
    }

    #[test]
    fn of_a_deleted_deployment_the_tenant_is_known() {
        let mut gone = deployment();
        gone.registry.deleted = true;
        let (said, after) = answer(turn(&request(), Some(&gone), NOW));
        assert_eq!(code(&said), "deployment_not_found");
        assert_eq!(after.tenant_id, Some(gone.registry.tenant_id));
    }

    #[test]
    fn what_cannot_begin_is_answered_at_once_also_for_a_deployment_that_is_not_there() {
        assert_eq!(code(&answer(turn(&request(), None, NOW)).0), "deployment_not_found");
        let mut gone = deployment();
        gone.registry.deleted = true;
        assert_eq!(code(&answer(turn(&request(), Some(&gone), NOW)).0), "deployment_not_found");
        let mut basic = deployment();
        basic.registry.plan = "basic".into();
        let (said, after) = answer(turn(&request(), Some(&basic), NOW));
        assert_eq!(code(&said), "plan_not_supported");
        assert_eq!(after.tenant_id, Some(basic.registry.tenant_id));
        let mut full = deployment();
        full.backup_count = 5;
        assert_eq!(code(&answer(turn(&request(), Some(&full), NOW)).0), "backup_limit_reached");
        // It waits for an operator who has paused deletions, as for a busy slot.
        let held = |upgrade: &Upgrade, now| {
            let limits = Limits::default();
            upgrade.turn(Some(&full), Way::Held, &limits, Nonce::from("b"), now)
        };
        let Turn::Record(waits) = held(&request(), NOW) else { panic!("no wait") };
        assert!(matches!(waits.state, State::Waiting { .. }), "{waits:?}");
        assert_eq!(code(&answer(held(&waits, NOW + WAITS)).0), "backup_limit_reached");
    }

    #[test]
    fn a_repeated_request_gets_the_same_answer_by_the_same_id() {
        let (said, mut after) = answer(turn(&request(), None, NOW));
        after.forget(std::slice::from_ref(&said.announcement_id));
        assert_eq!((after.outbox.len(), after.due(NOW)), (0, None));
        after.repeat();
        after.repeat();
        assert_eq!(after.outbox, [said]);
        assert!(after.due(NOW).is_some());
        let mut waits = request();
        waits.repeat();
        assert_eq!(waits, request(), "what is not answered yet will be");
    }

    #[test]
    fn the_backups_end_is_the_answer_by_the_id_of_its_own_announcement() {
        let Turn::Start { upgrade, mut backup, .. } = turn(&request(), Some(&deployment()), NOW)
        else {
            panic!("not started");
        };
        assert_eq!(upgrade.answered_by(&backup), None, "it runs");
        backup.end_as_failed_for_test(NOW + Seconds(9));
        let Some(State::Answered { answer }) = upgrade.answered_by(&backup) else {
            panic!("not answered");
        };
        let own = backup.outbox.last().expect("announced");
        assert_eq!(answer.announcement_id, own.announcement_id);
        assert_eq!((answer.at, answer.backup_id), (own.at, Some(backup.id)));
        backup.id = BackupId(99);
        assert_eq!(upgrade.answered_by(&backup), None, "another's");
    }
}
