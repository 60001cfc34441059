//! A deployment's row, after each write: the registry's part follows the control plane.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::super::reach::Reach;
use super::super::table::Change;
use super::{Oracle, Verdict, violated};

/// What the control plane says of a deployment.
const REGISTRY: [&str; 10] = [
    "tenant_id",
    "status",
    "plan",
    "storage_type",
    "cloud",
    "variant",
    "shared",
    "backup_limit",
    "region",
    "nodes",
];

/// What the control plane says at a deployment's end.
pub(crate) const DELETED: &str = "Deployment Deleted";

impl Oracle {
    /// The registry's part follows the control plane's newest word; the counters
    /// only ever grow.
    pub(super) fn deployment_changed(
        &mut self,
        now: Timestamp,
        id: u64,
        change: &Change,
        reach: &mut Reach,
    ) -> Verdict {
        let Some(new) = &change.new else {
            return violated("deployment-kept", format!("the row of deployment {id} was removed"));
        };
        let seen = self.deployments.entry(id).or_default();
        seen.rows.push((now, Arc::clone(new)));
        let before =
            |name: &str| change.old.as_ref().and_then(|old| old[name].as_u64()).unwrap_or(0);
        let version = new["registry_version"].as_u64().unwrap_or(0);
        if version < before("registry_version") {
            return violated("registry", format!("deployment {id} went back to version {version}"));
        }
        if new["next_restore_id"].as_u64().unwrap_or(0) < before("next_restore_id") {
            return violated("id-reuse", format!("deployment {id}: the next restore went back"));
        }
        if new["next_backup_id"].as_u64().unwrap_or(0) < before("next_backup_id") {
            return violated("id-reuse", format!("deployment {id}: the next id went back"));
        }
        // That it was deleted once stays known, in whatever order that was told.
        let (ended, earlier) = (&new["deleted_version"], before("deleted_version"));
        let of_a_deletion = ended.as_u64().is_none_or(|at| {
            at == earlier || seen.said.get(&at).is_some_and(|(kind, _)| kind == DELETED)
        });
        if ended.as_u64().unwrap_or(0) < earlier || !of_a_deletion {
            let what = format!("deployment {id} was deleted at {ended}, after {earlier}");
            return violated("registry", what);
        }
        let registry = |row: &Value| {
            REGISTRY.iter().chain(&["deleted"]).map(|name| row[*name].clone()).collect::<Vec<_>>()
        };
        if change.old.as_ref().is_some_and(|old| registry(old) == registry(new)) {
            return Ok(());
        }
        let Some((kind, said)) = seen.said.get(&version) else {
            return violated("registry", format!("deployment {id}: nobody sent version {version}"));
        };
        if kind == DELETED {
            reach.hit("registry deleted");
            if new["deleted"] != true || ended.as_u64() != Some(version) {
                return violated(
                    "registry",
                    format!("deployment {id} was deleted, and its row does not say so"),
                );
            }
            return Ok(());
        }
        reach.hit("registry changed");
        if new["deleted"] == true {
            return violated(
                "registry",
                format!("deployment {id} says it is deleted, at a version {version} that does not"),
            );
        }
        for name in REGISTRY {
            if in_no_order(&new[name]) != in_no_order(&said[name]) {
                return violated(
                    "registry",
                    format!(
                        "deployment {id} at version {version}: {name} is {}, the control plane said {}",
                        new[name], said[name]
                    ),
                );
            }
        }
        if let Some(old) = &change.old
            && !old["tenant_id"].is_null()
            && old["tenant_id"] != new["tenant_id"]
        {
            return violated("registry", format!("deployment {id} changed hands"));
        }
        Ok(())
    }
}

/// A value; of a list, the same whatever its order.
fn in_no_order(value: &Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut texts: Vec<_> = list.iter().map(Value::to_string).collect();
            texts.sort();
            texts.into()
        }
        other => other.clone(),
    }
}
