//! How many requests of a key pass in a minute, and who is told to come again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::super::reply::Reply;
use super::{Asked, Verdict, What, violated};

/// A function ends a request after this, whoever waits for it.
const REQUEST: SignedDuration = SignedDuration::from_secs(10);

/// The requests of all keys.
#[derive(Debug)]
pub(super) struct Rates {
    /// How many a key may make in a minute.
    limit: u64,
    /// By how much the functions' clocks may be off.
    skew: SignedDuration,
    /// By the key's hash, and the minute.
    minutes: BTreeMap<(String, i64), Minute>,
}

/// What is known of a key's minute.
#[derive(Debug, Default)]
struct Minute {
    /// The requests that may have been counted in it.
    sent: u64,
    /// Those that were, for certain, and passed.
    passed: u64,
    /// A call of one of them met a fault: it may have been counted twice, or not at all.
    disturbed: bool,
}

/// The minute of a time.
fn minute(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

impl Rates {
    pub(super) fn new(limit: u64, skew: i64) -> Self {
        Self { limit, skew: SignedDuration::from_millis(skew), minutes: BTreeMap::new() }
    }

    /// Somebody asks.
    pub(super) fn ask(&mut self, asked: &Asked) {
        for at in minute(asked.at - self.skew)..=minute(asked.at + REQUEST + self.skew) {
            self.minutes.entry((asked.hash.clone(), at)).or_default().sent += 1;
        }
    }

    /// And is answered, or not.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        asked: &Asked,
        reply: Option<&Reply>,
        disturbed: bool,
    ) -> Verdict {
        let (first, last) = (minute(asked.at - self.skew), minute(now + self.skew));
        let key = |at: i64| (asked.hash.clone(), at);
        if disturbed {
            for at in first..=last {
                self.minutes.entry(key(at)).or_default().disturbed = true;
            }
        }
        // Not counted: neither who has no key, nor what is no route.
        let counted = !matches!(asked.what, What::Wrong(404 | 405)) && asked.good != Some(false);
        match reply.map(|reply| (reply, reply.status)) {
            None | Some((_, 401)) => Ok(()),
            Some((reply, 429)) if counted => self.refused(now, asked, reply),
            Some((_, 429)) => violated("rate-unfounded", format!("{asked:?}: it is not counted")),
            Some(_) if !counted || first != last => Ok(()),
            Some(_) => {
                let minute = self.minutes.entry(key(first)).or_default();
                minute.passed += 1;
                if minute.disturbed || minute.passed <= self.limit {
                    return Ok(());
                }
                violated("rate-exceeded", format!("{asked:?}: {minute:?} of {}", self.limit))
            }
        }
    }

    /// Somebody is told to come again. Instances hold back up to half of what they have given
    /// out, and a reply that is lost may count each of its tries.
    fn refused(&self, now: Timestamp, asked: &Asked, reply: &Reply) -> Verdict {
        let (from, until) = (asked.at - self.skew, now + self.skew);
        let mut minutes = (minute(from)..=minute(until))
            .filter_map(|at| self.minutes.get(&(asked.hash.clone(), at)));
        let used_up = |one: &Minute| one.sent * if one.disturbed { 6 } else { 2 } >= self.limit;
        if !minutes.any(used_up) {
            return violated("rate-unfounded", format!("{asked:?}, of {}", self.limit));
        }
        let left = |at: Timestamp| 60 - at.as_second().rem_euclid(60);
        let (least, most) =
            if minute(from) == minute(until) { (left(until), left(from)) } else { (1, 60) };
        match reply.header("retry-after").parse::<i64>() {
            Ok(after) if (least..=most).contains(&after) => Ok(()),
            after => {
                violated("retry-after", format!("{asked:?}: {after:?}, not {least} to {most}"))
            }
        }
    }
}
