//! List, create, show, change, delete. Each handler reads from top to bottom in the contract's
//! order of errors; what is decided is decided in `backups-core`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use backups_aws::random;
use backups_aws::table::keys::{Key, Permission};
use backups_aws::table::requests::Answer;
use backups_core::announce::{Detail, OperationDue};
use backups_core::backup::{Backup, Change, Deletion, patched, start_delete};
use backups_core::body;
use backups_core::create::{NewBackup, decide};
use backups_core::deployment::Deployment;
use backups_core::id::{BackupId, DeploymentId};
use backups_core::refusals::{no_backup, no_deployment};
use http::StatusCode;
use serde::Serialize;
use tracing::Span;
use tracing::field::display;

use crate::frame::Began;
use crate::once::{Sent, Tries, once, record};
use crate::problem::Problem;
use crate::shown::{Item, Whole};
use crate::{Api, access, auth, input, pages, shown};

/// How long a request waits for the bus. The row is due whether it answers or not.
pub(crate) const BUS: Duration = Duration::from_secs(2);

impl pages::Listed for Backup {
    const PATH: &'static str = "backups";

    type Id = BackupId;

    fn id(&self) -> BackupId {
        self.id
    }

    fn item(&self) -> impl Serialize {
        Item::from(self)
    }
}

/// `GET /deployments/{deployment_id}/backups`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, wanted) = input::page(&mut parts).await?;
    let enough = pages::to_read(&wanted);
    let listing = if let Some(before) = wanted.before {
        access::seen(&key, id, api.table.deployment_for(&key, id).await?, Permission::Read)?;
        api.table.list_before(id, before, enough)
    } else {
        // One query has both.
        let found = api.table.list_for(&key, id, enough).await?;
        let (deployment, listing) = found.ok_or_else(no_deployment)?;
        access::seen(&key, id, Some(deployment), Permission::Read)?;
        listing
    };
    pages::reply(id, &wanted, listing, Began::of(&parts)).await
}

/// `GET /deployments/{deployment_id}/backups/{backup_id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, backup_id) = input::backup(&mut parts).await?;
    access::seen(&key, id, api.table.deployment_for(&key, id).await?, Permission::Read)?;
    let backup = api.table.backup(id, backup_id).await?.ok_or_else(no_backup)?;
    let kept = if backup.shown_snapshots().next().is_some() {
        api.table.kept_of(&backup).await?
    } else {
        Vec::new()
    };
    shown::json(&Whole::new(&backup, &kept))
}

/// `PATCH /deployments/{deployment_id}/backups/{backup_id}`
pub(crate) async fn patch(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, backup_id) = input::backup(&mut parts).await?;
    access::seen(&key, id, api.table.deployment_for(&key, id).await?, Permission::Manage)?;
    let body = input::json(&parts.headers, body).await?;
    let sent = Sent::new(&key, &parts, &body, body::patch(&body))?;
    once(
        &api,
        sent.once.as_ref(),
        Box::pin(async {
            store_change(&api, id, backup_id, &sent).await?;
            tracing::info!("the backup is changed");
            Ok(Answer::default())
        }),
    )
    .await
}

/// `POST /deployments/{deployment_id}/backups`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let id = input::deployment(&mut parts).await?;
    let deployment = living(&api, &key, id, Permission::Manage).await?;
    let body = input::json(&parts.headers, body).await?;
    let sent = Sent::new(&key, &parts, &body, body::create(&body))?;
    once(
        &api,
        sent.once.as_ref(),
        Box::pin(async {
            let backup = store(&api, &key, deployment, &sent).await?;
            Span::current().record("backup_id", display(backup.id));
            tracing::info!(backup_type = ?backup.backup_type, "a backup was requested");
            // What the bus does not take stays in the row's outbox.
            api.bus.publish(&Detail::all_of(&backup), BUS).await;
            Ok(Answer { backup_id: Some(backup.id), restore_id: None })
        }),
    )
    .await
}

/// `DELETE /deployments/{deployment_id}/backups/{backup_id}`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, backup_id) = input::backup(&mut parts).await?;
    access::seen(&key, id, api.table.deployment_for(&key, id).await?, Permission::Manage)?;
    if begin_delete(&api, id, backup_id).await? {
        tracing::info!("the backup is being deleted");
        let nudge = OperationDue::backup(id, backup_id);
        if let Err(error) = api.bus.due(&nudge, BUS).await {
            tracing::warn!(%error, "the tick starts the delete");
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The deployment as it is now, if it was not deleted and the key may do this with it.
pub(crate) async fn living(
    api: &Api,
    key: &Key,
    id: DeploymentId,
    needed: Permission,
) -> Result<Deployment, Problem> {
    Ok(access::living(key, id, api.table.deployment_for(key, id).await?, needed)?)
}

/// Decides on the deployment as read and stores the backup.
///
/// All tries are of one request and bear one token: an earlier one may be applied long after
/// it was given up, and what is there then is its own.
async fn store(
    api: &Api,
    key: &Key,
    read: Deployment,
    sent: &Sent<NewBackup>,
) -> Result<Backup, Problem> {
    let (id, mut deployment) = (read.deployment_id, read);
    let named = sent.once.as_ref();
    let (mut tries, token) = (Tries::new(api, named), random::nonce());
    loop {
        let (limits, now) = (&api.settings.limits, api.clock.now());
        let (backup, room) = decide(&deployment, sent.wanted.clone(), limits, token.clone(), now)?;
        let answer = Answer { backup_id: Some(backup.id), restore_id: None };
        let record = record(api, named, answer, now)?;
        let written = api.table.create_backup(&deployment, &backup, room, record).await?;
        if tries.stored(written).await? {
            return Ok(backup);
        }
        deployment = living(api, key, id, Permission::Manage).await?;
        let there = api.table.backup(id, backup.id).await?;
        if let Some(own) = there.filter(|there| there.token == token) {
            return Ok(own);
        }
    }
}

/// Changes what a person may change.
async fn store_change(
    api: &Api,
    id: DeploymentId,
    backup: BackupId,
    sent: &Sent<Change>,
) -> Result<(), Problem> {
    let named = sent.once.as_ref();
    let mut tries = Tries::new(api, named);
    loop {
        let found = api.table.backup(id, backup).await?.ok_or_else(no_backup)?;
        let now = api.clock.now();
        let next = patched(&found, &sent.wanted, now)?;
        let record = record(api, named, Answer::default(), now)?;
        if tries.stored(api.table.patch_backup(&found, &next, record).await?).await? {
            return Ok(());
        }
    }
}

/// Turns the backup into `deleting`. False: it was before.
async fn begin_delete(api: &Api, id: DeploymentId, backup: BackupId) -> Result<bool, Problem> {
    let mut tries = Tries::new(api, None);
    loop {
        let found = api.table.backup(id, backup).await?.ok_or_else(no_backup)?;
        let Deletion::Begin(next) = start_delete(&found)? else {
            return Ok(false);
        };
        // Due now: the nudge only makes it sooner.
        let now = api.clock.now();
        if tries.stored(api.table.write_backup(&found, *next, Some(now)).await?).await? {
            return Ok(true);
        }
    }
}
