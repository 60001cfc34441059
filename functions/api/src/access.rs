//! What a key may see and do.
//!
//! Seeing comes first: a deployment of another tenant, one that the key is not
//! bound to, and one that does not exist have one reply, to the letter. Only who
//! may see a deployment is told that a permission is missing.

use backups_aws::table::keys::{Key, Permission};
use backups_core::deployment::Deployment;
use backups_core::error::{Code, Refusal};
use backups_core::id::DeploymentId;
use backups_core::refusals::no_deployment;

/// The deployment, if the key may see it and do what needs `needed`. A deleted one is still
/// seen: its backups can be listed, changed and deleted.
pub(crate) fn seen(
    key: &Key,
    id: DeploymentId,
    found: Option<Deployment>,
    needed: Permission,
) -> Result<Deployment, Refusal> {
    let found = found.filter(|found| key.opens(id, &found.registry.tenant_id));
    let found = found.ok_or_else(no_deployment)?;
    permitted(key, needed)?;
    Ok(found)
}

/// The same of one that the control plane has not deleted: nothing new begins on others.
pub(crate) fn living(
    key: &Key,
    id: DeploymentId,
    found: Option<Deployment>,
    needed: Permission,
) -> Result<Deployment, Refusal> {
    seen(key, id, found.filter(|found| !found.registry.deleted), needed)
}

/// Refuses a key that lacks the permission.
fn permitted(key: &Key, needed: Permission) -> Result<(), Refusal> {
    if key.may(needed) { Ok(()) } else { Err(not_permitted(needed)) }
}

/// The key may look, and not do this.
pub(crate) fn not_permitted(needed: Permission) -> Refusal {
    let needed = needed.as_str();
    let reason = format!("This needs the permission `{needed}`, which the key does not have.");
    Refusal::new(Code::InsufficientPermissions, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{deployment, key};

    #[test]
    fn what_is_hidden_and_what_is_missing_have_one_reply() {
        let id = deployment().deployment_id;
        let see = |key: &Key, found| seen(key, id, found, Permission::Manage);
        let missing = see(&key(), None).expect_err("refused");
        let mut foreign = deployment();
        foreign.registry.tenant_id = "other".into();
        assert_eq!(see(&key(), Some(foreign.clone())).expect_err("refused"), missing);
        let reader = Key { permission: Permission::Read, ..key() };
        assert_eq!(see(&reader, Some(foreign)).expect_err("refused"), missing);
        let mut bound = key();
        bound.deployments = Some(vec![DeploymentId(1)]);
        assert_eq!(see(&bound, Some(deployment())).expect_err("refused"), missing);
        assert!(see(&key(), Some(deployment())).is_ok());
        bound.deployments = Some(vec![DeploymentId(1), id]);
        assert!(see(&bound, Some(deployment())).is_ok());
    }

    #[test]
    fn a_deleted_deployment_is_seen_but_not_living() {
        let mut gone = deployment();
        gone.registry.deleted = true;
        let (id, read) = (gone.deployment_id, Permission::Read);
        assert!(seen(&key(), id, Some(gone.clone()), read).is_ok());
        assert_eq!(living(&key(), id, Some(gone), read).expect_err("refused"), no_deployment());
        assert!(living(&key(), id, Some(deployment()), read).is_ok());
    }

    #[test]
    fn manage_implies_read_and_read_not_manage() {
        let mut key = key();
        assert!(permitted(&key, Permission::Read).is_ok());
        assert!(permitted(&key, Permission::Manage).is_ok());
        key.permission = Permission::Read;
        assert!(permitted(&key, Permission::Read).is_ok());
        let refusal = permitted(&key, Permission::Manage).expect_err("refused");
        assert_eq!(refusal.code, Code::InsufficientPermissions);
        assert!(refusal.reason.contains("deployment:manage"));
    }
}
