//! Lists of what a deployment has, the newest first, read no further than somebody wants them.
//!
//! What is wanted is read a megabyte at a time, which is what one `Query` gives at most, and
//! handed out row by row: a thousand of the largest rows are never in memory together.

use std::marker::PhantomData;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use backups_core::backup::Backup;
use backups_core::deployment::Deployment;
use backups_core::id::{BackupId, DeploymentId, RestoreId};
use backups_core::key::Key;
use backups_core::restore::Restore;
use serde::de::DeserializeOwned;

use super::deployments::{is_registered, opened};
use super::{
    BACKUP, Item, META, RESTORE, Table, TableError, backup_sk, call, deployment_pk, from_item,
    restore_sk, s,
};

/// The most items of one page of a list.
pub const LIST: usize = 1000;

/// A list that is begun. Of what stands in it nothing is looked at before it is asked for.
#[derive(Debug)]
pub struct Listing<'a, T> {
    table: &'a Table,
    id: DeploymentId,
    /// What the sort keys begin with, and the last one of them.
    keys: (&'static str, String),
    /// How many rows are wanted of those that are not read yet.
    wanted: usize,
    /// Those that were read and not asked for yet.
    rows: std::vec::IntoIter<Item>,
    rest: Rest,
    queries: u32,
    of: PhantomData<fn() -> T>,
}

/// What is not read yet.
#[derive(Debug)]
enum Rest {
    All,
    /// What comes after this row.
    After(Item),
    None,
}

impl Table {
    /// Begins the list of a deployment's newest backups by a query that has the deployment too,
    /// for whoever has this key. The backups are not read as such yet. None: no deployment that
    /// the key may see, of whatever sort its rows are.
    ///
    /// `wanted`: how many backups somebody will look at.
    pub async fn list_for(
        &self,
        key: &Key,
        id: DeploymentId,
        wanted: usize,
    ) -> Result<Option<(Deployment, Listing<'_, Backup>)>, TableError> {
        self.list(id, wanted, |row| opened(key, id, row)).await
    }

    /// The same of a deployment whose row `may` be read.
    async fn list(
        &self,
        id: DeploymentId,
        wanted: usize,
        may: impl Fn(&Item) -> bool,
    ) -> Result<Option<(Deployment, Listing<'_, Backup>)>, TableError> {
        // The deployment's own row comes first.
        let keys = (BACKUP, META.to_owned());
        let mut listing = Listing::new(self, id, keys, wanted.saturating_add(1));
        match listing.row().await? {
            Some(row) if row.get("sk") == Some(&s(META)) && may(&row) => {
                Ok(Some((from_item(row)?, listing)))
            }
            _ => Ok(None),
        }
    }

    /// The backups of a deployment that are older than `before`.
    pub fn list_before(
        &self,
        id: DeploymentId,
        before: BackupId,
        wanted: usize,
    ) -> Listing<'_, Backup> {
        let newest = backup_sk(BackupId(before.0.saturating_sub(1)));
        Listing::new(self, id, (BACKUP, newest), wanted)
    }

    /// The restores of a deployment; those that are older than `before`, if it is given.
    pub fn restores(
        &self,
        id: DeploymentId,
        before: Option<RestoreId>,
        wanted: usize,
    ) -> Listing<'_, Restore> {
        let newest = before.map_or(u64::MAX, |before| before.0.saturating_sub(1));
        Listing::new(self, id, (RESTORE, restore_sk(RestoreId(newest))), wanted)
    }

    /// The deployment and its backups, newest first, but for those that this release cannot
    /// read: of them nothing is decided, and they keep nobody else from a decision. None: no
    /// such deployment.
    pub async fn all(
        &self,
        id: DeploymentId,
    ) -> Result<Option<(Deployment, Vec<Backup>)>, TableError> {
        let Some((deployment, mut listing)) = self.list(id, usize::MAX, is_registered).await?
        else {
            return Ok(None);
        };
        let mut all = Vec::new();
        while let Some(row) = listing.row().await? {
            match from_item(row) {
                Ok(backup) => all.push(backup),
                Err(error) => tracing::error!(%error, %id, "a backup is left out"),
            }
        }
        Ok(Some((deployment, all)))
    }
}

impl<'a, T> Listing<'a, T> {
    fn new(
        table: &'a Table,
        id: DeploymentId,
        keys: (&'static str, String),
        wanted: usize,
    ) -> Self {
        let (rows, rest) = (Vec::new().into_iter(), Rest::All);
        Self { table, id, keys, wanted, rows, rest, queries: 0, of: PhantomData }
    }

    /// How many queries it has taken so far, of a megabyte each at most.
    pub const fn queries(&self) -> u32 {
        self.queries
    }

    /// What is not read yet is not wanted any more, but for one row: whether there are more.
    pub fn want_no_more(&mut self) {
        self.wanted = self.wanted.min(1);
    }

    /// The next row.
    async fn row(&mut self) -> Result<Option<Item>, TableError> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            let start = match std::mem::replace(&mut self.rest, Rest::None) {
                Rest::None => return Ok(None),
                _ if self.wanted == 0 => return Ok(None),
                Rest::All => None,
                Rest::After(row) => Some(row),
            };
            self.query(start).await?;
        }
    }

    /// Reads on, strongly consistent: up to as many rows as are wanted.
    async fn query(&mut self, start: Option<Item>) -> Result<(), TableError> {
        self.queries += 1;
        let (oldest, newest) = &self.keys;
        let reply = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .key_condition_expression("pk = :pk AND sk BETWEEN :oldest AND :newest")
            .expression_attribute_values(":pk", s(deployment_pk(self.id)))
            .expression_attribute_values(":oldest", s(*oldest))
            .expression_attribute_values(":newest", s(newest))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(i32::try_from(self.wanted).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| call("Query", &error))?;
        let rows = reply.items.unwrap_or_default();
        self.wanted = self.wanted.saturating_sub(rows.len());
        self.rows = rows.into_iter();
        self.rest = reply.last_evaluated_key.map_or(Rest::None, Rest::After);
        Ok(())
    }
}

impl<T: DeserializeOwned> Listing<'_, T> {
    /// The next one. None: there are no more, or not as many as were wanted.
    pub async fn next(&mut self) -> Result<Option<T>, TableError> {
        self.row().await?.map(from_item).transpose()
    }
}
