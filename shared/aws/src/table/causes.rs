//! Rows of what makes backups by itself: schedules, and requests of upgrades.
//!
//! Each has one owner and is written whole, under the revision that was read. The write
//! that decides on a slot or a request is the transaction that makes its backup, and the
//! backup's last write tells it how that went.

use aws_sdk_dynamodb::types::{
    Put, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use backups_core::backup::Backup;
use backups_core::create::Room;
use backups_core::deployment::Deployment;
use backups_core::id::{DeploymentId, Nonce};
use backups_core::limits::Limits;
use backups_core::schedule::{Schedule, Way, gives_way};
use backups_core::time::Time;
use backups_core::upgrade::Upgrade;

use super::operation::{Stored, Written, built, ours};
use super::requests::Record;
use super::{Table, TableError, call, deployment_pk, from_item, n, s, to_item};

/// The shard of the `due` index that all schedules stand in: a herd of them at one hour
/// keeps nothing else waiting, and the one who releases them reads one partition.
pub(super) const SCHEDULES: i64 = -1;

/// The sort key of a deployment's schedule.
pub(super) const SCHEDULE: &str = "SCHEDULE";

/// The sort key of an upgrade's request.
pub(super) fn upgrade_sk(id: &str) -> String {
    format!("UPGRADE#{id}")
}

/// A row of this kind.
trait Cause: serde::Serialize + Clone {
    fn deployment(&self) -> DeploymentId;
    fn sk(&self) -> String;
    fn revision(&self) -> u64;
    fn nonce(&self) -> &Nonce;
    /// Marks the row as the next write's.
    fn next(&mut self, revision: u64, due_at: Option<Time>);
}

/// What is the same field of either row.
macro_rules! shared_fields {
    () => {
        fn deployment(&self) -> DeploymentId {
            self.deployment_id
        }

        fn revision(&self) -> u64 {
            self.revision
        }

        fn nonce(&self) -> &Nonce {
            &self.nonce
        }

        fn next(&mut self, revision: u64, due_at: Option<Time>) {
            (self.revision, self.nonce, self.due_at) = (revision, crate::random::nonce(), due_at);
        }
    };
}

impl Cause for Schedule {
    shared_fields!();

    fn sk(&self) -> String {
        SCHEDULE.to_owned()
    }
}

impl Cause for Upgrade {
    shared_fields!();

    fn sk(&self) -> String {
        upgrade_sk(&self.upgrade_id)
    }
}

impl Table {
    /// A deployment's schedule, strongly consistent; also one that was deleted and
    /// remembers its slots.
    pub async fn schedule(&self, id: DeploymentId) -> Result<Option<Schedule>, TableError> {
        let row = self.get(deployment_pk(id), SCHEDULE.to_owned()).await?;
        row.map(from_item).transpose()
    }

    /// The request of an upgrade, strongly consistent.
    pub async fn upgrade(
        &self,
        deployment: DeploymentId,
        id: &str,
    ) -> Result<Option<Upgrade>, TableError> {
        let row = self.get(deployment_pk(deployment), upgrade_sk(id)).await?;
        row.map(from_item).transpose()
    }

    /// Stores a schedule over the one that was read; None: there was none.
    pub async fn write_schedule(
        &self,
        before: Option<&Schedule>,
        after: Schedule,
        due_at: Option<Time>,
    ) -> Result<Stored<Schedule>, TableError> {
        self.write_cause(before, after, due_at).await
    }

    /// The same at a person's request, of which `record` is kept.
    pub async fn set_schedule(
        &self,
        before: Option<&Schedule>,
        after: Schedule,
        due_at: Option<Time>,
        record: Option<Record>,
    ) -> Result<Written, TableError> {
        let Some(record) = record else {
            return Ok(self.write_schedule(before, after, due_at).await?.into());
        };
        let (put, _) = self.cause_put(before, after, due_at)?;
        self.carried_out(TransactWriteItem::builder().put(put).build(), record).await
    }

    /// Stores an upgrade's request over the one that was read; None: there was none.
    pub async fn write_upgrade(
        &self,
        before: Option<&Upgrade>,
        after: Upgrade,
        due_at: Option<Time>,
    ) -> Result<Stored<Upgrade>, TableError> {
        self.write_cause(before, after, due_at).await
    }

    /// The deployment that a turn is decided on, and whether one of its backups can give way
    /// to a new one. They are read only if the deployment is full: else none need to.
    pub async fn room(
        &self,
        id: DeploymentId,
        limits: &Limits,
    ) -> Result<(Option<Deployment>, Way), TableError> {
        let found = self.deployment(id).await?;
        let is_full = |one: &Deployment| one.registry.is_full(one.backup_count, limits);
        if !found.as_ref().is_some_and(is_full) {
            return Ok((found, Way::None));
        }
        let (found, backups) = self.all(id).await?.unzip();
        let way = match gives_way(&backups.unwrap_or_default()) {
            None => Way::None,
            Some(_) if limits.hold.deletions => Way::Held,
            Some(_) => Way::Free,
        };
        Ok((found, way))
    }

    /// Stores a slot's backup and the schedule that has decided on it.
    pub async fn start_scheduled(
        &self,
        read: &Deployment,
        before: &Schedule,
        after: Schedule,
        due_at: Option<Time>,
        (backup, room): (&Backup, Room),
    ) -> Result<Written, TableError> {
        let (put, _) = self.cause_put(Some(before), after, due_at)?;
        let cause = TransactWriteItem::builder().put(put).build();
        self.new_backup(read, backup, room, Some(cause)).await
    }

    /// Stores an upgrade's backup and the request for it; None: it was not stored yet.
    pub async fn start_upgrade(
        &self,
        read: &Deployment,
        before: Option<&Upgrade>,
        after: Upgrade,
        (backup, room): (&Backup, Room),
    ) -> Result<Written, TableError> {
        let (put, _) = self.cause_put(before, after, None)?;
        let cause = TransactWriteItem::builder().put(put).build();
        self.new_backup(read, backup, room, Some(cause)).await
    }

    /// What a schedule's row becomes with the last write of its backup. None: it does not
    /// tell of that one any more.
    pub(super) fn schedule_ended(
        &self,
        before: &Schedule,
        backup: &Backup,
    ) -> Result<Option<TransactWriteItem>, TableError> {
        let Some(last) = before.ended(backup) else { return Ok(None) };
        let mut after = before.clone();
        after.last = Some(last);
        let (put, _) = self.cause_put(Some(before), after, before.due_at)?;
        Ok(Some(TransactWriteItem::builder().put(put).build()))
    }

    /// The same of an upgrade's request.
    pub(super) fn upgrade_ended(
        &self,
        before: &Upgrade,
        backup: &Backup,
    ) -> Result<Option<TransactWriteItem>, TableError> {
        let Some(state) = before.answered_by(backup) else { return Ok(None) };
        let mut after = before.clone();
        after.state = state;
        let (put, _) = self.cause_put(Some(before), after, before.due_at)?;
        Ok(Some(TransactWriteItem::builder().put(put).build()))
    }

    /// The row as it will be, and the put of it.
    fn cause_put<C: Cause>(
        &self,
        before: Option<&C>,
        mut after: C,
        due_at: Option<Time>,
    ) -> Result<(Put, C), TableError> {
        after.next(before.map_or(0, Cause::revision) + 1, due_at);
        let (pk, sk) = (deployment_pk(after.deployment()), after.sk());
        let mut item = to_item(&sk, &after)?;
        if let Some(at) = due_at {
            let schedule = sk == SCHEDULE;
            let shard = if schedule { SCHEDULES } else { self.shard(after.deployment()).into() };
            item.insert("due_shard".into(), n(shard));
            item.insert("due_at".into(), s(at.to_string()));
        }
        item.insert("pk".into(), s(pk));
        item.insert("sk".into(), s(sk));
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(item))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let put = match before {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(before) => put
                .condition_expression("revision = :revision")
                .expression_attribute_values(":revision", n(before.revision())),
        };
        Ok((built(put.build())?, after))
    }

    /// One conditional write.
    async fn write_cause<C: Cause>(
        &self,
        before: Option<&C>,
        after: C,
        due_at: Option<Time>,
    ) -> Result<Stored<C>, TableError> {
        use aws_sdk_dynamodb::error::SdkError;
        use aws_sdk_dynamodb::operation::put_item::PutItemError;

        let (put, after) = self.cause_put(before, after, due_at)?;
        let reply = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(put.item))
            .set_condition_expression(put.condition_expression)
            .set_expression_attribute_values(put.expression_attribute_values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes)
            .send()
            .await;
        let stored = match reply {
            Ok(_) => true,
            Err(SdkError::ServiceError(failed)) => match failed.err() {
                PutItemError::ConditionalCheckFailedException(check) => {
                    ours(check.item.as_ref(), after.nonce())
                }
                PutItemError::TransactionConflictException(_) => false,
                _ => return Err(call("PutItem", &SdkError::ServiceError(failed))),
            },
            Err(error) => return Err(call("PutItem", &error)),
        };
        Ok(if stored { Stored::Yes(Box::new(after)) } else { Stored::Conflict })
    }
}
