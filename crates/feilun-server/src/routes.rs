//! Every route, once: the router and the OpenAPI document are both made of this list, so neither
//! can know one that the other does not.

use std::any::Any;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, delete, get, post, put};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tower_http::catch_panic::CatchPanicLayer;

use crate::endpoints::{
    aliases, chat, completions, embeddings, events, feedback, files, fine_tuning, health,
    job_events, models, openapi, session,
};
use crate::error::{ApiError, ErrorKind};
use crate::http::guard::{self, Guard};
use crate::http::query::WireQuery;
use crate::security::callers::Access;
use crate::server::Server;
use crate::wire;
use crate::wire::strict::WireRequest;

/// The schema of a body.
pub(crate) type BodySchema = fn(&mut SchemaGenerator) -> Schema;

/// One method of one path.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    /// The body of a request, and the fields of it that have no effect.
    pub(crate) request: Option<(BodySchema, &'static [&'static str])>,
    /// The media type of that body.
    pub(crate) request_type: &'static str,
    /// The parameters in the URL.
    pub(crate) query: Option<BodySchema>,
    /// The status of success and its body; without a shape it is text of the media type.
    pub(crate) status: u16,
    pub(crate) response: Option<BodySchema>,
    pub(crate) response_type: &'static str,
    /// The answer may be a stream of events instead, of this shape.
    pub(crate) event: Option<BodySchema>,
    handler: MethodRouter<Arc<Server>>,
}

impl Route {
    fn new(
        method: &'static str,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: MethodRouter<Arc<Server>>,
    ) -> Route {
        Route {
            method,
            path,
            summary,
            access,
            request: None,
            request_type: "application/json",
            query: None,
            status: 200,
            response: None,
            response_type: "application/openmetrics-text",
            event: None,
            handler,
        }
    }

    fn takes<T: WireRequest>(self) -> Route {
        Route { request: Some((schema_of::<T>, T::IGNORED)), ..self }
    }

    /// A form instead of JSON.
    fn takes_form<T: JsonSchema>(self) -> Route {
        let request = Some((schema_of::<T> as BodySchema, [].as_slice()));
        Route { request, request_type: "multipart/form-data", ..self }
    }

    fn asks<T: WireQuery>(self) -> Route {
        Route { query: Some(schema_of::<T>), ..self }
    }

    fn gives<T: JsonSchema>(self, status: u16) -> Route {
        Route { status, response: Some(schema_of::<T>), ..self }
    }

    fn gives_type(self, response_type: &'static str) -> Route {
        Route { response_type, ..self }
    }

    fn streams<T: JsonSchema>(self) -> Route {
        Route { event: Some(schema_of::<T>), ..self }
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The list.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = answering();
    routes.extend(library());
    routes.extend(training());
    routes.extend(operations());
    routes
}

/// What answers, and what is said of answers.
fn answering() -> Vec<Route> {
    use wire::{chat as chat_wire, chat_answer, completion, embedding, feedback as said};
    vec![
        Route::new(
            "post",
            "/v1/chat/completions",
            Access::Infer,
            "Answer a chat",
            post(chat::create),
        )
        .takes::<chat_wire::ChatRequest>()
        .gives::<chat_answer::ChatAnswer>(200)
        .streams::<chat_answer::ChatChunk<'static>>(),
        Route::new(
            "post",
            "/v1/completions",
            Access::Infer,
            "Continue prompts",
            post(completions::create),
        )
        .takes::<completion::CompletionRequest>()
        .gives::<completion::CompletionAnswer<'static>>(200)
        .streams::<completion::CompletionAnswer<'static>>(),
        Route::new(
            "post",
            "/v1/embeddings",
            Access::Infer,
            "Embed texts",
            post(embeddings::create),
        )
        .takes::<embedding::EmbeddingRequest>()
        .gives::<embedding::EmbeddingAnswer>(200),
        Route::new(
            "post",
            "/v1/feedback",
            Access::Infer,
            "Say something of a turn",
            post(feedback::create),
        )
        .takes::<said::FeedbackRequest>()
        .gives::<said::Recorded>(201),
        Route::new(
            "post",
            "/v1/events",
            Access::Infer,
            "Tell what a user did",
            post(events::create),
        )
        .takes::<said::EventRequest>()
        .gives::<said::Recorded>(201),
    ]
}

/// Models and their names.
fn library() -> Vec<Route> {
    use wire::{alias, model};
    vec![
        Route::new("get", "/v1/models", Access::Read, "List models", get(models::list))
            .gives::<model::ModelList>(200),
        Route::new("get", "/v1/models/{model}", Access::Read, "Show a model", get(models::show))
            .gives::<model::Model>(200),
        Route::new(
            "post",
            "/v1/models/{model}/load",
            Access::Administer,
            "Bring a model into memory",
            post(models::load),
        )
        .asks::<model::LoadQuery>()
        .gives::<model::Model>(200),
        Route::new(
            "post",
            "/v1/models/{model}/unload",
            Access::Administer,
            "Take a model out of memory",
            post(models::unload),
        )
        .gives::<model::Model>(200),
        Route::new("get", "/v1/aliases", Access::Read, "List aliases", get(aliases::list))
            .gives::<alias::AliasList>(200),
        Route::new("put", "/v1/aliases", Access::Administer, "Move an alias", put(aliases::put))
            .takes::<alias::AliasRequest>()
            .gives::<alias::Alias>(200),
    ]
}

/// Files of examples, and jobs that learn from them.
fn training() -> Vec<Route> {
    use wire::{file, job};
    const JOBS: &str = "/v1/fine_tuning/jobs";
    vec![
        Route::new("post", "/v1/files", Access::Train, "Upload a file", post(files::create))
            .takes_form::<file::UploadForm>()
            .gives::<file::FileObject>(200),
        Route::new("get", "/v1/files", Access::Train, "List files", get(files::list))
            .asks::<file::FilesQuery>()
            .gives::<file::FileList>(200),
        Route::new("get", "/v1/files/{file}", Access::Train, "Show a file", get(files::show))
            .gives::<file::FileObject>(200),
        Route::new(
            "delete",
            "/v1/files/{file}",
            Access::Train,
            "Delete a file",
            delete(files::delete),
        )
        .gives::<file::Deleted>(200),
        Route::new(
            "get",
            "/v1/files/{file}/content",
            Access::Train,
            "Get a file's bytes",
            get(files::content),
        )
        .gives_type("application/octet-stream"),
        Route::new("post", JOBS, Access::Train, "Fine-tune a model", post(fine_tuning::create))
            .takes::<job::JobRequest>()
            .gives::<job::Job>(200),
        Route::new("get", JOBS, Access::Train, "List jobs", get(fine_tuning::list))
            .asks::<job::JobsQuery>()
            .gives::<job::JobList>(200),
        Route::new(
            "get",
            "/v1/fine_tuning/jobs/{job}",
            Access::Train,
            "Show a job",
            get(fine_tuning::show),
        )
        .gives::<job::Job>(200),
        Route::new(
            "post",
            "/v1/fine_tuning/jobs/{job}/cancel",
            Access::Train,
            "Cancel a job",
            post(fine_tuning::cancel),
        )
        .gives::<job::Job>(200),
        Route::new(
            "get",
            "/v1/fine_tuning/jobs/{job}/events",
            Access::Train,
            "List what happened in a job, or follow it",
            get(job_events::list),
        )
        .asks::<job::EventsQuery>()
        .gives::<job::JobEventList>(200)
        .streams::<job::JobEvent>(),
    ]
}

/// For whoever watches the server.
fn operations() -> Vec<Route> {
    vec![
        Route::new("get", "/healthz", Access::Open, "Whether the process lives", get(health::live))
            .gives::<health::Health>(200),
        Route::new("get", "/readyz", Access::Open, "Whether it can serve", get(health::ready))
            .gives::<health::Health>(200),
        Route::new(
            "get",
            "/metrics",
            Access::Administer,
            "Figures for Prometheus",
            get(health::metrics),
        ),
        Route::new("get", "/openapi.json", Access::Open, "This document", get(openapi::show))
            .gives::<serde_json::Value>(200),
        Route::new("post", "/login", Access::Open, "Log a browser in", post(session::login))
            .takes::<wire::session::LoginRequest>()
            .gives::<wire::session::Session>(200),
        Route::new("get", "/session", Access::Read, "Show who is logged in", get(session::show))
            .gives::<wire::session::Session>(200),
        Route::new("post", "/logout", Access::Read, "Log a browser out", post(session::logout))
            .gives::<wire::session::SessionEnd>(200),
    ]
}

/// The router of a server.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    let guard = |route, access| Guard { server: Arc::clone(server), route, access };
    let guarded = |guard| middleware::from_fn_with_state(guard, guard::guard);
    // Methods of one path come together; each has its own guard, and so has what is none of them.
    let mut paths: BTreeMap<&'static str, MethodRouter<Arc<Server>>> = BTreeMap::new();
    for route in routes() {
        let handler = route.handler.layer(guarded(guard(route.path, route.access)));
        let path = paths.remove(route.path).unwrap_or_default();
        paths.insert(route.path, path.merge(handler));
    }
    let otherwise = |route, handler: MethodRouter<Arc<Server>>| -> MethodRouter<(), Infallible> {
        handler.layer(guarded(guard(route, Access::Open))).with_state(Arc::clone(server))
    };
    let mut router = Router::new();
    for (path, methods) in paths {
        let wrong_method = otherwise(path, any(method_not_allowed));
        router = router.route(path, methods.fallback_service(wrong_method));
    }
    router
        .fallback_service(otherwise("(none)", any(not_found)))
        // Bodies are bounded where they are read.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(Arc::clone(server))
}

async fn not_found() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "there is no such path; see /openapi.json")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(ErrorKind::MethodNotAllowed, "this path has other methods; see /openapi.json")
}

/// A panic ends its request and no other. What it says may be anybody's business, so nobody
/// outside learns it.
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let message = payload.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| payload.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("?"), "a request panicked");
    crate::generation::broken_off().into_response()
}
