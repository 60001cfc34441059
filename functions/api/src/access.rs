//! What a key may see and do.
//!
//! Seeing comes first: a deployment of another tenant, one that the key is not
//! bound to, and one that does not exist have one reply, to the letter. Only who
//! may see a deployment is told that a permission is missing.

use backups_aws::table::keys::{Key, Permission};
use backups_core::deployment::Deployment;
use backups_core::error::{Code, Refusal};
use backups_core::id::DeploymentId;

/// The deployment, if the key may see it. A deleted one is still seen: its
/// backups can be listed and deleted.
pub(crate) fn seen(
    key: &Key,
    id: DeploymentId,
    found: Option<Deployment>,
) -> Result<Deployment, Refusal> {
    found.filter(|found| key.opens(id, &found.registry.tenant_id)).ok_or_else(no_deployment)
}

/// Refuses a deployment that the control plane has deleted: nothing new begins on it.
pub(crate) fn living(deployment: &Deployment) -> Result<(), Refusal> {
    if deployment.registry.deleted { Err(no_deployment()) } else { Ok(()) }
}

/// Refuses a key that lacks the permission.
pub(crate) fn permitted(key: &Key, needed: Permission) -> Result<(), Refusal> {
    if key.may(needed) {
        return Ok(());
    }
    let needed = match needed {
        Permission::Read => "deployment:read",
        Permission::Manage => "deployment:manage",
    };
    let reason = format!("This needs the permission `{needed}`, which the key does not have.");
    Err(Refusal::new(Code::InsufficientPermissions, reason))
}

/// One reply for what is not there and for what the key may not see.
fn no_deployment() -> Refusal {
    let reason = "There is no such deployment, or the key may not see it.";
    Refusal::new(Code::DeploymentNotFound, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{deployment, key};

    #[test]
    fn what_is_hidden_and_what_is_missing_have_one_reply() {
        let id = deployment().deployment_id;
        let missing = seen(&key(), id, None).expect_err("refused");
        let mut foreign = deployment();
        foreign.registry.tenant_id = "other".into();
        assert_eq!(seen(&key(), id, Some(foreign)).expect_err("refused"), missing);
        let mut bound = key();
        bound.deployments = Some(vec![DeploymentId(1)]);
        assert_eq!(seen(&bound, id, Some(deployment())).expect_err("refused"), missing);
        assert!(seen(&key(), id, Some(deployment())).is_ok());
        bound.deployments = Some(vec![DeploymentId(1), id]);
        assert!(seen(&bound, id, Some(deployment())).is_ok());
    }

    #[test]
    fn a_deleted_deployment_is_seen_but_not_living() {
        let mut gone = deployment();
        gone.registry.deleted = true;
        let gone = seen(&key(), gone.deployment_id, Some(gone.clone())).expect("seen");
        assert_eq!(living(&gone).expect_err("refused"), no_deployment());
        assert!(living(&deployment()).is_ok());
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
