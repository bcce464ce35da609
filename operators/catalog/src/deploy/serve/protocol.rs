//! OpenAI's requests and answers as JSON.
//!
//! Owns: which fields are read, refused or without effect; the shape of answers. Must not know: HTTP, threads, the model.

use llmflow_model::ChatMessage;
use serde_json::{Map, Value, json};

use super::error::ApiError;

/// Most turns of a conversation and most stop sequences.
const MAX_MESSAGES: usize = 4_096;
const MAX_STOPS: usize = 4;

/// What the model is to go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Chat(Vec<ChatMessage>),
    Text(String),
}

/// How to answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub max_tokens: Option<usize>,
    pub temperature: Option<f32>,
    pub top_p: f32,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
}

/// One request, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub ask: Ask,
    pub settings: Settings,
    pub model: Option<String>,
    pub stream: bool,
    pub include_usage: bool,
    /// Fields that change nothing here.
    pub ignored: Vec<String>,
}

/// Which endpoint was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Chat,
    Text,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
}

impl Finish {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub prompt: usize,
    pub completion: usize,
}

impl Usage {
    fn json(self) -> Value {
        json!({"prompt_tokens": self.prompt, "completion_tokens": self.completion,
               "total_tokens": self.prompt + self.completion})
    }
}

/// Fields that change nothing in the answer.
const WITHOUT_EFFECT: [&str; 10] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "prompt_cache_retention",
];

/// Fields that would change the answer and are not built, each with the values that mean "off".
fn is_off(name: &str, value: &Value) -> Option<bool> {
    Some(match name {
        "n" | "best_of" => value == 1,
        "logprobs" => value == false || value == 0,
        "top_logprobs" => value == 0,
        "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "tool_choice" | "function_call" => value == "none" || value == "auto",
        "response_format" => value["type"] == "text",
        "echo" => value == false,
        "suffix" => value == "",
        "modalities" => *value == json!(["text"]),
        _ => return None,
    })
}

/// Understands the body of a request.
///
/// # Errors
/// 400, naming the field at fault.
pub(super) fn parse(style: Style, body: &[u8]) -> Result<Request, ApiError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| ApiError::body(format!("the body is no JSON: {error}")))?;
    let Value::Object(mut fields) = value else { return Err(ApiError::body("the body is no JSON object")) };
    fields.retain(|_, value| !value.is_null());
    let ask = match style {
        Style::Chat => Ask::Chat(messages(fields.shift_remove("messages"))?),
        Style::Text => Ask::Text(prompt(fields.shift_remove("prompt"))?),
    };
    let max_tokens = whole(&mut fields, "max_completion_tokens")?.or(whole(&mut fields, "max_tokens")?);
    if max_tokens == Some(0) {
        return Err(ApiError::bad("max_tokens", "`max_tokens` must be at least 1"));
    }
    let settings = Settings {
        max_tokens: max_tokens.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        temperature: number(&mut fields, "temperature", 0.0, 2.0)?,
        top_p: number(&mut fields, "top_p", 0.0, 1.0)?.unwrap_or(1.0),
        seed: seed(&mut fields)?,
        stop: stops(fields.shift_remove("stop"))?,
    };
    let model = match fields.shift_remove("model") {
        None => None,
        Some(Value::String(model)) => Some(model),
        Some(_) => return Err(ApiError::bad("model", "`model` must be text")),
    };
    let stream = flag(fields.shift_remove("stream"), "stream")?;
    let options = fields.shift_remove("stream_options").unwrap_or_default();
    let include_usage = flag(options.get("include_usage").cloned(), "stream_options")?;
    let ignored = leftover(fields)?;
    Ok(Request { ask, settings, model, stream, include_usage, ignored })
}

/// Names the fields without effect; refuses those that would have one.
fn leftover(fields: Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let mut ignored = Vec::new();
    for (name, value) in fields {
        match is_off(&name, &value) {
            Some(true) => {}
            Some(false) => return Err(ApiError::body(format!("this server cannot do what `{name}` asks for"))),
            None if WITHOUT_EFFECT.contains(&name.as_str()) => ignored.push(name),
            None => {
                let name: String = name.chars().take(64).collect();
                return Err(ApiError::body(format!("there is no field `{name}`")));
            }
        }
    }
    Ok(ignored)
}

fn messages(value: Option<Value>) -> Result<Vec<ChatMessage>, ApiError> {
    let Some(Value::Array(items)) = value else {
        return Err(ApiError::bad("messages", "`messages` must be a list of turns"));
    };
    if items.is_empty() || items.len() > MAX_MESSAGES {
        return Err(ApiError::bad("messages", format!("`messages` must have 1 to {MAX_MESSAGES} turns")));
    }
    items.iter().map(message).collect()
}

fn message(value: &Value) -> Result<ChatMessage, ApiError> {
    let role = match value["role"].as_str() {
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        _ => return Err(ApiError::bad("messages", "a turn's `role` must be system, user, assistant or tool")),
    };
    let content = match &value["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| part["text"].as_str().filter(|_| part["type"] == "text"));
            let texts: Option<Vec<&str>> = texts.collect();
            texts.ok_or_else(|| ApiError::bad("messages", "this model reads text parts only"))?.concat()
        }
        _ => return Err(ApiError::bad("messages", "a turn's `content` must be text")),
    };
    Ok(ChatMessage::new(role, content))
}

fn prompt(value: Option<Value>) -> Result<String, ApiError> {
    let bad = || ApiError::bad("prompt", "`prompt` must be one text that is not empty");
    match value {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::Array(texts)) => match texts.as_slice() {
            [Value::String(text)] if !text.is_empty() => Ok(text.clone()),
            _ => Err(bad()),
        },
        _ => Err(bad()),
    }
}

fn whole(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.shift_remove(name) else { return Ok(None) };
    value.as_u64().map(Some).ok_or_else(|| ApiError::bad(name, format!("`{name}` must be a whole number")))
}

/// Any whole number, also a negative one.
fn seed(fields: &mut Map<String, Value>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.shift_remove("seed") else { return Ok(None) };
    let seed = value.as_u64().or(value.as_i64().map(i64::cast_unsigned));
    seed.map(Some).ok_or_else(|| ApiError::bad("seed", "`seed` must be a whole number"))
}

fn number(fields: &mut Map<String, Value>, name: &'static str, low: f64, high: f64) -> Result<Option<f32>, ApiError> {
    let Some(value) = fields.shift_remove(name) else { return Ok(None) };
    match value.as_f64().filter(|value| (low..=high).contains(value)) {
        Some(value) => Ok(Some(value as f32)),
        None => Err(ApiError::bad(name, format!("`{name}` must be a number from {low} to {high}"))),
    }
}

fn flag(value: Option<Value>, name: &'static str) -> Result<bool, ApiError> {
    match value {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(ApiError::bad(name, format!("`{name}` must be true or false"))),
    }
}

fn stops(value: Option<Value>) -> Result<Vec<String>, ApiError> {
    let bad = || ApiError::bad("stop", format!("`stop` must be a text, or up to {MAX_STOPS} of them, none empty"));
    let items = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    let texts: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
    texts.filter(|texts| texts.len() <= MAX_STOPS && texts.iter().all(|text| !text.is_empty())).ok_or_else(bad)
}

/// What all pieces of one answer share.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub style: Style,
    pub id: String,
    pub model: String,
    /// Seconds since 1970.
    pub created: u64,
}

impl Head {
    /// A whole answer.
    pub fn answer(&self, text: &str, finish: Finish, usage: Usage) -> Value {
        let mut choice = json!({"index": 0, "finish_reason": finish.name(), "logprobs": null});
        let object = match self.style {
            Style::Chat => {
                choice["message"] = json!({"role": "assistant", "content": text});
                "chat.completion"
            }
            Style::Text => {
                choice["text"] = json!(text);
                "text_completion"
            }
        };
        let mut value = self.value(object, vec![choice]);
        value["usage"] = usage.json();
        value
    }
    /// The first piece of a stream, where there is one.
    pub fn opening(&self) -> Option<Value> {
        (self.style == Style::Chat).then(|| self.chunk(json!({"role": "assistant", "content": ""}), Value::Null))
    }
    /// A piece of text.
    pub fn piece(&self, text: &str) -> Value {
        match self.style {
            Style::Chat => self.chunk(json!({"content": text}), Value::Null),
            Style::Text => self.chunk(json!(text), Value::Null),
        }
    }
    /// The piece that says why it ended.
    pub fn ending(&self, finish: Finish) -> Value {
        match self.style {
            Style::Chat => self.chunk(json!({}), json!(finish.name())),
            Style::Text => self.chunk(json!(""), json!(finish.name())),
        }
    }
    /// The piece without choices that counts the tokens.
    pub fn usage(&self, usage: Usage) -> Value {
        let object = self.chunk_object();
        let mut value = self.value(object, Vec::new());
        value["usage"] = usage.json();
        value
    }

    fn chunk(&self, said: Value, finish: Value) -> Value {
        let mut choice = json!({"index": 0, "finish_reason": finish, "logprobs": null});
        choice[if self.style == Style::Chat { "delta" } else { "text" }] = said;
        self.value(self.chunk_object(), vec![choice])
    }
    fn chunk_object(&self) -> &'static str {
        if self.style == Style::Chat { "chat.completion.chunk" } else { "text_completion" }
    }
    fn value(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(more: &str) -> Result<Request, ApiError> {
        parse(Style::Chat, format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}]{more}}}"#).as_bytes())
    }

    #[test]
    fn a_request_as_clients_send_it_is_understood() {
        let request = chat(
            r#", "model": "m", "max_completion_tokens": 5, "temperature": 0.5, "seed": -1, "stop": "x", "stream": true,
               "stream_options": {"include_usage": true}, "n": 1, "user": "u", "logprobs": null"#,
        )
        .unwrap();
        assert_eq!(request.settings.max_tokens, Some(5));
        assert_eq!((request.settings.temperature, request.settings.seed), (Some(0.5), Some(u64::MAX)));
        assert_eq!(request.settings.stop, ["x"]);
        assert!(request.stream && request.include_usage);
        assert_eq!(request.ignored, ["user"]);
        let parts = br#"{"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}]}"#;
        assert_eq!(parse(Style::Chat, parts).unwrap().ask, Ask::Chat(vec![ChatMessage::new("system", "a")]));
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_never_ignored() {
        for (more, word) in [
            (r#", "n": 2"#, "`n`"),
            (r#", "tools": [{}]"#, "`tools`"),
            (r#", "response_format": {"type": "json_object"}"#, "`response_format`"),
            (r#", "temperatur": 1"#, "`temperatur`"),
            (r#", "temperature": 3"#, "`temperature`"),
            (r#", "temperature": "hot""#, "`temperature`"),
            (r#", "max_tokens": 0"#, "`max_tokens`"),
            (r#", "max_tokens": -1"#, "`max_tokens`"),
            (r#", "stop": [""]"#, "`stop`"),
            (r#", "stream": 1"#, "`stream`"),
        ] {
            let error = chat(more).unwrap_err();
            assert!(error.status == 400 && error.message.contains(word), "{more}: {}", error.message);
        }
        for body in ["", "[]", "{}", r#"{"messages": []}"#, r#"{"messages": [{"role": "x", "content": "a"}]}"#] {
            assert_eq!(parse(Style::Chat, body.as_bytes()).unwrap_err().status, 400);
        }
        assert_eq!(parse(Style::Text, br#"{"prompt": ["a", "b"]}"#).unwrap_err().param, Some("prompt"));
    }
}
