//! Chat templates: the Jinja that Hugging Face's templates are written in, with limits.

use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig, value::Kwargs};

use super::{ChatMessage, Special};
use crate::{ModelError, Result};

/// Instructions a template may take; real ones take some thousands for a long conversation.
const FUEL: u64 = 5_000_000;
/// Name of the only template.
const NAME: &str = "chat";

/// Checks that a template parses.
pub(super) fn check(template: &str) -> Result<()> {
    environment(template).map(drop)
}

/// Renders messages.
pub(super) fn render(template: &str, messages: &[ChatMessage], prompt: bool, special: &Special) -> Result<String> {
    let environment = environment(template)?;
    let messages: Vec<Value> = messages
        .iter()
        .map(|message| {
            Value::from_pairs([
                ("role", Value::from(message.role.as_str())),
                ("content", message.content.as_str().into()),
            ])
        })
        .collect();
    let text = |token: &Option<String>| Value::from(token.clone().unwrap_or_default());
    let context = Value::from_pairs([
        ("messages", Value::from(messages)),
        ("add_generation_prompt", prompt.into()),
        ("bos_token", text(&special.bos)),
        ("eos_token", text(&special.eos)),
        ("unk_token", text(&special.unknown)),
        ("pad_token", text(&special.padding)),
        ("tools", Value::from(())),
    ]);
    environment.get_template(NAME).and_then(|template| template.render(context)).map_err(failed)
}

fn environment(template: &str) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(|_, value, method, arguments| python_method(value, method, arguments));
    environment.add_function("raise_exception", |message: String| -> std::result::Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    // A fixed date: equal inputs must give equal bytes, whatever the day.
    environment.add_function("strftime_now", |format: String| fixed_date(&format));
    environment.add_filter("tojson", |value: Value, options: Kwargs| {
        let indent = options.get::<Option<usize>>("indent")?.map(Value::from);
        let json = minijinja::filters::tojson(&value, indent, Kwargs::from_iter(Vec::<(&str, Value)>::new()))?;
        // Written for HTML; Hugging Face's is not.
        let text = json.to_string();
        Ok::<_, Error>(
            text.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&").replace("\\u0027", "'"),
        )
    });
    environment.add_template_owned(NAME, template.to_owned()).map_err(failed)?;
    Ok(environment)
}

/// 26 July 2024, the date that Llama's own templates fall back to.
fn fixed_date(format: &str) -> String {
    [
        ("%d", "26"),
        ("%b", "Jul"),
        ("%B", "July"),
        ("%m", "07"),
        ("%Y", "2024"),
        ("%H", "00"),
        ("%M", "00"),
        ("%S", "00"),
    ]
    .iter()
    .fold(format.to_owned(), |text, (code, value)| text.replace(code, value))
}

/// The methods of Python's `str` and `dict` that templates call.
fn python_method(value: &Value, method: &str, arguments: &[Value]) -> std::result::Result<Value, Error> {
    let unknown = || Error::new(ErrorKind::UnknownMethod, format!("no method `{method}`"));
    let text = |index: usize| arguments.get(index).and_then(Value::as_str);
    if let Some(own) = value.as_str() {
        let set = text(0);
        let strips = |c: char| set.map_or(c.is_whitespace(), |set| set.contains(c));
        return Ok(match method {
            "strip" => own.trim_matches(strips).into(),
            "lstrip" => own.trim_start_matches(strips).into(),
            "rstrip" => own.trim_end_matches(strips).into(),
            "upper" => own.to_uppercase().into(),
            "lower" => own.to_lowercase().into(),
            "startswith" => text(0).is_some_and(|part| own.starts_with(part)).into(),
            "endswith" => text(0).is_some_and(|part| own.ends_with(part)).into(),
            "replace" => own.replace(text(0).ok_or_else(unknown)?, text(1).ok_or_else(unknown)?).into(),
            "split" => match text(0) {
                Some("") => return Err(unknown()),
                Some(by) => Value::from_iter(own.split(by)),
                None => Value::from_iter(own.split_whitespace()),
            },
            "capitalize" | "title" => {
                let mut letters = own.chars();
                let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
                (first + &letters.as_str().to_lowercase()).into()
            }
            _ => return Err(unknown()),
        });
    }
    let key = arguments.first();
    match method {
        "get" => {
            let found = value.get_item(key.ok_or_else(unknown)?)?;
            Ok(if found.is_undefined() { arguments.get(1).cloned().unwrap_or_else(|| ().into()) } else { found })
        }
        "keys" => Ok(Value::from_iter(value.try_iter()?)),
        "values" => value
            .try_iter()?
            .map(|key| value.get_item(&key))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map(Value::from),
        "items" => value
            .try_iter()?
            .map(|key| Ok(Value::from(vec![key.clone(), value.get_item(&key)?])))
            .collect::<std::result::Result<Vec<_>, Error>>()
            .map(Value::from),
        _ => Err(unknown()),
    }
}

fn failed(error: Error) -> ModelError {
    ModelError::Template(error.to_string())
}
