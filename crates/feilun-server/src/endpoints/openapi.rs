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
            success.insert(route.response_type.to_owned(), text);
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
        let schema = schema(generator).to_value();
        let content = json!({route.request_type: {"schema": schema}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if route.access != Access::Open {
        // Without a key, too, where none was ever made.
        operation["security"] = json!([{"key": []}, {}]);
    }
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = names
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .collect();
    parameters.extend(route.query.into_iter().flat_map(in_query));
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// The properties of a shape as parameters in the URL.
fn in_query(schema: crate::routes::BodySchema) -> Vec<Value> {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let schema = schema(&mut generator).to_value();
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    let parameter = |(name, schema): (&String, &Value)| json!({"name": name, "in": "query", "required": false, "schema": without_null(schema)});
    properties.iter().map(parameter).collect()
}

/// A parameter is there or it is not; it is never null.
fn without_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(types) = schema.get_mut("type")
        && let Value::Array(names) = types
    {
        names.retain(|name| name != "null");
        if let [name] = names.as_slice() {
            *types = name.clone();
        }
    }
    for list in ["anyOf", "enum"] {
        if let Some(Value::Array(options)) = schema.get_mut(list) {
            options.retain(|option| !option.is_null() && option["type"] != "null");
        }
    }
    schema
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
