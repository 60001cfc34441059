//! The row of the brake.

use backups_core::brake::Brake;

use super::operation::{Stored, UpdateParts};
use super::reconciliation::STACK;
use super::{Table, TableError, from_item, n, to_item};

/// The sort key of the row.
const BRAKE: &str = "BRAKE";

impl Table {
    /// What an operator has paused, strongly consistent. Nothing, if nobody ever did.
    ///
    /// # Errors
    /// The table did not answer, or the row is not this release's: then it is not known
    /// what may be done, and nothing is.
    pub async fn brake(&self) -> Result<Brake, TableError> {
        let row = self.get(STACK.to_owned(), BRAKE.to_owned()).await?;
        Ok(row.map(from_item).transpose()?.unwrap_or_default())
    }

    /// Stores `after` over what was read.
    ///
    /// # Errors
    /// The table did not answer.
    pub async fn write_brake(
        &self,
        before: &Brake,
        mut after: Brake,
    ) -> Result<Stored<Brake>, TableError> {
        after.revision = before.revision + 1;
        after.nonce = crate::random::nonce();
        let mut item = to_item(BRAKE, &after)?;
        let mut parts = UpdateParts::new(&self.name, STACK.to_owned(), BRAKE.to_owned());
        for name in Brake::OWNED {
            parts.set_or_remove(name, item.remove(*name));
        }
        if before.revision == 0 {
            parts.conditions.push("attribute_not_exists(pk)".to_owned());
        } else {
            parts.condition("revision = :revision", ":revision", n(before.revision));
        }
        let stored = self.update_alone(parts, Some(&after.nonce)).await?;
        Ok(if stored { Stored::Yes(Box::new(after)) } else { Stored::Conflict })
    }
}
