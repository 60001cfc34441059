//! API keys: made, listed, revoked.
//!
//! They are written to the table by this command itself: the secret is drawn here, shown to
//! whoever started it, once, and goes nowhere else.

use backups_aws::clock::Clock;
use backups_aws::random;
use backups_aws::sdk::SdkConfig;
use backups_aws::table::Table;
use backups_aws::table::keys::{Key, KeyWritten, Permission, Secret};
use backups_core::id::{DeploymentId, TenantId};
use backups_core::key::{LONGEST, MOST_DEPLOYMENTS, MOST_NETWORKS, Network};
use backups_core::time::{Seconds, Time};
use serde_json::{Value, json};

use crate::Stack;

/// How often a key that somebody else wrote meanwhile is read and written anew.
const TRIES: u32 = 5;

/// What to do about keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Keys {
    /// Makes a key, and shows its secret, once
    Create(Create),
    /// Lists keys; nobody can list their secrets
    List(List),
    /// Ends a key for good, within 30 s
    Revoke(Revoke),
}

/// The key to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The tenant whose deployments it opens
    #[arg(long, value_name = "ID", value_parser = tenant)]
    tenant: TenantId,
    /// deployment:read, or deployment:manage, which implies it
    #[arg(long, value_parser = permission)]
    permission: Permission,
    /// Binds it to this deployment; as often as needed [default: all of the tenant's]
    #[arg(long = "deployment", value_name = "ID", value_parser = deployment)]
    deployments: Vec<DeploymentId>,
    /// Lets it be used from this address or network alone, such as 192.0.2.0/24; as often as
    /// needed [default: from anywhere]
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Network>,
    /// For how many days it counts
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=LONGEST.0 / 86_400))]
    days: i64,
    /// The key and its secret as JSON
    #[arg(long)]
    json: bool,
}

/// Which keys to list.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Of this tenant alone
    #[arg(long, value_name = "ID", value_parser = tenant)]
    tenant: Option<TenantId>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The key to revoke.
#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// Its id, as `key list` has it
    #[arg(value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_id: String,
    /// The key as it is then, as JSON
    #[arg(long)]
    json: bool,
}

fn tenant(text: &str) -> Result<TenantId, String> {
    let sound = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
    let fault = "a tenant's id is not empty, and has no blanks around it and no control character";
    if sound { Ok(TenantId::from(text)) } else { Err(fault.to_owned()) }
}

fn permission(text: &str) -> Result<Permission, String> {
    let found = Permission::ALL.into_iter().find(|one| one.as_str() == text);
    found.ok_or_else(|| "there are deployment:read and deployment:manage".to_owned())
}

fn deployment(text: &str) -> Result<DeploymentId, String> {
    text.parse().map_err(|fault| format!("it is no id: {fault}"))
}

/// Does it.
pub(crate) async fn run(
    keys: &Keys,
    stack: &Stack,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Result<(), String> {
    let table = Table::reading(&stack.table, sdk);
    match keys {
        Keys::Create(wanted) => create(wanted, &table, clock).await,
        Keys::List(wanted) => list(wanted, &table, clock).await,
        Keys::Revoke(wanted) => revoke(wanted, &table, clock).await,
    }
}

async fn create(wanted: &Create, table: &Table, clock: &Clock) -> Result<(), String> {
    let mut deployments = wanted.deployments.clone();
    deployments.sort_unstable();
    deployments.dedup();
    if deployments.len() > MOST_DEPLOYMENTS || wanted.allow.len() > MOST_NETWORKS {
        return Err(format!(
            "a key is bound to at most {MOST_DEPLOYMENTS} deployments and {MOST_NETWORKS} networks"
        ));
    }
    for id in &deployments {
        let found = table.deployment(*id).await.map_err(|error| error.to_string())?;
        match found.map(|found| found.registry.tenant_id) {
            Some(owner) if owner != wanted.tenant => {
                return Err(format!(
                    "deployment {id} is not the tenant's: the key would open nothing"
                ));
            }
            Some(_) => {}
            None => eprintln!("Deployment {id} is not known yet: the key opens it once it is."),
        }
    }
    let secret = Secret::generate().map_err(|error| format!("no randomness: {error}"))?;
    let name = random::nonce();
    let key = Key {
        hash: secret.hash(),
        key_id: format!("key-{}", name.as_str().get(..12).unwrap_or(name.as_str())),
        version: 1,
        tenant_id: wanted.tenant.clone(),
        permission: wanted.permission,
        deployments: Some(deployments).filter(|bound| !bound.is_empty()),
        allow: Some(wanted.allow.clone()).filter(|allow| !allow.is_empty()),
        expires_at: clock.now() + Seconds::days(wanted.days),
        revoked_at: None,
    };
    for attempt in 0..TRIES {
        clock.others_first(attempt).await;
        match table.put_key(&key, clock.now()).await {
            Ok(KeyWritten::Yes) => {
                tell(&key, &secret, wanted.json, clock.now());
                return Ok(());
            }
            Ok(KeyWritten::Conflict) => {}
            Ok(KeyWritten::Older | KeyWritten::Clash) => {
                return Err(format!("there is a key `{}` already: try again", key.key_id));
            }
            Err(error) => {
                return Err(format!(
                    "{error}. If `key list` has `{}`, revoke it: nobody knows its secret",
                    key.key_id
                ));
            }
        }
    }
    Err("others write the keys all the time: try again".to_owned())
}

async fn list(wanted: &List, table: &Table, clock: &Clock) -> Result<(), String> {
    let (mut keys, mut unreadable) = (Vec::new(), Vec::new());
    for row in table.keys().await.map_err(|error| error.to_string())? {
        match row {
            Ok(key) => keys.push(key),
            // It may be anything, and turn the line around.
            Err(error) => unreadable.push(error.to_string().escape_debug().to_string()),
        }
    }
    keys.retain(|key| wanted.tenant.as_ref().is_none_or(|tenant| key.tenant_id == *tenant));
    let now = clock.now();
    if wanted.json {
        println!("{}", keys.iter().map(|key| shown(key, now)).collect::<Value>());
    } else {
        for key in &keys {
            println!("{}", line(key, now));
        }
        if keys.is_empty() && unreadable.is_empty() {
            println!("none");
        }
    }
    // Whose it is cannot be told either, so it is said whichever tenant was asked for.
    if unreadable.is_empty() { Ok(()) } else { Err(unreadable.join("\n")) }
}

async fn revoke(wanted: &Revoke, table: &Table, clock: &Clock) -> Result<(), String> {
    for attempt in 0..TRIES {
        clock.others_first(attempt).await;
        let found = table.key_called(&wanted.key_id).await.map_err(|error| error.to_string())?;
        let key = found.ok_or_else(|| format!("there is no key `{}`", wanted.key_id))?;
        let now = clock.now();
        let revoked = key.clone().revoked(now);
        let written = if key == revoked {
            Ok(KeyWritten::Yes)
        } else {
            table.put_key(&revoked, now).await.map_err(|error| error.to_string())
        };
        match written? {
            KeyWritten::Yes if wanted.json => println!("{}", shown(&revoked, now)),
            KeyWritten::Yes => println!("{}", line(&revoked, now)),
            KeyWritten::Conflict | KeyWritten::Older => continue,
            KeyWritten::Clash => {
                return Err(format!("the rows of `{}` are not of one key", key.key_id));
            }
        }
        // An instance keeps a key that it has read for 21 s, and a request takes 8 s at most.
        eprintln!("In 30 s nothing happens by it any more.");
        return Ok(());
    }
    Err("others write the key all the time: try again".to_owned())
}

/// Shows a new key.
fn tell(key: &Key, secret: &Secret, json: bool, now: Time) {
    if json {
        let mut all = shown(key, now);
        all["secret"] = json!(secret.expose());
        println!("{all}");
    } else {
        println!("{}", line(key, now));
        println!("{}", secret.expose());
        eprintln!("This is the only time that the secret is shown.");
    }
}

/// What becomes of it if it is used now.
fn state(key: &Key, now: Time) -> &'static str {
    match key.revoked_at {
        Some(_) => "revoked",
        None if key.is_good(now) => "good",
        None => "expired",
    }
}

fn shown(key: &Key, now: Time) -> Value {
    json!({
        "key_id": key.key_id,
        "tenant_id": key.tenant_id,
        "permission": key.permission,
        "deployments": key.deployments,
        "allow": key.allow,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "state": state(key, now),
    })
}

fn line(key: &Key, now: Time) -> String {
    let joined = |all: Option<Vec<String>>, none: &str| {
        all.map_or_else(|| none.to_owned(), |all| all.join(","))
    };
    let texts = |all: &[DeploymentId]| all.iter().map(ToString::to_string).collect();
    let networks = |all: &[Network]| all.iter().map(ToString::to_string).collect();
    let since = key.revoked_at.map(|at| format!(" since {at}")).unwrap_or_default();
    format!(
        "{}  {}{since}  tenant {}  {}  deployments {}  from {}  until {}",
        key.key_id,
        state(key, now),
        // It came over the bus, and may turn the line around.
        key.tenant_id.as_str().escape_debug(),
        key.permission.as_str(),
        joined(key.deployments.as_deref().map(texts), "all"),
        joined(key.allow.as_deref().map(networks), "anywhere"),
        key.expires_at,
    )
}
