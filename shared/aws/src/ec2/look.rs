//! Looking at EC2: instances with their volumes, snapshots by tag and by id.

use std::collections::BTreeMap;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, Reservation, Snapshot as Ec2Snapshot, Volume as Ec2Volume};
use backups_core::backup::{Instance, Look, Presence, Seen, Snapshot, Volume};
use backups_core::id::{InstanceId, NodeId, SnapshotId, VolumeId};
use backups_core::operation::CallError;
use backups_core::time::Time;
use futures_util::future::try_join_all;

use super::tags::{self, Whose};
use super::{CHUNK, Ec2, PAGE, SIDE_BY_SIDE, snapshot_id};

impl Ec2 {
    /// Looks at all that `look` asks for.
    ///
    /// # Errors
    /// Any call that failed: what was seen is whole or nothing.
    pub async fn look(&self, look: &Look, whose: &Whose) -> Result<Seen, CallError> {
        let mut seen = Seen::default();
        if !look.instances.is_empty() {
            seen.instances = self.instances(&look.instances).await?;
        }
        if look.tagged {
            let filters = whose
                .pairs()
                .into_iter()
                .map(|(key, value)| filter(&format!("tag:{key}"), vec![value]))
                .collect();
            seen.tagged = self.snapshots(filters).await?;
        }
        if !look.snapshots.is_empty() {
            seen.snapshots = self.presence(&look.snapshots, look.confirm_missing).await?;
        }
        Ok(seen)
    }

    /// The instances that exist, with their data volumes.
    pub(super) async fn instances(
        &self,
        ids: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, Instance>, CallError> {
        let mut instances = BTreeMap::new();
        for chunk in ids.chunks(CHUNK) {
            let values: Vec<_> = chunk.iter().map(|id| id.0.clone()).collect();
            let mut roots = BTreeMap::new();
            let mut pages = self
                .client
                .describe_instances()
                .filters(filter("instance-id", values.clone()))
                .into_paginator()
                .page_size(PAGE)
                .send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| refused("DescribeInstances", &error))?;
                let found = page.reservations().iter().flat_map(Reservation::instances);
                for instance in found {
                    let Some(id) = instance.instance_id() else { continue };
                    let state = instance.state().and_then(|state| state.name());
                    let state = state.map_or("unknown", |name| name.as_str()).to_owned();
                    roots.insert(
                        id.to_owned(),
                        instance.root_device_name().unwrap_or_default().to_owned(),
                    );
                    let seen = Instance { state, data_volumes: Vec::new() };
                    instances.insert(InstanceId::from(id), seen);
                }
            }
            let mut pages = self
                .client
                .describe_volumes()
                .filters(filter("attachment.instance-id", values))
                .into_paginator()
                .page_size(PAGE)
                .send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| refused("DescribeVolumes", &error))?;
                for volume in page.volumes() {
                    for (id, data) in data_volumes(volume, &roots) {
                        if let Some(instance) = instances.get_mut(&id) {
                            instance.data_volumes.push(data);
                        }
                    }
                }
            }
        }
        for instance in instances.values_mut() {
            instance.data_volumes.sort_by(|a, b| a.device.cmp(&b.device));
        }
        Ok(instances)
    }

    /// The snapshots of this account that match, in all pages.
    async fn snapshots(&self, filters: Vec<Filter>) -> Result<Vec<Snapshot>, CallError> {
        let mut pages = self
            .client
            .describe_snapshots()
            .owner_ids("self")
            .set_filters(Some(filters))
            .into_paginator()
            .page_size(PAGE)
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| refused("DescribeSnapshots", &error))?;
            found.extend(page.snapshots().iter().filter_map(snapshot));
        }
        Ok(found)
    }

    /// Whether each of these snapshots is there. They are listed by filter,
    /// which leaves out what is missing; asked for by id, one that is missing
    /// fails the whole call. With `confirm`, what was left out is asked for by
    /// its own id.
    pub(super) async fn presence(
        &self,
        ids: &[SnapshotId],
        confirm: bool,
    ) -> Result<BTreeMap<SnapshotId, Presence>, CallError> {
        let mut seen: BTreeMap<_, _> =
            ids.iter().map(|id| (id.clone(), Presence::Unlisted)).collect();
        for chunk in ids.chunks(CHUNK) {
            let values = chunk.iter().map(|id| id.0.clone()).collect();
            for snapshot in self.snapshots(vec![filter("snapshot-id", values)]).await? {
                seen.insert(snapshot.snapshot_id.clone(), Presence::There(snapshot));
            }
        }
        if confirm {
            let unlisted: Vec<_> = seen
                .iter()
                .filter(|(_, presence)| **presence == Presence::Unlisted)
                .map(|(id, _)| id.clone())
                .collect();
            for wave in unlisted.chunks(SIDE_BY_SIDE) {
                seen.extend(try_join_all(wave.iter().map(|id| self.confirm(id))).await?);
            }
        }
        Ok(seen)
    }

    /// Asks for one snapshot by its id.
    pub(super) async fn confirm(
        &self,
        id: &SnapshotId,
    ) -> Result<(SnapshotId, Presence), CallError> {
        let reply = self.client.describe_snapshots().snapshot_ids(id.as_str()).send().await;
        match reply {
            Ok(reply) => {
                let there = reply.snapshots().iter().find_map(snapshot);
                Ok((id.clone(), there.map_or(Presence::Unlisted, Presence::There)))
            }
            Err(error) => match refused("DescribeSnapshots", &error) {
                CallError::Rejected { code, .. } if code == "InvalidSnapshot.NotFound" => {
                    Ok((id.clone(), Presence::NotFound))
                }
                other => Err(other),
            },
        }
    }
}

/// An error of a describe call. What AWS says is in the log; the row gets what a
/// tenant may read.
pub(super) fn refused<E>(operation: &str, error: &SdkError<E>) -> CallError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let sorted = crate::error::sort(error);
    tracing::info!(operation, error = %sorted, "a describe call failed");
    sorted.of(operation)
}

/// A filter of a describe call.
pub(super) fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// The instances that have `volume` as a data volume, and how.
fn data_volumes(volume: &Ec2Volume, roots: &BTreeMap<String, String>) -> Vec<(InstanceId, Volume)> {
    let attached = |attachment: &aws_sdk_ec2::types::VolumeAttachment| {
        let id = attachment.instance_id()?;
        let device = attachment.device()?;
        let root = roots.get(id)?;
        (root != device).then(|| (InstanceId::from(id), described(volume, attachment, device)))
    };
    volume.attachments().iter().filter_map(attached).collect()
}

/// A volume as it is kept with a backup.
fn described(
    volume: &Ec2Volume,
    attachment: &aws_sdk_ec2::types::VolumeAttachment,
    device: &str,
) -> Volume {
    let mut tags: Vec<_> = volume
        .tags()
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
        .collect();
    tags.sort();
    Volume {
        volume_id: VolumeId::from(volume.volume_id().unwrap_or_default()),
        device: device.to_owned(),
        size_gib: u64::try_from(volume.size().unwrap_or(0)).unwrap_or(0),
        volume_type: volume.volume_type().map_or("", |t| t.as_str()).to_owned(),
        iops: volume.iops(),
        throughput: volume.throughput(),
        kms_key_id: volume.kms_key_id().map(str::to_owned),
        availability_zone: volume.availability_zone().unwrap_or_default().to_owned(),
        delete_on_termination: attachment.delete_on_termination().unwrap_or(false),
        multi_attach: volume.multi_attach_enabled().unwrap_or(false),
        tags,
    }
}

/// A snapshot as the rules see it.
fn snapshot(found: &Ec2Snapshot) -> Option<Snapshot> {
    let tag = |key: &str| {
        found.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
    };
    let progress = found.progress().unwrap_or("0%").trim_end_matches('%');
    Some(Snapshot {
        snapshot_id: snapshot_id(found.snapshot_id())?,
        volume_id: VolumeId::from(found.volume_id().unwrap_or_default()),
        size_gib: u64::try_from(found.volume_size().unwrap_or(0)).unwrap_or(0),
        state: found.state().map_or("", |state| state.as_str()).to_owned(),
        state_message: found.state_message().map(str::to_owned),
        // "100%" as AWS writes it; it may be empty in the first moments.
        progress: progress.parse().unwrap_or(0),
        node_id: tag(tags::NODE).and_then(|id| id.parse::<NodeId>().ok()),
        attempt: tag(tags::ATTEMPT).and_then(|number| number.parse().ok()),
        completed_at: found.completion_time().map(|at| Time::from_unix(at.secs())),
        description: found.description().unwrap_or_default().to_owned(),
    })
}
