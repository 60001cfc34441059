//! EC2 and EBS as the functions meet them: the simulated ones, with lists that
//! are empty, and tools that copy tags.

use cloud::Reply;
use jiff::Timestamp;

use super::World;
use crate::sim::accidents;
use crate::sim::call::{self, Call};
use crate::sim::plan::Fault;
use crate::sim::spells::Trouble;

impl World {
    /// EC2 and EBS.
    pub(super) fn ec2(
        &mut self,
        now: Timestamp,
        call: &Call,
        code: Option<&str>,
        fault: Option<Fault>,
    ) -> Reply {
        if let Some(code) = code {
            self.arm(&call.operation, code);
        }
        // AWS gives shorter pages than it is asked for: "the number of items may be
        // less" (EC2 API reference, pagination).
        let short = (fault == Some(Fault::ShortPage)).then_some(1);
        self.cloud.short_pages(short);
        let mut reply = self.cloud.ec2(now, &call.body);
        self.cloud.short_pages(None);
        self.cloud.clear_faults();
        let more = |body: &[u8]| String::from_utf8_lossy(body).contains("<nextToken>");
        if short.is_some() && matches!(&reply, Reply::Answer { body, .. } if more(body)) {
            self.struck(call, Fault::ShortPage);
        }
        // Only what has been there for long: a list that leaves out a snapshot
        // that is being deleted would be right before its time.
        let old = |id| self.cloud.snapshot(id).is_none_or(|one| one.state == "completed");
        let empty = self.spells.iter().any(|spell| spell.is_on(Trouble::ListsNothing, now));
        if empty && call.named().next().is_some() && call.named().all(old) {
            leave_out(&mut reply);
            self.reach.hit(Trouble::ListsNothing.line());
            self.oracle.met(Trouble::ListsNothing, now);
        } else if self.lags(call, &reply) {
            self.reach.hit("fault describe_lag");
        }
        let unheard = matches!(
            fault,
            Some(
                Fault::CrashAfter
                    | Fault::ReplyLost
                    | Fault::TimedOutApplied
                    | Fault::Error5xxApplied
            )
        );
        if unheard && self.copies > 0 && call.operation == "CreateSnapshots" {
            self.copy_tags(now, &reply);
        }
        reply
    }

    /// Whether a list shows what is no more, or not yet what is.
    fn lags(&self, call: &Call, reply: &Reply) -> bool {
        let Reply::Answer { status: 200, body, .. } = reply else { return false };
        let text = String::from_utf8_lossy(body);
        // Of one page of several nobody knows what it should have.
        let paged = text.contains("<nextToken>") || !call.field("NextToken").is_empty();
        let there = |id: &str| self.cloud.snapshot(id).is_some_and(|one| one.exists);
        !paged && call.named().any(|id| there(id) != text.contains(id))
    }

    /// A tool takes a snapshot of its own right after a set of ours, and copies
    /// the tags of ours.
    fn copy_tags(&mut self, now: Timestamp, reply: &Reply) {
        let Reply::Answer { status: 200, body, .. } = reply else { return };
        let ids = call::snapshot_ids(body);
        if let Some(what) = ids.first().and_then(|id| accidents::copy(self, now, id)) {
            self.copies -= 1;
            self.reach.hit("accident tags_copied");
            self.trace.line(now, || format!("accident tags_copied: {what}"));
        }
    }
}

/// A list of snapshots as EC2 gives it when it finds none.
fn leave_out(reply: &mut Reply) {
    let Reply::Answer { status: 200, body, .. } = reply else { return };
    let text = String::from_utf8_lossy(body).into_owned();
    let (begin, end) = ("<snapshotSet>", "</snapshotSet>");
    if let (Some(from), Some(to)) = (text.find(begin), text.find(end)) {
        let mut text = text;
        text.replace_range(from + begin.len()..to, "");
        *body = text.into_bytes();
    }
}
