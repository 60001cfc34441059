//! template.yaml as the local mode needs it: what runs here is what deploys.
//!
//! Functions with their time-outs, concurrency and environment; the gateway's
//! routes; the event rules; the table. The file is compiled in, so that the
//! binary works from any directory.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::route::{Route, Routes};
use crate::stack::Stack;
use crate::yaml;

/// The stack's template.
const TEXT: &str = include_str!("../../template.yaml");

/// A function of the stack that this process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The HTTP endpoints.
    Api,
    /// Reacts to events; the only one that may touch EC2.
    Worker,
    /// The tick.
    Scheduler,
}

impl Name {
    /// As the binary, the crate and the log name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }

    /// The function of a binary.
    pub fn from_binary(binary: &str) -> Option<Self> {
        [Self::Api, Self::Worker, Self::Scheduler].into_iter().find(|name| name.as_str() == binary)
    }
}

/// A function as the template declares it.
#[derive(Debug, Clone)]
pub struct Function {
    /// Which one.
    pub name: Name,
    /// After this it is killed.
    pub timeout: Duration,
    /// How many run at once; None: as many as there are events.
    pub concurrency: Option<usize>,
    /// Its environment, resolved.
    pub environment: BTreeMap<String, String>,
    /// How often Lambda runs a failed asynchronous invocation again.
    pub retries: u32,
    /// How old, in seconds, an event may be when it is run again.
    pub max_age: u64,
}

/// The template, resolved with the stack's parameters.
#[derive(Debug, Clone)]
pub struct Template {
    /// The functions, by name.
    pub functions: BTreeMap<Name, Function>,
    /// The gateway's routes.
    pub(crate) routes: Routes,
    /// The event rules, for the simulated `EventBridge`.
    pub rules: Vec<cloud::Rule>,
    /// The stack's bus.
    pub bus: String,
    /// The table's name.
    pub table: String,
    /// The body of `CreateTable`.
    pub create_table: Value,
    /// The body of `UpdateTimeToLive`, if rows expire.
    pub time_to_live: Option<Value>,
    /// Every stack parameter, as set.
    pub parameters: BTreeMap<String, String>,
}

impl Template {
    /// The project's template with these parameters set, and with the one that
    /// the local mode lowers: schedules down to a minute apart.
    ///
    /// # Errors
    /// A parameter that the template does not have or does not allow.
    pub fn load(set: &[(String, String)]) -> Result<Self, String> {
        let template = yaml::parse(TEXT).map_err(|why| format!("template.yaml: {why}"))?;
        let mut all = Vec::new();
        if template["Parameters"]["MinScheduleMinutes"].is_object() {
            all.push(("MinScheduleMinutes".to_owned(), "1".to_owned()));
        }
        all.extend_from_slice(set);
        let stack = Stack::new(&template, &all)?;
        Self::read(&template, &stack).map_err(|why| format!("template.yaml: {why}"))
    }

    fn read(template: &Value, stack: &Stack) -> Result<Self, String> {
        let globals = &template["Globals"]["Function"];
        let (table_id, table) = one(stack, "AWS::DynamoDB::Table")?;
        let (bus_id, _) = one(stack, "AWS::Events::EventBus")?;
        let table_name = stack.text(&json!({"Ref": table_id}))?;
        let bus = stack.text(&json!({"Ref": bus_id}))?;

        let mut functions = BTreeMap::new();
        let mut routes = Vec::new();
        let mut rules = Vec::new();
        for (id, properties) in stack.resources_of("AWS::Serverless::Function") {
            let function =
                function(stack, id, properties, globals).map_err(|why| format!("{id}: {why}"))?;
            let events = properties["Events"].as_object().cloned().unwrap_or_default();
            for (event_id, event) in &events {
                let at = |why: String| format!("{id}.Events.{event_id}: {why}");
                match event["Type"].as_str() {
                    Some("HttpApi") => {
                        routes.push(route(function.name, &event["Properties"]).map_err(at)?);
                    }
                    Some("EventBridgeRule") => {
                        let name = format!("{id}{event_id}");
                        rules.push(rule(stack, &function, name, &event["Properties"]).map_err(at)?);
                    }
                    // The tick: --tick says when.
                    Some("Schedule" | "ScheduleV2") if function.name == Name::Scheduler => {}
                    other => {
                        return Err(at(format!("local does not understand the type {other:?}")));
                    }
                }
            }
            functions.insert(function.name, function);
        }
        for (id, properties) in stack.resources_of("AWS::Events::Rule") {
            let rule = queued(stack, id, properties).map_err(|why| format!("{id}: {why}"))?;
            rules.push(rule);
        }
        Ok(Self {
            functions,
            routes: Routes::new(routes),
            rules,
            bus,
            create_table: create_table(stack, &table_name, table)?,
            time_to_live: time_to_live(stack, &table_name, table)?,
            table: table_name,
            parameters: stack.parameters().clone(),
        })
    }

    /// The gateway's routes, as (method, path), without the catch-all.
    pub fn routes(&self) -> Vec<(String, String)> {
        let pair = |key: &String| {
            key.split_once(' ').map(|(method, path)| (method.to_owned(), path.to_owned()))
        };
        self.routes.keys().filter_map(pair).collect()
    }

    /// A function of the template.
    ///
    /// # Errors
    /// The template does not declare it.
    pub fn function(&self, name: Name) -> Result<&Function, String> {
        self.functions
            .get(&name)
            .ok_or_else(|| format!("template.yaml declares no function {}", name.as_str()))
    }
}

/// The one resource of a type.
fn one<'a>(stack: &'a Stack, kind: &'a str) -> Result<(&'a str, &'a Value), String> {
    let mut found = stack.resources_of(kind);
    match (found.next(), found.next()) {
        (Some(resource), None) => Ok(resource),
        _ => Err(format!("expected one resource of type {kind}")),
    }
}

fn function(
    stack: &Stack,
    id: &str,
    properties: &Value,
    globals: &Value,
) -> Result<Function, String> {
    let name = binary(stack, id)?;
    // SAM merges Globals into each function, the function's own winning.
    let property = |name: &str| match &properties[name] {
        Value::Null => &globals[name],
        own => own,
    };
    let number = |value: &Value| -> Result<Option<u64>, String> {
        if value.is_null() {
            return Ok(None);
        }
        stack.text(value)?.parse().map(Some).map_err(|_| format!("{value} is not a whole number"))
    };
    let mut environment = BTreeMap::new();
    for variables in [&globals["Environment"]["Variables"], &properties["Environment"]["Variables"]]
    {
        for (key, value) in variables.as_object().into_iter().flatten() {
            environment
                .insert(key.clone(), stack.text(value).map_err(|why| format!("{key}: {why}"))?);
        }
    }
    let invoke = property("EventInvokeConfig");
    Ok(Function {
        name,
        // Lambda's own default is 3 s.
        timeout: Duration::from_secs(number(property("Timeout"))?.unwrap_or(3)),
        concurrency: number(property("ReservedConcurrentExecutions"))?
            .and_then(|n| usize::try_from(n).ok()),
        environment,
        // Lambda's defaults for asynchronous invocations: two more tries within six hours.
        retries: number(&invoke["MaximumRetryAttempts"])?
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(2),
        max_age: number(&invoke["MaximumEventAgeInSeconds"])?.unwrap_or(21_600),
    })
}

/// Which binary a function is.
fn binary(stack: &Stack, id: &str) -> Result<Name, String> {
    let resource = stack.resource(id).unwrap_or(&Value::Null);
    let binary = resource["Metadata"]["BuildProperties"]["Binary"].as_str().unwrap_or_default();
    Name::from_binary(binary)
        .ok_or_else(|| format!("local runs no binary {binary:?} (Metadata.BuildProperties.Binary)"))
}

/// A route. Without path and method it is the catch-all, as SAM has it.
fn route(function: Name, properties: &Value) -> Result<Route, String> {
    match (properties["Method"].as_str(), properties["Path"].as_str()) {
        (None, None) => Ok(Route::fallback(function)),
        (Some(method), Some(path)) => Route::new(method, path, function),
        _ => Err("Path and Method go together".to_owned()),
    }
}

fn rule(
    stack: &Stack,
    function: &Function,
    name: String,
    properties: &Value,
) -> Result<cloud::Rule, String> {
    let bus = match &properties["EventBusName"] {
        Value::Null => "default".to_owned(),
        bus => stack.text(bus)?,
    };
    Ok(cloud::Rule {
        name,
        bus,
        pattern: stack.resolve(&properties["Pattern"])?,
        // The rule's own RetryPolicy ends when Lambda has taken the event, which
        // it always does here; what a failed function gets is Lambda's.
        targets: vec![cloud::Target::Function {
            function: function.name.as_str().to_owned(),
            retries: function.retries,
            max_age: function.max_age,
        }],
    })
}

/// A rule whose targets are queues.
fn queued(stack: &Stack, id: &str, properties: &Value) -> Result<cloud::Rule, String> {
    let targets = properties["Targets"].as_array().into_iter().flatten();
    Ok(cloud::Rule {
        name: id.to_owned(),
        bus: stack.text(&properties["EventBusName"])?,
        pattern: stack.resolve(&properties["EventPattern"])?,
        targets: targets.map(|target| queue(stack, target)).collect::<Result<_, _>>()?,
    })
}

/// A queue that a rule fills: one that a function is invoked from, or that of the dead letters.
fn queue(stack: &Stack, target: &Value) -> Result<cloud::Target, String> {
    let arn = stack.text(&target["Arn"])?;
    let arn_of = |id: &str| stack.text(&json!({"Fn::GetAtt": [id, "Arn"]}));
    let mut queues = stack.resources_of("AWS::SQS::Queue");
    let found = queues.find(|(id, _)| arn_of(id).as_ref() == Ok(&arn));
    let (_, queue) = found.ok_or_else(|| format!("{arn} is no queue of this stack"))?;
    let Some(function) = reader(stack, &arn)? else {
        if target["InputPath"] != "$.detail" {
            return Err("local hands the dead letters `InputPath: $.detail` alone".to_owned());
        }
        return Ok(cloud::Target::DeadLetters);
    };
    let whole = |value: &Value, name: &str| {
        let whole = stack.text(value)?.parse::<u32>();
        whole.map_err(|_| format!("{name} of {arn} is not a whole number"))
    };
    Ok(cloud::Target::Queue {
        function: function.as_str().to_owned(),
        hidden: whole(&queue["VisibilityTimeout"], "VisibilityTimeout")?.into(),
        receives: whole(&queue["RedrivePolicy"]["maxReceiveCount"], "maxReceiveCount")?,
        arn,
    })
}

/// The function that is invoked from a queue, if one is.
fn reader(stack: &Stack, arn: &str) -> Result<Option<Name>, String> {
    for (id, mapping) in stack.resources_of("AWS::Lambda::EventSourceMapping") {
        if stack.text(&mapping["EventSourceArn"])? != arn {
            continue;
        }
        let reports = json!(["ReportBatchItemFailures"]);
        if mapping["BatchSize"] != 1 || mapping["FunctionResponseTypes"] != reports {
            return Err(format!("local reads {id} with BatchSize 1 and {reports} alone"));
        }
        let name = stack.text(&mapping["FunctionName"])?;
        let mut functions = stack.resources_of("AWS::Serverless::Function");
        let same = |id: &str| stack.text(&json!({"Ref": id})).is_ok_and(|one| one == name);
        let function = functions.find(|(id, _)| same(id)).map(|(id, _)| id);
        let function = function.ok_or_else(|| format!("{id}: there is no function {name}"))?;
        return binary(stack, function).map(Some);
    }
    Ok(None)
}

/// `CloudFormation` and the API name a table's properties alike, but for these.
fn create_table(stack: &Stack, name: &str, properties: &Value) -> Result<Value, String> {
    let mut body = Map::from_iter([("TableName".to_owned(), Value::from(name))]);
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            body.insert(key.to_owned(), value);
        }
    };
    for key in [
        "AttributeDefinitions",
        "KeySchema",
        "BillingMode",
        "GlobalSecondaryIndexes",
        "LocalSecondaryIndexes",
        "DeletionProtectionEnabled",
    ] {
        put(key, stack.resolve(&properties[key])?);
    }
    Ok(Value::Object(body))
}

fn time_to_live(stack: &Stack, name: &str, properties: &Value) -> Result<Option<Value>, String> {
    match stack.resolve(&properties["TimeToLiveSpecification"])? {
        Value::Null => Ok(None),
        specification => {
            Ok(Some(json!({"TableName": name, "TimeToLiveSpecification": specification})))
        }
    }
}

#[cfg(test)]
mod tests {
    use backups_aws::settings::Settings;
    use backups_core::limits::{LEASE, Limits};
    use backups_core::time::Seconds;

    use super::*;

    #[test]
    fn cargo_lambda_watch_has_the_templates_routes() {
        let template = Template::load(&[]).expect("template.yaml");
        let manifest = include_str!("../../Cargo.toml");
        let (_, router) = manifest.split_once("lambda.watch.router]").expect("the router");
        for (method, path) in template.routes() {
            let entry = router.split_once(&format!("\"{path}\" = [")).expect(&path).1;
            let entry = entry.split_once(']').expect("an end").0;
            let expected = format!("method = \"{method}\"");
            assert!(entry.contains(&expected), "{method} {path} is not in Cargo.toml's router");
        }
    }

    #[test]
    fn the_projects_template_is_understood() {
        let template = Template::load(&[]).expect("template.yaml");
        for name in [Name::Api, Name::Worker, Name::Scheduler] {
            let function = template.function(name).expect("declared");
            assert!(function.timeout >= Duration::from_secs(3), "{name:?}");
            assert_eq!(function.environment.get("TABLE_NAME"), Some(&template.table));
            assert_eq!(function.environment.get("EVENT_BUS_NAME"), Some(&template.bus));
            assert_eq!(
                function.environment.get("STACK_NAME").map(String::as_str),
                Some(crate::stack::STACK)
            );
        }
        // What the code takes for granted, and the template decides.
        let environment = &template.function(Name::Worker).expect("declared").environment;
        let settings = Settings::from_lookup(&|name| environment.get(name).cloned());
        // The local mode lowers one of them.
        let lowered = Limits { schedule_apart: Seconds::minutes(1), ..Limits::default() };
        assert_eq!(settings.expect("settings").limits, lowered);
        let template_says = yaml::parse(TEXT).expect("template.yaml");
        let minutes = &template_says["Parameters"]["MinScheduleMinutes"]["Default"];
        assert_eq!(*minutes, json!(Limits::default().schedule_apart.0 / 60));
        let timeout = |name| template.function(name).expect("declared").timeout;
        assert_eq!(timeout(Name::Worker), worker::TIMEOUT);
        assert_eq!(timeout(Name::Scheduler), scheduler::TIMEOUT);
        let lease = u64::try_from(LEASE.0).expect("positive");
        assert!(worker::TIMEOUT.as_secs() < lease, "a lease must outlive its worker");
        assert_eq!(template.create_table["KeySchema"][0]["AttributeName"], "pk");
        assert!(template.time_to_live.is_some());
        assert!(!template.rules.is_empty());
        let config = cloud::Config {
            account: crate::stack::ACCOUNT.to_owned(),
            region: crate::stack::REGION.to_owned(),
            zones: crate::stack::ZONES.map(str::to_owned).to_vec(),
            speed: 10.0,
            stack_bus: template.bus.clone(),
            rules: template.rules,
            pace: cloud::Pace::default(),
        };
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn a_parameter_reaches_the_functions() {
        let template = Template::load(&[("ProBackupLimit".to_owned(), "3".to_owned())])
            .expect("a parameter of ours");
        let api = template.function(Name::Api).expect("declared");
        assert_eq!(api.environment.get("PRO_BACKUP_LIMIT").map(String::as_str), Some("3"));
        assert!(Template::load(&[("Nothing".to_owned(), "3".to_owned())]).is_err());
    }
}
