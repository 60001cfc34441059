//! Backups before upgrades: the control plane asks for one, and is always answered.

use backups_aws::random;
use backups_aws::table::{Stored, TableError, Written};
use backups_core::announce::{Detail, OperationDue};
use backups_core::brake::Hold;
use backups_core::control_plane::UpgradeRequested;
use backups_core::deployment::Deployment;
use backups_core::id::DeploymentId;
use backups_core::time::Time;
use backups_core::upgrade::{State, Turn, Upgrade};

use crate::advance::BUS;
use crate::{Error, Worker, readable};

/// How often a row that somebody else wrote is decided on anew.
const TRIES: u32 = 8;

/// A request of the control plane: the first one of its id begins a backup, any other
/// gets the answer again.
///
/// # Errors
/// A refused event ([`Error::Rejected`]) changes nothing and goes to the dead-letter
/// queue with its reason.
pub(crate) async fn requested(worker: &Worker, event: UpgradeRequested) -> Result<(), Error> {
    event.check().map_err(|rejected| Error::Rejected(rejected.0))?;
    one(worker, event.deployment_id, &event.upgrade_id, true).await.map_err(Error::from)
}

/// Goes on with a request that waits, or announces its answer.
pub(crate) async fn advance(
    worker: &Worker,
    deployment: DeploymentId,
    id: &str,
) -> Result<(), TableError> {
    one(worker, deployment, id, false).await
}

/// `asked`: by the control plane, and not by our own nudge, which begins nothing.
#[tracing::instrument(skip_all, fields(%deployment, upgrade_id = id))]
async fn one(
    worker: &Worker,
    deployment: DeploymentId,
    id: &str,
    asked: bool,
) -> Result<(), TableError> {
    for attempt in 0..TRIES {
        worker.clock.others_first(attempt).await;
        let read = worker.table.upgrade(deployment, id).await?;
        if read.is_none() && !asked {
            return Ok(());
        }
        if turned(worker, deployment, id, read, asked).await? {
            return Ok(());
        }
    }
    Err(TableError::Contended { row: format!("UPGRADE#{id}"), tries: TRIES })
}

/// One try. False: somebody else was faster.
async fn turned(
    worker: &Worker,
    deployment: DeploymentId,
    id: &str,
    read: Option<Upgrade>,
    asked: bool,
) -> Result<bool, TableError> {
    let now = worker.clock.now();
    let mut row = match &read {
        Some(row) => row.clone(),
        None => Upgrade::new(deployment, id.to_owned(), random::nonce(), now),
    };
    if asked {
        row.repeat();
        if let State::Running { backup_id } = row.state {
            let backup = worker.table.backup(deployment, backup_id).await;
            // Of one that cannot be read nobody knows how it ended.
            if let Some(backup) = readable(backup)? {
                row.catch_up(backup.as_ref(), now);
            }
        }
    }
    let (found, turn) = decide(worker, &row, now).await?;
    let next = match (found, turn) {
        (Some(found), Turn::Start { upgrade, backup, room }) => {
            let (table, new) = (&worker.table, (&*backup, room));
            let done = table.start_upgrade(&found, read.as_ref(), *upgrade, new).await?;
            if done == Written::Stored {
                tracing::info!(backup_id = %backup.id, "the backup before the upgrade is requested");
                // It sets it going, too. If the bus does not take it the row is due.
                worker.bus.publish(&Detail::all_of(&backup), BUS).await;
            }
            return Ok(done == Written::Stored);
        }
        (found, Turn::Record(next)) => {
            let waits = matches!(next.state, State::Waiting { .. });
            if let Some(busy) = found.and_then(|found| found.active_backup).filter(|_| waits) {
                // Perhaps it is over, and its event was lost: somebody waits for it now.
                let due = OperationDue::backup(deployment, busy);
                if let Err(error) = worker.bus.due(&due, BUS).await {
                    tracing::warn!(%error, "the backup that it waits for is not nudged");
                }
            }
            *next
        }
        _ => row,
    };
    store(worker, read.as_ref(), next, now).await
}

/// Whether the backup begins, and the deployment on which that was decided: the start of
/// the backup compares it.
async fn decide(
    worker: &Worker,
    row: &Upgrade,
    now: Time,
) -> Result<(Option<Deployment>, Turn), TableError> {
    // Of a brake that cannot be read everything is held, and the request is not lost: what
    // it begins waits for the worker to read it.
    let hold = readable(worker.table.brake().await)?.map_or_else(Hold::all, |one| one.hold());
    let limits = worker.limits_under(hold);
    let room = worker.table.room(row.deployment_id, &limits).await;
    // It is stored all the same, and so it is answered in time.
    let Some((found, way)) = readable(room)? else {
        return Ok((None, row.unreadable(&limits, now)));
    };
    let turn = row.turn(found.as_ref(), way, &limits, random::nonce(), now);
    Ok((found, turn))
}

/// Stores the row, then announces what is in it, then takes out what the bus has.
async fn store(
    worker: &Worker,
    read: Option<&Upgrade>,
    next: Upgrade,
    now: Time,
) -> Result<bool, TableError> {
    let due = next.due(now);
    let stored = if read == Some(&next) {
        next
    } else {
        match worker.table.write_upgrade(read, next, due).await? {
            Stored::Yes(stored) => *stored,
            Stored::Conflict => return Ok(false),
        }
    };
    let open = Detail::all_of_upgrade(&stored);
    if open.is_empty() {
        return Ok(true);
    }
    let taken = worker.bus.publish(&open, BUS).await.taken;
    if !taken.is_empty() {
        let mut told = stored.clone();
        told.forget(&taken);
        let due = told.due(now);
        // If somebody else wrote it, they have the outbox too, and announce it again.
        worker.table.write_upgrade(Some(&stored), told, due).await?;
    }
    Ok(true)
}
