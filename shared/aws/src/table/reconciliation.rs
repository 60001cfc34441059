//! The row of the stack's reconciliation, what the table says of a thing in EC2, and the
//! answers to an operator's orders about orphans.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use backups_core::backup::{Backup, Status};
use backups_core::id::{BackupId, DeploymentId, Nonce};
use backups_core::reconcile::{Place, Reconciliation, Tags, Vouching, VouchingRestore};
use backups_core::time::{Seconds, Time};
use serde::{Deserialize, Serialize};

use super::operation::{Stored, UpdateParts};
use super::{Item, Table, TableError, backup_sk, call, deployment_pk, from_item, n, s, to_item};

/// The partition of the stack's own rows.
pub(super) const STACK: &str = "STACK";

/// The sort key of the row.
pub(super) const RECONCILIATION: &str = "RECONCILIATION";

/// How many rows one page of a scan reads: of backups with as many volumes as there may be
/// some megabytes.
const SCANNED: i32 = 100;

/// How many pages without a backup are read on before the place is stored.
const PAGES: usize = 10;

/// How long an answer is kept. The operator waits for it for minutes.
const ANSWERED: Seconds = Seconds::days(1);

/// What became of an operator's order about orphans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanAnswer {
    /// The order.
    pub order_id: Nonce,
    /// Of each thing that it was about.
    pub things: Vec<Removal>,
}

/// What became of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The snapshot's or the volume's id.
    pub id: String,
    /// Why it was not removed. None: EC2 has taken the delete, or it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Table {
    /// Makes the row of the stack's reconciliation, unless it is there. It stands in the
    /// `due` index from then on.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn ensure_reconciliation(&self, table_id: &str, now: Time) -> Result<(), TableError> {
        let row = Reconciliation::new(Nonce::from(table_id), now);
        let mut parts = self.reconciliation_update(&row, Some(row.next_at))?;
        parts.set_or_remove("token", Some(s(row.token.as_str())));
        parts.conditions.push("attribute_not_exists(pk)".to_owned());
        self.update_alone(parts, Some(&row.nonce)).await.map(|_| ())
    }

    /// The row, strongly consistent. None: no tick has made it yet.
    ///
    /// # Errors
    /// The table did not answer, or the row is not this release's.
    pub async fn reconciliation(&self) -> Result<Option<Reconciliation>, TableError> {
        let row = self.get(STACK.to_owned(), RECONCILIATION.to_owned()).await?;
        row.map(from_item).transpose()
    }

    /// Stores `after` over `before`, under the revision of `before`.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn write_reconciliation(
        &self,
        before: &Reconciliation,
        mut after: Reconciliation,
        due_at: Option<Time>,
    ) -> Result<Stored<Reconciliation>, TableError> {
        after.revision = before.revision + 1;
        after.nonce = crate::random::nonce();
        after.due_at = due_at;
        let mut parts = self.reconciliation_update(&after, due_at)?;
        parts.condition("revision = :revision", ":revision", n(before.revision));
        let stored = self.update_alone(parts, Some(&after.nonce)).await?;
        Ok(if stored { Stored::Yes(Box::new(after)) } else { Stored::Conflict })
    }

    fn reconciliation_update(
        &self,
        row: &Reconciliation,
        due_at: Option<Time>,
    ) -> Result<UpdateParts, TableError> {
        let mut item = to_item(RECONCILIATION, row)?;
        let mut parts = UpdateParts::new(&self.name, STACK.to_owned(), RECONCILIATION.to_owned());
        for name in Reconciliation::OWNED {
            parts.set_or_remove(name, item.remove(*name));
        }
        parts.set_or_remove("due_at", due_at.map(|at| s(at.to_string())));
        // One row for the whole stack: any shard is as good, and this one is always there.
        parts.set_or_remove("due_shard", due_at.map(|_| n(0)));
        Ok(parts)
    }

    /// Moves its `due_at` on. False: somebody wrote the row since it was read.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn move_reconciliation(
        &self,
        row: &Reconciliation,
        to: Time,
    ) -> Result<bool, TableError> {
        self.move_under(STACK.to_owned(), RECONCILIATION.to_owned(), row.revision, to).await
    }

    /// What the table says of the backup that a snapshot's tags name: read now, strongly
    /// consistent, the row before the tombstone, which takes its place in one transaction.
    ///
    /// # Errors
    /// The table did not answer, or the row is not this release's: then nothing is known.
    pub async fn vouching(&self, tags: &Tags) -> Result<Vouching, TableError> {
        let (Some(deployment), Some(backup)) = (tags.deployment, tags.backup) else {
            return Ok(Vouching::Nothing);
        };
        if let Some(row) = self.backup(deployment, backup).await? {
            return Ok(Vouching::Row(Box::new(row)));
        }
        let token = self.tombstone(deployment, backup).await?;
        Ok(token.map_or(Vouching::Nothing, Vouching::Tombstone))
    }

    /// The random word of a backup that was deleted, for as long as its tombstone stays.
    async fn tombstone(
        &self,
        deployment: DeploymentId,
        backup: BackupId,
    ) -> Result<Option<Nonce>, TableError> {
        let sk = tombstone_sk(backup);
        let row = self.get(deployment_pk(deployment), sk.clone()).await?;
        match row.map(|mut row| row.remove("token")) {
            None => Ok(None),
            Some(Some(AttributeValue::S(token))) => Ok(Some(Nonce(token))),
            Some(_) => Err(TableError::unreadable(sk, "it has no token")),
        }
    }

    /// The row of the restore that a volume's tags name: read now, strongly consistent.
    ///
    /// # Errors
    /// As [`Table::vouching`].
    pub async fn vouching_restore(&self, tags: &Tags) -> Result<VouchingRestore, TableError> {
        let (Some(deployment), Some(restore)) = (tags.deployment, tags.restore) else {
            return Ok(None);
        };
        Ok(self.restore(deployment, restore).await?.map(Box::new))
    }

    /// Some completed backups, and where to read on. Read by a scan: once a day, and half
    /// as dear as consistent reads; each is read again before anything is written. A row
    /// that this release cannot read is left out, with a line in the log.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn completed_backups(
        &self,
        mut place: Option<Place>,
    ) -> Result<(Vec<Backup>, Option<Place>), TableError> {
        for _ in 0..PAGES {
            let (found, next) = self.scan(place).await?;
            if !found.is_empty() || next.is_none() {
                return Ok((found, next));
            }
            place = next;
        }
        Ok((Vec::new(), place))
    }

    async fn scan(&self, place: Option<Place>) -> Result<(Vec<Backup>, Option<Place>), TableError> {
        let start = match place {
            Some(Place::After { pk, sk }) => {
                Some(Item::from([("pk".to_owned(), s(pk)), ("sk".to_owned(), s(sk))]))
            }
            Some(Place::Token(_)) | None => None,
        };
        let reply = self
            .client
            .scan()
            .table_name(&self.name)
            .filter_expression("begins_with(sk, :backup) AND #status = :completed")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":backup", s("BACKUP#"))
            .expression_attribute_values(":completed", s(Status::Completed.as_str()))
            .limit(SCANNED)
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| call("Scan", &error))?;
        let mut found = Vec::new();
        for item in reply.items.unwrap_or_default() {
            match from_item::<Backup>(item) {
                Ok(row) => found.push(row),
                Err(error) => tracing::error!(%error, "a backup cannot be reconciled"),
            }
        }
        let next = reply.last_evaluated_key.and_then(|mut key| {
            let mut text = |name: &str| match key.remove(name) {
                Some(AttributeValue::S(text)) => Some(text),
                _ => None,
            };
            Some(Place::After { pk: text("pk")?, sk: text("sk")? })
        });
        Ok((found, next))
    }

    /// What became of an order. None: it has no answer yet, or none any more.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn orphan_answer(
        &self,
        order_id: &Nonce,
    ) -> Result<Option<OrphanAnswer>, TableError> {
        self.get(STACK.to_owned(), answer_sk(order_id)).await?.map(from_item).transpose()
    }

    /// Keeps the answer to an order, for a day.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn answer_orphans(&self, answer: &OrphanAnswer, now: Time) -> Result<(), TableError> {
        let sk = answer_sk(&answer.order_id);
        let mut item = to_item(&sk, answer)?;
        item.insert("pk".into(), s(STACK));
        item.insert("sk".into(), s(sk));
        item.insert("ttl".into(), n((now + ANSWERED).unix()));
        self.put(item).await
    }

    /// The table's id, to compare with. None: no function has run yet.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn known_id(&self) -> Result<Option<String>, TableError> {
        let row = self.get(STACK.to_owned(), "TABLE".to_owned()).await?;
        Ok(match row.and_then(|mut row| row.remove("table_id")) {
            Some(AttributeValue::S(id)) => Some(id),
            _ => None,
        })
    }
}

/// The sort key of a backup's tombstone.
pub(super) fn tombstone_sk(id: BackupId) -> String {
    format!("TOMBSTONE#{}", backup_sk(id))
}

/// The sort key of an answer.
fn answer_sk(order_id: &Nonce) -> String {
    format!("ANSWER#{order_id}")
}
