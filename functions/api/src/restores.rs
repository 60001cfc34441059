//! Restores: one is asked for, one is shown, all are listed. Each handler reads from top
//! to bottom in the contract's order of errors.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use backups_aws::random;
use backups_aws::table::Begun;
use backups_aws::table::keys::{Key, Permission};
use backups_aws::table::requests::Answer;
use backups_core::announce::Detail;
use backups_core::backup::Backup;
use backups_core::body;
use backups_core::deployment::Deployment;
use backups_core::id::{
    BackupId, DeploymentId, InstanceId, NodeId, RestoreId, SnapshotId, VolumeId,
};
use backups_core::operation::Failure;
use backups_core::refusals::no_restore;
use backups_core::restore::{Asked, Node, Phase, Restore, Status, decide};
use backups_core::time::Time;
use serde::Serialize;
use tracing::Span;
use tracing::field::display;
use utoipa::ToSchema;

use crate::backups::{BUS, living};
use crate::frame::Began;
use crate::once::{Sent, Tries, once, record};
use crate::problem::Problem;
use crate::{Api, auth, input, pages, shown};

/// `POST /deployments/{deployment_id}/backups/{backup_id}/restore`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, backup_id) = input::backup(&mut parts).await?;
    let deployment = living(&api, &key, id, Permission::Manage).await?;
    let body = input::optional_json(&parts.headers, body).await?;
    let sent = Sent::new(&key, &parts, &body, body::restore(&body))?;
    once(
        &api,
        sent.once.as_ref(),
        Box::pin(async {
            let (restore, safety) = store(&api, &key, deployment, backup_id, &sent).await?;
            Span::current().record("restore_id", display(restore.id));
            tracing::info!("a restore was requested");
            let mut announcements = Detail::all_of_restore(&restore);
            announcements.extend(safety.iter().flat_map(Detail::all_of));
            // What the bus does not take stays in the rows' outboxes.
            api.bus.publish(&announcements, BUS).await;
            Ok(answer(&restore))
        }),
    )
    .await
}

impl pages::Listed for Restore {
    const PATH: &'static str = "restores";

    type Id = RestoreId;

    fn id(&self) -> RestoreId {
        self.id
    }

    fn item(&self) -> impl Serialize {
        Item::from(self)
    }
}

/// `GET /deployments/{deployment_id}/restores`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, wanted) = input::page(&mut parts).await?;
    living(&api, &key, id, Permission::Read).await?;
    let listing = api.table.restores(id, wanted.before, pages::to_read(&wanted));
    pages::reply(id, &wanted, listing, Began::of(&parts)).await
}

/// `GET /deployments/{deployment_id}/restores/{restore_id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, restore_id) = input::restore(&mut parts).await?;
    living(&api, &key, id, Permission::Read).await?;
    let restore = api.table.restore(id, restore_id).await?.ok_or_else(no_restore)?;
    shown::json(&Item::from(&restore))
}

/// Decides on what was read and stores the restore. All tries bear the same tokens, as those of
/// a backup do.
async fn store(
    api: &Api,
    key: &Key,
    read: Deployment,
    backup_id: BackupId,
    sent: &Sent<Asked>,
) -> Result<(Restore, Option<Backup>), Problem> {
    let (id, mut deployment) = (read.deployment_id, read);
    let named = sent.once.as_ref();
    let mut tries = Tries::new(api, named);
    let tokens = [random::nonce(), random::nonce()];
    loop {
        let backup = api.table.backup(id, backup_id).await?;
        let (limits, now) = (&api.settings.limits, api.clock.now());
        let decided =
            decide(&deployment, backup.as_ref(), sent.wanted, limits, tokens.clone(), now)?;
        let (restore, safety) = decided;
        // `decide` refuses what has no backup.
        let Some(backup) = &backup else { return Err(Problem::internal()) };
        let begun = Begun { deployment: &deployment, backup, safety: safety.as_ref() };
        let record = record(api, named, answer(&restore), now)?;
        let written = api.table.create_restore(&restore, begun, record).await?;
        if tries.stored(written).await? {
            return Ok((restore, safety.map(|(safety, _)| safety)));
        }
        deployment = living(api, key, id, Permission::Manage).await?;
        let there = api.table.restore(id, restore.id).await?;
        if there.is_some_and(|there| there.token == restore.token) {
            return Ok((restore, safety.map(|(safety, _)| safety)));
        }
    }
}

/// What the request is answered with.
fn answer(restore: &Restore) -> Answer {
    Answer { backup_id: restore.safety_backup_id, restore_id: Some(restore.id) }
}

// The comments of this and of the following types are the API document's words.
/// A restore.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Restore)]
pub(crate) struct Item<'a> {
    /// 1, 2, 3 ... per deployment, never used again.
    id: RestoreId,
    deployment_id: DeploymentId,
    /// The backup that it restores. It may be gone by now.
    backup_id: BackupId,
    status: Status,
    /// What it is at. Null before the first look, after a turn, and once it is over.
    phase: Option<Phase>,
    /// 0 to 100, of all that there is to do.
    #[schema(maximum = 100)]
    progress: u8,
    nodes: Vec<ItemNode<'a>>,
    /// Why it did not come to `completed`.
    failure: Option<&'a Failure>,
    /// The backup of the state before, if one was asked for.
    safety_backup_id: Option<BackupId>,
    requested_at: Time,
    /// When the first node was stopped: the downtime begins.
    stopped_at: Option<Time>,
    /// When the last node that ran was running again: the downtime ends.
    started_at: Option<Time>,
    completed_at: Option<Time>,
    /// From `stopped_at` to `started_at`.
    downtime_seconds: Option<i64>,
    /// When the volumes that were replaced are deleted.
    old_volumes_kept_until: Option<Time>,
}

/// A node of a restore.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RestoreNode)]
struct ItemNode<'a> {
    node_id: NodeId,
    /// The EC2 instance that it is today.
    instance_id: &'a InstanceId,
    /// Whether it ran before the restore stopped it. Null: that is not known yet.
    was_running: Option<bool>,
    #[schema(maximum = 100)]
    progress: u8,
    volumes: Vec<ItemVolume<'a>>,
}

/// A device of a node, and what hangs there before and after.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RestoreVolume)]
struct ItemVolume<'a> {
    device: &'a str,
    /// The volume that is replaced.
    old_volume_id: Option<&'a VolumeId>,
    /// The volume that the restore makes. Null: not yet, or the backup has none for the device.
    new_volume_id: Option<&'a VolumeId>,
    /// What it is made of.
    snapshot_id: Option<&'a SnapshotId>,
}

impl<'a> From<&'a Restore> for Item<'a> {
    fn from(restore: &'a Restore) -> Self {
        let downtime = restore.stopped_at.zip(restore.started_at);
        Self {
            id: restore.id,
            deployment_id: restore.deployment_id,
            backup_id: restore.backup_id,
            status: restore.status,
            phase: restore.phase,
            progress: restore.progress,
            nodes: restore.nodes.iter().map(ItemNode::from).collect(),
            failure: restore.failure.as_ref(),
            safety_backup_id: restore.safety_backup_id,
            requested_at: restore.requested_at,
            stopped_at: restore.stopped_at,
            started_at: restore.started_at,
            completed_at: restore.completed_at,
            downtime_seconds: downtime.map(|(stopped, started)| (started - stopped).0),
            old_volumes_kept_until: restore.old_volumes_kept_until,
        }
    }
}

impl<'a> From<&'a Node> for ItemNode<'a> {
    fn from(node: &'a Node) -> Self {
        let old = |device: &str| {
            node.old.iter().find(|old| old.device == device).map(|old| &old.volume_id)
        };
        let news = node.new.iter().map(|new| ItemVolume {
            device: &new.device,
            old_volume_id: old(&new.device),
            new_volume_id: new.volume_id.as_ref(),
            snapshot_id: Some(&new.snapshot_id),
        });
        // Volumes at devices that the backup does not have, and such as came in between.
        let covered = |device: &str| node.new.iter().any(|new| new.device == device);
        let others = node.old.iter().filter(|old| !covered(&old.device)).chain(&node.aside);
        let others = others.map(|old| ItemVolume {
            device: &old.device,
            old_volume_id: Some(&old.volume_id),
            new_volume_id: None,
            snapshot_id: None,
        });
        Self {
            node_id: node.node_id,
            instance_id: &node.instance_id,
            was_running: node.was_running,
            progress: node.progress,
            volumes: news.chain(others).collect(),
        }
    }
}
