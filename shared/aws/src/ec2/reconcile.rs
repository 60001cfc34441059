//! What reconciliation sees of EC2: all that bears the stack's tag, page by page; which of
//! some snapshots are there; and the deletes of what is surely nobody's.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{
    Filter, Snapshot as Ec2Snapshot, Tag, Volume as Ec2Volume, VolumeAttachmentState,
};
use backups_core::backup::Presence;
use backups_core::id::{Nonce, SnapshotId, VolumeId};
use backups_core::operation::CallError;
use backups_core::reconcile::{SeenSnapshot, SeenVolume, Tags, Thing};
use backups_core::time::Time;
use futures_util::future::{join_all, try_join_all};

use super::look::{filter, refused};
use super::{CHUNK, Ec2, SIDE_BY_SIDE, snapshot_id, tags};

/// The size of a page: what is judged, with a read or two of the table for each, before the
/// place is stored. `MaxResults` is 5 to 1000 (EC2 API reference).
const PAGE: i32 = 200;

/// How many describes of a page of backups are under way at once: the account's token
/// bucket (100, 20 a second: EC2 developer guide, "Request throttling") is shared with the
/// operations that somebody waits for.
const DESCRIBES: usize = 4;

/// One page of a describe.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What is on it.
    pub found: Vec<T>,
    /// The token of the next one.
    pub next: Option<String>,
}

impl Ec2 {
    /// One page of the snapshots that bear this stack's tag, whatever table they name.
    ///
    /// # Errors
    /// The call failed. A token that is too old is `Rejected`.
    pub async fn tagged_snapshots(
        &self,
        token: Option<String>,
    ) -> Result<Page<SeenSnapshot>, CallError> {
        let reply = self
            .client
            .describe_snapshots()
            .owner_ids("self")
            .filters(self.of_stack())
            .max_results(PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| refused("DescribeSnapshots", &error))?;
        let found = reply.snapshots().iter().filter_map(seen_snapshot).collect();
        Ok(Page {
            found,
            next: reply.next_token().filter(|one| !one.is_empty()).map(str::to_owned),
        })
    }

    /// The same of volumes.
    ///
    /// # Errors
    /// As [`Ec2::tagged_snapshots`].
    pub async fn tagged_volumes(
        &self,
        token: Option<String>,
    ) -> Result<Page<SeenVolume>, CallError> {
        let reply = self
            .client
            .describe_volumes()
            .filters(self.of_stack())
            .max_results(PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| refused("DescribeVolumes", &error))?;
        let found = reply.volumes().iter().filter_map(seen_volume).collect();
        Ok(Page {
            found,
            next: reply.next_token().filter(|one| !one.is_empty()).map(str::to_owned),
        })
    }

    /// One snapshot by its id, if it bears this stack's tag.
    ///
    /// # Errors
    /// The call failed: that it is not there is an error of it too.
    pub async fn tagged_snapshot(&self, id: &str) -> Result<Option<SeenSnapshot>, CallError> {
        let reply = self.client.describe_snapshots().snapshot_ids(id).send().await;
        let reply = reply.map_err(|error| refused("DescribeSnapshots", &error))?;
        let mut ours = reply.snapshots().iter().filter(|one| self.is_ours(one.tags()));
        Ok(ours.find_map(seen_snapshot))
    }

    /// The same of a volume.
    ///
    /// # Errors
    /// As [`Ec2::tagged_snapshot`].
    pub async fn tagged_volume(&self, id: &str) -> Result<Option<SeenVolume>, CallError> {
        let reply = self.client.describe_volumes().volume_ids(id).send().await;
        let reply = reply.map_err(|error| refused("DescribeVolumes", &error))?;
        let mut ours = reply.volumes().iter().filter(|one| self.is_ours(one.tags()));
        Ok(ours.find_map(seen_volume))
    }

    fn is_ours(&self, tags: &[Tag]) -> bool {
        value(tags, tags::STACK) == Some(&self.stack)
    }

    fn of_stack(&self) -> Filter {
        filter(&format!("tag:{}", tags::STACK), vec![self.stack.clone()])
    }

    /// Which of these snapshots EC2 lists. That one is left out proves nothing.
    ///
    /// # Errors
    /// Any call that failed: the list is whole or it is none.
    pub async fn listed(&self, ids: &[SnapshotId]) -> Result<BTreeSet<SnapshotId>, CallError> {
        let mut listed = BTreeSet::new();
        let chunks: Vec<_> = ids.chunks(CHUNK).collect();
        for wave in chunks.chunks(DESCRIBES) {
            for seen in try_join_all(wave.iter().map(|ids| self.presence(ids, false))).await? {
                let there = seen.into_iter().filter(|(_, one)| matches!(one, Presence::There(_)));
                listed.extend(there.map(|(id, _)| id));
            }
        }
        Ok(listed)
    }

    /// Asks for each of these snapshots by its very id.
    ///
    /// # Errors
    /// Any call that failed for another cause than that the snapshot is not there.
    pub async fn asked_by_id(
        &self,
        ids: &[SnapshotId],
    ) -> Result<Vec<(SnapshotId, Presence)>, CallError> {
        let mut answers = Vec::with_capacity(ids.len());
        for wave in ids.chunks(SIDE_BY_SIDE) {
            answers.extend(try_join_all(wave.iter().map(|id| self.confirm(id))).await?);
        }
        Ok(answers)
    }

    /// Deletes these, side by side, and tells of each what that came to. `may_begin` is
    /// asked before each wave: a call that would outlive the invocation is not begun.
    pub async fn delete(
        &self,
        things: Vec<Thing>,
        may_begin: impl Fn() -> bool,
    ) -> Vec<(Thing, Deleted)> {
        let mut outcomes = Vec::with_capacity(things.len());
        for wave in things.chunks(SIDE_BY_SIDE) {
            if may_begin() {
                outcomes.extend(join_all(wave.iter().map(|thing| self.delete_one(thing))).await);
            } else {
                outcomes.extend(wave.iter().map(|_| Deleted::NotBegun));
            }
        }
        things.into_iter().zip(outcomes).collect()
    }

    async fn delete_one(&self, thing: &Thing) -> Deleted {
        let done = match thing {
            Thing::Snapshot(id) => self.delete_snapshot(id).await,
            Thing::Volume(id) => self.delete_volume(id).await,
        };
        done.map_or_else(Deleted::Refused, |()| Deleted::Taken)
    }
}

/// What a delete came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// EC2 has taken it, or there was nothing left to delete.
    Taken,
    /// EC2 did not take it, or not surely.
    Refused(CallError),
    /// It was not asked for: the invocation's time was over.
    NotBegun,
}

/// The value of a tag.
fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key))?.value()
}

fn read(all: &[Tag]) -> Tags {
    let text = |key: &str| value(all, key).map(str::to_owned);
    Tags {
        table: text(tags::TABLE),
        deployment: value(all, tags::DEPLOYMENT).and_then(|id| id.parse().ok()),
        backup: value(all, tags::BACKUP).and_then(|id| id.parse().ok()),
        node: value(all, tags::NODE).and_then(|id| id.parse().ok()),
        restore: value(all, tags::RESTORE).and_then(|id| id.parse().ok()),
        token: text(tags::TOKEN).map(Nonce),
    }
}

fn seen_snapshot(found: &Ec2Snapshot) -> Option<SeenSnapshot> {
    Some(SeenSnapshot {
        id: snapshot_id(found.snapshot_id())?,
        started_at: found.start_time().map(|at| Time::from_unix(at.secs())),
        size_gib: u64::try_from(found.volume_size().unwrap_or(0)).unwrap_or(0),
        description: found.description().unwrap_or_default().to_owned(),
        tags: read(found.tags()),
    })
}

fn seen_volume(found: &Ec2Volume) -> Option<SeenVolume> {
    let hangs =
        |state: Option<&VolumeAttachmentState>| state != Some(&VolumeAttachmentState::Detached);
    Some(SeenVolume {
        id: VolumeId::from(found.volume_id()?),
        created_at: found.create_time().map(|at| Time::from_unix(at.secs())),
        size_gib: u64::try_from(found.size().unwrap_or(0)).unwrap_or(0),
        state: found.state().map_or("", |state| state.as_str()).to_owned(),
        attached: found.attachments().iter().any(|one| hangs(one.state())),
        snapshot_id: snapshot_id(found.snapshot_id().filter(|id| !id.is_empty())),
        tags: read(found.tags()),
    })
}
