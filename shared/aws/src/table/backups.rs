//! Rows of backups: the create transaction, and the operation's writes.
//!
//! An operation's write sets the attributes that the operation owns, under the
//! `revision` it read; it leaves what a person may change alone. A change of
//! status that frees the slot or the limit is one transaction with the
//! deployment's row.

use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, Delete, Put, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use backups_core::backup::{Backup, Status};
use backups_core::create::Room;
use backups_core::deployment::Deployment;
use backups_core::id::{BackupId, DeploymentId};
use backups_core::limits::TOMBSTONE;
use backups_core::schedule::Schedule;
use backups_core::time::Time;
use backups_core::upgrade::Upgrade;

use super::operation::{Stored, UpdateParts, Written, built, ours};
use super::requests::Record;
use super::{META, Table, TableError, backup_sk, deployment_pk, from_item, n, s, to_item};

/// What the end of a backup changes beside its own row, as that was read.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// The schedule whose slot made it.
    pub schedule: Option<Schedule>,
    /// The upgrade's request that made it.
    pub upgrade: Option<Upgrade>,
    /// The backup that gives way to it.
    pub rotation: Option<Rotation>,
}

/// One backup gives way to another that completes.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The deployment's count of backups on which that was decided.
    count: u64,
    /// The version of the registry, and with it of the limit.
    registry_version: u64,
    /// The backup that gives way, as it was read.
    victim: Backup,
    /// The same, `deleting`.
    deleting: Backup,
}

impl Rotation {
    /// `victim` becomes `deleting`, due at `now`, if the deployment is as it was read.
    pub fn new(read: &Deployment, victim: &Backup, mut deleting: Backup, now: Time) -> Self {
        deleting.revision = victim.revision + 1;
        deleting.nonce = crate::random::nonce();
        deleting.due_at = Some(now);
        Self {
            count: read.backup_count,
            registry_version: read.registry.registry_version,
            victim: victim.clone(),
            deleting,
        }
    }
}

impl Table {
    /// One backup, strongly consistent.
    pub async fn backup(
        &self,
        deployment: DeploymentId,
        id: BackupId,
    ) -> Result<Option<Backup>, TableError> {
        let row = self.get(deployment_pk(deployment), backup_sk(id)).await?;
        row.map(from_item).transpose()
    }

    /// Stores a new backup: takes the slot, the id, and a place within `room`, all on the
    /// condition that the deployment is as it was read.
    pub async fn create_backup(
        &self,
        read: &Deployment,
        backup: &Backup,
        room: Room,
        record: Option<Record>,
    ) -> Result<Written, TableError> {
        self.new_backup(read, backup, room, record.map(|record| record.0)).await
    }

    /// The same; `cause` is the row that asked for it, stored in the same transaction.
    pub(super) async fn new_backup(
        &self,
        read: &Deployment,
        backup: &Backup,
        room: Room,
        cause: Option<TransactWriteItem>,
    ) -> Result<Written, TableError> {
        let pk = deployment_pk(read.deployment_id);
        let sk = backup_sk(backup.id);
        let mut item = to_item(&sk, backup)?;
        item.insert("pk".into(), s(&pk));
        item.insert("sk".into(), s(&sk));
        item.insert("due_shard".into(), n(self.shard(backup.deployment_id)));
        item.insert("due_at".into(), s(backup.created_at.to_string()));
        let take = Update::builder()
            .table_name(&self.name)
            .key("pk", s(&pk))
            .key("sk", s(META))
            .update_expression(
                "SET next_backup_id = :next, active_backup = :id ADD backup_count :one",
            )
            .condition_expression(
                "registry_version = :version \
                 AND (next_backup_id = :id OR (attribute_not_exists(next_backup_id) AND :id = :one)) \
                 AND attribute_not_exists(active_backup) AND attribute_not_exists(active_restore) \
                 AND (attribute_not_exists(backup_count) \
                      OR backup_count < :limit AND backup_count >= :least) \
                 AND (attribute_not_exists(deleted) OR deleted = :no) \
                 AND (attribute_not_exists(deleted_version) OR deleted_version = :deleted)",
            )
            .expression_attribute_values(":deleted", n(read.deleted_version))
            .expression_attribute_values(":next", n(backup.id.0 + 1))
            .expression_attribute_values(":id", n(backup.id))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":version", n(read.registry.registry_version))
            .expression_attribute_values(":limit", n(room.below))
            .expression_attribute_values(":least", n(room.at_least))
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .build();
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build();
        let mut items = vec![
            TransactWriteItem::builder().update(built(take)?).build(),
            TransactWriteItem::builder().put(built(put)?).build(),
        ];
        items.extend(cause);
        let count = items.len();
        match self.transact(items).await? {
            Ok(()) => Ok(Written::Stored),
            Err(reasons) => {
                // If the row is there and it is ours, an earlier try was applied,
                // and only its reply was lost.
                let judged = |reason: &CancellationReason| {
                    reason.code.as_deref() == Some("ConditionalCheckFailed")
                };
                let ours = if reasons.iter().any(judged) {
                    let old = reasons.get(1).and_then(|reason| reason.item.as_ref());
                    old.and_then(|old| old.get("token")) == Some(&s(backup.token.as_str()))
                } else {
                    // It met another transaction, and nobody looked at the row.
                    let stored = self.backup(read.deployment_id, backup.id).await?;
                    stored.is_some_and(|stored| stored.token == backup.token)
                };
                Ok(if ours { Written::Stored } else { Written::cancelled(&reasons, count) })
            }
        }
    }

    /// As [`Self::write_backup`], of a backup that ends, with what its end changes beside
    /// its own row.
    pub async fn end_backup(
        &self,
        before: &Backup,
        after: Backup,
        due_at: Option<Time>,
        beside: &Beside,
    ) -> Result<Stored<Backup>, TableError> {
        self.write(before, after, due_at, Some(beside)).await
    }

    /// Stores what an operation changed: `after` over `before`, under the
    /// revision and the expiry of `before`. `due_at` is when the row wants to
    /// be looked at; an expiry that comes sooner goes first.
    pub async fn write_backup(
        &self,
        before: &Backup,
        after: Backup,
        due_at: Option<Time>,
    ) -> Result<Stored<Backup>, TableError> {
        self.write(before, after, due_at, None).await
    }

    async fn write(
        &self,
        before: &Backup,
        mut after: Backup,
        due_at: Option<Time>,
        beside: Option<&Beside>,
    ) -> Result<Stored<Backup>, TableError> {
        after.revision = before.revision + 1;
        after.nonce = crate::random::nonce();
        let forget: Vec<_> = before.owners.iter().filter(|id| !after.owners.contains(id)).collect();
        for id in forget {
            self.disown(id).await?;
        }
        // What runs is let finish, and what goes is gone soon: neither expires.
        let ended = matches!(after.status, Status::Completed | Status::Failed);
        let expiry = after.expires_at.filter(|_| ended);
        after.due_at = [due_at, expiry].into_iter().flatten().min();
        let update = self.operation_update(before, &after)?;
        let rotation = beside.and_then(|beside| beside.rotation.as_ref());
        let stored = match self.slot_update(before, &after, rotation)? {
            None => self.update_alone(update, Some(&after.nonce)).await?,
            Some(slot) => {
                let mut items = vec![
                    TransactWriteItem::builder().update(built(update.build())?).build(),
                    TransactWriteItem::builder().update(slot).build(),
                ];
                if let Some(beside) = beside {
                    items.extend(self.beside(beside, &after)?);
                }
                match self.transact(items).await? {
                    Ok(()) => true,
                    Err(reasons) => {
                        slot_is_sound(&reasons, before)?;
                        ours(reasons.first().and_then(|r| r.item.as_ref()), &after.nonce)
                    }
                }
            }
        };
        Ok(if stored { Stored::Yes(Box::new(after)) } else { Stored::Conflict })
    }

    /// Stores what a person changed: `after` over `before`. The operation's attributes stay as
    /// they are, and so does its revision; but when the row is due follows from both, so it
    /// must be as it was read.
    pub async fn patch_backup(
        &self,
        before: &Backup,
        after: &Backup,
        record: Option<Record>,
    ) -> Result<Written, TableError> {
        let sk = backup_sk(before.id);
        let mut parts = UpdateParts::new(&self.name, deployment_pk(before.deployment_id), sk);
        parts.set_or_remove("name", Some(s(&after.name)));
        parts.set_or_remove("remarks", after.remarks.as_ref().map(s));
        parts.set_or_remove("expires_at", after.expires_at.map(|at| s(at.to_string())));
        parts.set_or_remove("due_at", after.due_at.map(|at| s(at.to_string())));
        let shard = after.due_at.map(|_| n(self.shard(before.deployment_id)));
        parts.set_or_remove("due_shard", shard);
        parts.condition("revision = :revision", ":revision", n(before.revision));
        parts.unchanged("name", Some(s(&before.name)));
        parts.unchanged("remarks", before.remarks.as_ref().map(s));
        parts.unchanged("expires_at", before.expires_at.map(|at| s(at.to_string())));
        parts.unchanged("due_at", before.due_at.map(|at| s(at.to_string())));
        let Some(record) = record else {
            let stored = self.update_alone(parts, None).await?;
            return Ok(if stored { Written::Stored } else { Written::Conflict });
        };
        let update = TransactWriteItem::builder().update(built(parts.build())?).build();
        self.carried_out(update, record).await
    }

    /// Removes a backup of which nothing is left, and puts its tombstone: the
    /// evidence by which a snapshot that shows up late may go.
    pub async fn remove_backup(&self, backup: &Backup, now: Time) -> Result<Written, TableError> {
        let pk = deployment_pk(backup.deployment_id);
        for id in &backup.owners {
            self.disown(id).await?;
        }
        self.forget_volumes(backup).await?;
        let delete = Delete::builder()
            .table_name(&self.name)
            .key("pk", s(&pk))
            .key("sk", s(backup_sk(backup.id)))
            .condition_expression("revision = :revision")
            .expression_attribute_values(":revision", n(backup.revision))
            .build();
        let tombstone = Put::builder()
            .table_name(&self.name)
            .item("pk", s(&pk))
            .item("sk", s(super::reconciliation::tombstone_sk(backup.id)))
            .item("token", s(backup.token.as_str()))
            .item("deleted_at", s(now.to_string()))
            .item("ttl", n((now + TOMBSTONE).unix()))
            .build();
        let items = vec![
            TransactWriteItem::builder().delete(built(delete)?).build(),
            TransactWriteItem::builder().put(built(tombstone)?).build(),
        ];
        Ok(match self.transact(items).await? {
            Ok(()) => Written::Stored,
            Err(_) => Written::Conflict,
        })
    }

    /// What the end of a backup changes beside its own row and the deployment's.
    fn beside(
        &self,
        beside: &Beside,
        ended: &Backup,
    ) -> Result<Vec<TransactWriteItem>, TableError> {
        let mut items = Vec::new();
        if let Some(rotation) = &beside.rotation {
            let update = self.operation_update(&rotation.victim, &rotation.deleting)?;
            items.push(TransactWriteItem::builder().update(built(update.build())?).build());
        }
        if let Some(schedule) = &beside.schedule {
            items.extend(self.schedule_ended(schedule, ended)?);
        }
        if let Some(upgrade) = &beside.upgrade {
            items.extend(self.upgrade_ended(upgrade, ended)?);
        }
        Ok(items)
    }

    /// The update of the backup's own row.
    fn operation_update(&self, before: &Backup, after: &Backup) -> Result<UpdateParts, TableError> {
        let sk = backup_sk(before.id);
        let mut item = to_item(&sk, after)?;
        let mut parts = UpdateParts::new(&self.name, deployment_pk(before.deployment_id), sk);
        for name in Backup::OWNED {
            parts.set_or_remove(name, item.remove(*name));
        }
        let shard = after.due_at.map(|_| n(self.shard(before.deployment_id)));
        parts.set_or_remove("due_at", after.due_at.map(|at| s(at.to_string())));
        parts.set_or_remove("due_shard", shard);
        parts.condition("revision = :revision", ":revision", n(before.revision));
        // A patched expiry must not fall out of the index.
        parts.unchanged("expires_at", before.expires_at.map(|at| s(at.to_string())));
        Ok(parts)
    }

    /// The update of the deployment's row that a change of status brings along.
    fn slot_update(
        &self,
        before: &Backup,
        after: &Backup,
        rotation: Option<&Rotation>,
    ) -> Result<Option<Update>, TableError> {
        let frees = before.status.active() && !after.status.active();
        let uncounts = before.status.counts() && !after.status.counts() || rotation.is_some();
        if !frees && !uncounts {
            return Ok(None);
        }
        let mut expression = Vec::new();
        let mut conditions =
            vec![if frees { "active_backup = :id" } else { "attribute_exists(pk)" }];
        let mut update = Update::builder()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(before.deployment_id)))
            .key("sk", s(META))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if frees {
            expression.push("REMOVE active_backup");
            update = update.expression_attribute_values(":id", n(before.id));
        }
        if let Some(rotation) = rotation {
            // What was decided on the count and the limit holds for these alone.
            conditions.push("backup_count = :count AND registry_version = :version");
            update = update
                .expression_attribute_values(":count", n(rotation.count))
                .expression_attribute_values(":version", n(rotation.registry_version));
        }
        if uncounts {
            expression.push("ADD backup_count :minus");
            update = update.expression_attribute_values(":minus", n(-1));
        }
        let update = update.condition_expression(conditions.join(" AND "));
        built(update.update_expression(expression.join(" ")).build()).map(Some)
    }
}

/// Refuses to go on when the backup's row is as it was read and the deployment's
/// is not what it must be (it does not hold the slot for this backup): reading
/// again would give the same for ever, and a person has to look.
fn slot_is_sound(reasons: &[CancellationReason], backup: &Backup) -> Result<(), TableError> {
    let code = |index: usize| reasons.get(index).and_then(|reason| reason.code.as_deref());
    let deployment = reasons.get(1).and_then(|reason| reason.item.as_ref());
    let holds = deployment.and_then(|row| row.get("active_backup")) == Some(&n(backup.id));
    if code(0) == Some("None") && code(1) == Some("ConditionalCheckFailed") && !holds {
        let problem = format!("its slot is not held by backup {}, which is active", backup.id);
        return Err(TableError::unreadable(META, problem));
    }
    Ok(())
}
