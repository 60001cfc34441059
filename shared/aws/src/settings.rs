//! The function's environment, as template.yaml sets it.

use std::fmt;

use backups_core::brake::Hold;
use backups_core::limits::Limits;
use backups_core::time::Seconds;

/// What every function reads from its environment at init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `TABLE_NAME`
    pub table_name: String,
    /// `EVENT_BUS_NAME`
    pub bus_name: String,
    /// `STACK_NAME`, tagged on every snapshot.
    pub stack_name: String,
    /// `MANAGED_TAG_KEY` and `MANAGED_TAG_VALUE`: the platform's own tag, on everything
    /// that it manages.
    pub managed_tag: (String, String),
    /// Limits and deadlines, one variable each.
    pub limits: Limits,
    /// `DUE_SHARDS`: how many partitions the `due` index is spread over.
    pub due_shards: u32,
    /// `REQUESTS_PER_MINUTE`: how many requests a key may make in a minute.
    pub requests_per_minute: u64,
    /// `CORS_ORIGINS`: the origins, such as `https://console.example.com`, whose pages may
    /// read the API's replies. None: only its own pages may.
    pub cors_origins: Vec<String>,
}

/// A variable of the environment that is missing or not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingVariable {
    /// Its name.
    pub name: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for MissingVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "environment variable {} {}", self.name, self.problem)
    }
}

impl std::error::Error for MissingVariable {}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// The first variable that is missing or wrong: a function without its
    /// settings must fail at init, not at the first backup.
    pub fn from_env() -> Result<Self, MissingVariable> {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// Reads an environment that is not the process's.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, MissingVariable> {
        let text = |name: &'static str| {
            lookup(name)
                .filter(|value| !value.is_empty())
                .ok_or(MissingVariable { name, problem: "is missing".to_owned() })
        };
        let number = |name: &'static str, least: u32| {
            let value = text(name)?;
            let parsed: Option<u32> = value.parse().ok().filter(|number| *number >= least);
            let problem = format!("is `{value}`, not a number from {least}");
            parsed.ok_or(MissingVariable { name, problem })
        };
        Ok(Self {
            table_name: text("TABLE_NAME")?,
            bus_name: text("EVENT_BUS_NAME")?,
            stack_name: text("STACK_NAME")?,
            managed_tag: (text("MANAGED_TAG_KEY")?, text("MANAGED_TAG_VALUE")?),
            limits: Limits {
                pro_backups: number("PRO_BACKUP_LIMIT", 0)?.into(),
                enterprise_backups: number("ENTERPRISE_BACKUP_LIMIT", 0)?.into(),
                pending: Seconds::minutes(number("PENDING_DEADLINE_MINUTES", 1)?.into()),
                pending_total: Seconds::hours(number("PENDING_TOTAL_HOURS", 1)?.into()),
                in_progress: Seconds::hours(number("IN_PROGRESS_DEADLINE_HOURS", 1)?.into()),
                preparing: Seconds::minutes(number("PREPARING_DEADLINE_MINUTES", 1)?.into()),
                stopping: Seconds::minutes(number("STOPPING_DEADLINE_MINUTES", 1)?.into()),
                swapping: Seconds::minutes(number("SWAPPING_DEADLINE_MINUTES", 1)?.into()),
                starting: Seconds::minutes(number("STARTING_DEADLINE_MINUTES", 1)?.into()),
                old_volumes: Seconds::hours(number("OLD_VOLUME_HOURS", 1)?.into()),
                schedule_apart: Seconds::minutes(number("MIN_SCHEDULE_MINUTES", 1)?.into()),
                hold: Hold::default(),
            },
            due_shards: number("DUE_SHARDS", 1)?,
            requests_per_minute: number("REQUESTS_PER_MINUTE", 1)?.into(),
            cors_origins: origins("CORS_ORIGINS", lookup("CORS_ORIGINS"))?,
        })
    }
}

/// A list of origins with commas between them. It may be empty, but it must be there.
fn origins(name: &'static str, value: Option<String>) -> Result<Vec<String>, MissingVariable> {
    let value = value.ok_or(MissingVariable { name, problem: "is missing".to_owned() })?;
    let all: Vec<String> = value
        .split(',')
        .map(|origin| origin.trim().to_owned())
        .filter(|origin| !origin.is_empty())
        .collect();
    match all.iter().find(|origin| !is_origin(origin)) {
        Some(other) => Err(MissingVariable {
            name,
            problem: format!("has `{other}`, not an origin such as `https://console.example.com`"),
        }),
        None => Ok(all),
    }
}

/// As browsers write it: scheme, host, and a port if it is not the scheme's own. No path, and
/// no `*`: whoever may read is named.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':');
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        Some(
            match name {
                "TABLE_NAME" => "t",
                "EVENT_BUS_NAME" => "b",
                "STACK_NAME" => "s",
                "MANAGED_TAG_KEY" => "k",
                "MANAGED_TAG_VALUE" => "v",
                "PRO_BACKUP_LIMIT" => "5",
                "ENTERPRISE_BACKUP_LIMIT" => "10",
                "PENDING_DEADLINE_MINUTES" => "15",
                "PENDING_TOTAL_HOURS" => "4",
                "IN_PROGRESS_DEADLINE_HOURS" | "OLD_VOLUME_HOURS" => "24",
                "PREPARING_DEADLINE_MINUTES" | "MIN_SCHEDULE_MINUTES" => "60",
                "STOPPING_DEADLINE_MINUTES" | "SWAPPING_DEADLINE_MINUTES" => "20",
                "STARTING_DEADLINE_MINUTES" => "30",
                "DUE_SHARDS" => "8",
                "REQUESTS_PER_MINUTE" => "600",
                "CORS_ORIGINS" => "",
                _ => return None,
            }
            .to_owned(),
        )
    }

    #[test]
    fn settings_are_read_from_the_environment() {
        let settings = Settings::from_lookup(&environment).expect("settings");
        assert_eq!(settings.limits, Limits::default());
        assert_eq!((settings.due_shards, settings.requests_per_minute), (8, 600));
    }

    #[test]
    fn a_missing_or_wrong_variable_is_named() {
        let all = ["TABLE_NAME", "STACK_NAME", "DUE_SHARDS", "PENDING_TOTAL_HOURS", "CORS_ORIGINS"];
        for name in all {
            let missing =
                Settings::from_lookup(&|asked| environment(asked).filter(|_| asked != name));
            assert_eq!(missing.expect_err("missing").name, name);
        }
        let wrong = |asked: &str| match asked {
            "DUE_SHARDS" => Some("0".to_owned()),
            _ => environment(asked),
        };
        assert_eq!(Settings::from_lookup(&wrong).expect_err("wrong").name, "DUE_SHARDS");
    }

    #[test]
    fn origins_are_named_one_by_one() {
        let read = |value: &str| origins("CORS_ORIGINS", Some(value.to_owned()));
        assert_eq!(read(""), Ok(vec![]));
        let two = vec!["https://a.example".to_owned(), "http://localhost:5173".to_owned()];
        assert_eq!(read("https://a.example, http://localhost:5173,"), Ok(two));
        for bad in ["*", "https://*", "null", "a.example", "https://", "https://a/", "https://A.b"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
