//! What flows: the row types of every dataset kind, and what each reads like as text.

use std::{borrow::Cow, fmt};

use llmflow_contract::{Failure, Hasher, Kind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::RowId;

/// Whatever else the source said of a row; kept as JSON text in files.
pub type Meta = Map<String, Value>;

/// A row of any dataset kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: RowId,
    pub content: Content,
    pub meta: Meta,
}

/// What a row holds, by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// `dataset/text`
    Text(String),
    /// `dataset/chat`
    Chat(Chat),
    /// `dataset/prompt`
    Prompt(Prompt),
    /// `dataset/choice`
    Choice(Choice),
    /// `dataset/preference`
    Preference(Preference),
}

/// A conversation to learn from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    pub messages: Vec<Message>,
    /// The tools the assistant may call, as the JSON text of their schemas.
    pub tools: Option<String>,
}

/// Something to ask, and a reference answer if there is one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Turns so far; the last is the user's.
    pub prompt: Vec<Message>,
    pub answer: Option<String>,
}

/// A multiple-choice question: what is scored is each choice as the continuation of `query`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    pub query: String,
    pub choices: Vec<String>,
    /// Index of the right choice, from 0.
    pub gold: u32,
}

/// A better and a worse continuation of the same turns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preference {
    pub prompt: Vec<Message>,
    pub chosen: Vec<Message>,
    pub rejected: Vec<Message>,
    /// How much better, in the units of whoever judged.
    pub margin: Option<f64>,
}

/// One turn. Fields are added, never changed: room for content parts (images) and reasoning.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub role: Role,
    pub content: String,
    /// Calls of tools, as the JSON text of OpenAI's `tool_calls` list.
    pub tool_calls: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    System,
    User,
    Assistant,
    /// The result of a call.
    Tool,
}

impl Role {
    /// As chat templates spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
    /// By its own name, or a name that other formats use for it.
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "system" | "developer" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" | "model" | "function_call" => Some(Self::Assistant),
            "tool" | "function" | "observation" => Some(Self::Tool),
            _ => None,
        }
    }
}

/// The dataset kinds of today.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKind {
    Text,
    Chat,
    Prompt,
    Choice,
    Preference,
}

impl RowKind {
    pub const ALL: [Self; 5] = [Self::Text, Self::Chat, Self::Prompt, Self::Choice, Self::Preference];

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "dataset/text",
            Self::Chat => "dataset/chat",
            Self::Prompt => "dataset/prompt",
            Self::Choice => "dataset/choice",
            Self::Preference => "dataset/preference",
        }
    }
    pub fn kind(self) -> Kind {
        Kind::of(self.name())
    }
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for RowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A side of a row, for rules that look at one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Field {
    /// The whole row.
    #[default]
    Text,
    /// What is asked: every turn before the answer.
    Prompt,
    /// What is answered: the last assistant turn, the reference, the right choice, the chosen side.
    Answer,
}

impl Row {
    /// A row whose id is the hash of its content. Use a [`crate::Numbering`] where contents may repeat.
    pub fn new(content: Content, meta: Meta) -> Self {
        Self { id: content.id(), content, meta }
    }
    pub fn kind(&self) -> RowKind {
        self.content.kind()
    }
    /// The whole row as text, for filters and dedup: turns and choices joined by line breaks, roles left out.
    pub fn text(&self) -> Cow<'_, str> {
        self.field(Field::Text)
    }
    /// One side of the row as text; empty where the kind has no such side.
    pub fn field(&self, field: Field) -> Cow<'_, str> {
        self.content.field(field)
    }
    /// The row as other tools read it: `meta` and `tools` as JSON text, `null` left out.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("id".into(), self.id.as_str().into());
        self.content.write_json(&mut map);
        if !self.meta.is_empty() {
            map.insert("meta".into(), Value::Object(self.meta.clone()).to_string().into());
        }
        Value::Object(map)
    }
}

macro_rules! as_kind {
    ($($name:ident $variant:ident $type:ty;)+) => {
        impl Row {$(
            /// # Errors
            /// A bug: ports let only rows of their kind through.
            pub fn $name(&self) -> Result<&$type, Failure> {
                match &self.content {
                    Content::$variant(content) => Ok(content),
                    other => Err(Failure::bug(format!("row {} is {}, not {}", self.id, other.kind(), RowKind::$variant))),
                }
            }
        )+}
    };
}
as_kind! {
    as_document Text String;
    as_chat Chat Chat;
    as_prompt Prompt Prompt;
    as_choice Choice Choice;
    as_preference Preference Preference;
}

impl Content {
    pub fn kind(&self) -> RowKind {
        match self {
            Self::Text(_) => RowKind::Text,
            Self::Chat(_) => RowKind::Chat,
            Self::Prompt(_) => RowKind::Prompt,
            Self::Choice(_) => RowKind::Choice,
            Self::Preference(_) => RowKind::Preference,
        }
    }

    /// Hash of everything but `meta`.
    pub fn id(&self) -> RowId {
        let mut hasher = Hasher::new();
        hasher.part(self.kind().name().as_bytes());
        match self {
            Self::Text(text) => {
                hasher.part(text.as_bytes());
            }
            Self::Chat(chat) => {
                hash_messages(&mut hasher, &chat.messages);
                hash_optional(&mut hasher, chat.tools.as_deref());
            }
            Self::Prompt(prompt) => {
                hash_messages(&mut hasher, &prompt.prompt);
                hash_optional(&mut hasher, prompt.answer.as_deref());
            }
            Self::Choice(choice) => {
                hasher.part(choice.query.as_bytes()).part(&choice.gold.to_le_bytes());
                for text in &choice.choices {
                    hasher.part(text.as_bytes());
                }
            }
            Self::Preference(pair) => {
                for side in [&pair.prompt, &pair.chosen, &pair.rejected] {
                    hash_messages(&mut hasher, side);
                }
                hasher.part(&pair.margin.map(|margin| margin.to_le_bytes().to_vec()).unwrap_or_default());
            }
        }
        RowId::of(&hasher)
    }

    fn field(&self, field: Field) -> Cow<'_, str> {
        match (self, field) {
            (Self::Text(text), Field::Text) => Cow::Borrowed(text),
            (Self::Text(_), _) => Cow::Borrowed(""),
            (Self::Chat(chat), Field::Text) => joined(&chat.messages),
            (Self::Chat(chat), Field::Prompt) => joined(chat.split_answer().0),
            (Self::Chat(chat), Field::Answer) => {
                Cow::Borrowed(chat.split_answer().1.map_or("", |message| message.content.as_str()))
            }
            (Self::Prompt(prompt), Field::Prompt) => joined(&prompt.prompt),
            (Self::Prompt(prompt), Field::Answer) => Cow::Borrowed(prompt.answer.as_deref().unwrap_or_default()),
            (Self::Prompt(prompt), Field::Text) => match &prompt.answer {
                Some(answer) => Cow::Owned(format!("{}\n{answer}", joined(&prompt.prompt))),
                None => joined(&prompt.prompt),
            },
            (Self::Choice(choice), Field::Prompt) => Cow::Borrowed(&choice.query),
            (Self::Choice(choice), Field::Answer) => {
                Cow::Borrowed(choice.choices.get(choice.gold as usize).map_or("", String::as_str))
            }
            (Self::Choice(choice), Field::Text) => {
                Cow::Owned(format!("{}\n{}", choice.query, choice.choices.join("\n")))
            }
            (Self::Preference(pair), Field::Prompt) => joined(&pair.prompt),
            (Self::Preference(pair), Field::Answer) => joined(&pair.chosen),
            (Self::Preference(pair), Field::Text) => {
                let sides = [&pair.prompt, &pair.chosen, &pair.rejected].map(|side| joined(side));
                Cow::Owned(sides.join("\n"))
            }
        }
    }

    fn write_json(&self, map: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                map.insert(name.to_owned(), value);
            }
        };
        match self {
            Self::Text(text) => put("text", json!(text)),
            Self::Chat(chat) => {
                put("messages", messages_json(&chat.messages));
                put("tools", json!(chat.tools));
            }
            Self::Prompt(prompt) => {
                put("prompt", messages_json(&prompt.prompt));
                put("answer", json!(prompt.answer));
            }
            Self::Choice(choice) => {
                put("query", json!(choice.query));
                put("choices", json!(choice.choices));
                put("gold", json!(choice.gold));
            }
            Self::Preference(pair) => {
                put("prompt", messages_json(&pair.prompt));
                put("chosen", messages_json(&pair.chosen));
                put("rejected", messages_json(&pair.rejected));
                put("margin", json!(pair.margin));
            }
        }
    }
}

impl Chat {
    /// The turns before the last assistant turn, and that turn.
    pub fn split_answer(&self) -> (&[Message], Option<&Message>) {
        match self.messages.iter().rposition(|message| message.role == Role::Assistant) {
            Some(last) => (&self.messages[..last], Some(&self.messages[last])),
            None => (&self.messages, None),
        }
    }
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: None }
    }
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }
}

fn hash_messages(hasher: &mut Hasher, messages: &[Message]) {
    hasher.part(&(messages.len() as u64).to_le_bytes());
    for message in messages {
        hasher.part(message.role.name().as_bytes()).part(message.content.as_bytes());
        hash_optional(hasher, message.tool_calls.as_deref());
    }
}

fn hash_optional(hasher: &mut Hasher, text: Option<&str>) {
    hasher.part(&[u8::from(text.is_some())]).part(text.unwrap_or_default().as_bytes());
}

fn joined(messages: &[Message]) -> Cow<'_, str> {
    match messages {
        [one] if one.tool_calls.is_none() => Cow::Borrowed(&one.content),
        many => {
            let texts = many.iter().flat_map(|message| {
                let content = Some(message.content.as_str()).filter(|content| !content.is_empty());
                content.into_iter().chain(message.tool_calls.as_deref())
            });
            Cow::Owned(texts.collect::<Vec<_>>().join("\n"))
        }
    }
}

fn messages_json(messages: &[Message]) -> Value {
    let one = |message: &Message| {
        let mut value = json!({"role": message.role, "content": message.content});
        if let Some(calls) = &message.tool_calls {
            value["tool_calls"] = serde_json::from_str(calls).unwrap_or_else(|_| json!(calls));
        }
        value
    };
    Value::Array(messages.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(messages: Vec<Message>) -> Row {
        Row::new(Content::Chat(Chat { messages, tools: None }), Meta::new())
    }

    #[test]
    fn the_id_is_of_the_content_alone() {
        let plain = Row::new(Content::Text("a".into()), Meta::new());
        let noted = Row::new(Content::Text("a".into()), Map::from_iter([("source".to_owned(), json!("x"))]));
        assert_eq!(plain.id, noted.id);
        let asked = chat(vec![Message::user("a"), Message::assistant("b")]);
        let swapped = chat(vec![Message::assistant("a"), Message::user("b")]);
        assert_ne!(asked.id, swapped.id);
    }

    #[test]
    fn a_chat_has_a_prompt_and_an_answer() {
        let row = chat(vec![Message::system("s"), Message::user("q"), Message::assistant("a")]);
        assert_eq!(row.field(Field::Prompt), "s\nq");
        assert_eq!(row.field(Field::Answer), "a");
        assert_eq!(row.text(), "s\nq\na");
        assert!(row.as_prompt().is_err());
    }

    #[test]
    fn a_row_as_json_leaves_out_what_it_lacks() {
        let row = chat(vec![Message::user("q")]);
        assert_eq!(row.to_json(), json!({"id": row.id, "messages": [{"role": "user", "content": "q"}]}));
    }
}
