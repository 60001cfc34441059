//! The calls of AWS: who may make them, and what they do.

use std::collections::BTreeMap;

use cloud::Cloud;
use jiff::{SignedDuration, Timestamp};
use local::Name;

use super::super::call::{Call, Service};
use super::super::life::Life;
use super::super::reach::Reach;
use super::super::table::{RowRef, Table};
use super::{Backup, InFlight, Oracle, Snapshot, Verdict, Violation, time, violated};
use crate::rows::{BackupKey, items, named, text};

/// A client has given a call up after this (the service's own time-out).
const GIVEN_UP: SignedDuration = SignedDuration::from_secs(15);

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
        if call.service == Service::DynamoDb && call.operation == "Scan" {
            return violated("scan", format!("{life} reads the whole table"));
        }
        if !call.ec2_write() {
            return Ok(());
        }
        let backup = match call.operation.as_str() {
            "CreateSnapshots" => {
                let tagged = tagged(&tags_of_call(call))?;
                Self::may_be_taken(call, &tagged, table)?;
                let backup = self.backups.entry(tagged.backup);
                backup.or_default().callers.insert(tagged.node, life.id);
                tagged.backup
            }
            "DeleteSnapshot" => self.may_be_deleted(call.field("SnapshotId"), cloud)?,
            _ => return violated("rights", format!("{life} calls {call}")),
        };
        // One worker at a time changes EC2 for an operation.
        let other = self.in_flight.iter().find(|one| {
            one.backup == backup && one.life != life.id && now.duration_since(one.at) < GIVEN_UP
        });
        if let Some(other) = other {
            return violated(
                "two-workers",
                format!(
                    "{life} begins {call} for backup {backup:?} while worker/{} waits for its call #{}",
                    other.life, other.number
                ),
            );
        }
        self.in_flight.push(InFlight { life: life.id, number: call.number, at: now, backup });
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
        let stored = stored.and_then(|one| one["attempt"].as_u64());
        if stored.is_none_or(|stored| stored < *attempt) {
            return violated(
                "taken-unwritten",
                format!(
                    "attempt {attempt} of node {node} of backup {backup:?} is called, the row has {stored:?}"
                ),
            );
        }
        if !call.field("Description").contains(text(row, "token")) {
            return violated(
                "token",
                format!("the snapshots of backup {backup:?} do not bear its token"),
            );
        }
        Ok(())
    }

    /// Only what is ours goes, and nothing that a backup still needs.
    fn may_be_deleted(&self, id: &str, cloud: &Cloud) -> Result<BackupKey, Violation> {
        let Some(ours) = self.snapshots.get(id) else {
            let there = cloud.snapshot(id).map(|one| one.description.to_owned());
            let what = format!("{id} is to be deleted, which is not ours: {there:?}");
            return Err(Violation::new("foreign-deleted", what));
        };
        let Some(row) = self.backups.get(&ours.backup).and_then(Backup::row) else {
            return Ok(ours.backup);
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
        self.in_flight.retain(|one| one.number != call.number);
        if !done {
            return Ok(());
        }
        match (call.service, call.operation.as_str()) {
            (Service::Ec2, "CreateSnapshots") => self.taken(call, body, cloud),
            (Service::Ec2, "DeleteSnapshot") => {
                self.removed(call.field("SnapshotId"), reach);
                Ok(())
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
    fn taken(&mut self, call: &Call, body: &[u8], cloud: &Cloud) -> Verdict {
        let tagged = tagged(&tags_of_call(call))?;
        let backup = self.backups.entry(tagged.backup).or_default();
        let calls = backup.calls.entry((tagged.node, tagged.attempt)).or_default();
        *calls += 1;
        if *calls > 1 {
            return violated("taken-twice", format!("{tagged:?} was carried out {calls} times"));
        }
        let set = ids(body);
        let instance = call.field("InstanceSpecification.InstanceId");
        let mut volumes: Vec<&str> = cloud
            .instance(instance)
            .map(|one| one.data_volumes.iter().map(|(volume, _)| *volume).collect())
            .unwrap_or_default();
        let mut of: Vec<&str> =
            set.iter().filter_map(|id| cloud.snapshot(id)).map(|one| one.volume_id).collect();
        volumes.sort_unstable();
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
            for key in ["ld:stack", "ld:table"] {
                if one.tags.get(key).is_none_or(String::is_empty) {
                    return violated("tags", format!("{id} has no {key}: {:?}", one.tags));
                }
            }
            let device = format!("ld:device:{}", one.volume_id);
            if volumes.len() <= 40 && !one.tags.contains_key(&device) {
                return violated("tags", format!("{id} has no {device}: {:?}", one.tags));
            }
            let snapshot = Snapshot {
                backup: tagged.backup,
                node: tagged.node,
                attempt: tagged.attempt,
                content: one.content.map(str::to_owned),
                set: set.clone(),
                doomed: false,
                by_hand: None,
            };
            self.snapshots.insert(id.clone(), snapshot);
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

/// The snapshots in a reply.
fn ids(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let parts = text.split("<snapshotId>").skip(1);
    parts.filter_map(|part| part.split_once("</snapshotId>")).map(|(id, _)| id.to_owned()).collect()
}
