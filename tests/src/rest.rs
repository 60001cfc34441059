//! Pushing the clock until nothing moves any more: what takes hours by the
//! contract takes a second here.

use std::time::Duration;

use crate::rows::{self, Row};
use crate::{Cloud, Result, fail};

/// The furthest that the clock jumps at once: short enough that no deadline is
/// reached which a service that runs all the time would not have reached.
const STEP: u64 = 60;

/// How many jumps are enough for everything but what never ends.
const STEPS: usize = 200;

impl Cloud {
    /// Pushes the clock, a minute and a tick at a time, until nothing moves.
    /// Gives the rows as they are then.
    ///
    /// # Errors
    /// Something still moves after hours.
    pub async fn rest(&self) -> Result<Vec<Row>> {
        self.until("everything is at rest", |rows, in_flight| {
            in_flight.is_empty() && !rows::backups(rows).values().any(|row| row.moving())
        })
        .await
    }

    /// Pushes the clock, a minute and a tick at a time: what is due is worked, and what is
    /// held stays so. Nothing is waited for but a moment after each.
    ///
    /// # Errors
    /// No answer.
    pub async fn minutes(&self, minutes: u64) -> Result<()> {
        for _ in 0..minutes {
            self.advance(STEP).await?;
            self.tick().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits, without touching the clock, until a backup of the demo's
    /// deployment has a status.
    ///
    /// # Errors
    /// It does not come to it within seconds.
    pub async fn seen(&self, backup: u64, status: &str) -> Result<()> {
        for _ in 0..1000 {
            if self.status(backup).await? == status {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fail(format!("backup {backup} was not seen {status}"))
    }

    /// As [`Cloud::rest`], until a backup of the demo's deployment has a status.
    ///
    /// # Errors
    /// It does not come to it within hours.
    pub async fn until_status(&self, backup: u64, status: &str) -> Result<Vec<Row>> {
        let key = (self.demo.deployment_id, backup);
        self.until(&format!("backup {backup} is {status}"), |rows, _| {
            rows::backups(rows).get(&key).map_or("", |row| row.text("status")) == status
        })
        .await
    }

    /// Pushes the clock, a minute and a tick at a time, until the rows and what
    /// is in flight are as wanted.
    ///
    /// # Errors
    /// They are not within hours.
    pub async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&[Row], &[String]) -> bool,
    ) -> Result<Vec<Row>> {
        let mut last = String::new();
        for _ in 0..STEPS {
            // In this order: what is in flight when the rows were read has written.
            let in_flight = self.in_flight().await?;
            let rows = self.rows().await?;
            if wanted(&rows, &in_flight) {
                return Ok(rows);
            }
            let backups = rows::backups(&rows);
            let moving: Vec<_> =
                backups.values().filter(|row| row.moving()).map(|row| &row.0).collect();
            last = format!("in flight: {in_flight:?}; moving: {moving:?}");
            self.advance(STEP).await?;
            self.tick().await?;
        }
        fail(format!("after {STEPS} minutes not: {what}; {last}"))
    }
}
