//! Rows as JSON objects, read back: the inverse of [`Row::to_json`], for what other programs write.
//!
//! Owns: the fields of every kind. Must not know: the shapes that rows have in the wild (`data.load` does).

use serde_json::{Map, Value};

use crate::{Chat, Choice, Content, Message, Meta, Preference, Prompt, Role, Row, RowKind};

type Fields = Map<String, Value>;

impl Row {
    /// A row of this kind from its fields. Fields that the kind has not go to `meta`; `id` is left to the caller, the
    /// row's own is the hash of its content.
    ///
    /// # Errors
    /// What the row lacks: ``has no `text` ``.
    pub fn from_json(kind: RowKind, mut fields: Fields) -> Result<Self, String> {
        let from = &mut fields;
        let content = match kind {
            RowKind::Text => Content::Text(text(from, "text")?),
            RowKind::Chat => {
                Content::Chat(Chat { messages: turns(from, "messages")?, tools: json_text(from, "tools") })
            }
            RowKind::Prompt => {
                Content::Prompt(Prompt { prompt: turns(from, "prompt")?, answer: optional_text(from, "answer")? })
            }
            RowKind::Choice => Content::Choice(choice(from)?),
            RowKind::Preference => Content::Preference(Preference {
                prompt: turns(from, "prompt")?,
                chosen: turns(from, "chosen")?,
                rejected: turns(from, "rejected")?,
                margin: number(from, "margin")?,
            }),
        };
        let mut meta = meta(from)?;
        from.shift_remove("id");
        meta.append(from);
        Ok(Self::new(content, meta))
    }
}

fn take(fields: &mut Fields, name: &str) -> Option<Value> {
    fields.shift_remove(name).filter(|value| !value.is_null())
}

fn text(fields: &mut Fields, name: &str) -> Result<String, String> {
    optional_text(fields, name)?.ok_or_else(|| format!("has no `{name}`"))
}

fn optional_text(fields: &mut Fields, name: &str) -> Result<Option<String>, String> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("has `{name}` that is no text")),
    }
}

fn number(fields: &mut Fields, name: &str) -> Result<Option<f64>, String> {
    let Some(value) = take(fields, name) else { return Ok(None) };
    value.as_f64().map(Some).ok_or_else(|| format!("has `{name}` that is no number"))
}

/// Text as it is, anything else as JSON text.
fn json_text(fields: &mut Fields, name: &str) -> Option<String> {
    take(fields, name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn turns(fields: &mut Fields, name: &str) -> Result<Vec<Message>, String> {
    match take(fields, name) {
        None => Err(format!("has no `{name}`")),
        Some(Value::Array(items)) if !items.is_empty() => items.into_iter().map(|item| turn(item, name)).collect(),
        Some(_) => Err(format!("has `{name}` that is no list of turns")),
    }
}

fn turn(value: Value, name: &str) -> Result<Message, String> {
    let Value::Object(mut fields) = value else { return Err(format!("has a turn in `{name}` that is no map")) };
    let role = take(&mut fields, "role");
    let role = role.as_ref().and_then(Value::as_str).and_then(Role::find);
    let role = role.ok_or_else(|| format!("has a turn in `{name}` without a known `role`"))?;
    let tool_calls = json_text(&mut fields, "tool_calls");
    let content = match optional_text(&mut fields, "content")? {
        Some(content) => content,
        None if tool_calls.is_some() => String::new(),
        None => return Err(format!("has a turn in `{name}` without `content`")),
    };
    Ok(Message { role, content, tool_calls })
}

fn choice(fields: &mut Fields) -> Result<Choice, String> {
    let query = text(fields, "query")?;
    let choices: Option<Vec<String>> = take(fields, "choices").and_then(|choices| serde_json::from_value(choices).ok());
    let choices = choices.filter(|choices| choices.len() >= 2);
    let choices = choices.ok_or("has no `choices`: a list of two texts or more")?;
    let gold = take(fields, "gold").and_then(|gold| gold.as_u64()).filter(|gold| *gold < choices.len() as u64);
    let gold = gold.ok_or_else(|| format!("has no `gold`: an index of its {} choices", choices.len()))?;
    Ok(Choice { query, choices, gold: gold as u32 })
}

/// A map, or the JSON text of one.
fn meta(fields: &mut Fields) -> Result<Meta, String> {
    let value = match take(fields, "meta") {
        None => return Ok(Meta::new()),
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
        Some(value) => value,
    };
    match value {
        Value::Object(meta) => Ok(meta),
        _ => Err("has `meta` that is no map".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(kind: RowKind, value: Value) -> Result<Row, String> {
        Row::from_json(kind, value.as_object().unwrap().clone())
    }

    #[test]
    fn what_was_written_is_read_back() {
        let call = Message { tool_calls: Some(r#"[{"id":"1"}]"#.into()), ..Message::assistant("") };
        let contents = [
            Content::Text("é\n".into()),
            Content::Chat(Chat { messages: vec![Message::user("q"), call], tools: Some("[]".into()) }),
            Content::Prompt(Prompt { prompt: vec![Message::user("q")], answer: Some("a".into()) }),
            Content::Choice(Choice { query: "q".into(), choices: vec!["a".into(), "b".into()], gold: 1 }),
            Content::Preference(Preference {
                prompt: vec![Message::user("q")],
                chosen: vec![Message::assistant("a")],
                rejected: vec![Message::assistant("b")],
                margin: Some(0.5),
            }),
        ];
        for content in contents {
            let row = Row::new(content, Meta::from_iter([("line".to_owned(), json!(3))]));
            assert_eq!(read(row.kind(), row.to_json()).unwrap(), row);
        }
    }

    #[test]
    fn a_row_that_lacks_something_says_what() {
        for (kind, value, lack) in [
            (RowKind::Text, json!({"txt": "a"}), "has no `text`"),
            (RowKind::Text, json!({"text": 3}), "has `text` that is no text"),
            (RowKind::Chat, json!({"messages": []}), "has `messages` that is no list of turns"),
            (RowKind::Chat, json!({"messages": [{"role": "x", "content": ""}]}), "without a known `role`"),
            (RowKind::Choice, json!({"query": "q", "choices": ["a", "b"], "gold": 2}), "an index of its 2 choices"),
            (RowKind::Text, json!({"text": "a", "meta": "no"}), "has `meta` that is no map"),
        ] {
            let error = read(kind, value).unwrap_err();
            assert!(error.contains(lack), "{error}");
        }
        let extra = read(RowKind::Text, json!({"id": "x", "text": "a", "score": 2})).unwrap();
        assert_eq!(extra.meta, Meta::from_iter([("score".to_owned(), json!(2))]));
    }
}
