//! What the loop of [`crate::advance`] asks of an operation's row, whatever it is of.

use backups_aws::table::{Stored, Table, TableError};
use backups_core::announce::{Detail, Kind, OperationDue};
use backups_core::backup::Backup;
use backups_core::id::Nonce;
use backups_core::operation::Lease;
use backups_core::reconcile::Reconciliation;
use backups_core::restore::Restore;
use backups_core::time::Time;

use crate::advance::Advance;

/// An operation's row.
pub(crate) trait Operation: Clone + PartialEq + Send + Sync {
    /// The nudge that sets it going.
    fn nudge(&self) -> OperationDue;
    /// Whether somebody is down until it gets on.
    fn is_urgent(&self) -> bool;
    /// Who acts now.
    fn lease(&self) -> Option<&Lease>;
    fn set_lease(&mut self, lease: Option<Lease>);
    /// When it is due, as read.
    fn due_at(&self) -> Option<Time>;
    /// Looks or calls that failed in a row.
    fn troubles(&mut self) -> &mut u32;
    /// What its outbox holds.
    fn announcements(&self) -> Vec<(Kind, Detail)>;
    /// Takes out of the outbox what the bus has.
    fn forget(&mut self, taken: &[Nonce]);
    /// The row as it is now.
    fn reread(
        &self,
        table: &Table,
    ) -> impl Future<Output = Result<Option<Self>, TableError>> + Send;
    /// Stores `after` over this one.
    fn write(
        &self,
        advance: &Advance<'_>,
        after: Self,
        due_at: Option<Time>,
    ) -> impl Future<Output = Result<Stored<Self>, TableError>> + Send;
    /// What follows from a write: rows beside it, a log line, a count.
    fn stored(
        &self,
        advance: &Advance<'_>,
        after: &Self,
    ) -> impl Future<Output = Result<(), TableError>> + Send;
}

/// What is the same field of either row.
macro_rules! shared_fields {
    () => {
        fn lease(&self) -> Option<&Lease> {
            self.lease.as_ref()
        }

        fn set_lease(&mut self, lease: Option<Lease>) {
            self.lease = lease;
        }

        fn due_at(&self) -> Option<Time> {
            self.due_at
        }

        fn troubles(&mut self) -> &mut u32 {
            &mut self.troubles
        }

        fn forget(&mut self, taken: &[Nonce]) {
            self.outbox.retain(|pending| !taken.contains(&pending.announcement_id));
        }
    };
}

impl Operation for Backup {
    fn nudge(&self) -> OperationDue {
        OperationDue::backup(self.deployment_id, self.id)
    }

    fn is_urgent(&self) -> bool {
        false
    }

    shared_fields!();

    fn announcements(&self) -> Vec<(Kind, Detail)> {
        Detail::all_of(self)
    }

    async fn reread(&self, table: &Table) -> Result<Option<Self>, TableError> {
        table.backup(self.deployment_id, self.id).await
    }

    async fn write(
        &self,
        advance: &Advance<'_>,
        after: Self,
        due_at: Option<Time>,
    ) -> Result<Stored<Self>, TableError> {
        crate::backups::write(advance, self, after, due_at).await
    }

    async fn stored(&self, advance: &Advance<'_>, after: &Self) -> Result<(), TableError> {
        crate::backups::stored(advance, self, after).await
    }
}

impl Operation for Restore {
    fn nudge(&self) -> OperationDue {
        OperationDue::restore(self.deployment_id, self.id)
    }

    fn is_urgent(&self) -> bool {
        Self::is_urgent(self)
    }

    shared_fields!();

    fn announcements(&self) -> Vec<(Kind, Detail)> {
        Detail::all_of_restore(self)
    }

    async fn reread(&self, table: &Table) -> Result<Option<Self>, TableError> {
        table.restore(self.deployment_id, self.id).await
    }

    async fn write(
        &self,
        advance: &Advance<'_>,
        after: Self,
        due_at: Option<Time>,
    ) -> Result<Stored<Self>, TableError> {
        advance.worker.table.write_restore(self, after, due_at, None).await
    }

    async fn stored(&self, _: &Advance<'_>, after: &Self) -> Result<(), TableError> {
        crate::restores::stored(self, after);
        Ok(())
    }
}

impl Operation for Reconciliation {
    fn nudge(&self) -> OperationDue {
        OperationDue::reconciliation()
    }

    fn is_urgent(&self) -> bool {
        false
    }

    shared_fields!();

    fn announcements(&self) -> Vec<(Kind, Detail)> {
        Detail::all_of_reconciliation(self)
    }

    async fn reread(&self, table: &Table) -> Result<Option<Self>, TableError> {
        table.reconciliation().await
    }

    async fn write(
        &self,
        advance: &Advance<'_>,
        after: Self,
        due_at: Option<Time>,
    ) -> Result<Stored<Self>, TableError> {
        advance.worker.table.write_reconciliation(self, after, due_at).await
    }

    async fn stored(&self, _: &Advance<'_>, _: &Self) -> Result<(), TableError> {
        Ok(())
    }
}
