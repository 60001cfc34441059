//! What becomes of one snapshot or volume that bears this stack's tag.
//!
//! | The table says | Verdict |
//! |---|---|
//! | a row names it | it is needed |
//! | its row is there, is at rest, and does not name it; or its tombstone says that the backup was deleted | it goes |
//! | its row is there, and may still come to name it | it is left to that operation |
//! | nothing; or it is another table's; or it is not what the row's own call made | an orphan: told, never deleted |
//!
//! The row is read after EC2 was described, consistently: what it does not name then, it
//! did not name when the description was made, and a row at rest never comes to name more.

use crate::backup::{self, Backup, Take, described};
use crate::id::{BackupId, DeploymentId, NodeId, Nonce, RestoreId, SnapshotId, VolumeId};
use crate::limits::GRACE;
use crate::restore::Restore;
use crate::time::{Seconds, Time};

/// The tags by which a thing of ours says whose it is, as far as they can be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tags {
    /// The table that knows it.
    pub table: Option<String>,
    /// The deployment.
    pub deployment: Option<DeploymentId>,
    /// Of a snapshot: the backup.
    pub backup: Option<BackupId>,
    /// Of a snapshot: the node.
    pub node: Option<NodeId>,
    /// Of a volume: the restore.
    pub restore: Option<RestoreId>,
    /// Of a volume: the restore's random word.
    pub token: Option<Nonce>,
}

/// A snapshot or a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// `snap-…`
    Snapshot(SnapshotId),
    /// `vol-…`
    Volume(VolumeId),
}

impl Thing {
    /// Reads an id as AWS writes it, and as nothing else: no wildcard, no other kind.
    pub fn parse(id: &str) -> Option<Self> {
        let (kind, digits) = id.split_once('-')?;
        let hex = (1..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match kind {
            "snap" if hex => Some(Self::Snapshot(SnapshotId::from(id))),
            "vol" if hex => Some(Self::Volume(VolumeId::from(id))),
            _ => None,
        }
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Snapshot(id) => id.fmt(f),
            Self::Volume(id) => id.fmt(f),
        }
    }
}

/// A snapshot that bears the stack's tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSnapshot {
    /// Which.
    pub id: SnapshotId,
    /// When it was started.
    pub started_at: Option<Time>,
    /// The volume's size in GiB.
    pub size_gib: u64,
    /// Its description, which bears the backup's random word.
    pub description: String,
    /// Its tags.
    pub tags: Tags,
}

/// A volume that bears the stack's tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenVolume {
    /// Which.
    pub id: VolumeId,
    /// When it was made.
    pub created_at: Option<Time>,
    /// Its size in GiB.
    pub size_gib: u64,
    /// `available`, `in-use`, `deleting`, ...
    pub state: String,
    /// Whether it hangs on anything, or is on its way to or from there.
    pub attached: bool,
    /// What it was made from.
    pub snapshot_id: Option<SnapshotId>,
    /// Its tags.
    pub tags: Tags,
}

/// What the table says of a snapshot's backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouching {
    /// Its row, as it is.
    Row(Box<Backup>),
    /// It was deleted: its random word.
    Tombstone(Nonce),
    /// Neither.
    Nothing,
}

/// What the table says of a volume's restore. Rows of restores stay for ever, so there are
/// no tombstones of them.
pub type VouchingRestore = Option<Box<Restore>>;

/// Why nobody vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Its tags name no backup or restore.
    Unreadable,
    /// Its tags name another table, which this one has replaced.
    OtherTable,
    /// The table has neither a row nor a tombstone of what its tags name.
    NoRow,
    /// The row is there, and it was not that row's own call that made this one: a copy by
    /// somebody's tool, or a backup of the same number whose row was lost.
    NotItsOwn,
    /// The restore's row does not name it, but somebody uses it.
    Attached,
    /// The restore was stuck once: whatever bears its tags may hold what exists nowhere else.
    WasStuck,
}

impl Because {
    /// A sentence for an operator.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unreadable => "its tags name no backup or restore",
            Self::OtherTable => "its tags name another table, which this one has replaced",
            Self::NoRow => "the table has neither a row nor a tombstone of it",
            Self::NotItsOwn => {
                "the row that its tags name did not make it: a copy, or of a row that was lost"
            }
            Self::Attached => "its restore does not name it, and it is attached",
            Self::WasStuck => "its restore does not name it, and was stuck: it may hold data",
        }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Too young to be judged.
    Young,
    /// Its row names it.
    Named,
    /// Its row does not name it, and its operation may still come to, or removes it itself.
    UnderWay,
    /// There is evidence that nobody needs it.
    Delete,
    /// Nobody vouches for it: told, and never deleted but by an operator's order.
    Orphan(Because),
}

/// Judges a snapshot. `table` is this table's id; `vouching` was read after the snapshot
/// was described.
pub fn judge_snapshot(seen: &SeenSnapshot, table: &str, vouching: &Vouching, now: Time) -> Verdict {
    if let Vouching::Row(row) = vouching
        && row.snapshots().any(|taken| taken.snapshot_id == seen.id)
    {
        return Verdict::Named;
    }
    if young(seen.started_at, now) {
        return Verdict::Young;
    }
    let (Some(deployment), Some(backup)) = (seen.tags.deployment, seen.tags.backup) else {
        return Verdict::Orphan(Because::Unreadable);
    };
    if seen.tags.table.as_deref() != Some(table) {
        return Verdict::Orphan(Because::OtherTable);
    }
    // Other people's tools copy tags. The whole description is compared: what a tool makes
    // of one has words of its own around it.
    let own = |token: &Nonce| {
        let node = seen.tags.node;
        node.is_some_and(|node| seen.description == described(deployment, backup, node, token))
    };
    match vouching {
        Vouching::Nothing => Verdict::Orphan(Because::NoRow),
        Vouching::Tombstone(token) if own(token) => Verdict::Delete,
        Vouching::Row(row) if !own(&row.token) => Verdict::Orphan(Because::NotItsOwn),
        Vouching::Tombstone(_) => Verdict::Orphan(Because::NotItsOwn),
        Vouching::Row(row) if is_open(row) => Verdict::UnderWay,
        Vouching::Row(_) => Verdict::Delete,
    }
}

/// Whether the backup may still come to name a snapshot, or removes its own.
fn is_open(row: &Backup) -> bool {
    row.status.active()
        || row.status == backup::Status::Deleting
        || row.removal_open()
        || row.nodes.iter().any(|node| matches!(node.take, Take::Called { .. }))
}

/// How long after the end of a restore a volume may have been made by one of its calls.
const LATE: Seconds = Seconds::minutes(10);

/// Judges a volume. `table` is this table's id; `row`, of the restore that its tags name,
/// was read after the volume was described.
pub fn judge_volume(seen: &SeenVolume, table: &str, row: &VouchingRestore, now: Time) -> Verdict {
    if let Some(row) = row
        && names(row, &seen.id)
    {
        return Verdict::Named;
    }
    if young(seen.created_at, now) {
        return Verdict::Young;
    }
    if seen.tags.deployment.is_none() || seen.tags.restore.is_none() {
        return Verdict::Orphan(Because::Unreadable);
    }
    if seen.tags.table.as_deref() != Some(table) {
        return Verdict::Orphan(Because::OtherTable);
    }
    let Some(row) = row else { return Verdict::Orphan(Because::NoRow) };
    if row.status.active() || row.sweep_until.is_some() || young(row.completed_at, now) {
        return Verdict::UnderWay;
    }
    if matches!(seen.state.as_str(), "deleting" | "deleted") {
        return Verdict::UnderWay;
    }
    if seen.attached || seen.state == "in-use" {
        return Verdict::Orphan(Because::Attached);
    }
    if row.was_stuck {
        return Verdict::Orphan(Because::WasStuck);
    }
    if made_by(row, seen) { Verdict::Delete } else { Verdict::Orphan(Because::NotItsOwn) }
}

/// Whether one of the restore's own calls made the volume: its random word, one of its
/// snapshots, and its time. A volume may be written to and is nobody's copy of anything:
/// one that somebody cloned, tags and all, must not go.
fn made_by(row: &Restore, seen: &SeenVolume) -> bool {
    let token = seen.tags.token.as_ref() == Some(&row.token);
    let snapshot =
        row.new_volumes().any(|(_, new)| Some(&new.snapshot_id) == seen.snapshot_id.as_ref());
    let in_its_time = seen.created_at.is_some_and(|at| {
        at >= row.requested_at && row.completed_at.is_some_and(|end| at <= end + LATE)
    });
    token && snapshot && in_its_time
}

/// Whether the restore's row names the volume, as whatever.
fn names(row: &Restore, id: &VolumeId) -> bool {
    let hung = row.nodes.iter().flat_map(|node| node.old.iter().chain(&node.aside));
    hung.map(|old| &old.volume_id)
        .chain(row.new_volumes().filter_map(|(_, new)| new.volume_id.as_ref()))
        .chain(row.leftovers.iter().map(|left| &left.volume_id))
        .any(|named| named == id)
}

/// Whether it is not a day old. What does not say how old it is, is young.
fn young(at: Option<Time>, now: Time) -> bool {
    at.is_none_or(|at| now - at < GRACE)
}

/// Whether an operator's order may remove what was judged so.
///
/// # Errors
/// Why not, as a sentence.
pub fn removable(verdict: Verdict, attached: bool) -> Result<(), &'static str> {
    match verdict {
        _ if attached => Err("it is attached: detach it first"),
        Verdict::Young => Err("it is younger than a day: whoever makes it may still write it down"),
        Verdict::Named => Err("a row names it: delete the backup, or see the restore"),
        Verdict::UnderWay => {
            Err("its backup or restore is under way, and looks after it by itself")
        }
        Verdict::Delete | Verdict::Orphan(_) => Ok(()),
    }
}
