//! Params: what a user may set in `with`, learned from the JSON Schema of the operator's struct.
//!
//! A field carries its doc as a doc comment, its default through serde, its range through
//! `#[schemars(range(min = …, max = …))]`, its role and aliases through
//! `#[schemars(extend("x-role" = "tuning", "x-aliases" = ["lr"]))]` (beside `#[serde(alias = "lr")]`). `"x-limit" = true`
//! marks a bound on how much is done, which a rehearsal lowers.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A struct of params: plain data with a schema.
pub trait Params: DeserializeOwned + Serialize + JsonSchema {}
impl<T: DeserializeOwned + Serialize + JsonSchema> Params for T {}

/// What a param means for the stage's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Changes the bytes: in the key.
    #[default]
    Key,
    /// Says where to read: its content is in the key, the text is not.
    Source,
    /// Cannot change bytes: in no key.
    Tuning,
    /// How far to go: in the key, not in the checkpoint's address, where `plan` allows it.
    Horizon,
    /// A name; the value is never stored.
    Secret,
}

/// The type of a param, as far as a YAML value can be checked against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    Bool,
    Integer,
    Number,
    String,
    Choice(Vec<String>),
    List(Box<ParamType>),
    Object(Vec<ParamInfo>),
    /// Names of the user's own, each with a value of this type.
    Map(Box<ParamType>),
    /// One of several shapes.
    Either(Vec<ParamType>),
    Any,
}

/// One param, as `operators`, `schema` and the checks see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamInfo {
    pub name: String,
    pub aliases: Vec<String>,
    pub kind: ParamType,
    pub default: Option<Value>,
    pub required: bool,
    pub nullable: bool,
    pub doc: String,
    pub role: Role,
    pub min: Option<f64>,
    /// Whether `min` itself is refused.
    pub above_min: bool,
    pub max: Option<f64>,
    /// Whether it bounds how much is done: `--limit N` lowers it to N.
    pub limits: bool,
}

impl ParamType {
    /// How a message names it: `a whole number`.
    pub fn describe(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Integer => "a whole number".into(),
            Self::Number => "a number".into(),
            Self::String => "text".into(),
            Self::Choice(names) => format!("one of {}", names.join(", ")),
            Self::List(item) => format!("a list, each {}", item.describe()),
            Self::Object(fields) => {
                let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
                format!("a map of {}", names.join(", "))
            }
            Self::Map(item) => format!("a map of names, each {}", item.describe()),
            Self::Either(types) => types.iter().map(Self::describe).collect::<Vec<_>>().join(", or "),
            Self::Any => "any value".into(),
        }
    }
}

pub(crate) fn schema_of<P: Params>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<P>().to_value();
    if let Some(map) = schema.as_object_mut() {
        map.shift_remove("$schema");
    }
    schema
}

/// Every param of a struct, in the order its schema lists them.
pub fn params_of<P: Params>() -> Vec<ParamInfo> {
    fields_of(&schema_of::<P>())
}

fn fields_of(schema: &Value) -> Vec<ParamInfo> {
    let required: Vec<&str> =
        schema["required"].as_array().map(|names| names.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    properties
        .iter()
        .map(|(name, field)| {
            let (kind, nullable) = type_of(field);
            ParamInfo {
                name: name.clone(),
                aliases: field["x-aliases"]
                    .as_array()
                    .map(|names| names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
                    .unwrap_or_default(),
                kind,
                default: field.get("default").cloned(),
                required: required.contains(&name.as_str()),
                nullable,
                doc: field["description"].as_str().unwrap_or_default().trim().to_owned(),
                role: serde_json::from_value(field["x-role"].clone()).unwrap_or_default(),
                min: field["minimum"].as_f64().or(field["exclusiveMinimum"].as_f64()),
                above_min: field["exclusiveMinimum"].is_number(),
                max: field["maximum"].as_f64(),
                limits: field["x-limit"] == true,
            }
        })
        .collect()
}

/// The type, and whether null is allowed too.
fn type_of(schema: &Value) -> (ParamType, bool) {
    if let Some(names) = choices_of(schema) {
        return (ParamType::Choice(names), false);
    }
    if let Some(options) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let (nulls, shapes): (Vec<_>, Vec<_>) = options.iter().partition(|option| option["type"] == "null");
        let mut types: Vec<_> = shapes.iter().map(|shape| type_of(shape).0).collect();
        let kind = if types.len() == 1 { types.remove(0) } else { ParamType::Either(types) };
        return (kind, !nulls.is_empty());
    }
    if let Some(names) = schema["type"].as_array() {
        let nullable = names.iter().any(|name| name == "null");
        let named = names.iter().find(|name| *name != "null").and_then(Value::as_str).unwrap_or_default();
        return (named_type(named, schema), nullable);
    }
    (named_type(schema["type"].as_str().unwrap_or_default(), schema), false)
}

fn named_type(name: &str, schema: &Value) -> ParamType {
    match name {
        "boolean" => ParamType::Bool,
        "integer" => ParamType::Integer,
        "number" => ParamType::Number,
        "string" => ParamType::String,
        "array" => ParamType::List(Box::new(type_of(&schema["items"]).0)),
        "object" if schema["properties"].is_object() => ParamType::Object(fields_of(schema)),
        "object" if schema["additionalProperties"].is_object() => {
            ParamType::Map(Box::new(type_of(&schema["additionalProperties"]).0))
        }
        _ => ParamType::Any,
    }
}

/// The names of an enum of plain names, documented (`oneOf` of `const`) or not (`enum`).
fn choices_of(schema: &Value) -> Option<Vec<String>> {
    if let Some(names) = schema["enum"].as_array() {
        return names.iter().filter(|name| !name.is_null()).map(|name| name.as_str().map(str::to_owned)).collect();
    }
    if let Some(name) = schema["const"].as_str() {
        return Some(vec![name.to_owned()]);
    }
    let options = schema["oneOf"].as_array()?;
    let names: Option<Vec<Vec<String>>> = options.iter().map(choices_of).collect();
    names.map(|names| names.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Default)]
    #[serde(rename_all = "snake_case")]
    enum Shape {
        /// Round.
        #[default]
        Circle,
        /// Not.
        Square,
    }

    #[derive(Serialize, Deserialize, JsonSchema, Default)]
    #[serde(default)]
    struct Keep {
        /// Least share.
        min_overlap: f64,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Example {
        /// Where it lies.
        #[schemars(extend("x-role" = "source"))]
        path: String,
        /// How wide.
        #[serde(default = "eight", alias = "w")]
        #[schemars(range(min = 1, max = 64), extend("x-aliases" = ["w"]))]
        width: u32,
        #[serde(default)]
        shape: Shape,
        #[serde(default)]
        names: Option<Vec<String>>,
        #[serde(default)]
        keep: Keep,
        #[serde(default)]
        env: std::collections::BTreeMap<String, String>,
    }
    fn eight() -> u32 {
        8
    }

    #[test]
    fn a_struct_tells_its_params() {
        let params = params_of::<Example>();
        let find = |name: &str| params.iter().find(|param| param.name == name).unwrap();
        assert_eq!(find("path").role, Role::Source);
        assert!(find("path").required && find("path").doc == "Where it lies.");
        assert_eq!((find("width").min, find("width").max), (Some(1.0), Some(64.0)));
        assert_eq!(find("width").default, Some(8.into()));
        assert_eq!(find("width").aliases, ["w"]);
        assert_eq!(find("shape").kind, ParamType::Choice(vec!["circle".into(), "square".into()]));
        assert_eq!(find("names").kind, ParamType::List(Box::new(ParamType::String)));
        assert!(find("names").nullable);
        assert_eq!(find("env").kind, ParamType::Map(Box::new(ParamType::String)));
        assert!(matches!(&find("keep").kind, ParamType::Object(fields) if fields[0].name == "min_overlap"));
    }
}
