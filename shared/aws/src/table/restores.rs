//! Rows of restores: the transaction that begins one, the writes of its operation, and
//! what its new volumes are to be like.
//!
//! A restore holds the deployment's slot and pins its backup from its first write to its
//! last: both are taken and given back in the transaction that makes the change.

use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    Update,
};
use backups_core::backup::Backup;
use backups_core::create::Room;
use backups_core::deployment::{Deployment, Node};
use backups_core::id::{BackupId, DeploymentId, NodeId, RestoreId, SnapshotId};
use backups_core::restore::{Kept, Restore, Setting};
use backups_core::time::Time;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::operation::{Stored, UpdateParts, Written, built, ours};
use super::requests::Record;
use super::{
    Item, META, Table, TableError, backup_sk, deployment_pk, from_item, n, restore_sk, s,
    settings_prefix, to_item, volumes_prefix,
};

/// How many settings are kept in one row: each may have 44 tags.
const SETTINGS_A_ROW: usize = 10;

/// What a begun restore is stored with.
#[derive(Debug, Clone, Copy)]
pub struct Begun<'a> {
    /// The deployment as it was read.
    pub deployment: &'a Deployment,
    /// The backup that is restored, as it was read.
    pub backup: &'a Backup,
    /// The backup of the present state that goes first, and the room that it needs.
    pub safety: Option<&'a (Backup, Room)>,
}

/// Some of a restore's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    /// The revision under which they were planned: a late write takes no later one's place.
    attempt: u64,
    settings: Vec<Setting>,
}

/// Volumes of one node's set, as `keep_volumes` writes them.
#[derive(Debug, Clone, Deserialize)]
struct KeptVolumes {
    attempt: u32,
    volumes: Vec<backups_core::backup::Volume>,
}

impl Table {
    /// One restore, strongly consistent.
    pub async fn restore(
        &self,
        deployment: DeploymentId,
        id: RestoreId,
    ) -> Result<Option<Restore>, TableError> {
        let row = self.get(deployment_pk(deployment), restore_sk(id)).await?;
        row.map(from_item).transpose()
    }

    /// Stores a new restore: takes the slot and the id, pins the backup, and stores the
    /// backup that goes first with its own slot, all in one.
    pub async fn create_restore(
        &self,
        restore: &Restore,
        begun: Begun<'_>,
        record: Option<Record>,
    ) -> Result<Written, TableError> {
        let pk = deployment_pk(restore.deployment_id);
        let mut items = vec![
            TransactWriteItem::builder().update(self.take_slot(restore, begun)?).build(),
            TransactWriteItem::builder().update(self.pin(restore, begun.backup)?).build(),
        ];
        let row = to_item(&restore_sk(restore.id), restore)?;
        items.push(self.new_row(
            restore.deployment_id,
            restore_sk(restore.id),
            row,
            restore.requested_at,
        )?);
        if let Some((safety, _)) = begun.safety {
            let row = to_item(&backup_sk(safety.id), safety)?;
            items.push(self.new_row(
                safety.deployment_id,
                backup_sk(safety.id),
                row,
                safety.created_at,
            )?);
        }
        items.extend(record.map(|record| record.0));
        let count = items.len();
        let Err(reasons) = self.transact(items).await? else { return Ok(Written::Stored) };
        // If the row is there and it is ours, an earlier try was applied, and only its
        // reply was lost.
        let stored = self.get(pk, restore_sk(restore.id)).await?;
        let stored = stored.map(from_item::<Restore>).transpose()?;
        let ours = stored.is_some_and(|stored| stored.token == restore.token);
        Ok(if ours { Written::Stored } else { Written::cancelled(&reasons, count) })
    }

    /// The deployment's part of a beginning.
    fn take_slot(&self, restore: &Restore, begun: Begun<'_>) -> Result<Update, TableError> {
        let mut set = "SET next_restore_id = :next, active_restore = :id".to_owned();
        let mut add = String::new();
        let mut condition = "registry_version = :version \
             AND (next_restore_id = :id OR (attribute_not_exists(next_restore_id) AND :id = :one)) \
             AND attribute_not_exists(active_backup) AND attribute_not_exists(active_restore) \
             AND (attribute_not_exists(deleted) OR deleted = :no)"
            .to_owned();
        let mut update = Update::builder()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(restore.deployment_id)))
            .key("sk", s(META))
            .expression_attribute_values(":next", n(restore.id.0 + 1))
            .expression_attribute_values(":id", n(restore.id))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":version", n(begun.deployment.registry.registry_version))
            .expression_attribute_values(":no", AttributeValue::Bool(false));
        if let Some((safety, room)) = begun.safety {
            set.push_str(", next_backup_id = :next_backup, active_backup = :backup");
            add.push_str(" ADD backup_count :one");
            condition.push_str(
                " AND (next_backup_id = :backup OR (attribute_not_exists(next_backup_id) AND :backup = :one)) \
                 AND (attribute_not_exists(backup_count) OR backup_count < :limit)",
            );
            update = update
                .expression_attribute_values(":next_backup", n(safety.id.0 + 1))
                .expression_attribute_values(":backup", n(safety.id))
                .expression_attribute_values(":limit", n(room.below));
        }
        built(update.update_expression(set + &add).condition_expression(condition).build())
    }

    /// The backup's part: it stays as it is until the restore is over. Under its revision,
    /// so that a delete that was decided before does not win.
    fn pin(&self, restore: &Restore, backup: &Backup) -> Result<Update, TableError> {
        let update = Update::builder()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(backup.deployment_id)))
            .key("sk", s(backup_sk(backup.id)))
            .update_expression("SET pinned_by = :restore ADD revision :one")
            .condition_expression(
                "revision = :revision AND #status = :completed AND attribute_not_exists(pinned_by)",
            )
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":completed", s("completed"))
            .expression_attribute_values(":restore", n(restore.id))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":revision", n(backup.revision));
        built(update.build())
    }

    /// A row that is not there yet, and is due at once.
    fn new_row(
        &self,
        deployment: DeploymentId,
        sk: String,
        mut row: Item,
        due_at: Time,
    ) -> Result<TransactWriteItem, TableError> {
        row.insert("pk".into(), s(deployment_pk(deployment)));
        row.insert("sk".into(), s(sk));
        row.insert("due_shard".into(), n(self.shard(deployment)));
        row.insert("due_at".into(), s(due_at.to_string()));
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(row))
            .condition_expression("attribute_not_exists(pk)")
            .build();
        Ok(TransactWriteItem::builder().put(built(put)?).build())
    }

    /// Stores what the operation changed: `after` over `before`, under its revision. One
    /// that is over gives the slot and the backup back in the same transaction. With
    /// `nodes`, on the condition that the control plane's are still these.
    pub async fn write_restore(
        &self,
        before: &Restore,
        mut after: Restore,
        due_at: Option<Time>,
        nodes: Option<&[Node]>,
    ) -> Result<Stored<Restore>, TableError> {
        after.revision = before.revision + 1;
        after.nonce = crate::random::nonce();
        after.due_at = due_at;
        let sk = restore_sk(before.id);
        let mut item = to_item(&sk, &after)?;
        let mut parts = UpdateParts::new(&self.name, deployment_pk(before.deployment_id), sk);
        for name in Restore::OWNED {
            parts.set_or_remove(name, item.remove(*name));
        }
        let shard = due_at.map(|_| n(self.shard(before.deployment_id)));
        parts.set_or_remove("due_at", due_at.map(|at| s(at.to_string())));
        parts.set_or_remove("due_shard", shard);
        parts.condition("revision = :revision", ":revision", n(before.revision));
        let mut more = Vec::new();
        if before.status.active() && !after.status.active() {
            more.push(TransactWriteItem::builder().update(self.free_slot(before)?).build());
            more.push(TransactWriteItem::builder().update(self.unpin(before)?).build());
        }
        if let Some(nodes) = nodes {
            let check = self.same_nodes(before.deployment_id, nodes)?;
            more.push(TransactWriteItem::builder().condition_check(check).build());
        }
        let stored = if more.is_empty() {
            self.update_alone(parts, Some(&after.nonce)).await?
        } else {
            let mut items =
                vec![TransactWriteItem::builder().update(built(parts.build())?).build()];
            items.extend(more);
            match self.transact(items).await? {
                Ok(()) => true,
                Err(reasons) => {
                    ours(reasons.first().and_then(|reason| reason.item.as_ref()), &after.nonce)
                }
            }
        };
        Ok(if stored { Stored::Yes(Box::new(after)) } else { Stored::Conflict })
    }

    fn free_slot(&self, restore: &Restore) -> Result<Update, TableError> {
        let update = Update::builder()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(restore.deployment_id)))
            .key("sk", s(META))
            .update_expression("REMOVE active_restore")
            .condition_expression("active_restore = :id")
            .expression_attribute_values(":id", n(restore.id));
        built(update.build())
    }

    fn unpin(&self, restore: &Restore) -> Result<Update, TableError> {
        let update = Update::builder()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(restore.deployment_id)))
            .key("sk", s(backup_sk(restore.backup_id)))
            .update_expression("REMOVE pinned_by ADD revision :one")
            .condition_expression("pinned_by = :id")
            .expression_attribute_values(":id", n(restore.id))
            .expression_attribute_values(":one", n(1));
        built(update.build())
    }

    fn same_nodes(
        &self,
        deployment: DeploymentId,
        nodes: &[Node],
    ) -> Result<ConditionCheck, TableError> {
        let nodes = serde_dynamo::to_attribute_value(nodes).map_err(|error| TableError::Row {
            row: META.to_owned(),
            problem: error.to_string(),
        })?;
        let check = ConditionCheck::builder()
            .table_name(&self.name)
            .key("pk", s(deployment_pk(deployment)))
            .key("sk", s(META))
            .condition_expression(
                "nodes = :nodes AND (attribute_not_exists(deleted) OR deleted = :no)",
            )
            .expression_attribute_values(":nodes", nodes)
            .expression_attribute_values(":no", AttributeValue::Bool(false))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::None);
        built(check.build())
    }

    /// Keeps what the new volumes are to be like: ten to a row stay below DynamoDB's
    /// 400 KB whatever the tags.
    pub async fn keep_settings(
        &self,
        restore: &Restore,
        settings: &[Setting],
    ) -> Result<(), TableError> {
        let puts = settings.chunks(SETTINGS_A_ROW).enumerate().map(|(part, some)| async move {
            let sk = format!("{}{part:03}", settings_prefix(restore.id));
            let attempt = restore.revision;
            let mut item = to_item(&sk, &Settings { attempt, settings: some.to_vec() })?;
            item.insert("pk".into(), s(deployment_pk(restore.deployment_id)));
            item.insert("sk".into(), s(sk));
            self.put_unless_later(item, attempt).await
        });
        try_join_all(puts).await.map(|_| ())
    }

    /// What the new volumes are to be like.
    pub async fn settings(&self, restore: &Restore) -> Result<Vec<Setting>, TableError> {
        let prefix = settings_prefix(restore.id);
        let rows = self.begin_with(restore.deployment_id, &prefix).await?;
        let mut all = Vec::new();
        for row in rows {
            all.extend(from_item::<Settings>(row)?.settings);
        }
        Ok(all)
    }

    /// The snapshots of a backup, each with what was kept of its volume just before the
    /// very call that made it. None: no such backup.
    pub async fn kept(
        &self,
        deployment: DeploymentId,
        backup: BackupId,
    ) -> Result<Option<Vec<Kept>>, TableError> {
        let Some(row) = self.backup(deployment, backup).await? else { return Ok(None) };
        self.kept_of(&row).await.map(Some)
    }

    /// The same of a backup that was read.
    pub async fn kept_of(&self, row: &Backup) -> Result<Vec<Kept>, TableError> {
        let mut kept = Vec::new();
        for item in self.begin_with(row.deployment_id, &volumes_prefix(row.id)).await? {
            let node = node_of(&item);
            kept.push((node, from_item::<KeptVolumes>(item)?));
        }
        let volume = |node: NodeId, attempt: u32, id| {
            let mut sets =
                kept.iter().filter(|(of, set)| *of == Some(node) && set.attempt == attempt);
            sets.find_map(|(_, set)| set.volumes.iter().find(|volume| volume.volume_id == id))
                .cloned()
        };
        let sets = row.nodes.iter().filter_map(|run| match &run.take {
            backups_core::backup::Take::Taken { attempt, set } => {
                Some((run.node_id, *attempt, set))
            }
            _ => None,
        });
        let all = sets.flat_map(|(node_id, attempt, set)| {
            set.iter().map(move |taken| (node_id, attempt, taken))
        });
        let all = all.map(|(node_id, attempt, taken)| Kept {
            node_id,
            snapshot_id: SnapshotId::clone(&taken.snapshot_id),
            size_gib: taken.size_gib,
            volume: volume(node_id, attempt, taken.volume_id.clone()),
        });
        Ok(all.collect())
    }
}

/// The node whose volumes a row keeps: `VOLUMES#BACKUP#<backup>#<node>#<part>`.
fn node_of(item: &Item) -> Option<NodeId> {
    let AttributeValue::S(sk) = item.get("sk")? else { return None };
    sk.split('#').nth(3)?.trim_start_matches('0').parse().ok()
}
