//! One call of an AWS service, as a function sent it.

use std::collections::BTreeMap;
use std::fmt;

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde_json::Value;

use super::dice;

/// Asked twice in a restore's life, at the plan and before the freeze: at the rate of the
/// others their faults are hardly met.
const RARE: [&str; 2] = ["DescribeInstanceAttribute", "DescribeInstanceTypes"];

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Ec2,
    Events,
    DynamoDb,
}

impl Service {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Events => "events",
            Self::DynamoDb => "dynamodb",
        }
    }
}

/// A call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Counted over the run.
    pub(crate) number: u64,
    pub(crate) service: Service,
    pub(crate) operation: String,
    /// The same of each attempt of one operation.
    pub(crate) invocation: String,
    pub(crate) body: Vec<u8>,
    /// The body of `DynamoDB` and `EventBridge`.
    pub(crate) json: Value,
    /// The body of EC2.
    pub(crate) form: BTreeMap<String, String>,
}

impl Call {
    /// Reads a request of the SDK.
    pub(crate) fn read(request: &HttpRequest) -> Self {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default().to_vec();
        let (service, operation) = match target.rsplit_once('.') {
            Some(("AWSEvents", operation)) => (Service::Events, operation.to_owned()),
            Some((_, operation)) => (Service::DynamoDb, operation.to_owned()),
            None => (Service::Ec2, String::new()),
        };
        let invocation = request.headers().get("amz-sdk-invocation-id").unwrap_or_default();
        let mut call = Self {
            number: 0,
            service,
            operation,
            invocation: invocation.to_owned(),
            body,
            json: Value::Null,
            form: BTreeMap::new(),
        };
        if service == Service::Ec2 {
            let fields = form_urlencoded::parse(&call.body);
            call.form =
                fields.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            call.operation = call.field("Action").to_owned();
        } else {
            call.json = serde_json::from_slice(&call.body).unwrap_or_default();
        }
        call
    }

    /// A field of EC2's form; empty if there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.form.get(name).map_or("", String::as_str)
    }

    /// What faults care about.
    pub(crate) fn kind(&self) -> dice::Kind {
        let operation = self.operation.as_str();
        match self.service {
            Service::Ec2 if self.ec2_write() => dice::Kind::Ec2Write,
            Service::Ec2 if RARE.contains(&operation) => dice::Kind::Rare,
            Service::DynamoDb if operation == "Scan" => dice::Kind::Daily,
            Service::Ec2 if self.form.contains_key("MaxResults") => dice::Kind::Paged,
            Service::DynamoDb if operation == "TransactWriteItems" => dice::Kind::Transaction,
            Service::DynamoDb if super::table::writes(operation) => dice::Kind::DynamoWrite,
            Service::DynamoDb if operation == "Query" => dice::Kind::Paged,
            Service::Events => dice::Kind::PutEvents,
            Service::Ec2 | Service::DynamoDb => dice::Kind::Other,
        }
    }

    /// Whether it changes EC2.
    pub(crate) fn ec2_write(&self) -> bool {
        self.service == Service::Ec2 && !self.operation.starts_with("Describe")
    }

    /// The snapshots that a `DescribeSnapshots` asks for by filter; none if it asks
    /// for others, or by other means.
    pub(crate) fn named(&self) -> impl Iterator<Item = &str> {
        let by_id = self.field("Filter.1.Name") == "snapshot-id";
        // EC2's own limit of a filter's values.
        (1..=if by_id { 200 } else { 0 })
            .map(|number| self.field(&format!("Filter.1.Value.{number}")))
            .take_while(|id| !id.is_empty())
    }

    /// `DynamoDB` gives pages of 1 MB: so many rows at most, if they are large.
    pub(crate) fn shorten_page(&mut self) {
        if self.service == Service::DynamoDb {
            self.json["Limit"] = Value::from(1);
            self.body = self.json.to_string().into_bytes();
        }
    }

    /// As the trace has it: the same whatever the order of a map.
    pub(crate) fn told(&self) -> String {
        let body = match self.service {
            Service::Ec2 => String::from_utf8_lossy(&self.body).into_owned(),
            Service::Events | Service::DynamoDb => self.json.to_string(),
        };
        format!("{self} {body}")
    }
}

/// The snapshots in an answer of EC2.
pub(crate) fn snapshot_ids(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let parts = text.split("<snapshotId>").skip(1);
    parts.filter_map(|part| part.split_once("</snapshotId>")).map(|(id, _)| id.to_owned()).collect()
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service.name(), self.operation)
    }
}
