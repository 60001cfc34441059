//! What the API answers: true at some moment between the question and the answer.

use jiff::Timestamp;
use serde_json::Value;

use super::super::reach::Reach;
use super::super::reply::Reply;
use super::super::scene::Key;
use super::super::table::RowRef;
use super::named::known_by;
use super::schedules::setting;
use super::versions::{since, was_there};
use super::{Asked, EXPIRED, Oracle, Page, Request, TICKS, Verdict, What, time, violated};
use crate::rows::{FIELDS, items, named, text};

impl Oracle {
    /// Somebody asks.
    pub(crate) fn ask(&mut self, asked: &Asked) {
        self.ask_named(asked);
        self.rates.ask(asked);
        let may = asked.may();
        match &asked.what {
            What::Create { name, body } if may => {
                let new = Request { at: asked.at, body: body.clone(), ..Request::default() };
                let request = self.requests.entry(name.clone()).or_insert(new);
                request.tries += 1;
                request.open += 1;
                request.refused = None;
            }
            What::Delete(id) if may => {
                *self.deletes.entry((asked.deployment, *id)).or_default() += 1;
            }
            What::Patch { backup, body } if may => self.ask_patch(asked, *backup, body),
            What::Reschedule(body) if may => self.schedules.ask(asked.deployment, body),
            What::Restore { backup, .. } if may => {
                let named = known_by(asked);
                self.restores.ask((asked.deployment, *backup), named, asked.at);
            }
            _ => {}
        }
    }

    /// And is answered, or not. `disturbed`: a fault met one of the calls.
    pub(crate) fn answered(
        &mut self,
        now: Timestamp,
        asked: &Asked,
        reply: Option<&Reply>,
        disturbed: bool,
        reach: &mut Reach,
    ) -> Verdict {
        self.rates.answered(now, asked, reply, disturbed)?;
        let Some(reply) = reply else {
            reach.hit("api no answer");
            return Ok(());
        };
        let code = reply.code();
        match (reply.status, &asked.what) {
            (200, What::ShowRestore(_)) => reach.hit("api 200 restore"),
            (200, What::Restores(_)) => reach.hit("api 200 restores"),
            (200, What::Schedule) => reach.hit("api 200 schedule"),
            (200, What::Show(_)) => reach.hit("api 200 backup"),
            (204, _) if is_replayed(reply) => {}
            (204, What::Patch { .. }) => reach.hit("api 204 patch"),
            (204, What::Create { .. }) => reach.hit("api 204 create"),
            (204, What::Restore { .. }) => reach.hit("api 204 restore"),
            (204, What::Reschedule(body)) if body.is_null() => reach.hit("api 204 no schedule"),
            (204, What::Reschedule(_)) => reach.hit("api 204 schedule"),
            (204, _) => reach.hit("api 204 delete"),
            (200, _) => reach.hit("api 200 list"),
            _ => reach.hit(&format!("api {code}")),
        }
        self.check(now, asked, reply, &code, disturbed)?;
        self.named_answered(asked, reply, &code, disturbed, reach)?;
        self.tells_nothing(asked, reply, &code)?;
        if reply.status == 200 && matches!(asked.what, What::Schedule) {
            self.schedule_is_true(now, asked, &reply.json())?;
        }
        // What was refused does not happen later.
        if let (What::Create { name, .. }, true, ..500) = (&asked.what, asked.may(), reply.status)
            && let Some(request) = self.requests.get_mut(name)
        {
            request.open = request.open.saturating_sub(1);
            if reply.status >= 400 && request.open == 0 && request.got.is_none() {
                request.refused = Some(code.clone());
            }
        }
        if let (What::Patch { body, .. }, true) = (&asked.what, asked.may()) {
            self.patch_answered(asked, body, reply, &code, disturbed)?;
        }
        if let (What::Restore { backup, .. }, true, 400..500) =
            (&asked.what, asked.may(), reply.status)
            && !self.restores.refused((asked.deployment, *backup), known_by(asked))
        {
            return violated("refused-and-made", format!("{asked:?}: {code}"));
        }
        if let (What::Delete(id), true, 400..500) = (&asked.what, asked.may(), reply.status) {
            let key = (asked.deployment, *id);
            if let Some(count) = self.deletes.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.deletes.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// Whose deployment it is, whether there is one, and what is wrong with a key
    /// shows in nothing that is told: to the letter one answer, but for `instance`.
    fn tells_nothing(&mut self, asked: &Asked, reply: &Reply, code: &str) -> Verdict {
        if !matches!(code, "unauthorized" | "deployment_not_found") {
            return Ok(());
        }
        let mut told = reply.json();
        told["instance"] = Value::Null;
        if let Some(reason) = told["reason"].as_str() {
            told["reason"] = reason.replace(&asked.deployment.to_string(), "#").into();
        }
        let first = self.told.entry(code.to_owned()).or_insert_with(|| told.clone());
        if *first == told {
            return Ok(());
        }
        violated("tells", format!("{asked:?}: {told}, and another time {first}"))
    }

    fn check(
        &self,
        now: Timestamp,
        asked: &Asked,
        reply: &Reply,
        code: &str,
        disturbed: bool,
    ) -> Verdict {
        shape(asked, reply, code)?;
        // Before all that it asks for (`rates`).
        if code == "rate_limited" {
            return Ok(());
        }
        let busy = reply.status == 503 || reply.status == 500;
        if busy {
            if disturbed && code == "unavailable" {
                return Ok(());
            }
            return violated(
                "unfounded-5xx",
                format!("{asked:?}: {} {code}, and no call met a fault", reply.status),
            );
        }
        if let What::Wrong(status) = asked.what {
            // Who may not see the deployment does not learn what is wrong.
            let hidden = matches!(reply.status, 404) && self.was_hidden(asked);
            if reply.status == status || hidden {
                return Ok(());
            }
            return violated("answer", format!("{asked:?}: {} {code}, not {status}", reply.status));
        }
        let refused = code == "unauthorized";
        if asked.good.is_some_and(|good| good == refused) {
            return violated("key", format!("{asked:?}: {} {code}", reply.status));
        }
        if refused {
            return Ok(());
        }
        if asked.foreign {
            // To the letter as if it did not exist.
            if code == "deployment_not_found" {
                return Ok(());
            }
            return violated("tenant", format!("{asked:?}: {} {code}", reply.status));
        }
        if asked.key == Key::Read
            && !matches!(
                asked.what,
                What::List(_)
                    | What::Show(_)
                    | What::Restores(_)
                    | What::ShowRestore(_)
                    | What::Schedule
            )
        {
            let refused = code == "insufficient_permissions"
                || (code == "deployment_not_found" && self.was_hidden(asked));
            if refused {
                return Ok(());
            }
            return violated("key", format!("{asked:?}: {} {code}", reply.status));
        }
        match (&asked.what, reply.status) {
            (What::List(page), 200) => self.list_is_true(now, asked, *page, reply),
            // Looked at on their own (`schedule_is_true`, `patch_answered`).
            (What::Schedule, 200) | (What::Patch { .. }, 204) => Ok(()),
            // By now another one may stand there; of what backup, too (`named_answered`).
            (What::Reschedule(_) | What::Restore { .. }, 204) if is_replayed(reply) => Ok(()),
            (What::Reschedule(body), 204) => {
                let wanted = if body.is_null() { Value::Null } else { setting(body) };
                if self.settings_since(asked).contains(&wanted) {
                    return Ok(());
                }
                violated("ack-lost", format!("{asked:?}: 204, and no row was like that"))
            }
            (What::Restores(page), 200) => self.restores_are_true(now, asked, *page, reply),
            (What::ShowRestore(id), 200) => self.restore_is_true(asked, *id, &reply.json()),
            (What::Restore { backup, body }, 204) => {
                self.restore_was_made(asked, *backup, body, reply)
            }
            (What::Show(id), 200) => self.shown_is_true(asked, *id, &reply.json()),
            (What::Create { name, .. }, 204) => self.was_made(asked, name, reply),
            (What::Delete(id), 204) => self.is_being_deleted(asked, *id),
            (What::Create { name, .. }, _) => {
                // Whoever is refused has nothing made.
                let got = self.requests.get(name).and_then(|request| request.got);
                let again = code == "idempotent_request_in_progress"
                    || (code == "deployment_not_found" && self.was_hidden(asked));
                if let Some(got) = got.filter(|_| !again) {
                    return violated("refused-and-made", format!("{asked:?}: {code}, and {got:?}"));
                }
                self.refusal_is_true(asked, code)
            }
            _ => self.refusal_is_true(asked, code),
        }
    }

    /// The versions of a deployment's row between the question and now.
    pub(super) fn deployment_since(&self, asked: &Asked) -> Vec<&RowRef> {
        self.deployment_rows(asked.deployment, asked.at)
    }

    /// The versions of a backup's row between the question and now; None: not there.
    pub(super) fn backup_since(&self, asked: &Asked, id: u64) -> Vec<Option<&RowRef>> {
        let Some(backup) = self.backups.get(&(asked.deployment, id)) else { return vec![None] };
        let mut all: Vec<_> =
            if was_there(&backup.rows, asked.at) { Vec::new() } else { vec![None] };
        all.extend(since(&backup.rows, asked.at).iter().map(|(_, row)| row.as_ref()));
        all
    }

    pub(super) fn was_hidden(&self, asked: &Asked) -> bool {
        let rows = self.deployment_since(asked);
        // Of a deleted one the backups can be listed and deleted all the same.
        let makes = !matches!(
            asked.what,
            What::List(_) | What::Delete(_) | What::Show(_) | What::Patch { .. }
        );
        let gone = |row: &Value| makes && row["deleted"] == true;
        asked.foreign
            || rows.is_empty()
            || rows.iter().any(|row| row["tenant_id"].is_null() || gone(row))
    }

    /// An acknowledged backup is there, under its id.
    fn was_made(&self, asked: &Asked, name: &str, reply: &Reply) -> Verdict {
        let got = self.requests.get(name).and_then(|request| request.got);
        let told = reply.backup().map(|id| (asked.deployment, id));
        if told.is_some() && got == told {
            return Ok(());
        }
        violated("ack-lost", format!("{asked:?}: {told:?} was acknowledged, and {got:?} is there"))
    }

    /// An acknowledged delete is under way, or over.
    fn is_being_deleted(&self, asked: &Asked, id: u64) -> Verdict {
        let key = (asked.deployment, id);
        let now = self
            .backups
            .get(&key)
            .map(|backup| backup.row().map(|row| text(row, "status").to_owned()));
        match now {
            Some(None) => Ok(()),
            Some(Some(status)) if status == "deleting" => Ok(()),
            other => violated("ack-lost", format!("{asked:?}: 204, and the backup is {other:?}")),
        }
    }

    /// A list has each backup as it was at some moment of the request, all that
    /// were there all the time, and none that were not there at all.
    fn list_is_true(&self, now: Timestamp, asked: &Asked, page: Page, reply: &Reply) -> Verdict {
        let list = reply.json();
        if !list.is_array() {
            return violated("list-shape", format!("{asked:?}: {list}"));
        }
        for item in items(&list) {
            let id = item["id"].as_u64().unwrap_or(0);
            let versions = self.backup_since(asked, id);
            if !versions.iter().flatten().any(|row| same(item, row)) {
                return violated(
                    "list-untrue",
                    format!("{asked:?}: {item}, and the row was {versions:?}"),
                );
            }
        }
        let known = self.backups.range((asked.deployment, 0)..=(asked.deployment, u64::MAX));
        let there = known.filter_map(|((_, id), _)| {
            let versions = self.backup_since(asked, *id);
            let ever = versions.iter().any(Option::is_some);
            ever.then(|| (*id, versions.iter().all(Option::is_some)))
        });
        Self::page_is_true(now, asked, ("backups", page), reply, &there.collect::<Vec<_>>())
    }

    /// At rest nothing is there that should have expired.
    pub(super) fn expired_in_peace(&self, now: Timestamp) -> Verdict {
        for (key, backup) in &self.backups {
            let Some(row) = backup.row() else { continue };
            let expires = time(row, "expires_at")
                .filter(|_| matches!(text(row, "status"), "completed" | "failed"));
            if expires.is_some_and(|at| at + EXPIRED < now) && !self.is_paused_since(now - TICKS) {
                return violated(
                    "expired-late",
                    format!("backup {key:?} expired at {expires:?}, and it is {now}"),
                );
            }
        }
        Ok(())
    }
}

/// Whether it is the answer of an earlier try.
pub(super) fn is_replayed(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == "true"
}

/// What every answer has.
fn shape(asked: &Asked, reply: &Reply, code: &str) -> Verdict {
    let id = reply.header("ld-request");
    let hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let problem = reply.json();
    let whole = match reply.status {
        200 => {
            let fields = !matches!(asked.what, What::List(_)) || in_order(&reply.body);
            reply.header("content-type") == "application/json" && fields
        }
        204 => reply.body.is_empty(),
        _ => {
            reply.header("content-type") == "application/problem+json"
                && problem["status"] == reply.status
                && problem["instance"] == id
                && !code.is_empty()
                && !text(&problem, "reason").is_empty()
                && problem["retryable"] == (reply.status == 429 || reply.status >= 500)
                && reply.header("retry-after").is_empty() != matches!(reply.status, 429 | 503)
                && reply.header("allow").is_empty() == (reply.status != 405)
                && reply.header("www-authenticate").is_empty() == (reply.status != 401)
        }
    };
    if hex && whole {
        return Ok(());
    }
    violated(
        "answer-shape",
        format!("{} {:?} {}", reply.status, reply.headers, String::from_utf8_lossy(&reply.body)),
    )
}

/// Whether each item of a list has the 15 fields in their order. As text: JSON
/// objects that were read have lost it.
fn in_order(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    // No text of the simulation's has braces.
    text == "[]"
        || text.split("},{").all(|item| {
            let fields = item.split("\":").count() - 1;
            let mut rest = item;
            fields == FIELDS.len()
                && FIELDS.iter().all(|name| match rest.split_once(&format!("\"{name}\":")) {
                    Some((_, after)) => {
                        rest = after;
                        true
                    }
                    None => false,
                })
        })
}

/// Whether an item of a list shows this row.
pub(super) fn same(item: &Value, row: &Value) -> bool {
    let mut plain = FIELDS.iter().filter(|name| !matches!(**name, "snapshot_ids" | "volume_ids"));
    let started = !row["started_at"].is_null();
    let (snapshots, volumes): (Vec<_>, Vec<_>) = named(row).filter(|_| started).unzip();
    let texts = |name: &str| {
        items(&item[name]).map(|one| one.as_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    plain.all(|name| item[*name] == row[*name])
        && texts("snapshot_ids") == snapshots
        && texts("volume_ids") == volumes
}
