//! Turns as a Parquet column: a list of `{role, content, tool_calls}`.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray,
    builder::{ListBuilder, StringBuilder, StructBuilder},
};
use arrow_schema::{DataType, Field, Fields};

use crate::{Message, Role};

/// The list column `name`.
pub(crate) fn messages_field(name: &str) -> Field {
    Field::new(name, DataType::List(Arc::new(item_field())), false)
}

fn item_field() -> Field {
    Field::new("item", DataType::Struct(message_fields()), false)
}

fn message_fields() -> Fields {
    Fields::from(vec![
        Field::new("role", DataType::Utf8, false),
        Field::new("content", DataType::Utf8, false),
        Field::new("tool_calls", DataType::Utf8, true),
    ])
}

/// One list a row.
pub(crate) fn messages_array<'a>(rows: impl Iterator<Item = &'a [Message]>) -> ArrayRef {
    let mut list = ListBuilder::new(StructBuilder::from_fields(message_fields(), 0)).with_field(item_field());
    for messages in rows {
        for message in messages {
            let item = list.values();
            let texts = [Some(message.role.name()), Some(message.content.as_str()), message.tool_calls.as_deref()];
            for (column, text) in texts.into_iter().enumerate() {
                let builder = item.field_builder::<StringBuilder>(column).expect("message fields are text");
                builder.append_option(text);
            }
            item.append(true);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}

/// The turns of every row of a batch, or what is wrong with the column.
pub(crate) fn read_messages(batch: &RecordBatch, name: &str) -> Result<Vec<Vec<Message>>, String> {
    let wrong = || format!("column `{name}` is no list of {{role, content}}");
    let list = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<ListArray>());
    let list = list.ok_or_else(wrong)?;
    (0..list.len())
        .map(|row| {
            let items = list.value(row);
            let items = items.as_any().downcast_ref::<StructArray>().ok_or_else(wrong)?;
            let text = |name: &str| items.column_by_name(name)?.as_any().downcast_ref::<StringArray>().cloned();
            let (roles, contents) = (text("role").ok_or_else(wrong)?, text("content").ok_or_else(wrong)?);
            let calls = text("tool_calls");
            (0..items.len())
                .map(|turn| {
                    let role = Role::find(roles.value(turn))
                        .ok_or_else(|| format!("`{}` is no role of a turn", roles.value(turn)))?;
                    let tool_calls = calls.as_ref().filter(|calls| calls.is_valid(turn));
                    Ok(Message {
                        role,
                        content: contents.value(turn).to_owned(),
                        tool_calls: tool_calls.map(|calls| calls.value(turn).to_owned()),
                    })
                })
                .collect()
        })
        .collect()
}
