//! List, create, show, change, delete. Each handler reads from top to bottom in the contract's
//! order of errors; what is decided is decided in `backups-core`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use backups_aws::random;
use backups_aws::table::keys::{Key, Permission};
use backups_aws::table::{Stored, Written};
use backups_core::announce::{Detail, OperationDue};
use backups_core::backup::{Backup, Change, Deletion, patched, start_delete};
use backups_core::body;
use backups_core::create::{NewBackup, decide};
use backups_core::deployment::Deployment;
use backups_core::error::{Code, Refusal};
use backups_core::id::{BackupId, DeploymentId};
use http::header::LINK;
use http::{HeaderName, HeaderValue, StatusCode};
use tracing::Span;
use tracing::field::display;

use crate::problem::Problem;
use crate::shown::{Item, Whole};
use crate::{Api, access, auth, input, shown};

/// The header that bears a new backup's id.
pub(crate) const LD_BACKUP: HeaderName = HeaderName::from_static("ld-backup");

/// How often a write that met another one is decided anew.
pub(crate) const TRIES: u32 = 8;

/// The longest pause before the first new try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(25);

/// How long a request waits for the bus. The row is due whether it answers or not.
pub(crate) const BUS: Duration = Duration::from_secs(2);

/// `GET /deployments/{deployment_id}/backups`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, wanted) = input::page(&mut parts).await?;
    let (deployment, page) = match wanted.before {
        // One query has both.
        None => api.table.list(id, wanted.limit).await?.unzip(),
        Some(before) => {
            let older = api.table.list_before(id, before, wanted.limit);
            let (deployment, page) = tokio::try_join!(api.table.deployment(id), older)?;
            (deployment, Some(page))
        }
    };
    access::seen(&key, id, deployment)?;
    access::permitted(&key, Permission::Read)?;
    let backups = page.as_ref().map(|page| page.backups.as_slice()).unwrap_or_default();
    let items: Vec<Item<'_>> = backups.iter().map(Item::from).collect();
    let mut response = shown::json(&items)?;
    if let Some(last) = backups.last().filter(|_| page.as_ref().is_some_and(|page| page.more)) {
        // Relative: nothing here depends on what a client calls us.
        let next = format!(
            "</deployments/{id}/backups?limit={}&before={}>; rel=\"next\"",
            wanted.limit, last.id
        );
        let next = HeaderValue::from_str(&next).map_err(|_| Problem::internal())?;
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}

/// `GET /deployments/{deployment_id}/backups/{backup_id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, backup_id) = input::backup(&mut parts).await?;
    access::seen(&key, id, api.table.deployment(id).await?)?;
    access::permitted(&key, Permission::Read)?;
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
) -> Result<StatusCode, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, backup_id) = input::backup(&mut parts).await?;
    access::seen(&key, id, api.table.deployment(id).await?)?;
    access::permitted(&key, Permission::Manage)?;
    let body = input::json(&parts.headers, body).await?;
    let change = body::patch(&body)?;
    store_change(&api, id, backup_id, &change).await?;
    tracing::info!("the backup is changed");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /deployments/{deployment_id}/backups`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let id = input::deployment(&mut parts).await?;
    let deployment = living(&api, &key, id).await?;
    access::permitted(&key, Permission::Manage)?;
    let body = input::json(&parts.headers, body).await?;
    let wanted = body::create(&body)?;
    let backup = store(&api, &key, deployment, wanted).await?;
    Span::current().record("backup_id", display(backup.id));
    tracing::info!(backup_type = ?backup.backup_type, "a backup was requested");
    // What the bus does not take stays in the row's outbox.
    api.bus.publish(&Detail::all_of(&backup), BUS).await;
    Ok((StatusCode::NO_CONTENT, [(LD_BACKUP, backup.id.to_string())]).into_response())
}

/// `DELETE /deployments/{deployment_id}/backups/{backup_id}`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (mut parts, _) = request.into_parts();
    let key = auth::caller(&api, &parts).await?;
    let (id, backup_id) = input::backup(&mut parts).await?;
    access::seen(&key, id, api.table.deployment(id).await?)?;
    access::permitted(&key, Permission::Manage)?;
    if begin_delete(&api, id, backup_id).await? {
        tracing::info!("the backup is being deleted");
        let nudge = OperationDue::backup(id, backup_id);
        if let Err(error) = api.bus.due(&nudge, BUS).await {
            tracing::warn!(%error, "the tick starts the delete");
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The deployment as it is now, if the key may see it and it was not deleted.
pub(crate) async fn living(api: &Api, key: &Key, id: DeploymentId) -> Result<Deployment, Problem> {
    let deployment = access::seen(key, id, api.table.deployment(id).await?)?;
    access::living(&deployment)?;
    Ok(deployment)
}

/// Decides on the deployment as read and stores the backup; if the deployment
/// has changed in between, reads and decides anew. So of ten creates at once one
/// is stored, and the others learn from a new read that it is running.
async fn store(
    api: &Api,
    key: &Key,
    mut deployment: Deployment,
    wanted: NewBackup,
) -> Result<Backup, Problem> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            pause(api, attempt).await;
            deployment = living(api, key, deployment.deployment_id).await?;
        }
        let (limits, now) = (&api.settings.limits, api.clock.now());
        let (backup, room) = decide(&deployment, wanted.clone(), limits, random::nonce(), now)?;
        match api.table.create_backup(&deployment, &backup, room, None).await? {
            Written::Stored => return Ok(backup),
            Written::Conflict => {}
        }
    }
    Err(contended())
}

/// Changes what a person may change; as often as others write the row in between.
async fn store_change(
    api: &Api,
    id: DeploymentId,
    backup: BackupId,
    change: &Change,
) -> Result<(), Problem> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            pause(api, attempt).await;
        }
        let found = api.table.backup(id, backup).await?.ok_or_else(no_backup)?;
        let next = patched(&found, change, api.clock.now())?;
        match api.table.patch_backup(&found, &next).await? {
            Written::Stored => return Ok(()),
            Written::Conflict => {}
        }
    }
    Err(contended())
}

/// Turns the backup into `deleting`. False: it was before.
async fn begin_delete(api: &Api, id: DeploymentId, backup: BackupId) -> Result<bool, Problem> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            pause(api, attempt).await;
        }
        let found = api.table.backup(id, backup).await?.ok_or_else(no_backup)?;
        let Deletion::Begin(next) = start_delete(&found)? else {
            return Ok(false);
        };
        // Due now: the nudge only makes it sooner.
        match api.table.write_backup(&found, *next, Some(api.clock.now())).await? {
            Stored::Yes(_) => return Ok(true),
            Stored::Conflict => {}
        }
    }
    Err(contended())
}

pub(crate) fn no_backup() -> Refusal {
    Refusal::new(Code::BackupNotFound, "The deployment has no such backup.")
}

/// Others wrote the same rows all the time.
pub(crate) fn contended() -> Problem {
    tracing::warn!("gave up after {TRIES} writes that met others");
    Problem::unavailable()
}

/// Lets others finish, by a different time for each.
pub(crate) async fn pause(api: &Api, attempt: u32) {
    api.clock.sleep(random::jitter(PAUSE * 2_u32.pow(attempt - 1))).await;
}
