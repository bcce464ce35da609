//! Rows as Arrow columns, and back: the one place that knows a kind's file layout.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    builder::{ListBuilder, StringBuilder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use crate::{
    Chat, Choice, Content, Message, Meta, Preference, Prompt, Row, RowId, RowKind,
    message_columns::{messages_array, messages_field, read_messages},
};

/// Key of the schema metadata that names the kind.
pub(crate) const KIND_KEY: &str = "llmflow.kind";

/// The columns of a kind, the kind itself in the metadata.
pub(crate) fn schema_of(kind: RowKind) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let optional = |name: &str| Field::new(name, DataType::Utf8, true);
    let mut fields = vec![text("id")];
    fields.extend(match kind {
        RowKind::Text => vec![text("text")],
        RowKind::Chat => vec![messages_field("messages"), optional("tools")],
        RowKind::Prompt => vec![messages_field("prompt"), optional("answer")],
        RowKind::Choice => vec![
            text("query"),
            Field::new("choices", DataType::List(Arc::new(choice_item())), false),
            Field::new("gold", DataType::Int64, false),
        ],
        RowKind::Preference => vec![
            messages_field("prompt"),
            messages_field("chosen"),
            messages_field("rejected"),
            Field::new("margin", DataType::Float64, true),
        ],
    });
    fields.push(text("meta"));
    Arc::new(Schema::new_with_metadata(fields, HashMap::from([(KIND_KEY.to_owned(), kind.name().to_owned())])))
}

fn choice_item() -> Field {
    Field::new("item", DataType::Utf8, false)
}

/// Encodes rows of one kind. Fails on the first row of another, with that row's kind.
pub(crate) fn batch_of(kind: RowKind, rows: &[Row]) -> Result<RecordBatch, String> {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.id.as_str())));
    let mut columns = vec![ids];
    columns.extend(content_columns(kind, rows)?);
    let metas = rows.iter().map(|row| match row.meta.is_empty() {
        true => "{}".to_owned(),
        false => serde_json::to_string(&row.meta).expect("a JSON map has a text"),
    });
    columns.push(Arc::new(StringArray::from_iter_values(metas)));
    RecordBatch::try_new(schema_of(kind), columns).map_err(|error| error.to_string())
}

/// The contents of one variant, or the kind of the first row that is of another.
macro_rules! all {
    ($rows:expr, $variant:ident) => {
        $rows
            .iter()
            .map(|row| match &row.content {
                Content::$variant(content) => Ok(content),
                other => Err(format!("a {} row among {} rows", other.kind(), RowKind::$variant)),
            })
            .collect::<Result<Vec<_>, String>>()?
    };
}

fn content_columns(kind: RowKind, rows: &[Row]) -> Result<Vec<ArrayRef>, String> {
    Ok(match kind {
        RowKind::Text => vec![Arc::new(StringArray::from_iter_values(all!(rows, Text)))],
        RowKind::Chat => {
            let chats = all!(rows, Chat);
            let tools: StringArray = chats.iter().map(|chat| chat.tools.as_deref()).collect();
            vec![messages_array(chats.iter().map(|chat| chat.messages.as_slice())), Arc::new(tools)]
        }
        RowKind::Prompt => {
            let prompts = all!(rows, Prompt);
            let answers: StringArray = prompts.iter().map(|prompt| prompt.answer.as_deref()).collect();
            vec![messages_array(prompts.iter().map(|prompt| prompt.prompt.as_slice())), Arc::new(answers)]
        }
        RowKind::Choice => {
            let choices = all!(rows, Choice);
            let mut list = ListBuilder::new(StringBuilder::new()).with_field(choice_item());
            for choice in &choices {
                choice.choices.iter().for_each(|text| list.values().append_value(text));
                list.append(true);
            }
            vec![
                Arc::new(StringArray::from_iter_values(choices.iter().map(|choice| &choice.query))),
                Arc::new(list.finish()),
                Arc::new(Int64Array::from_iter_values(choices.iter().map(|choice| i64::from(choice.gold)))),
            ]
        }
        RowKind::Preference => {
            let pairs = all!(rows, Preference);
            let margins: Float64Array = pairs.iter().map(|pair| pair.margin).collect();
            vec![
                messages_array(pairs.iter().map(|pair| pair.prompt.as_slice())),
                messages_array(pairs.iter().map(|pair| pair.chosen.as_slice())),
                messages_array(pairs.iter().map(|pair| pair.rejected.as_slice())),
                Arc::new(margins),
            ]
        }
    })
}

/// Decodes a batch, or says which column is wrong.
pub(crate) fn rows_of(kind: RowKind, batch: &RecordBatch) -> Result<Vec<Row>, String> {
    let ids = texts(batch, "id")?;
    let metas = texts(batch, "meta")?;
    let contents = contents_of(kind, batch)?;
    let with_meta = |(row, content): (usize, Content)| {
        let meta: Meta = match metas.value(row) {
            "{}" => Meta::new(),
            text => match serde_json::from_str(text) {
                Ok(Value::Object(meta)) => meta,
                _ => return Err(format!("`meta` of row {row} is no JSON object")),
            },
        };
        Ok(Row { id: RowId::new(ids.value(row)), content, meta })
    };
    contents.into_iter().enumerate().map(with_meta).collect()
}

fn contents_of(kind: RowKind, batch: &RecordBatch) -> Result<Vec<Content>, String> {
    let at = |texts: &StringArray, row: usize| texts.is_valid(row).then(|| texts.value(row).to_owned());
    Ok(match kind {
        RowKind::Text => {
            let column = texts(batch, "text")?;
            (0..batch.num_rows()).map(|row| Content::Text(column.value(row).to_owned())).collect()
        }
        RowKind::Chat => {
            let tools = texts(batch, "tools")?;
            let chat = |(row, messages): (usize, Vec<Message>)| Content::Chat(Chat { messages, tools: at(tools, row) });
            read_messages(batch, "messages")?.into_iter().enumerate().map(chat).collect()
        }
        RowKind::Prompt => {
            let answers = texts(batch, "answer")?;
            let ask =
                |(row, prompt): (usize, Vec<Message>)| Content::Prompt(Prompt { prompt, answer: at(answers, row) });
            read_messages(batch, "prompt")?.into_iter().enumerate().map(ask).collect()
        }
        RowKind::Choice => choices_of(batch)?,
        RowKind::Preference => {
            let margins = column::<Float64Array>(batch, "margin")?;
            let sides = ["prompt", "chosen", "rejected"].map(|name| read_messages(batch, name));
            let [prompts, chosen, rejected] = sides;
            let pairs = prompts?.into_iter().zip(chosen?).zip(rejected?).enumerate();
            pairs
                .map(|(row, ((prompt, chosen), rejected))| {
                    let margin = margins.is_valid(row).then(|| margins.value(row));
                    Content::Preference(Preference { prompt, chosen, rejected, margin })
                })
                .collect()
        }
    })
}

fn choices_of(batch: &RecordBatch) -> Result<Vec<Content>, String> {
    let (queries, golds) = (texts(batch, "query")?, column::<Int64Array>(batch, "gold")?);
    let lists = column::<ListArray>(batch, "choices")?;
    (0..batch.num_rows())
        .map(|row| {
            let items = lists.value(row);
            let items = items.as_any().downcast_ref::<StringArray>().ok_or("`choices` is no list of text")?;
            let choices: Vec<String> = items.iter().map(|text| text.unwrap_or_default().to_owned()).collect();
            let gold = u32::try_from(golds.value(row)).map_err(|_| format!("`gold` of row {row} is negative"))?;
            Ok(Content::Choice(Choice { query: queries.value(row).to_owned(), choices, gold }))
        })
        .collect()
}

pub(crate) fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, String> {
    column(batch, name)
}

pub(crate) fn column<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, String> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<A>())
        .ok_or_else(|| format!("column `{name}` is missing or of another type"))
}
