//! A failure has a cause: a backup that fails for none is one that was lost.

use cloud::Cloud;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::reach::Reach;
use super::super::spells::Trouble;
use super::{LOOKS, Oracle, SLACK, Verdict, pause, time, violated};
use crate::rows::{BackupKey, items, text};

impl Oracle {
    /// A backup has failed.
    pub(super) fn failed(
        &self,
        now: Timestamp,
        key: BackupKey,
        row: &Value,
        cloud: &Cloud,
        reach: &mut Reach,
    ) -> Verdict {
        let (code, reason) = (text(&row["failure"], "code"), text(&row["failure"], "reason"));
        reach.hit(&format!("failure {code}"));
        if reason.is_empty() || reason.contains("ld_") {
            return violated("failure-shape", format!("backup {key:?} failed: {}", row["failure"]));
        }
        if !row["completed_at"].is_null() {
            return violated(
                "failure-shape",
                format!("backup {key:?} failed and has a completed_at"),
            );
        }
        if self.quiet && code != "no_volumes" {
            return violated(
                "failed-in-peace",
                format!("backup {key:?} failed, and nothing was wrong: {reason}"),
            );
        }
        if self.founded(now, key, row, code, cloud) {
            return Ok(());
        }
        violated(
            "failed-unfounded",
            format!("backup {key:?} failed with {code}, and nothing is known of it: {reason}"),
        )
    }

    /// What is said to hold up a removal is what AWS said.
    pub(super) fn held(&self, now: Timestamp, key: BackupKey, row: &Value) -> Verdict {
        let said =
            |code: &str| self.backups.get(&key).is_some_and(|backup| backup.held_by.contains(code));
        // It is not looked at while writes are paused.
        let paused = self.paused_for(now - SignedDuration::from_hours(24), now);
        let looked = || self.met_since(Trouble::DescribeDenied, now - super::HELD - paused);
        let founded = match text(&row["failure"], "code") {
            "snapshot_in_use" => said("InvalidSnapshot.InUse"),
            "snapshot_locked" => said("OperationNotPermitted"),
            "permission_denied" => said("UnauthorizedOperation") || looked(),
            _ => false,
        };
        if founded {
            return Ok(());
        }
        violated("held-unfounded", format!("backup {key:?} is held: {}", row["failure"]))
    }

    /// Pending for longer than it may be, without the time in which AWS throttled
    /// it; or with it, for longer than even that.
    fn pending_too_long(&self, now: Timestamp, key: BackupKey, created: Timestamp) -> bool {
        let age = now.duration_since(created) - self.paused_for(created, now);
        if age >= self.limits.pending_total - SLACK {
            return true;
        }
        let throttled = self.backups.get(&key).map(|backup| backup.throttled.as_slice());
        let throttled = throttled.unwrap_or_default();
        let alone = self.undisturbed
            && self
                .troubles
                .iter()
                .all(|(one, at)| *one == Trouble::CreateThrottled || *at < created);
        let lost = match (throttled.first(), throttled.last()) {
            (Some(first), Some(last)) if alone => last.duration_since(*first),
            // Other faults stood in the way too: how long each, nobody can say.
            _ => SignedDuration::ZERO,
        };
        age - lost >= self.limits.pending - SLACK - SignedDuration::from_secs(60)
    }

    /// Nothing of it has moved on EC2 for as long as it may stand still.
    fn stands_for_too_long(
        &self,
        now: Timestamp,
        started: Timestamp,
        row: &Value,
        cloud: &Cloud,
    ) -> bool {
        // Since the service's last look, or since EC2 did not let it look.
        let blind = [
            Trouble::Ec2Down,
            Trouble::Ec2Slow,
            Trouble::DescribeThrottled,
            Trouble::DescribeDenied,
            Trouble::ListsNothing,
        ];
        // With the ticks until then, of which some are skipped.
        let unseen = pause(row) + LOOKS;
        // A backup that nobody can look at is given up, too.
        let seen = blind.into_iter().all(|one| !self.met_since(one, now - unseen - LOOKS));
        let moved = |id: &str| {
            let Some(one) = cloud.snapshot(id) else { return started };
            let stands = one.stalled.filter(|(_, until)| *until + unseen > now);
            let stands = stands.map(|(since, _)| since);
            one.ended_at.into_iter().chain(stands).min().unwrap_or(now - unseen).max(started)
        };
        let last = crate::rows::named(row).map(|(id, _)| moved(id)).max().unwrap_or(started);
        // A step of progress takes a while, and a list may lag.
        let step = SignedDuration::from_secs(120);
        let last = if seen { last } else { started };
        let paused = self.paused_for(last, now);
        now.duration_since(last) - paused >= self.limits.in_progress - SLACK - step
    }

    fn founded(
        &self,
        now: Timestamp,
        key: BackupKey,
        row: &Value,
        code: &str,
        cloud: &Cloud,
    ) -> bool {
        let created = time(row, "created_at").unwrap_or(Timestamp::MIN);
        let since = created - SLACK;
        let instances = || items(&row["nodes"]).map(|node| text(node, "instance_id"));
        let touched = || instances().any(|id| self.touched.get(id).is_some_and(|at| *at >= since));
        let volumes = |id: &str| cloud.instance(id).map_or(0, |one| one.data_volumes.len());
        let mut ours = self.taken_of(key).map(|(_, one)| one);
        let refused =
            |code: &str| self.backups.get(&key).is_some_and(|backup| backup.refused.contains(code));
        let tried = self.backups.get(&key).map(|backup| &backup.tried);
        let often = || tried.is_some_and(|tried| tried.values().any(|calls| *calls >= 5));
        match code {
            "snapshot_failed" => {
                // One that failed, five calls that did, or one that AWS refused for good.
                let refusal = self.backups.get(&key).is_some_and(|backup| {
                    backup.refused.iter().any(|code| code.starts_with("InvalidParameter"))
                });
                ours.any(|one| one.doomed) || often() || (refusal && touched())
            }
            "snapshot_missing" => ours.any(|one| one.by_hand.is_some()),
            "node_missing" => {
                let gone = |id: &str| {
                    cloud.instance(id).is_none_or(|one| {
                        !matches!(one.state, "running" | "stopped" | "stopping" | "pending")
                    })
                };
                instances().any(gone)
            }
            "no_volumes" => instances().any(|id| volumes(id) == 0) || touched(),
            "too_many_volumes" => instances().any(|id| volumes(id) > 128),
            "multi_attach" => instances().any(|id| self.shared.contains(id)),
            "permission_denied" => {
                refused("UnauthorizedOperation") || self.met_since(Trouble::DescribeDenied, since)
            }
            "kms_unavailable" => refused("InvalidKMSKey.InvalidState"),
            "quota" => refused("ResourceLimitExceeded"),
            "deadline_exceeded" => match time(row, "started_at") {
                None => self.pending_too_long(now, key, created),
                Some(started) => self.stands_for_too_long(now, started, row, cloud),
            },
            _ => false,
        }
    }
}
