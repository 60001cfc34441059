//! Control-plane events: they keep the registry's part of a deployment true.

use backups_aws::clock::Clock;
use backups_aws::table::keys::KeyWritten;
use backups_aws::table::{Registered, Table, TableError};
use backups_core::control_plane::{DeploymentChanged, DeploymentDeleted, KeyChanged, KeyEnded};

use crate::Error;

/// How often a row that somebody else wrote is tried again.
const TRIES: u32 = 8;

/// Stores how a deployment is now.
///
/// # Errors
/// A refused event ([`Error::Rejected`]) changes nothing and goes to the
/// dead-letter queue with its reason.
pub(crate) async fn changed(
    table: &Table,
    region: &str,
    event: DeploymentChanged,
) -> Result<(), Error> {
    let id = event.deployment_id;
    let version = event.version;
    let registry = event.registry(region).map_err(|rejected| Error::Rejected(rejected.0))?;
    match table.register(id, &registry).await? {
        Registered::Yes => tracing::info!(deployment_id = %id, version, "deployment registered"),
        Registered::Older => {
            tracing::info!(deployment_id = %id, version, "an older event; nothing changed");
        }
        Registered::OtherTenant(tenant) => {
            return Err(Error::Rejected(format!(
                "deployment {id} belongs to tenant {tenant}; an event says it is {}'s",
                registry.tenant_id
            )));
        }
    }
    Ok(())
}

/// Stores how a key is now.
///
/// # Errors
/// A refused event ([`Error::Rejected`]) ends the key at most, and goes to the dead-letter
/// queue with its reason.
pub(crate) async fn key_changed(
    table: &Table,
    event: KeyChanged,
    clock: &Clock,
) -> Result<(), Error> {
    let ended = event.ended();
    let now = clock.now();
    let key = match (event.key(now), &ended) {
        (Ok(key), _) => key,
        (Err(rejected), None) => return Err(Error::Rejected(rejected.0)),
        (Err(rejected), Some(ended)) => return key_ended(table, ended, rejected.0, clock).await,
    };
    let (key_id, version) = (key.key_id.as_str(), key.version);
    for attempt in 0..TRIES {
        clock.others_first(attempt).await;
        match table.put_key(&key, now).await? {
            KeyWritten::Yes => tracing::info!(key_id, version, "key stored"),
            KeyWritten::Older => {
                // Late, and perhaps the end of it all the same: what is revoked stays so, in
                // whatever order.
                tracing::info!(key_id, version, "an older event");
                if let Some(ended) = &ended {
                    end(table, ended, clock).await?;
                }
            }
            KeyWritten::Clash => {
                let fault = format!(
                    "key {key_id}: the id or the hash is another key's, or the tenant another"
                );
                return match &ended {
                    Some(ended) => key_ended(table, ended, fault, clock).await,
                    None => Err(Error::Rejected(fault)),
                };
            }
            KeyWritten::Conflict => continue,
        }
        return Ok(());
    }
    Err(contended())
}

/// Refuses what is said of a key, but for that it is over: whatever else somebody got wrong, a
/// key that they revoke opens nothing.
///
/// # Errors
/// The refusal, unless the key could not be ended: that is tried again.
pub(crate) async fn key_ended(
    table: &Table,
    ended: &KeyEnded,
    fault: String,
    clock: &Clock,
) -> Result<(), Error> {
    end(table, ended, clock).await?;
    Err(Error::Rejected(fault))
}

/// Ends a key of a tenant, if it is there and not over.
async fn end(table: &Table, ended: &KeyEnded, clock: &Clock) -> Result<(), Error> {
    for attempt in 0..TRIES {
        clock.others_first(attempt).await;
        let there = table.key_called(&ended.key_id).await?;
        let there =
            there.filter(|key| key.revoked_at.is_none() && key.tenant_id == ended.tenant_id);
        let Some(there) = there else { return Ok(()) };
        if table.put_key(&there.revoked(ended.revoked_at), clock.now()).await? == KeyWritten::Yes {
            tracing::info!(key_id = ended.key_id, "key revoked");
            return Ok(());
        }
    }
    Err(contended())
}

/// Others wrote the row each time: the event is tried again later.
fn contended() -> Error {
    Error::Table(TableError::Contended { row: "KEY".to_owned(), tries: TRIES })
}

/// Marks a deployment as deleted.
///
/// # Errors
/// As [`changed`].
pub(crate) async fn deleted(table: &Table, event: &DeploymentDeleted) -> Result<(), Error> {
    let (id, version) = (event.deployment_id, event.version);
    if id.0 == 0 || version == 0 {
        return Err(Error::Rejected("deployment_id and version count from 1".to_owned()));
    }
    let registered = table.unregister(id, version).await?;
    let what = match registered {
        Registered::Yes => "deployment deleted",
        _ => "an older event: what was set before it does not count",
    };
    tracing::info!(deployment_id = %id, version, "{what}");
    Ok(())
}
