//! Each upgrade that is asked for gets one backup at most, and an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::life::Life;
use super::super::reach::Reach;
use super::super::table::{Change, RowRef};
use super::{EXPIRED, LOOKS, Oracle, SLACK, UNHEARD, Verdict, time, violated};
use crate::rows::{BackupKey, items, text};

/// An upgrade waits so long for a busy slot (the contract's).
const WAITS: SignedDuration = SignedDuration::from_mins(15);

/// What is known of upgrades, by deployment and id.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    /// Those that the control plane has asked for.
    asked: BTreeSet<(u64, String)>,
    /// The rows of their requests.
    rows: BTreeMap<(u64, String), RowRef>,
    /// Answers that the bus has: the id, and how often.
    answers: BTreeMap<(u64, String), (String, u32)>,
}

impl Upgrades {
    /// Whether one waits, or has something to say.
    pub(super) fn wait(&self) -> bool {
        self.rows
            .values()
            .any(|row| text(row, "state") == "waiting" || items(&row["outbox"]).next().is_some())
    }
}

impl Oracle {
    /// The control plane asks for a backup before an upgrade.
    pub(super) fn upgrade_asked(&mut self, detail: &Value) {
        let id = text(detail, "upgrade_id").to_owned();
        if let Some(deployment) = detail["deployment_id"].as_u64() {
            self.upgrades.asked.insert((deployment, id));
        }
    }

    /// Whether the upgrade's request is there.
    pub(super) fn knows_upgrade(&self, deployment: u64, id: &str) -> bool {
        self.upgrades.rows.contains_key(&(deployment, id.to_owned()))
    }

    /// A new backup before an upgrade: asked for, and the only one of that id ever.
    pub(super) fn of_an_upgrade(&self, key: BackupKey, row: &Value) -> Verdict {
        let id = text(row, "upgrade_id").to_owned();
        let other = self.upgrades.rows.get(&(key.0, id.clone()));
        let other = other.filter(|row| text(row, "state") != "waiting");
        if let Some(other) = other {
            return violated("upgrade-twice", format!("backup {key:?}, and there was {other}"));
        }
        let right = self.upgrades.asked.contains(&(key.0, id.clone()))
            && text(row, "name") == format!("before upgrade {id}")
            && text(row, "backup_type") == "pre_upgrade"
            && ["node_id", "remarks", "expires_at"].iter().all(|name| row[*name].is_null());
        if right { Ok(()) } else { violated("born", format!("{key:?} of upgrade {id}: {row}")) }
    }

    /// The row of an upgrade's request was written.
    pub(super) fn upgrade_changed(
        &mut self,
        now: Timestamp,
        life: &Life,
        (deployment, id): (u64, &str),
        change: &Change,
        reach: &mut Reach,
    ) -> Verdict {
        let key = (deployment, id.to_owned());
        let Some(new) = change.new.as_ref() else {
            return violated("upgrade-kept", format!("{life} removed the request {key:?}"));
        };
        if !self.upgrades.asked.contains(&key) {
            return violated("upgrade-unasked", format!("{life} made {new}"));
        }
        let state =
            |row: &Option<RowRef>| row.as_ref().map_or("new", |row| text(row, "state")).to_owned();
        let (from, to) = (state(&change.old), state(&change.new));
        let legal = matches!(
            (from.as_str(), to.as_str()),
            ("new" | "waiting", "waiting" | "running" | "answered")
                | ("running" | "answered", "answered")
        );
        let fixed = |name: &str| change.old.as_ref().is_none_or(|old| old[name] == new[name]);
        let asked = time(new, "requested_at").unwrap_or(Timestamp::MIN);
        let answer = |row: &Value| row["answer"].clone();
        let again =
            from == "answered" && change.old.as_ref().is_some_and(|old| answer(old) != answer(new));
        if !legal || again || !["requested_at", "token", "upgrade_id"].iter().all(|one| fixed(one))
        {
            return violated("upgrade-edge", format!("{life}: {:?} became {new}", change.old));
        }
        if from != to {
            reach.hit(&format!("upgrade {from}>{to}"));
        }
        let code = text(&new["answer"]["failure"], "code");
        let busy = matches!(code, "backup_in_progress" | "restore_in_progress");
        if from != "answered" && busy && now < asked + WAITS - SLACK {
            return violated("upgrade-early", format!("{life} gave up at {now}: {new}"));
        }
        // Who was told of it and did not hear is told again when the tick's lease is over.
        let over = asked + WAITS;
        let this = |of: u64, id: &str| new["deployment_id"] == of && new["upgrade_id"] == id;
        let lost =
            self.nudges_lost.iter().filter(|(at, of, id)| *at > over - EXPIRED && this(*of, id));
        let unheard = lost.count();
        let late = over + EXPIRED + UNHEARD * i32::try_from(unheard).unwrap_or(i32::MAX);
        if to == "waiting" && self.is_smooth(asked) && now > late {
            return violated("upgrade-late", format!("{life} still waits at {now}: {new}"));
        }
        let due = time(new, "due_at").filter(|_| !new["due_shard"].is_null());
        let open = to == "waiting" || items(&new["outbox"]).next().is_some();
        if open && due.is_none_or(|due| due > now + LOOKS) {
            return violated("upgrade-not-due", format!("{new}"));
        }
        self.upgrades.rows.insert(key, Arc::clone(new));
        Ok(())
    }

    /// An upgrade whose backup could not start is answered.
    pub(super) fn refusal_announced(&mut self, detail: &Value) -> Verdict {
        let id = text(detail, "upgrade_id").to_owned();
        let key = (detail["deployment_id"].as_u64().unwrap_or(0), id);
        let row = self.upgrades.rows.get(&key);
        let told = row.is_some_and(|row| {
            let answer = &row["answer"];
            ["announcement_id", "at", "failure"].iter().all(|name| answer[*name] == detail[*name])
                && answer["backup_id"].is_null()
                && row["tenant_id"] == detail["tenant_id"]
        });
        if told && text(detail, "status") == "failed" {
            self.answered_upgrade(&key.1, detail);
            return Ok(());
        }
        violated("announced-untrue", format!("{detail}, and it is {row:?}"))
    }

    /// The bus has an answer to an upgrade.
    pub(super) fn answered_upgrade(&mut self, id: &str, detail: &Value) {
        let key = (detail["deployment_id"].as_u64().unwrap_or(0), id.to_owned());
        let said = text(detail, "announcement_id").to_owned();
        self.upgrades.answers.entry(key).or_insert((said, 0)).1 += 1;
    }

    /// Every upgrade that was asked for is answered.
    pub(super) fn all_is_answered(&self) -> Verdict {
        let mut asked = self.upgrades.asked.iter();
        if let Some(key) = asked.find(|key| !self.upgrades.answers.contains_key(*key)) {
            let row = self.upgrades.rows.get(key);
            return violated("upgrade-unanswered", format!("{key:?} was asked for: {row:?}"));
        }
        for (key, row) in &self.upgrades.rows {
            let answer = &row["answer"];
            let told = self.upgrades.answers.get(key);
            let same = told.is_some_and(|(id, _)| answer["announcement_id"] == id.as_str());
            if text(row, "state") != "answered" || !same {
                return violated("upgrade-unanswered", format!("{key:?}: {row}, told {told:?}"));
            }
        }
        Ok(())
    }
}
