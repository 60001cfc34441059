//! What a refusal says must have been so, and nothing that is told before it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Asked, Oracle, Verdict, What, violated};
use crate::rows::{items, text};

/// The refusals of a create that depend on the deployment, in the order in which
/// they are told (the contract's).
pub(super) const IN_ORDER: [&str; 7] = [
    "plan_not_supported",
    "storage_not_supported",
    "deployment_not_ready",
    "node_not_found",
    "restore_in_progress",
    "backup_in_progress",
    "backup_limit_reached",
];

impl Oracle {
    /// A refusal holds at some moment of the request.
    pub(super) fn refusal_is_true(&self, asked: &Asked, code: &str) -> Verdict {
        let deployment = self.deployment_since(asked);
        let holds = match code {
            "deployment_not_found" => self.was_hidden(asked),
            "backup_not_found" => match asked.what {
                What::Delete(id)
                | What::Show(id)
                | What::Patch { backup: id, .. }
                | What::Restore { backup: id, .. } => {
                    self.backup_since(asked, id).iter().any(Option::is_none)
                }
                _ => false,
            },
            "schedule_not_found" => self.settings_since(asked).contains(&Value::Null),
            "restore_not_found" => match asked.what {
                What::ShowRestore(id) => !self.restore_was_there(asked, id),
                _ => false,
            },
            "restore_in_progress" => match asked.what {
                What::Delete(id) => self.backup_was(asked, id, |row| !row["pinned_by"].is_null()),
                _ => deployment.iter().any(|row| !row["active_restore"].is_null()),
            },
            "backup_not_restorable" => match asked.what {
                What::Restore { backup, .. } => self.backup_was(asked, backup, |row| {
                    deployment.iter().any(|one| !restorable(row, one, asked))
                }),
                _ => false,
            },
            "idempotent_request_in_progress" | "idempotency_error" => asked.called.is_some(),
            "backup_deleting" => match asked.what {
                What::Patch { backup, .. } => {
                    self.backup_was(asked, backup, |row| text(row, "status") == "deleting")
                }
                _ => false,
            },
            "backup_not_deletable" => match asked.what {
                What::Delete(id) => self.backup_was(asked, id, |row| {
                    matches!(text(row, "status"), "pending" | "in_progress")
                }),
                _ => false,
            },
            code => deployment.iter().any(|row| self.applies(code, asked, row)),
        };
        if !holds {
            return violated(
                "refusal-untrue",
                format!("{asked:?}: {code}, and the deployment was {deployment:?}"),
            );
        }
        let create = matches!(asked.what, What::Create { .. });
        let hidden = !deployment.is_empty() && deployment.iter().all(|row| row["deleted"] == true);
        if create && hidden && code != "deployment_not_found" {
            return violated("refusal-order", format!("{asked:?}: {code} of a deleted deployment"));
        }
        // Of several that apply the first one is told.
        let before = IN_ORDER.iter().take_while(|one| **one != code);
        let sooner = before
            .filter(|_| IN_ORDER.contains(&code))
            .find(|sooner| deployment.iter().all(|row| self.applies(sooner, asked, row)));
        match sooner {
            None => Ok(()),
            Some(sooner) => violated(
                "refusal-order",
                format!("{asked:?}: {code}, and {sooner} comes first: {deployment:?}"),
            ),
        }
    }

    /// Whether a backup was like this at some moment of the request.
    fn backup_was(&self, asked: &Asked, id: u64, like: impl Fn(&Value) -> bool) -> bool {
        self.backup_since(asked, id).into_iter().flatten().any(|row| like(row))
    }

    /// Whether a refusal is true of a deployment like this.
    fn applies(&self, code: &str, asked: &Asked, row: &Value) -> bool {
        match &asked.what {
            What::Create { body, .. } | What::Restore { body, .. } => {
                self.refuses_like(code, body, row)
            }
            // It may be set for a time when the deployment will be ready and have room.
            What::Reschedule(body) => {
                ["plan_not_supported", "storage_not_supported", "node_not_found"].contains(&code)
                    && self.refuses_like(code, body, row)
            }
            _ => false,
        }
    }

    /// Whether a backup like the body is refused so on a deployment like this.
    pub(super) fn refuses_like(&self, code: &str, body: &Value, row: &Value) -> bool {
        let limit = self.limits.of(row);
        match code {
            "plan_not_supported" => limit.is_none(),
            "storage_not_supported" => !stores(row),
            "deployment_not_ready" => {
                text(row, "status") != "initialized"
                    || row["nodes"].as_array().is_none_or(Vec::is_empty)
            }
            "node_not_found" => {
                let mut nodes = items(&row["nodes"]);
                !body["node_id"].is_null() && !nodes.any(|node| node["node_id"] == body["node_id"])
            }
            "backup_in_progress" => !row["active_backup"].is_null(),
            "restore_in_progress" => !row["active_restore"].is_null(),
            "backup_limit_reached" => {
                limit.is_some_and(|limit| row["backup_count"].as_u64().unwrap_or(0) >= limit)
            }
            _ => false,
        }
    }
}

/// Whether a deployment's volumes can be backed up: EBS of a managed deployment of
/// its own.
pub(super) fn stores(row: &Value) -> bool {
    text(row, "storage_type").starts_with("network_")
        && text(row, "cloud") == "aws"
        && text(row, "variant") == "managed"
        && row["shared"] == false
}

/// Whether a backup can be restored onto a deployment like this, as the body wants it.
pub(super) fn restorable(backup: &Value, deployment: &Value, asked: &Asked) -> bool {
    let partial = match &asked.what {
        What::Restore { body, .. } => body["allow_partial"] == true,
        _ => false,
    };
    let ids = |row: &Value| -> BTreeSet<u64> {
        items(&row["nodes"]).filter_map(|node| node["node_id"].as_u64()).collect()
    };
    let (of, has) = (ids(backup), ids(deployment));
    let all = backup["node_id"].is_null();
    text(backup, "status") == "completed"
        && of.is_subset(&has)
        && (!all || partial || has.is_subset(&of))
}
