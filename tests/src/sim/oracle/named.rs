//! Requests that their clients call by a name: whatever becomes of the replies, each is carried
//! out once, and who sends it again is told what the first one was told.

use std::collections::BTreeMap;

use hyper::body::Bytes;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::super::life::Life;
use super::super::reach::Reach;
use super::super::reply::Reply;
use super::super::table::{Change, Key};
use super::answers::is_replayed;
use super::{Asked, Oracle, SLACK, Verdict, What, time, violated};

/// How long an answer is kept.
pub(super) const KEPT: SignedDuration = SignedDuration::from_mins(10);

/// A write may be carried out so long after it was put together: its tries were given up.
const LATE: SignedDuration = SignedDuration::from_secs(30);

/// What the oracle knows of names, by the key of the record.
pub(super) type Names = BTreeMap<Key, Name>;

/// What is known of one name.
#[derive(Debug, Default)]
pub(super) struct Name {
    /// What was asked for by it, and how often.
    asked: BTreeMap<String, u32>,
    /// When the record was made that counts, and until when it does.
    record: Option<(Timestamp, Timestamp)>,
    /// What was carried out, and the ids in its answer.
    answered: Option<(String, [String; 2])>,
}

/// The key of the record of a request, if it has a name.
fn record_of(asked: &Asked) -> Option<Key> {
    let digest = Bytes::copy_from_slice(&Sha256::digest(asked.called.as_ref()?.as_bytes()));
    Some((format!("REQUESTS#{}", asked.hash), format!("IDEMPOTENCY#{digest:x}")))
}

/// By what a request is known again that has a name.
pub(super) fn known_by(asked: &Asked) -> Option<String> {
    record_of(asked).map(|(pk, sk)| format!("{pk} {sk} {}", request(asked)))
}

/// A request, as its client knows it again.
fn request(asked: &Asked) -> String {
    format!("{} {:?}", asked.deployment, asked.what)
}

impl Oracle {
    /// Somebody asks by a name, perhaps once more.
    pub(super) fn ask_named(&mut self, asked: &Asked) {
        if let Some(key) = record_of(asked) {
            let name = self.names.entry(key).or_default();
            *name.asked.entry(request(asked)).or_default() += 1;
        }
    }

    /// A record is made where there is none that counts, of something that was asked for, by the
    /// write that does it.
    pub(super) fn recorded(
        &mut self,
        now: Timestamp,
        life: &Life,
        change: &Change,
        beside: &[Change],
    ) -> Verdict {
        let Some(new) = &change.new else { return Ok(()) };
        let fault = |check, why: String| violated(check, format!("{life} records {new}: {why}"));
        let made = |name: &str, kind: &str| {
            let sk = new[name].as_u64().map(|id| format!("{kind}#{id:020}"));
            sk.is_none_or(|sk| beside.iter().any(|one| one.key.1 == sk && one.old.is_none()))
        };
        let done = beside.iter().any(|one| one.key.0.starts_with("DEPLOYMENT#"));
        if !done || !made("backup_id", "BACKUP") || !made("restore_id", "RESTORE") {
            return fault("record-apart", "and does something else by another write".to_owned());
        }
        let Some(name) = self.names.get_mut(&change.key) else {
            return fault("record-unasked", "nobody called a request so".to_owned());
        };
        if let Some((at, until)) = name.record.filter(|(_, until)| *until > now + SLACK) {
            return fault("recorded-twice", format!("the one of {at} counts until {until}"));
        }
        let Some(until) = time(new, "until") else {
            return fault("record-until", "it ends never".to_owned());
        };
        let counted_from = until - KEPT;
        if counted_from > now + SLACK || counted_from < now - LATE {
            return fault("record-until", format!("at {now}"));
        }
        (name.record, name.answered) = (Some((now, until)), None);
        Ok(())
    }

    /// The answer to a request that has a name.
    pub(super) fn named_answered(
        &mut self,
        asked: &Asked,
        reply: &Reply,
        code: &str,
        disturbed: bool,
        reach: &mut Reach,
    ) -> Verdict {
        let replayed = is_replayed(reply);
        let name = record_of(asked).and_then(|key| self.names.get_mut(&key));
        let fault =
            |why: &str| violated("named", format!("{asked:?}: {} {code}: {why}", reply.status));
        let Some(name) = name else {
            return if replayed { fault("it has no name") } else { Ok(()) };
        };
        let request = request(asked);
        let ids = ["ld-backup", "ld-restore"].map(|header| reply.header(header).to_owned());
        // For as long as the request went on, whatever the clocks.
        let counted = name.record.filter(|(_, until)| *until + SLACK > asked.at);
        let surely =
            name.record.is_some_and(|(at, until)| at < asked.at && until > asked.at + KEPT / 2);
        // Of what was carried out for certain nothing but its answer is told, or nothing.
        let again = match &name.answered {
            Some((what, _)) => *what == request,
            None => name.asked.len() == 1,
        };
        let hidden = matches!(code, "deployment_not_found" | "unauthorized" | "rate_limited");
        let known = reply.status < 500 && !hidden;
        if surely && again && known && !replayed && asked.may() {
            return fault("it was carried out, and this is not its answer");
        }
        match (reply.status, code) {
            (204, _) => {
                if counted.is_none() {
                    return fault("nothing of it is recorded");
                }
                let tries = name.asked.get(&request).copied().unwrap_or(0);
                // Its own reply may have been lost on the way from the table.
                if replayed && tries < 2 && !disturbed {
                    return fault("it was never asked before");
                }
                let told = (request, ids);
                let first = name.answered.get_or_insert_with(|| told.clone());
                if *first != told {
                    return fault(&format!("the first one was told {first:?}"));
                }
                if replayed {
                    reach.hit(&format!("api 204 replayed {}", asked.what.word()));
                }
                Ok(())
            }
            (409, "idempotency_error") if name.asked.len() < 2 || counted.is_none() => {
                fault("nothing else was called so")
            }
            (400..500, "idempotency_error" | "idempotent_request_in_progress") => Ok(()),
            (400..500, _) if surely && asked.may() && !hidden => {
                fault("something was carried out by that name")
            }
            _ => Ok(()),
        }
    }
}

impl What {
    /// What it is, in the reach table.
    const fn word(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Patch { .. } => "patch",
            Self::Restore { .. } => "restore",
            Self::Reschedule(_) => "schedule",
            _ => "other",
        }
    }
}
