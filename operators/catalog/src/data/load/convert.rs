//! The shapes that rows have in the wild, turned into ours. What a shape does not use stays in `meta`.

use llmflow_dataset::{Chat, Choice, Content, Message, Meta, Preference, Prompt, Role, Row};
use serde_json::{Map, Value};

use super::spec::Format;

type Fields = Map<String, Value>;

/// The shape of a row, by the fields it has.
pub(super) fn detect(fields: &Fields) -> Option<Format> {
    let has = |name: &str| fields.contains_key(name);
    if has("chosen") && has("rejected") {
        Some(Format::Preference)
    } else if has("messages") {
        Some(Format::Messages)
    } else if has("conversations") {
        Some(Format::Sharegpt)
    } else if (has("choices") && (has("query") || has("question"))) || (has("endings") && has("ctx")) {
        Some(Format::Choice)
    } else if has("instruction") && (has("output") || has("response")) {
        Some(Format::Alpaca)
    } else if has("prompt") && (has("completion") || has("response")) {
        Some(Format::PromptCompletion)
    } else if has("prompt") || has("question") {
        Some(Format::Prompt)
    } else {
        has("text").then_some(Format::Text)
    }
}

/// # Errors
/// What the row lacks: ``has no `output` ``.
pub(super) fn row(format: Format, mut fields: Fields) -> Result<Row, String> {
    let fields = &mut fields;
    let content = match format {
        Format::Text | Format::Auto => Content::Text(text(fields, &["text", "content"])?),
        Format::Alpaca => alpaca(fields)?,
        Format::Messages => {
            let messages = turns(take(fields, &["messages"])?, "messages")?;
            Content::Chat(Chat { messages: answered(messages)?, tools: tools(fields) })
        }
        Format::Sharegpt => {
            let mut messages = turns(take(fields, &["conversations"])?, "conversations")?;
            if let Some(system) = optional(fields, &["system"]) {
                messages.insert(0, Message::system(system));
            }
            Content::Chat(Chat { messages: answered(messages)?, tools: tools(fields) })
        }
        Format::PromptCompletion => {
            let mut messages = side(take(fields, &["prompt"])?, "prompt", Role::User)?;
            messages.extend(side(take(fields, &["completion", "response"])?, "completion", Role::Assistant)?);
            Content::Chat(Chat { messages, tools: tools(fields) })
        }
        Format::Prompt => {
            let prompt = side(take(fields, &["prompt", "question", "instruction"])?, "prompt", Role::User)?;
            let names = ["answer", "reference", "completion", "response", "output"];
            Content::Prompt(Prompt { prompt, answer: optional(fields, &names) })
        }
        Format::Choice => choice(fields)?,
        Format::Preference => preference(fields)?,
    };
    Ok(Row::new(content, meta(fields)))
}

fn alpaca(fields: &mut Fields) -> Result<Content, String> {
    let mut messages: Vec<Message> = optional(fields, &["system"]).into_iter().map(Message::system).collect();
    if let Some(Value::Array(history)) = fields.shift_remove("history") {
        for turn in history {
            let pair: (String, String) = serde_json::from_value(turn)
                .map_err(|_| "has a `history` that is no list of pairs of text".to_owned())?;
            messages.extend([Message::user(pair.0), Message::assistant(pair.1)]);
        }
    }
    messages.push(Message::user(instruction(fields)?));
    messages.push(Message::assistant(text(fields, &["output", "response"])?));
    Ok(Content::Chat(Chat { messages, tools: tools(fields) }))
}

/// An instruction, and below it its input.
fn instruction(fields: &mut Fields) -> Result<String, String> {
    let instruction = text(fields, &["instruction"])?;
    Ok(match optional(fields, &["input"]) {
        Some(input) => format!("{instruction}\n{input}"),
        None => instruction,
    })
}

fn choice(fields: &mut Fields) -> Result<Content, String> {
    let query = text(fields, &["query", "question", "ctx"])?;
    let Value::Array(items) = take(fields, &["choices", "endings"])? else {
        return Err("has `choices` that are no list".into());
    };
    let choices: Vec<String> = items
        .into_iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| "has a choice that is no text".to_owned()))
        .collect::<Result<_, _>>()?;
    if choices.len() < 2 {
        return Err(format!("has {} choices; at least 2 are needed", choices.len()));
    }
    let gold = take(fields, &["gold", "label", "answer"])?;
    let index = gold.as_u64().or_else(|| gold.as_str()?.trim().parse().ok());
    match index.filter(|index| *index < choices.len() as u64) {
        Some(gold) => Ok(Content::Choice(Choice { query, choices, gold: gold as u32 })),
        None => Err(format!("has `gold` {gold}, which is no index of its {} choices", choices.len())),
    }
}

fn preference(fields: &mut Fields) -> Result<Content, String> {
    let chosen = dialogue(take(fields, &["chosen"])?, "chosen")?;
    let rejected = dialogue(take(fields, &["rejected"])?, "rejected")?;
    let prompt = if fields.contains_key("conversations") {
        turns(take(fields, &["conversations"])?, "conversations")?
    } else if fields.contains_key("prompt") {
        side(take(fields, &["prompt"])?, "prompt", Role::User)?
    } else if fields.contains_key("instruction") {
        vec![Message::user(instruction(fields)?)]
    } else {
        Vec::new()
    };
    let margin = fields.shift_remove("margin").and_then(|margin| margin.as_f64());
    // Whole dialogues on both sides: what they share at the start is the prompt. A prompt that is repeated is cut off.
    let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    let shared = shared.min(chosen.len().saturating_sub(1)).min(rejected.len().saturating_sub(1));
    let prompt = if prompt.is_empty() { chosen[..shared].to_vec() } else { prompt };
    if prompt.is_empty() {
        return Err("has no `prompt`, and its sides share no first turn".into());
    }
    let (chosen, rejected) = (chosen[shared..].to_vec(), rejected[shared..].to_vec());
    Ok(Content::Preference(Preference { prompt, chosen, rejected, margin }))
}

/// One side of a pair: an answer, turns, or a whole "Human: … Assistant: …" dialogue.
fn dialogue(value: Value, name: &str) -> Result<Vec<Message>, String> {
    const HUMAN: &str = "\n\nHuman:";
    const ASSISTANT: &str = "\n\nAssistant:";
    let Some(text) = value.as_str().filter(|text| text.starts_with(HUMAN)) else {
        return side(value, name, Role::Assistant);
    };
    let mut messages = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (role, mark) = if rest.starts_with(HUMAN) { (Role::User, HUMAN) } else { (Role::Assistant, ASSISTANT) };
        let body = &rest[mark.len()..];
        let end = [HUMAN, ASSISTANT].iter().filter_map(|mark| body.find(mark)).min().unwrap_or(body.len());
        messages.push(Message::new(role, body[..end].trim()));
        rest = &body[end..];
    }
    Ok(messages)
}

/// Text as one turn of `role`, or turns as they are.
fn side(value: Value, name: &str, role: Role) -> Result<Vec<Message>, String> {
    match value {
        Value::String(text) if text.trim().is_empty() => Err(format!("has an empty `{name}`")),
        Value::String(text) => Ok(vec![Message::new(role, text)]),
        Value::Object(turn) => Ok(vec![message(turn, name)?]),
        turns_of => turns(turns_of, name),
    }
}

fn turns(value: Value, name: &str) -> Result<Vec<Message>, String> {
    let Value::Array(items) = value else { return Err(format!("has a `{name}` that is no list of turns")) };
    if items.is_empty() {
        return Err(format!("has an empty `{name}`"));
    }
    let each = items.into_iter().map(|item| match item {
        Value::Object(turn) => message(turn, name),
        _ => Err(format!("has a turn in `{name}` that is no object")),
    });
    each.collect()
}

/// `{role, content}` or `{from, value}`.
fn message(mut turn: Fields, name: &str) -> Result<Message, String> {
    let speaker = ["role", "from"].iter().find_map(|key| turn.get(*key)?.as_str()).map(str::to_owned);
    let speaker = speaker.ok_or_else(|| format!("has a turn in `{name}` without a `role`"))?;
    let role = Role::find(&speaker).ok_or_else(|| format!("has a turn of the unknown role `{speaker}`"))?;
    let content = ["content", "value"].iter().find_map(|key| turn.get(*key)?.as_str()).map(str::to_owned);
    let calls = turn.shift_remove("tool_calls").filter(|calls| !calls.is_null());
    if speaker == "function_call" {
        let call = content.ok_or_else(|| format!("has a call in `{name}` without a `value`"))?;
        return Ok(Message { role, content: String::new(), tool_calls: Some(call) });
    }
    match (content, calls) {
        (content, Some(calls)) => {
            let calls = calls.as_str().map_or_else(|| calls.to_string(), str::to_owned);
            Ok(Message { role, content: content.unwrap_or_default(), tool_calls: Some(calls) })
        }
        (Some(content), None) => Ok(Message::new(role, content)),
        (None, None) => Err(format!("has a turn in `{name}` without text")),
    }
}

/// A chat has something to learn from: an assistant's turn that is not empty.
fn answered(messages: Vec<Message>) -> Result<Vec<Message>, String> {
    let says = |turn: &Message| !turn.content.trim().is_empty() || turn.tool_calls.is_some();
    match messages.iter().any(|turn| turn.role == Role::Assistant && says(turn)) {
        true => Ok(messages),
        false => Err("has no answer of the assistant".into()),
    }
}

fn take(fields: &mut Fields, names: &[&str]) -> Result<Value, String> {
    let found = names.iter().find(|name| fields.get(**name).is_some_and(|value| !value.is_null()));
    found.and_then(|name| fields.shift_remove(*name)).ok_or_else(|| format!("has no `{}`", names[0]))
}

/// Text that must be there; the first name is the one a message uses.
fn text(fields: &mut Fields, names: &[&str]) -> Result<String, String> {
    match take(fields, names)? {
        Value::String(text) if text.trim().is_empty() => Err(format!("has an empty `{}`", names[0])),
        Value::String(text) => Ok(text),
        _ => Err(format!("has a `{}` that is no text", names[0])),
    }
}

/// Text that may be absent or empty; a number is its digits.
fn optional(fields: &mut Fields, names: &[&str]) -> Option<String> {
    let value = take(fields, names).ok()?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(text).filter(|text| !text.trim().is_empty())
}

fn tools(fields: &mut Fields) -> Option<String> {
    optional(fields, &["tools"]).filter(|tools| tools != "[]")
}

/// What is left; a field `meta`, an object or its JSON text, is opened.
fn meta(fields: &mut Fields) -> Meta {
    let nested = match fields.shift_remove("meta") {
        Some(Value::Object(nested)) => nested,
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
        _ => Meta::new(),
    };
    let mut meta: Meta = std::mem::take(fields).into_iter().filter(|(_, value)| !value.is_null()).collect();
    meta.extend(nested);
    meta
}
