//! `GET /openapi.json`: the list of routes as an OpenAPI 3.1 document.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::error::{ErrorBody, ErrorKind};
use crate::reply;
use crate::routes::{Route, routes};
use crate::security::callers::Access;

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

/// Shows the document.
pub(crate) async fn show() -> Response {
    reply::json(StatusCode::OK, &*DOCUMENT)
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ErrorBody>().to_value();
    let mut paths = Map::new();
    for route in routes() {
        let operation = operation(&route, &mut generator, &error);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(route.method.to_owned(), operation);
        }
    }
    let mut schemas = generator.take_definitions(true);
    name_ignored_fields(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Feilun",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "OpenAI's API and Feilun's own. Errors have OpenAI's shape.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route, generator: &mut schemars::SchemaGenerator, error: &Value) -> Value {
    let content = |schema: Value| json!({"application/json": {"schema": schema}});
    let mut success = Map::new();
    match route.response {
        Some(schema) => {
            success.insert("application/json".to_owned(), json!({"schema": schema(generator)}));
        }
        None => {
            let text = json!({"schema": {"type": "string"}});
            success.insert("application/openmetrics-text".to_owned(), text);
        }
    }
    if let Some(schema) = route.event {
        let event = json!({"schema": {"type": "string"}, "x-event": schema(generator)});
        success.insert("text/event-stream".to_owned(), event);
    }
    let mut responses = Map::new();
    responses.insert(route.status.to_string(), json!({"description": "Done", "content": success}));
    for kind in ErrorKind::ALL {
        let status = kind.status();
        let described = responses
            .entry(status.as_str())
            .or_insert_with(|| json!({"description": "", "content": content(error.clone())}));
        let words = described["description"].as_str().unwrap_or_default();
        let separator = if words.is_empty() { "" } else { ", " };
        described["description"] = json!(format!("{words}{separator}{}", kind.code()));
    }
    let mut operation = json!({"summary": route.summary, "responses": responses});
    if let Some((schema, _)) = route.request {
        let body = json!({"required": true, "content": content(schema(generator).to_value())});
        operation["requestBody"] = body;
    }
    if route.access != Access::Open {
        // Without a key, too, where none was ever made.
        operation["security"] = json!([{"key": []}, {}]);
    }
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// Adds the fields that are accepted without effect to the schemas of the requests.
fn name_ignored_fields(schemas: &mut Map<String, Value>) {
    let mut generator = schemars::SchemaGenerator::default();
    for route in routes() {
        let Some((schema, ignored)) = route.request else { continue };
        let reference = schema(&mut generator).to_value();
        let name = reference["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        let Some(Value::Object(properties)) =
            name.and_then(|name| schemas.get_mut(name)?.get_mut("properties"))
        else {
            continue;
        };
        for field in ignored {
            let described = json!({"description": "Accepted without effect."});
            properties.insert((*field).to_owned(), described);
        }
    }
}
