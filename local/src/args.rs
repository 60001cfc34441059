//! The command line. Every flag is part of the interface that people script
//! against: add, never rename.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The whole backups service on one machine: the API, the functions behind it,
/// and a simulated AWS with EC2, EBS, `DynamoDB` and `EventBridge`.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "local", version)]
pub struct Options {
    /// Where state lives: the table, the simulated AWS, demo.json
    #[arg(long, value_name = "DIR", default_value = ".local")]
    pub data: PathBuf,

    /// Where the API answers
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    pub gateway: SocketAddr,

    /// Where the simulated AWS and the /_local calls answer
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4566")]
    pub aws: SocketAddr,

    /// Simulated AWS work goes this many times as fast as on AWS; 1 is life-like
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = speed)]
    pub speed: f64,

    /// Every choice of the simulated AWS comes from it [default: random, printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// When the clock of a new data folder starts, if not now: 2030-03-30T22:00:00Z
    #[arg(long, value_name = "TIME")]
    pub start: Option<jiff::Timestamp>,

    /// How often the scheduler runs
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub tick: u64,

    /// A stack parameter of template.yaml; as often as needed
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,

    /// How many deployments the demo's tenant has; those after the first have one node
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub deployments: u32,

    /// An empty stack: no deployment, no keys
    #[arg(long)]
    pub no_demo: bool,

    /// error, warn, info, debug (DynamoDB calls and reads of EC2 too) or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: tracing::Level,

    /// Log as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.001..=1_000_000.0).contains(&speed) => Ok(speed),
        _ => Err("expected a number from 0.001 to 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let options = Options::try_parse_from(["local"]).expect("no flag is required");
        assert_eq!(options.data, PathBuf::from(".local"));
        assert_eq!(options.gateway.to_string(), "127.0.0.1:3000");
        assert_eq!(options.aws.to_string(), "127.0.0.1:4566");
        assert!((options.speed - 10.0).abs() < f64::EPSILON);
        assert_eq!((options.seed, options.start, options.tick), (None, None, 5));
        assert_eq!(options.deployments, 1);
        assert_eq!(
            (options.no_demo, options.json, options.log),
            (false, false, tracing::Level::INFO)
        );
    }

    #[test]
    fn parameters_are_name_and_value() {
        let options = Options::try_parse_from(["local", "--set", "A=1", "--set", "B=x=y"])
            .expect("two parameters");
        assert_eq!(
            options.parameters,
            [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x=y".to_owned())]
        );
        assert!(Options::try_parse_from(["local", "--set", "A"]).is_err());
        for bad in ["0", "-1", "fast", "NaN"] {
            assert!(Options::try_parse_from(["local", "--speed", bad]).is_err(), "{bad}");
        }
    }
}
