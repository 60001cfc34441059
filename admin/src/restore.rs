//! Orders about one restore.

use std::time::Duration;

use backups_aws::bus::Bus;
use backups_aws::random;
use backups_aws::sdk::SdkConfig;
use backups_aws::table::Table;
use backups_core::announce::RestoreOrdered;
use backups_core::id::{DeploymentId, RestoreId};
use backups_core::restore::Order;
use serde_json::json;

use crate::Stack;

/// How often it is looked whether the worker has answered.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is ordered, of which restore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What is to be done
    #[arg(value_enum)]
    order: Word,
    /// The deployment's id
    deployment: DeploymentId,
    /// The restore's id
    restore: RestoreId,
    /// How long to wait for the worker's answer
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
}

/// An order as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Word {
    /// Go on in the direction that it has, with every deadline anew
    Retry,
    /// Put the old volumes back; what was written to the new ones is kept
    RollBack,
    /// Leave the way back; what was written to the old volumes is kept
    RollForward,
    /// It is over as it is, if EC2 shows that the deployment is whole
    Release,
}

impl From<Word> for Order {
    fn from(word: Word) -> Self {
        match word {
            Word::Retry => Self::Retry,
            Word::RollBack => Self::RollBack,
            Word::RollForward => Self::RollForward,
            Word::Release => Self::Release,
        }
    }
}

/// Hands the order to the worker, and waits for its answer.
pub(crate) async fn order(
    arguments: &Arguments,
    stack: &Stack,
    sdk: &SdkConfig,
) -> Result<(), String> {
    let (deployment, id) = (arguments.deployment, arguments.restore);
    let table = Table::reading(&stack.table, sdk);
    let read = async || {
        let row = table.restore(deployment, id).await.map_err(|error| error.to_string())?;
        row.ok_or_else(|| format!("deployment {deployment} has no restore {id}"))
    };
    let before = read().await?;
    let ordered = RestoreOrdered {
        version: 1,
        order_id: random::nonce(),
        deployment_id: deployment,
        restore_id: id,
        order: arguments.order.into(),
    };
    let bus = Bus::named(stack.bus()?, sdk);
    bus.order(&ordered).await.map_err(|error| error.to_string())?;
    if !arguments.json {
        println!("restore {id} is {}; ordered, waiting for the worker", before.status.as_str());
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(arguments.wait);
    loop {
        let row = read().await?;
        if let Some(answer) = row.answer_to(&ordered.order_id) {
            let status = row.status.as_str();
            if arguments.json {
                println!("{}", json!({"status": status, "refused": answer.refused}));
            }
            if let Some(why) = &answer.refused {
                return Err(format!("not done: {why}"));
            }
            if !arguments.json {
                println!("done: restore {id} is {status}");
            }
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(format!(
                "the worker has not answered within {} s; it may yet: look at the restore, and at the dead-letter queue",
                arguments.wait
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
