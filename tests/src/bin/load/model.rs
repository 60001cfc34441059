//! A deployment as those who ask know it: what every answer must be, of what was asked and
//! answered before.

use std::collections::{BTreeMap, BTreeSet};

use ::tests::http::Reply;
use ::tests::{Failed, Result, fail};
use serde_json::Value;

use super::Kind;

/// A deployment, as whoever asks knows it.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// The last id that was given.
    pub(crate) last: u64,
    /// A create is under way.
    pub(crate) creating: bool,
    /// What it has by all answers.
    pub(crate) live: BTreeMap<u64, Names>,
    /// What it may still show.
    pub(crate) leaving: BTreeSet<u64>,
    /// The last backup that an answer has shown completed.
    pub(crate) rested: u64,
}

/// What a backup may be called.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Any of these now.
    now: BTreeSet<String>,
    /// All that it was ever asked to be called.
    pub(crate) ever: Vec<String>,
    /// Changes that have not been answered.
    asked: u32,
    /// Those that overlap: one of them is the last.
    together: BTreeSet<String>,
}

impl Names {
    pub(crate) fn asked(&mut self, name: &str) {
        if self.asked == 0 {
            self.together.clear();
        }
        self.asked += 1;
        for names in [&mut self.now, &mut self.together] {
            names.insert(name.to_owned());
        }
        self.ever.push(name.to_owned());
    }

    /// One more of them was done.
    pub(crate) fn answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
        if self.asked == 0 {
            self.now = std::mem::take(&mut self.together);
        }
    }

    /// Whether it may have been called so at some moment since it was as `before`.
    fn could_be(&self, before: &Self, name: &str) -> bool {
        before.now.contains(name) || self.ever.iter().skip(before.ever.len()).any(|one| one == name)
    }
}

/// What was known when a request left.
pub(crate) struct Before {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) live: BTreeMap<u64, Names>,
    pub(crate) rested: u64,
    /// No backup was running.
    pub(crate) rests: bool,
}

impl Model {
    /// # Errors
    /// The answer is wrong.
    pub(crate) fn judge(&mut self, kind: Kind, before: &Before, reply: &Reply) -> Result<()> {
        let status = reply.status;
        let wrong = |why: &str| fail(format!("{} {status}: {why}: {}", reply.asked, reply.text));
        let code = reply.code();
        match (kind, status) {
            (Kind::Create, 204) => {
                self.creating = false;
                self.last += 1;
                let id = self.last;
                let names = self.live.entry(id).or_default();
                names.asked(&before.name);
                names.answered();
                if reply.header("ld-backup") != id.to_string() {
                    return wrong(&format!("backup {} for {id}", reply.header("ld-backup")));
                }
            }
            (Kind::Create, 409) if code == "backup_in_progress" => {
                self.creating = false;
                if before.rests {
                    return wrong("it was seen completed");
                }
            }
            (Kind::List, 200) => {
                let body = reply.json();
                let ids: Vec<u64> = body
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|one| one["id"].as_u64())
                    .collect();
                if !ids.is_sorted_by(|one, next| one > next) {
                    return wrong("not the newest first");
                }
                let shown: BTreeSet<u64> = ids.into_iter().collect();
                let missing =
                    before.live.keys().any(|id| !shown.contains(id) && !self.leaving.contains(id));
                let most = self.last + u64::from(self.creating);
                if missing || shown.last().is_some_and(|id| *id > most) {
                    return wrong(&format!("it should have {:?}, to {most}", before.live.keys()));
                }
                for one in body.as_array().into_iter().flatten() {
                    self.shown(before, one).or_else(|Failed(why)| wrong(&why))?;
                }
            }
            (Kind::Show, 200) => {
                let body = reply.json();
                if body["id"] != before.id {
                    return wrong("another one");
                }
                self.shown(before, &body).or_else(|Failed(why)| wrong(&why))?;
            }
            // Somebody deleted it meanwhile.
            (Kind::Show | Kind::Patch, 404)
                if code == "backup_not_found" && self.leaving.contains(&before.id) => {}
            (Kind::Patch, 409)
                if code == "backup_deleting" && self.leaving.contains(&before.id) => {}
            (Kind::Patch, 204) => self.live.entry(before.id).or_default().answered(),
            (Kind::Delete | Kind::Empty, 204) => {}
            (Kind::Restores, 200) if reply.text == "[]" => {}
            (Kind::Schedule, 404) if code == "schedule_not_found" => {}
            (Kind::Foreign, 404) if code == "deployment_not_found" => {}
            (Kind::Stranger, 401) if code == "unauthorized" => {}
            (Kind::NoRoute, 404) if code == "route_not_found" => {}
            _ => return wrong("not this"),
        }
        Ok(())
    }

    /// # Errors
    /// The list that is left in the end is not what the answers said.
    pub(crate) fn holds(&self, listed: &[Value]) -> Result<()> {
        let shown: BTreeSet<u64> = listed.iter().filter_map(|one| one["id"].as_u64()).collect();
        let sure: BTreeSet<u64> = self.live.keys().copied().collect();
        if shown != sure {
            return fail(format!("it has {shown:?}, and not {sure:?}"));
        }
        let bad = |one: &&Value| {
            let names = one["id"].as_u64().and_then(|id| self.live.get(&id));
            let name = one["name"].as_str().unwrap_or_default();
            one["status"] != "completed" || !names.is_some_and(|names| names.now.contains(name))
        };
        match listed.iter().find(bad) {
            Some(one) => fail(one.to_string()),
            None => Ok(()),
        }
    }

    /// # Errors
    /// A backup that a reply shows is not as it must be.
    fn shown(&mut self, before: &Before, one: &Value) -> Result<()> {
        let id = one["id"].as_u64().unwrap_or_default();
        let (name, status) = (&one["name"], &one["status"]);
        let named = name.as_str().unwrap_or_default();
        if let (Some(names), Some(then)) = (self.live.get(&id), before.live.get(&id))
            && !names.could_be(then, named)
        {
            return fail(format!("backup {id} is called {name} and not one of {:?}", then.now));
        }
        if status == "completed" {
            self.rested = self.rested.max(id);
        } else if id <= before.rested && !self.leaving.contains(&id) {
            return fail(format!("backup {id} is {status}, and was completed before"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(status: u16, headers: &[(&str, &str)], body: &Value) -> Reply {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Reply { asked: "it".to_owned(), status, headers, text: body.to_string() }
    }

    fn before(model: &Model, id: u64, name: &str) -> Before {
        Before {
            id,
            name: name.to_owned(),
            live: model.live.clone(),
            rested: model.rested,
            rests: model.rested == model.last && !model.creating,
        }
    }

    /// A deployment whose one backup was made as `first`.
    fn with_one() -> Result<Model> {
        let mut model = Model { creating: true, ..Model::default() };
        let made = reply(204, &[("ld-backup", "1")], &Value::Null);
        let known = before(&model, 0, "first");
        model.judge(Kind::Create, &known, &made)?;
        Ok(model)
    }

    fn shown(name: &str, status: &str) -> Reply {
        reply(200, &[], &json!({"id": 1, "name": name, "status": status}))
    }

    #[test]
    fn a_change_that_is_lost_is_seen_and_two_at_once_may_end_as_either() -> Result<()> {
        let mut model = with_one()?;
        let done = reply(204, &[], &Value::Null);
        let names = |model: &mut Model, name: &str| {
            model.live.entry(1).or_default().asked(name);
        };
        names(&mut model, "second");
        let early = before(&model, 1, "");
        model.judge(Kind::Patch, &before(&model, 1, "second"), &done)?;
        // Asked before the answer: old or new. After it: new.
        model.judge(Kind::Show, &early, &shown("first", "pending"))?;
        let late = before(&model, 1, "");
        model.judge(Kind::Show, &late, &shown("second", "pending"))?;
        assert!(model.judge(Kind::Show, &late, &shown("first", "pending")).is_err());
        for name in ["third", "fourth"] {
            names(&mut model, name);
        }
        for _ in 0..2 {
            model.judge(Kind::Patch, &before(&model, 1, ""), &done)?;
        }
        let list = |name: &str| [json!({"id": 1, "name": name, "status": "completed"})];
        assert!(model.holds(&list("third")).is_ok() && model.holds(&list("fourth")).is_ok());
        assert!(model.holds(&list("second")).is_err() && model.holds(&[]).is_err());
        Ok(())
    }

    #[test]
    fn a_backup_that_rests_goes_on_resting_and_refuses_no_create() -> Result<()> {
        let mut model = with_one()?;
        let busy = reply(409, &[], &json!({"code": "backup_in_progress"}));
        let known = before(&model, 0, "next");
        model.judge(Kind::Create, &known, &busy)?;
        let known = before(&model, 1, "");
        model.judge(Kind::Show, &known, &shown("first", "completed"))?;
        let known = before(&model, 1, "next");
        assert!(model.judge(Kind::Create, &known, &busy).is_err());
        assert!(model.judge(Kind::Show, &known, &shown("first", "in_progress")).is_err());
        let all = reply(200, &[], &json!([]));
        assert!(model.judge(Kind::List, &known, &all).is_err(), "it is missing");
        Ok(())
    }
}
