//! Every route: what it takes and what it answers.

use backups_aws::table::LIST;
use backups_core::body::MAX_BYTES;
use backups_core::error::Code;
use backups_core::id::{BackupId, DeploymentId, RestoreId};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Paths, PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema};

use super::{errors, examples};
use crate::{once, restores, schedules, shown};

const BACKUPS: &str = "/deployments/{deployment_id}/backups";
const BACKUP: &str = "/deployments/{deployment_id}/backups/{backup_id}";
const RESTORE: &str = "/deployments/{deployment_id}/backups/{backup_id}/restore";
const SCHEDULE: &str = "/deployments/{deployment_id}/backups/schedule";
const RESTORES: &str = "/deployments/{deployment_id}/restores";
const ONE_RESTORE: &str = "/deployments/{deployment_id}/restores/{restore_id}";
const DOCUMENT: &str = "/docs/openapi.json";

/// What a route with a body that changes something may refuse, beside what is its own.
const CHANGES: [Code; 5] = [
    Code::InsufficientPermissions,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::IdempotencyError,
    Code::IdempotentRequestInProgress,
];

/// Every route, those of one path together.
pub(super) fn paths() -> Paths {
    let mut paths = PathsBuilder::new().build();
    for (path, method, operation) in [
        (BACKUPS, HttpMethod::Get, list_backups()),
        (BACKUPS, HttpMethod::Post, create_backup()),
        (BACKUP, HttpMethod::Get, get_backup()),
        (BACKUP, HttpMethod::Patch, patch_backup()),
        (BACKUP, HttpMethod::Delete, delete_backup()),
        (RESTORE, HttpMethod::Post, create_restore()),
        (SCHEDULE, HttpMethod::Get, get_schedule()),
        (SCHEDULE, HttpMethod::Put, put_schedule()),
        (SCHEDULE, HttpMethod::Delete, delete_schedule()),
        (RESTORES, HttpMethod::Get, list_restores()),
        (ONE_RESTORE, HttpMethod::Get, get_restore()),
        (DOCUMENT, HttpMethod::Get, get_document()),
    ] {
        paths.add_path_operation(path, vec![method], operation);
    }
    paths
}

/// Headers that several replies have.
pub(super) fn headers() -> [(&'static str, Header); 3] {
    let flag = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([json!(true)]));
    [
        ("LdBackup", header(Ref::from_schema_name(BackupId::name()), "The new backup's id.")),
        ("LdRestore", header(Ref::from_schema_name(RestoreId::name()), "The new restore's id.")),
        (
            "IdempotentReplayed",
            header(flag, "The request was carried out before, and this is its answer."),
        ),
    ]
}

fn list_backups() -> Operation {
    let page = list_of::<shown::Item<'_>>()
        .examples_from_iter(examples::published(|page| json!([examples::item(page)])));
    of_deployment("Backups", "listBackups", "List Backups", "List all backups for the deployment.")
        .paged::<BackupId>("backups", page)
        .refused(&[])
}

fn create_backup() -> Operation {
    let made = answer_of_once("The backup is asked for.")
        .header_ref("ld-backup", component("LdBackup"))
        .link("GetBackup", to("getBackup", "backup_id", "$response.header.ld-backup"))
        .link("PatchBackup", to("patchBackup", "backup_id", "$response.header.ld-backup"))
        .link("DeleteBackup", to("deleteBackup", "backup_id", "$response.header.ld-backup"))
        .link("RestoreBackup", to("restoreBackup", "backup_id", "$response.header.ld-backup"));
    of_deployment(
        "Backups",
        "createBackup",
        "Create a Backup",
        "Trigger an on-demand backup. Only one backup can be in progress per deployment at a \
         time. The backup runs asynchronously and transitions through `pending` to \
         `in_progress` to `completed`.",
    )
    .changing(
        Required::True,
        of("NewBackup").examples_from_iter(examples::published(examples::new_backup)),
    )
    .response("204", made)
    .refused(&[
        &CHANGES,
        &[
            Code::StorageNotSupported,
            Code::PlanNotSupported,
            Code::NodeNotFound,
            Code::DeploymentNotReady,
            Code::BackupInProgress,
            Code::RestoreInProgress,
            Code::BackupLimitReached,
        ],
    ])
}

fn get_backup() -> Operation {
    let one = answer("The backup.")
        .content("application/json", json_of::<shown::Whole<'_>>(examples::backup_detail()));
    of_backup(
        "Backups",
        "getBackup",
        "Show a Backup",
        "One backup, with its progress, its snapshots, and why it failed or why its delete does \
         not get on.",
    )
    .response("200", one)
    .refused(&[&[Code::BackupNotFound]])
}

fn patch_backup() -> Operation {
    let about = "Change a backup's name, its remarks, or when it expires, whatever its status \
                 but `deleting`.";
    let changed = answer_of_once("The backup is changed.");
    of_backup("Backups", "patchBackup", "Change a Backup", about)
        .changing(Required::True, of("BackupChange").example(Some(examples::change())))
        .response("204", changed)
        .refused(&[&CHANGES, &[Code::BackupNotFound, Code::BackupDeleting]])
}

fn delete_backup() -> Operation {
    of_backup(
        "Backups",
        "deleteBackup",
        "Delete a Backup",
        "Delete a backup. Backups in `pending` or `in_progress` cannot be deleted - wait for \
         them to finish first. It may be asked for as often as one likes; once the backup is \
         gone, the reply is 404.",
    )
    .response("204", answer("The backup is being deleted."))
    .refused(&[&[
        Code::InsufficientPermissions,
        Code::BackupNotFound,
        Code::RestoreInProgress,
        Code::BackupNotDeletable,
    ]])
}

fn create_restore() -> Operation {
    let safety = header(
        Ref::from_schema_name(BackupId::name()),
        "The id of the safety backup, if one was asked for.",
    );
    let begun = answer_of_once("The restore is asked for.")
        .header_ref("ld-restore", component("LdRestore"))
        .header("ld-backup", safety)
        .link("GetRestore", to("getRestore", "restore_id", "$response.header.ld-restore"));
    of_backup(
        "Restores",
        "restoreBackup",
        "Restore from a Backup",
        "Restore the deployment to the state captured in the backup. The deployment is stopped \
         during the restore and restarted automatically. Only one restore can run at a time per \
         deployment.\n\n\
         **Restore replaces the current storage volumes with the backup's. Any data written \
         after the backup was created is lost. Capture a fresh backup before restoring if that \
         data matters:** `\"safety_backup\": true` does so.",
    )
    .changing(Required::False, of("NewRestore").example(Some(json!({"safety_backup": true}))))
    .response("204", begun)
    .refused(&[
        &CHANGES,
        &[
            Code::StorageNotSupported,
            Code::PlanNotSupported,
            Code::BackupNotFound,
            Code::DeploymentNotReady,
            Code::BackupInProgress,
            Code::RestoreInProgress,
            Code::BackupLimitReached,
            Code::BackupNotRestorable,
        ],
    ])
}

fn get_schedule() -> Operation {
    let schedule = answer("The schedule.")
        .content("application/json", json_of::<schedules::Shown<'_>>(examples::schedule()));
    let about = "The deployment's recurring schedule, when it runs next, and what became of its \
                 latest slot.";
    of_deployment("Schedule", "getSchedule", "Show the Schedule", about)
        .response("200", schedule)
        .refused(&[&[Code::ScheduleNotFound]])
}

fn put_schedule() -> Operation {
    let set = answer_of_once("The schedule is set.");
    let about = "Set the deployment's recurring schedule, instead of the one that it may have. \
                 At the limit of backups the oldest completed one that the schedule made gives \
                 way to the next.";
    of_deployment("Schedule", "putSchedule", "Set the Schedule", about)
        .changing(Required::True, of("NewSchedule").example(Some(examples::new_schedule())))
        .response("204", set)
        .refused(&[
            &CHANGES,
            &[Code::StorageNotSupported, Code::PlanNotSupported, Code::NodeNotFound],
        ])
}

fn delete_schedule() -> Operation {
    let about = "Delete the schedule. The backups that it made stay.";
    of_deployment("Schedule", "deleteSchedule", "Delete the Schedule", about)
        .response("204", answer("There is no schedule any more."))
        .refused(&[&[Code::InsufficientPermissions, Code::ScheduleNotFound]])
}

fn list_restores() -> Operation {
    let page = list_of::<restores::Item<'_>>().example(Some(json!([examples::restore()])));
    let about = "List all restores of the deployment.";
    of_deployment("Restores", "listRestores", "List Restores", about)
        .paged::<RestoreId>("restores", page)
        .refused(&[])
}

fn get_restore() -> Operation {
    let one = answer("The restore.")
        .content("application/json", json_of::<restores::Item<'_>>(examples::restore()));
    let about = "One restore: what it is at, which volumes it replaces, how long the deployment \
                 was down, and why it did not succeed.";
    of_deployment("Restores", "getRestore", "Show a Restore", about)
        .parameter(path::<RestoreId>("restore_id"))
        .response("200", one)
        .refused(&[&[Code::RestoreNotFound]])
}

fn get_document() -> Operation {
    let any = ObjectBuilder::new().schema_type(Type::Object);
    let document = answer("An OpenAPI 3.1 document.")
        .content("application/json", ContentBuilder::new().schema(Some(any)).build());
    let about = "This document. It needs no key.";
    operation("Documentation", "getOpenApi", "Show this Document", about)
        .security(SecurityRequirement::default())
        .response("200", document)
        .refused_only(&[Code::Internal, Code::Unavailable])
}

fn operation(tag: &str, id: &str, title: &str, about: &str) -> OperationBuilder {
    OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(id))
        .summary(Some(title))
        .description(Some(about))
}

fn of_deployment(tag: &str, id: &str, title: &str, about: &str) -> OperationBuilder {
    operation(tag, id, title, about).parameter(path::<DeploymentId>("deployment_id"))
}

fn of_backup(tag: &str, id: &str, title: &str, about: &str) -> OperationBuilder {
    of_deployment(tag, id, title, about).parameter(path::<BackupId>("backup_id"))
}

/// What operations have in common.
trait Common {
    /// With the name that a client gives its request, and with a body.
    fn changing(self, required: Required, body: ContentBuilder) -> Self;

    /// With a page of a list: which one, what it is of, and where the next one is.
    fn paged<Id: ToSchema>(self, of: &str, page: ContentBuilder) -> Self;

    /// With what it may refuse beside what every route may.
    fn refused(self, own: &[&[Code]]) -> Operation;

    /// With all that it may refuse.
    fn refused_only(self, all: &[Code]) -> Operation;
}

impl Common for OperationBuilder {
    fn changing(self, required: Required, body: ContentBuilder) -> Self {
        let body = RequestBodyBuilder::new()
            .description(Some(format!("At most {} KiB.", MAX_BYTES / 1024)))
            .required(Some(required))
            .content("application/json", body.build())
            .build();
        self.parameter(idempotency_key()).request_body(Some(body))
    }

    fn paged<Id: ToSchema>(self, of: &str, page: ContentBuilder) -> Self {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(LIST))
            .default(Some(json!(LIST)));
        let most = format!(
            "The most {of} of the reply. It has fewer if they are large; the link leads on all the same."
        );
        let older = Ref::from_schema_name(Id::name());
        let next = format!("</deployments/42/{of}?limit=50&before=17>; rel=\"next\"");
        let next = ObjectBuilder::new().schema_type(Type::String).examples([json!(next)]);
        let more = format!("Where the next page is, if there are older {of}.");
        let page = answer(&format!("The {of}, the newest first."))
            .content("application/json", page.build())
            .header("link", header(next, &more));
        self.parameter(query("limit", limit, &most))
            .parameter(query("before", older, &format!("Only {of} that are older than this one.")))
            .response("200", page)
    }

    fn refused(self, own: &[&[Code]]) -> Operation {
        self.refused_only(&[&errors::EVERYWHERE, own.concat().as_slice()].concat())
    }

    fn refused_only(mut self, all: &[Code]) -> Operation {
        for (status, response) in errors::responses(all) {
            self = self.response(status, response);
        }
        self.build()
    }
}

/// A reply that says that it was done.
fn answer(about: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(about).header_ref("ld-request", component("LdRequest"))
}

/// The same of a request that may have a name.
fn answer_of_once(about: &str) -> ResponseBuilder {
    answer(about).header_ref("idempotent-replayed", component("IdempotentReplayed"))
}

fn component(header: &str) -> Ref {
    Ref::new(format!("#/components/headers/{header}"))
}

fn header(schema: impl Into<RefOr<Schema>>, about: &str) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(about)).build()
}

fn of(schema: &str) -> ContentBuilder {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(schema)))
}

fn json_of<T: ToSchema>(example: Value) -> Content {
    of(&T::name()).example(Some(example)).build()
}

fn list_of<T: ToSchema>() -> ContentBuilder {
    let schema = ArrayBuilder::new().items(Ref::from_schema_name(T::name())).max_items(Some(LIST));
    ContentBuilder::new().schema(Some(schema))
}

/// What may be asked with an id that the reply has.
fn to(operation: &str, parameter: &str, id: &str) -> Link {
    LinkBuilder::new()
        .operation_id(operation)
        .parameter("deployment_id", "$request.path.deployment_id")
        .parameter(parameter, id)
        .build()
}

/// A part of the path.
fn path<T: ToSchema>(name: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(Ref::from_schema_name(T::name())))
        .build()
}

fn query(name: &str, schema: impl Into<RefOr<Schema>>, about: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .schema(Some(schema))
        .description(Some(about))
        .build()
}

fn idempotency_key() -> Parameter {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(once::LONGEST))
        .pattern(Some("^[!-~]+$"));
    ParameterBuilder::new()
        .name("idempotency-key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(text))
        .description(Some(
            "Any name for this request. Within ten minutes the same request under the same name \
             gets the answer of the first, and nothing is done twice.",
        ))
        .build()
}
