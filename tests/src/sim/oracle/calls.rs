//! The calls of AWS: who may make them, and what they do.

use std::collections::BTreeMap;

use cloud::Cloud;
use jiff::{SignedDuration, Timestamp};
use local::Name;

use super::super::call::{Call, Service, snapshot_ids};
use super::super::life::Life;
use super::super::reach::Reach;
use super::super::table::{RowRef, Table};
use super::{Backup, InFlight, Of, Oracle, Snapshot, Verdict, Violation, time, violated};
use crate::rows::{BackupKey, items, named, text};

/// A client has given one attempt up after this (the service's own time-out).
const GIVEN_UP: SignedDuration = SignedDuration::from_secs(15);

/// And the operation after this, whatever attempt it is at: what is carried out within it
/// is what its caller waits for.
const OPERATION: SignedDuration = SignedDuration::from_secs(20);

/// For so long after somebody changed an instance's volumes a set of them may be
/// another one than was planned.
pub(super) const TOUCH: SignedDuration = SignedDuration::from_secs(90);

/// The codes with which EC2 says "not now" (EC2 API reference, "Error codes").
const THROTTLES: [&str; 4] = [
    "RequestLimitExceeded",
    "ConcurrentSnapshotLimitExceeded",
    "PendingSnapshotLimitExceeded",
    "SnapshotCreationPerVolumeRateExceeded",
];

/// What the tags of one of our calls say.
#[derive(Debug)]
struct Tagged {
    backup: BackupKey,
    node: u64,
    attempt: u64,
}

impl Oracle {
    /// A function sends a call.
    pub(crate) fn sent(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        cloud: &Cloud,
        table: &Table,
    ) -> Verdict {
        if call.service == Service::Ec2 && life.function != Name::Worker {
            return violated("rights", format!("{life} calls {call}"));
        }
        let scans = call.service == Service::DynamoDb && call.operation == "Scan";
        if scans && !self.reconciles(life) {
            return violated("scan", format!("{life} reads the whole table"));
        }
        if !call.ec2_write() {
            return Ok(());
        }
        if self.reconciles(life) {
            self.may_write(now, life, call, None)?;
            return self.reconciliation_deletes(now, life, call, cloud, table);
        }
        let backup = match call.operation.as_str() {
            "CreateSnapshots" => {
                let tagged = tagged(&tags_of_call(call))?;
                Self::may_be_taken(call, &tagged, table)?;
                self.is_not_retaken(&tagged, cloud)?;
                let backup = self.backups.entry(tagged.backup);
                backup.or_default().callers.insert(tagged.node, life.id);
                tagged.backup
            }
            "DeleteSnapshot" => self.may_be_deleted(call.field("SnapshotId"), cloud, table)?,
            _ => return self.restore_sends(now, life, call, cloud),
        };
        self.may_write(now, life, call, None)?;
        let row = self.backups.get(&backup).and_then(Backup::row).cloned();
        self.begins(now, life, call, Of::Backup(backup), row.as_ref())
    }

    /// A call that changes EC2 begins, of an operation whose row, if there is one, is this.
    pub(super) fn begins(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        of: Of,
        row: Option<&RowRef>,
    ) -> Verdict {
        // Whoever holds the operation holds it until this call is over.
        let lease = row.and_then(|row| time(&row["lease"], "until"));
        if row.is_some() && lease.is_none_or(|until| until < now + GIVEN_UP) {
            return violated(
                "lease-short",
                format!("{life} begins {call} for {of:?} under a lease until {lease:?}"),
            );
        }
        // One worker at a time changes EC2 for an operation.
        let mut others = self.in_flight.iter();
        let other = others.find(|one| one.of == of && one.life != life.id && now < one.given_up);
        if let Some(other) = other {
            return violated(
                "two-workers",
                format!(
                    "{life} begins {call} for {of:?} while worker/{} waits for its call #{}",
                    other.life, other.number
                ),
            );
        }
        let create = call.operation == "CreateSnapshots";
        let (life, number) = (life.id, call.number);
        let first = *self.operations.entry((life, call.invocation.clone())).or_insert(now);
        let given_up = (now + GIVEN_UP).min(first + OPERATION);
        self.in_flight.push(InFlight { life, create, of, number, at: now, given_up });
        Ok(())
    }

    /// The row knows of the attempt before AWS does.
    fn may_be_taken(call: &Call, tagged: &Tagged, table: &Table) -> Verdict {
        let Tagged { backup, node, attempt } = tagged;
        let key = (format!("DEPLOYMENT#{}", backup.0), format!("BACKUP#{:020}", backup.1));
        let Some(row) = table.rows().get(&key) else {
            return violated(
                "taken-rowless",
                format!("snapshots are taken for backup {backup:?}, which has no row"),
            );
        };
        let mut nodes = items(&row["nodes"]);
        let stored = nodes.find(|one| one["node_id"].as_u64() == Some(*node));
        let instance = stored.map_or("", |one| text(one, "instance_id"));
        if call.field("InstanceSpecification.InstanceId") != instance {
            return violated(
                "taken-elsewhere",
                format!("{call} for node {node} of backup {backup:?}, which is on {instance}"),
            );
        }
        let stored = stored.and_then(|one| one["attempt"].as_u64());
        if stored.is_none_or(|stored| stored < *attempt) {
            return violated(
                "taken-unwritten",
                format!(
                    "attempt {attempt} of node {node} of backup {backup:?} is called, the row has {stored:?}"
                ),
            );
        }
        if text(row, "status") != "pending" {
            return violated(
                "taken-unwritten",
                format!("snapshots are taken for backup {backup:?}, which is {}", row["status"]),
            );
        }
        let token = text(row, "token");
        if !call.field("Description").ends_with(token) {
            return violated(
                "token",
                format!("the snapshots of backup {backup:?} do not bear its token"),
            );
        }
        Ok(())
    }

    /// A set that is there, whole and good, is adopted and not made again: its
    /// maker was too early, or did not look.
    fn is_not_retaken(&self, tagged: &Tagged, cloud: &Cloud) -> Verdict {
        let good = self.taken_of(tagged.backup).find(|(id, one)| {
            let touched = self.touched.get(&one.instance).is_some_and(|at| *at + TOUCH >= one.at);
            one.node == tagged.node
                && one.attempt < tagged.attempt
                && one.quick
                && !touched
                && one.set.iter().all(|id| self.is_good(id, cloud))
                && cloud.snapshot(id).is_some_and(|one| one.exists)
        });
        match good {
            None => Ok(()),
            Some((id, one)) => violated(
                "retaken",
                format!("{tagged:?} is called, and {id} of attempt {} is there", one.attempt),
            ),
        }
    }

    /// Whether a snapshot is there, does not fail, and nobody has deleted it.
    fn is_good(&self, id: &str, cloud: &Cloud) -> bool {
        self.snapshots.get(id).is_some_and(|one| !one.doomed && one.by_hand.is_none())
            && cloud.snapshot(id).is_some_and(|one| one.exists)
    }

    /// AWS refuses a backup's call: what for, and when it was throttled.
    fn refused(&mut self, now: Timestamp, call: &Call, body: &[u8]) {
        let said = String::from_utf8_lossy(body);
        let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let Some((code, _)) = code else { return };
        if let Some(one) = self.snapshots.get(call.field("SnapshotId")) {
            let backup = self.backups.entry(one.backup).or_default();
            backup.held_by.insert(code.to_owned());
        }
        let Ok(tagged) = tagged(&tags_of_call(call)) else { return };
        let backup = self.backups.entry(tagged.backup).or_default();
        backup.refused.insert(code.to_owned());
        // Too many snapshots at a time are waited for, as too many calls are.
        if THROTTLES.contains(&code) {
            backup.throttled.push(now);
        }
    }

    /// Only what is ours goes, and nothing that a backup still needs.
    fn may_be_deleted(
        &self,
        id: &str,
        cloud: &Cloud,
        table: &Table,
    ) -> Result<BackupKey, Violation> {
        if let Some(key) = self.forged_of(id) {
            return Ok(key);
        }
        let Some(ours) = self.snapshots.get(id) else {
            let there = cloud.snapshot(id).map(|one| one.description.to_owned());
            let what = format!("{id} is to be deleted, which is not ours: {there:?}");
            return Err(Violation::new("foreign-deleted", what));
        };
        let Some(row) = self.backups.get(&ours.backup).and_then(Backup::row) else {
            // A row that is missing gives nobody leave; one that was deleted does.
            if tombstone(ours.backup, table).is_some() {
                return Ok(ours.backup);
            }
            let what = format!("{id} is to be deleted, and no row or tombstone knows it");
            return Err(Violation::new("rowless-deleted", what));
        };
        let status = text(row, "status");
        let names = named(row).any(|(one, _)| one == id);
        let may_be_adopted = status == "pending"
            && items(&row["nodes"]).any(|node| {
                node["node_id"].as_u64() == Some(ours.node)
                    && node["attempt"].as_u64() == Some(ours.attempt)
                    && text(node, "take") == "called"
            });
        if (names || may_be_adopted) && !matches!(status, "failed" | "deleting") {
            let what =
                format!("{id} is to be deleted, and backup {:?}, {status}, has it", ours.backup);
            return Err(Violation::new("needed-deleted", what));
        }
        Ok(ours.backup)
    }

    /// AWS has answered a call, and `done` what it was asked for or not.
    #[expect(clippy::too_many_arguments, reason = "all that the world is, lent for one look")]
    pub(crate) fn carried_out(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        done: bool,
        body: &[u8],
        cloud: &Cloud,
        table: &Table,
        reach: &mut Reach,
    ) -> Verdict {
        // A call that was carried out when nobody waited for it any more is late.
        if call.service == Service::Ec2 {
            // Soon EC2 has forgotten it.
            for id in &self.by_hand {
                let Some(one) = self.snapshots.get_mut(id) else { continue };
                one.ended = cloud.snapshot(id).and_then(|one| one.ended_at).or(one.ended);
            }
        }
        let sent = self.in_flight.iter().find(|one| one.number == call.number);
        let quick = sent.is_some_and(|one| now.duration_since(one.at) <= OPERATION);
        self.in_flight.retain(|one| one.number != call.number);
        if !done {
            self.refused(now, call, body);
            self.is_unknown(now, call, body);
            return Ok(());
        }
        match (call.service, call.operation.as_str()) {
            (Service::Ec2, "CreateSnapshots") => self.taken(now, call, body, quick, cloud, table),
            (Service::Ec2, "DeleteSnapshot") => {
                self.removed(call.field("SnapshotId"), reach);
                Ok(())
            }
            (Service::Ec2, _) if call.ec2_write() => {
                self.restore_done(now, call, body, quick, cloud)
            }
            (Service::Events, _) => self.published(now, life, call, cloud, reach),
            (Service::DynamoDb, "GetItem") if life.function == Name::Worker => {
                looked(now, call, table, reach);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A set was taken: once, whole, and tagged so that it can be found again.
    fn taken(
        &mut self,
        now: Timestamp,
        call: &Call,
        body: &[u8],
        quick: bool,
        cloud: &Cloud,
        table: &Table,
    ) -> Verdict {
        let stack = table.rows().get(&("STACK".to_owned(), "TABLE".to_owned()));
        let table_id = stack.map_or("", |row| text(row, "table_id"));
        let tagged = tagged(&tags_of_call(call))?;
        let backup = self.backups.entry(tagged.backup).or_default();
        let calls = backup.calls.entry((tagged.node, tagged.attempt)).or_default();
        *calls += 1;
        if *calls > 1 {
            return violated("taken-twice", format!("{tagged:?} was carried out {calls} times"));
        }
        let set = snapshot_ids(body);
        let instance = call.field("InstanceSpecification.InstanceId");
        let devices: BTreeMap<&str, &str> = cloud
            .instance(instance)
            .map(|one| one.data_volumes.iter().copied().collect())
            .unwrap_or_default();
        let touched = !quick || self.touched.get(instance).is_some_and(|at| *at + TOUCH >= now);
        let volumes: Vec<&str> = devices.keys().copied().collect();
        let mut of: Vec<&str> =
            set.iter().filter_map(|id| cloud.snapshot(id)).map(|one| one.volume_id).collect();
        of.sort_unstable();
        if volumes != of {
            return violated(
                "set",
                format!("{instance} has {volumes:?}, and {tagged:?} took {of:?}"),
            );
        }
        for id in &set {
            let Some(one) = cloud.snapshot(id) else {
                return violated("simulation", format!("{id} was taken and is not there"));
            };
            for (key, value) in [("ld:stack", self.stack.as_str()), ("ld:table", table_id)] {
                if one.tags.get(key).is_none_or(|tag| tag != value || value.is_empty()) {
                    return violated("tags", format!("{id} is {key} {value}: {:?}", one.tags));
                }
            }
            // Somebody may have changed the volumes since the call was planned, the
            // more so if it comes late.
            let device = devices.get(one.volume_id).filter(|_| !touched && volumes.len() <= 40);
            let said = one.tags.get(&format!("ld:device:{}", one.volume_id));
            if device.is_some_and(|device| said.map(String::as_str) != Some(device)) {
                return violated("tags", format!("{id} is of {device:?}: {:?}", one.tags));
            }
            let snapshot = Snapshot {
                backup: tagged.backup,
                node: tagged.node,
                attempt: tagged.attempt,
                instance: instance.to_owned(),
                at: now,
                quick,
                set: set.clone(),
                doomed: false,
                by_hand: None,
                ended: None,
            };
            self.snapshots.insert(id.clone(), snapshot);
            self.sets.entry(tagged.backup).or_default().insert(id.clone());
        }
        Ok(())
    }

    fn removed(&self, id: &str, reach: &mut Reach) {
        let Some(ours) = self.snapshots.get(id) else { return };
        let row = self.backups.get(&ours.backup).and_then(Backup::row);
        let named = row.is_some_and(|row| named(row).any(|(one, _)| one == id));
        reach.hit(if named { "turn snapshot removed" } else { "turn stray removed" });
    }
}

/// What is left in the table of a backup that is gone.
pub(super) fn tombstone(key: BackupKey, table: &Table) -> Option<&RowRef> {
    let sk = format!("TOMBSTONE#BACKUP#{:020}", key.1);
    table.rows().get(&(format!("DEPLOYMENT#{}", key.0), sk))
}

/// The worker has read a row that another one holds.
fn looked(now: Timestamp, call: &Call, table: &Table, reach: &mut Reach) {
    let key = |name: &str| call.json["Key"][name]["S"].as_str().unwrap_or_default().to_owned();
    let (pk, sk) = (key("pk"), key("sk"));
    if !sk.starts_with("BACKUP#") {
        return;
    }
    reach.hit("turn worker looks");
    let held = |row: &RowRef| time(&row["lease"], "until").is_some_and(|until| until > now);
    if table.rows().get(&(pk, sk)).is_some_and(held) {
        reach.hit("turn lease met");
    }
}

/// The tags in a `CreateSnapshots`.
fn tags_of_call(call: &Call) -> BTreeMap<&str, &str> {
    let prefix = "TagSpecification.1.Tag.";
    // EC2's own limit of tags.
    (1..=50)
        .map(|number| {
            let of = |part: &str| call.field(&format!("{prefix}{number}.{part}"));
            (of("Key"), of("Value"))
        })
        .take_while(|(key, _)| !key.is_empty())
        .collect()
}

fn tagged(tags: &BTreeMap<&str, &str>) -> Result<Tagged, Violation> {
    let number = |key: &str| {
        tags.get(key)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Violation::new("tags", format!("no {key} among {tags:?}")))
    };
    Ok(Tagged {
        backup: (number("ld:deployment")?, number("ld:backup")?),
        node: number("ld:node")?,
        attempt: number("ld:attempt")?,
    })
}
