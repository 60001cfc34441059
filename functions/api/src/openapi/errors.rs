//! The replies to what was not done: one response a status, and in it each code that the
//! route may answer with, by an example.

use std::collections::BTreeMap;

use backups_aws::table::keys::Permission;
use backups_core::backup::Status;
use backups_core::error::Code;
use backups_core::id::{BackupId, NodeId, Nonce, RestoreId};
use backups_core::{body, refusals};
use serde_json::{Value, json};
use utoipa::ToSchema as _;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder, Schema};

use crate::problem::{Problem, Shape, status};
use crate::{access, auth, input, once};

/// What every route of a deployment may answer: with the key, the rate, the ids in the path,
/// and what failed beneath.
pub(super) const EVERYWHERE: [Code; 7] = [
    Code::InvalidRequest,
    Code::Unauthorized,
    Code::IpNotAllowed,
    Code::DeploymentNotFound,
    Code::RateLimited,
    Code::Internal,
    Code::Unavailable,
];

/// Codes that are alone with their status wherever they stand: a component each.
const ALONE: [Code; 6] = [
    Code::Unauthorized,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::RateLimited,
    Code::Internal,
    Code::Unavailable,
];

/// The responses of a route that may refuse with these codes.
pub(super) fn responses(all: &[Code]) -> Vec<(String, RefOr<Response>)> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL {
        if all.contains(code) {
            by_status.entry(code.status()).or_default().push(*code);
        }
    }
    let response = |codes: Vec<Code>| match codes.as_slice() {
        [one] if ALONE.contains(one) => Ref::from_response_name(component(*one)).into(),
        several => RefOr::T(refusal(several)),
    };
    by_status.into_iter().map(|(status, codes)| (status.to_string(), response(codes))).collect()
}

/// The responses that routes share.
pub(super) fn shared() -> impl Iterator<Item = (String, Response)> {
    ALONE.into_iter().map(|code| (component(code), refusal(&[code])))
}

/// An example of each code.
pub(super) fn examples() -> impl Iterator<Item = (String, Example)> {
    Code::ALL.iter().map(|code| {
        let example = ExampleBuilder::new().summary(code.about()).value(Some(example(*code)));
        (code.as_str().to_owned(), example.build())
    })
}

/// What the schema of a problem owes to the list of codes and to its own optional fields.
pub(super) fn complete(problem: &mut Object) {
    problem.required.retain(|field| !matches!(field.as_str(), "field" | "field_issues"));
    if let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code") {
        code.enum_values = Some(Code::ALL.iter().map(|code| json!(code.as_str())).collect());
    }
}

/// A status's name, as components have it.
fn component(code: Code) -> String {
    status(code).canonical_reason().unwrap_or("Error").replace(' ', "")
}

/// The response of a status that has these codes.
fn refusal(codes: &[Code]) -> Response {
    let lines = codes.iter().map(|code| format!("- `{code}`: {}", code.about()));
    let about: Vec<String> = lines.collect();
    let examples = codes.iter().map(|code| {
        let reference = format!("#/components/examples/{code}");
        (code.as_str(), RefOr::<Example>::Ref(Ref::new(reference)))
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Shape::name())))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(about.join("\n"))
        .content("application/problem+json", content)
        .header_ref("ld-request", Ref::new("#/components/headers/LdRequest"));
    if codes.iter().any(|code| matches!(code, Code::RateLimited | Code::Unavailable)) {
        response = response.header("retry-after", retry_after());
    }
    if codes.contains(&Code::Unauthorized) {
        let scheme = ObjectBuilder::new().schema_type(Type::String);
        response = response.header("www-authenticate", Header::new(scheme));
    }
    response.build()
}

fn retry_after() -> Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    HeaderBuilder::new()
        .schema(Some(seconds))
        .description(Some("Seconds after which it is worth trying again."))
        .build()
}

/// A problem as it is sent.
fn example(code: Code) -> Value {
    let instance = Nonce::from("5f0c1f6a0d4e4b7a9d3b2c1e8f7a6b5c");
    serde_json::to_value(problem(code).shape(&instance)).unwrap_or_default()
}

/// One of each code, as somebody may meet it: in the words that are sent.
fn problem(code: Code) -> Problem {
    let (backup, restore) = (BackupId(7), RestoreId(2));
    let refusal = match code {
        Code::InvalidRequest => match body::create(br#"{"name": "n", "expires_in_days": 0}"#) {
            Err(refusal) => refusal,
            Ok(_) => return Problem::internal(),
        },
        Code::MethodNotAllowed => return Problem::method_not_allowed("GET, POST"),
        Code::RouteNotFound => return Problem::no_route(),
        Code::RateLimited => return Problem::rate_limited(30),
        Code::Internal => return Problem::internal(),
        Code::Unavailable => return Problem::unavailable(),
        Code::IdempotencyError => return once::other_request(),
        Code::IdempotentRequestInProgress => return once::in_progress(),
        Code::BodyTooLarge => return input::too_large(),
        Code::UnsupportedMediaType => return input::not_json(),
        Code::Unauthorized => auth::unauthorized(),
        Code::IpNotAllowed => auth::elsewhere(),
        Code::InsufficientPermissions => access::not_permitted(Permission::Manage),
        Code::StorageNotSupported => refusals::other_storage("local_ssd"),
        Code::PlanNotSupported => refusals::no_plan(),
        Code::DeploymentNotFound => refusals::no_deployment(),
        Code::BackupNotFound => refusals::no_backup(),
        Code::RestoreNotFound => refusals::no_restore(),
        Code::ScheduleNotFound => refusals::no_schedule(),
        Code::NodeNotFound => refusals::no_node(NodeId(9)),
        Code::DeploymentNotReady => refusals::not_ready("upgrading"),
        Code::BackupInProgress => refusals::backup_runs(backup),
        Code::RestoreInProgress => refusals::restore_runs(restore),
        Code::BackupNotRestorable => refusals::not_completed(backup, Status::Failed),
        Code::BackupLimitReached => refusals::full(5, 5),
        Code::BackupNotDeletable => refusals::not_deletable(backup, Status::InProgress),
        Code::BackupDeleting => refusals::is_deleting(backup),
    };
    refusal.into()
}
