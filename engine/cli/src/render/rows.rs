//! Rows as people read them: each side by its name, long texts broken into lines.

use llmflow_contract::Kind;
use llmflow_dataset::{Content, Message, Row, TraceRecord};

use super::{format, stage::named_text, style::Paint};

/// `unique.data · dataset/chat · 298 rows`.
pub fn head(name: &str, kind: &Kind, rows: u64, paint: Paint) -> String {
    format!("{} · {kind} · {}\n", paint.bold(&format::clean(name)), format::counted(rows, "row"))
}

/// One row, numbered from 1.
pub fn row(number: usize, row: &Row, width: usize, paint: Paint) -> String {
    let mut lines = vec![format!(" {} {}", paint.bold(&number.to_string()), paint.dim(&short_id(row.id.as_str())))];
    match &row.content {
        Content::Text(text) => lines.extend(named_text("text", text, width)),
        Content::Chat(chat) => lines.extend(turns("", &chat.messages, width)),
        Content::Prompt(prompt) => {
            lines.extend(turns("", &prompt.prompt, width));
            lines.extend(prompt.answer.iter().flat_map(|answer| named_text("answer", answer, width)));
        }
        Content::Choice(choice) => {
            lines.extend(named_text("query", &choice.query, width));
            for (index, text) in choice.choices.iter().enumerate() {
                let name = if index == choice.gold as usize {
                    format!("{}  right", index + 1)
                } else {
                    (index + 1).to_string()
                };
                lines.extend(named_text(&name, text, width));
            }
        }
        Content::Preference(pair) => {
            lines.extend(turns("", &pair.prompt, width));
            lines.extend(turns("chosen", &pair.chosen, width));
            lines.extend(turns("rejected", &pair.rejected, width));
        }
    }
    lines.join("\n") + "\n"
}

/// Turns by who speaks; `name` stands instead, where the side has one.
fn turns(name: &str, messages: &[Message], width: usize) -> Vec<String> {
    let lines = messages.iter().flat_map(|message| {
        let name = if name.is_empty() { message.role.name() } else { name };
        named_text(name, &message.content, width)
    });
    lines.collect()
}

/// A row that was left out: by which rule, what it saw, and the row.
pub fn left_out(record: &TraceRecord, text: Option<&str>, width: usize, paint: Paint) -> String {
    let rule = record.rule.as_deref().map(format::clean).unwrap_or_default();
    let evidence = record.evidence.as_ref().map(|value| format!(" · {}", format::fit(&value.to_string(), 60)));
    let verdict = paint.yellow(record.verdict.name());
    let head = format!(" {verdict} {rule}{} {}", evidence.unwrap_or_default(), paint.dim(&short_id(&record.row)));
    let mut lines = vec![head];
    lines.extend(text.into_iter().flat_map(|text| named_text("row", text, width)));
    lines.join("\n") + "\n"
}

/// Ids are long hashes: eight characters find the row again. A place such as `file:12` stays whole.
pub fn short_id(id: &str) -> String {
    let id = format::clean(id);
    match id.split_once('#') {
        _ if !id.chars().all(|c| c.is_ascii_hexdigit() || c == '#') => id,
        Some((hash, repeat)) if hash.len() > 8 => format!("{}#{repeat}", &hash[..8]),
        _ if id.len() > 8 => id[..8].to_owned(),
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use llmflow_dataset::{Chat, Choice, Meta, Role};

    use super::*;

    #[test]
    fn a_row_is_shown_side_by_side_and_cannot_move_the_cursor() {
        let messages = vec![
            Message::new(Role::User, "What is\u{1b}[2J LLMflow?"),
            Message::new(Role::Assistant, "One program.\nIt runs pipelines."),
        ];
        let chat = Row::new(Content::Chat(Chat { messages, tools: None }), Meta::new());
        let shown = row(3, &chat, 80, Paint(false));
        let rest: Vec<&str> = shown.lines().skip(1).collect();
        assert_eq!(
            rest,
            ["  user       What is [2J LLMflow?", "  assistant  One program.", "             It runs pipelines."]
        );
        let choice = Choice { query: "2+2".into(), choices: vec!["3".into(), "4".into()], gold: 1 };
        let shown = row(1, &Row::new(Content::Choice(choice), Meta::new()), 80, Paint(false));
        assert!(shown.ends_with("  query      2+2\n  1          3\n  2  right   4\n"), "{shown}");
    }

    #[test]
    fn a_row_that_was_left_out_names_its_rule() {
        let record = TraceRecord::dropped("0123456789abcdef#2", "too_short", serde_json::json!({"words": 2}));
        let shown = left_out(&record, Some("hi there"), 80, Paint(false));
        assert_eq!(shown, " dropped too_short · {\"words\":2} 01234567#2\n  row        hi there\n");
        assert_eq!(short_id("data/rows.jsonl:12"), "data/rows.jsonl:12");
    }
}
