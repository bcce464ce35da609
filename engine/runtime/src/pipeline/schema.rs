//! The JSON Schema of pipeline files, for editors: completion, docs and checks while typing.
//!
//! Owns: the grammar of a pipeline as draft-07. Must not know: what an operator does beyond its own schema.

use llmflow_contract::{Entry, ParamInfo, ParamType, Registry, Role};
use serde_json::{Map, Value, json};

use super::demand::{MAX_UNITS, RETRIED};

/// The schema of a pipeline file whose stages use these operators.
pub fn schema(registry: &Registry) -> Value {
    let operators: Vec<Value> =
        registry.entries().map(|entry| json!({ "const": entry.name, "description": entry.summary() })).collect();
    let cases: Vec<Value> = registry.entries().map(case).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "LLMflow pipeline",
        "type": "object",
        "required": ["stages"],
        "additionalProperties": false,
        "patternProperties": { "^x-": {} },
        "properties": {
            "name": { "$ref": "#/definitions/name", "description": "Default: the file's name." },
            "seed": { "anyOf": [{ "$ref": "#/definitions/seed" }], "default": 0 },
            "store": { "anyOf": store(), "description": "Where artifacts lie: a folder, s3://…, gs://…, az://…. Default: the home." },
            "params": {
                "type": ["object", "null"],
                "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$" },
                "description": "Values that stages refer to as ${params.name}; changed by --set name=value.",
                "additionalProperties": { "anyOf": [
                    { "type": ["string", "number", "boolean", "array", "null"] },
                    { "type": "object", "required": ["default"], "additionalProperties": false, "properties": {
                        "default": {},
                        "range": { "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 },
                        "doc": { "type": "string" },
                    } },
                ] },
            },
            "profiles": {
                "type": ["object", "null"],
                "description": "Overlays, chosen by --profile NAME.",
                "additionalProperties": { "$ref": "#/definitions/profile" },
            },
            "stages": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$", "not": { "enum": super::stage::RESERVED } },
                "additionalProperties": { "$ref": "#/definitions/stage" },
            },
            "publish": {
                "type": ["object", "null"],
                "description": "A stage, stage.port or `report` → a path or a list of paths: relative to this file, or s3://….",
                "additionalProperties": { "$ref": "#/definitions/names" },
            },
        },
        "definitions": {
            "name": { "type": ["string", "integer"], "pattern": "\\S" },
            "names": { "anyOf": [
                { "$ref": "#/definitions/name" },
                { "type": "array", "items": { "$ref": "#/definitions/name" }, "minItems": 1 },
            ] },
            "reference": { "type": "string", "pattern": REFERENCE },
            "truth": { "anyOf": [{ "type": "boolean" }, { "$ref": "#/definitions/reference" }] },
            "seed": { "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": u64::MAX },
                { "$ref": "#/definitions/reference" },
            ] },
            "duration": { "anyOf": [
                { "type": "string", "pattern": "^\\s*([0-9.]+\\s*[A-Za-zµ]+\\s*)+$", "not": { "pattern": "^[^1-9]*$" } },
                { "$ref": "#/definitions/reference" },
            ] },
            "condition": { "type": "string", "pattern": "\\S" },
            "resources": resources(),
            "matrix": matrix(),
            "profile": { "type": "object", "additionalProperties": false, "properties": {
                "params": { "type": ["object", "null"] },
                "stages": { "type": ["object", "null"], "additionalProperties": {
                    "type": ["object", "null"], "additionalProperties": false, "properties": {
                        "with": { "type": ["object", "null"] },
                        "resources": { "anyOf": [{ "type": "null" }, { "$ref": "#/definitions/resources" }] },
                    },
                } },
            } },
            "stage": stage(&operators, &cases),
        },
    })
}

/// `20G`, `1.5 TiB`
const SIZE: &str = "^\\s*([0-9]+\\.?[0-9]*|\\.[0-9]+)\\s*([kKmMgGtTpP]([iI]?[bB])?|[bB])\\s*$";

/// A text with a reference in it, which may stand for a value of any type.
const REFERENCE: &str = "\\$\\{.+\\}";

/// A text that names a place, as far as a pattern can tell.
fn store() -> Value {
    json!([
        { "type": "integer" },
        { "$ref": "#/definitions/reference" },
        { "type": "string", "pattern": "^((s3|gs|az)://[^/@]+(/.*)?|file:///.*|memory://.*)$" },
        { "type": "string", "pattern": "\\S", "not": { "pattern": "^(~|[^/:]*:/|(s3|gs|az|file)(:|//))" } },
    ])
}

fn resources() -> Value {
    let demand = |least: u64| {
        json!({ "anyOf": [
            { "const": "auto" },
            { "type": "integer", "minimum": least, "maximum": MAX_UNITS },
            { "$ref": "#/definitions/reference" },
        ] })
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "A number is a demand: exit 3 without it. `auto` is what the operator can use here.",
        "properties": {
            "cores": demand(1),
            "memory": { "anyOf": [
                { "const": "auto" },
                { "type": "string", "pattern": SIZE, "not": { "pattern": "^[^1-9]*$" } },
                { "$ref": "#/definitions/reference" },
            ] },
            "gpus": demand(0),
        },
    })
}

fn matrix() -> Value {
    let entries = json!({ "anyOf": [
        { "type": "array", "minItems": 1, "items": { "anyOf": [
            { "type": "object", "minProperties": 1 },
            { "$ref": "#/definitions/reference" },
        ] } },
        { "$ref": "#/definitions/reference" },
    ] });
    json!({
        "type": "object",
        "description": "A sweep: one stage for each combination, its values read as ${matrix.name}.",
        "minProperties": 1,
        "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$" },
        "properties": {
            "include": entries,
            "exclude": entries,
            "max_parallel": { "anyOf": [{ "type": "integer", "minimum": 1 }, { "$ref": "#/definitions/reference" }], "description": "How many of its stages run at once." },
        },
        "additionalProperties": { "anyOf": [
            { "type": "array", "minItems": 1 },
            { "$ref": "#/definitions/reference" },
        ] },
    })
}

fn stage(operators: &[Value], cases: &[Value]) -> Value {
    let class = json!({ "anyOf": [{ "enum": RETRIED }, { "$ref": "#/definitions/reference" }] });
    json!({
        "type": "object",
        "required": ["op"],
        "additionalProperties": false,
        "properties": {
            "op": { "description": "The operator.", "anyOf": [{ "oneOf": operators }, { "$ref": "#/definitions/reference" }] },
            "in": { "description": "A stage, stage.port, a list, or a map from ports to them; where a port takes many, a map from labels too.", "anyOf": [
                { "type": "null" },
                { "$ref": "#/definitions/names" },
                { "type": "object", "additionalProperties": { "anyOf": [
                    { "$ref": "#/definitions/names" },
                    {
                        "type": "object",
                        "additionalProperties": { "$ref": "#/definitions/names" },
                        "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
                        "minProperties": 1,
                    },
                ] } },
            ] },
            "with": { "type": ["object", "null"] },
            "matrix": { "$ref": "#/definitions/matrix" },
            "when": {
                "type": ["string", "boolean"],
                "pattern": "\\S",
                "description": "Runs only if this holds, of params and metrics of other stages: params.use_dpo and eval.acc > 0.4",
            },
            "after": { "description": "Stages to wait for without reading them.", "$ref": "#/definitions/names" },
            "resources": { "$ref": "#/definitions/resources" },
            "retry": { "type": "object", "additionalProperties": false, "properties": {
                "attempts": { "anyOf": [
                    { "type": "integer", "minimum": 1, "maximum": 100 },
                    { "$ref": "#/definitions/reference" },
                ] },
                "on": { "anyOf": [
                    class,
                    { "type": "array", "items": class, "minItems": 1 },
                ] },
                "backoff": { "$ref": "#/definitions/duration" },
            } },
            "timeout": { "description": "Of one attempt: 90s, 30m, 2h.", "$ref": "#/definitions/duration" },
            "seed": { "$ref": "#/definitions/seed" },
            "require": { "description": "Conditions on this stage's metrics; else it is refused.", "anyOf": [
                { "$ref": "#/definitions/condition" },
                { "type": "array", "items": { "$ref": "#/definitions/condition" }, "minItems": 1 },
            ] },
            "cache": { "description": "false: run it every time.", "$ref": "#/definitions/truth" },
            "frozen": { "description": "true: never run it again while its result exists.", "$ref": "#/definitions/truth" },
        },
        "allOf": cases,
    })
}

/// What holds once `op` names this operator.
fn case(entry: &Entry) -> Value {
    let mut with = with_references(entry.schema(), &entry.params);
    let is_needed = entry.params.iter().any(|param| param.required);
    if !is_needed {
        with["type"] = json!(["object", "null"]);
    }
    let mut then = json!({ "properties": { "with": with } });
    if is_needed {
        then["required"] = json!(["with"]);
    }
    json!({ "if": { "properties": { "op": { "const": entry.name } }, "required": ["op"] }, "then": then })
}

/// Lets every param be a reference too, adds aliases, refuses other names.
fn with_references(mut schema: Value, params: &[ParamInfo]) -> Value {
    let mut properties = Map::new();
    let mut aliased = Vec::new();
    for param in params {
        let mut field = schema["properties"][&param.name].clone();
        if let (ParamType::Object(fields), true) = (&param.kind, field["properties"].is_object()) {
            field = with_references(field, fields);
        }
        if param.role == Role::Secret {
            let secret = json!({ "type": "string", "pattern": "^\\$\\{secret\\.[A-Za-z0-9_]+\\}$" });
            let form = match param.kind {
                ParamType::Map(_) => json!({ "type": "object", "additionalProperties": secret }),
                _ => secret,
            };
            field = described(&field, form);
        } else if !matches!(param.kind, ParamType::String | ParamType::Any) {
            let reference = json!({ "type": "string", "pattern": REFERENCE });
            field = described(&field, json!({ "anyOf": [field, reference] }));
        }
        for alias in &param.aliases {
            properties.insert(alias.clone(), field.clone());
        }
        if !param.aliases.is_empty() {
            aliased.push(param.name.as_str());
        }
        properties.insert(param.name.clone(), field);
    }
    schema["properties"] = Value::Object(properties);
    schema["additionalProperties"] = Value::Bool(false);
    // Required under any of its names: that is for `check` to say.
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !name.as_str().is_some_and(|name| aliased.contains(&name)));
    }
    schema
}

/// The same words for another form of a field.
fn described(field: &Value, mut form: Value) -> Value {
    if let Some(description) = field.get("description") {
        form["description"] = description.clone();
    }
    form
}
