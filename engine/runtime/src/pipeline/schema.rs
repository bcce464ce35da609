//! The JSON Schema of pipeline files, for editors: completion, docs and checks while typing.
//!
//! Owns: the grammar of a pipeline as draft-07. Must not know: what an operator does beyond its own schema.

use llmflow_contract::{Entry, ParamInfo, ParamType, Registry};
use serde_json::{Map, Value, json};

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
            "name": { "type": "string", "description": "Default: the file's name." },
            "seed": { "type": "integer", "minimum": 0, "default": 0 },
            "params": {
                "type": "object",
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
            "stages": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$", "not": { "enum": super::stage::RESERVED } },
                "additionalProperties": { "$ref": "#/definitions/stage" },
            },
            "publish": {
                "type": "object",
                "description": "A stage, stage.port or `report` → a path or a list of paths, relative to this file.",
                "additionalProperties": { "$ref": "#/definitions/names" },
            },
        },
        "definitions": {
            "names": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] },
            "auto": { "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 0 }, { "type": "string" }] },
            "stage": stage(&operators, &cases),
        },
    })
}

fn stage(operators: &[Value], cases: &[Value]) -> Value {
    json!({
        "type": "object",
        "required": ["op"],
        "additionalProperties": false,
        "properties": {
            "op": { "description": "The operator.", "oneOf": operators },
            "in": { "description": "A stage, stage.port, a list, or a map from ports to them.", "anyOf": [
                { "$ref": "#/definitions/names" },
                { "type": "object", "additionalProperties": { "$ref": "#/definitions/names" } },
            ] },
            "with": { "type": "object" },
            "resources": { "type": "object", "additionalProperties": false, "properties": {
                "cores": { "$ref": "#/definitions/auto" },
                "memory": { "$ref": "#/definitions/auto" },
                "gpus": { "$ref": "#/definitions/auto" },
            } },
            "retry": { "type": "object", "additionalProperties": false, "properties": {
                "attempts": { "type": "integer", "minimum": 1, "maximum": 100 },
                "on": { "type": "array", "items": { "enum": ["lost", "transient", "memory", "timeout", "environment"] } },
                "backoff": { "type": "string" },
            } },
            "timeout": { "type": "string", "description": "Of one attempt: 90s, 30m, 2h." },
            "seed": { "type": "integer", "minimum": 0 },
            "after": { "$ref": "#/definitions/names" },
            "require": { "$ref": "#/definitions/names" },
        },
        "allOf": cases,
    })
}

/// What holds once `op` names this operator.
fn case(entry: &Entry) -> Value {
    let with = with_references(entry.schema.clone(), &entry.params);
    let mut then = json!({ "properties": { "with": with } });
    if entry.params.iter().any(|param| param.required) {
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
        let takes_text = matches!(param.kind, ParamType::String | ParamType::Any);
        if !takes_text {
            let description = field["description"].clone();
            let reference = json!({ "type": "string", "pattern": "\\$\\{.+\\}" });
            field = json!({ "description": description, "anyOf": [field, reference] });
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
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| !name.as_str().is_some_and(|name| aliased.contains(&name)));
    }
    schema
}
