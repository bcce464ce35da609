//! Answers and rows: what changed in what people read.

use super::{Answers, Artifact, Data, Diff, FEW, INDENT, Wanted, line};
use crate::render::{
    format,
    rows::short_id,
    stage::{named_text, short},
    style::Paint,
    table::{wrap, wrap_items},
};

pub(super) fn answers(answers: &Answers, wanted: Wanted, width: usize, paint: Paint) -> Vec<String> {
    let changed = answers.better + answers.worse;
    let reworded = match answers.reworded {
        0 => String::new(),
        count => format!(", {count} in other words"),
    };
    let text = format!(
        "{}: {changed} of {} changed: {} better, {} worse{reworded}",
        format::clean(answers.stage.as_str()),
        answers.questions,
        answers.better,
        answers.worse
    );
    let room = width.saturating_sub(INDENT);
    let mut texts = wrap(&text, room);
    if !wanted.answers && !answers.changed.is_empty() {
        let hint = "--answers shows them";
        match texts.as_mut_slice() {
            [text] if console::measure_text_width(text) + 3 + hint.len() <= room => {
                text.push_str(&format!("   {hint}"))
            }
            _ => texts.push(hint.to_owned()),
        }
    }
    let named = |(number, text): (usize, &String)| line(if number == 0 { " answers" } else { "" }, text);
    let mut lines: Vec<String> = texts.iter().enumerate().map(named).collect();
    if !wanted.answers {
        return lines;
    }
    let most = if wanted.all { answers.changed.len() } else { FEW };
    for answer in answers.changed.iter().take(most) {
        let word = match answer.gain {
            gain if gain > 0.0 => paint.green("better"),
            gain if gain < 0.0 => paint.red("worse"),
            _ => paint.dim("reworded"),
        };
        lines.push(String::new());
        lines.push(format!("  {word}  {}", paint.dim(&short_id(&answer.row))));
        lines.extend(named_text("question", &answer.question, width));
        lines.extend(answer.gold.iter().flat_map(|gold| named_text("gold", gold, width)));
        lines.extend(named_text("before", &answer.before, width));
        lines.extend(named_text("now", &answer.now, width));
    }
    if answers.changed.len() > most {
        lines.push(format!("  {} more: --all", answers.changed.len() - most));
    }
    lines
}

pub(super) fn rows(it: &Diff, wanted: Wanted, width: usize, paint: Paint) -> Vec<String> {
    let (same, other): (Vec<&Data>, Vec<&Data>) = it.data.iter().partition(|data| data.before == data.now);
    if it.data.is_empty() {
        return Vec::new();
    }
    let most = if wanted.all { other.len() } else { FEW };
    let mut words: Vec<String> = other.iter().take(most).map(|data| counted(data)).collect();
    if other.len() > most {
        words.push(format!("{} more differ: --all", other.len() - most));
    }
    let identical = format::names(same.iter().map(|data| data.name.as_str()), 4);
    if !same.is_empty() {
        words.push(format!("{identical} identical"));
    }
    if !wanted.rows && !other.is_empty() {
        words.push("--rows shows where".to_owned());
    }
    let text = wrap_items(&words.join(" · "), width.saturating_sub(INDENT));
    let named = |(number, text): (usize, &String)| line(if number == 0 { " rows" } else { "" }, text);
    let mut lines: Vec<String> = text.iter().enumerate().map(named).collect();
    for data in other.iter().take(most) {
        let Some(rows) = &data.rows else { continue };
        lines.push(String::new());
        lines.push(format!("  {}", paint.bold(&format::clean(&data.name))));
        for row in &rows.shown {
            let mark = if row.is_added { paint.green("+") } else { paint.red("−") };
            let fate = row.fate.as_ref().map(|fate| format!("  [{}]", format::clean(fate))).unwrap_or_default();
            let head = format!("  {mark} {}{fate}  ", paint.dim(&short_id(&row.id)));
            let room = width.saturating_sub(console::measure_text_width(&head));
            lines.push(format!("{head}{}", format::fit(&row.text, room)).trim_end().to_owned());
        }
        let more = (rows.added + rows.removed).saturating_sub(rows.shown.len() as u64);
        if more > 0 {
            lines.push(format!("    {} more: --all", format::count(more)));
        }
    }
    lines
}

/// Outputs without rows whose bytes differ.
pub(super) fn artifacts(it: &Diff, wanted: Wanted, width: usize) -> Vec<String> {
    let most = if wanted.all { it.artifacts.len() } else { FEW };
    let of = |artifact: &Artifact| {
        format!("{} {} → {}", format::clean(&artifact.name), short(&artifact.before), short(&artifact.now))
    };
    let mut words: Vec<String> = it.artifacts.iter().take(most).map(of).collect();
    if it.artifacts.len() > most {
        words.push(format!("{} more differ: --all", it.artifacts.len() - most));
    }
    let text = wrap_items(&words.join(" · "), width.saturating_sub(INDENT));
    let named = |(number, text): (usize, &String)| line(if number == 0 { " bytes" } else { "" }, text);
    text.iter().filter(|text| !text.is_empty()).enumerate().map(named).collect()
}

/// `unique.data 298 → 301 rows (+5 −2)`.
fn counted(data: &Data) -> String {
    let rows = match (data.rows_before, data.rows_now) {
        (Some(before), Some(now)) => format!(" {} → {}", format::count(before), format::counted(now, "row")),
        _ => " differs".to_owned(),
    };
    let changes = match &data.rows {
        Some(rows) if rows.added + rows.removed == 0 => " (the same rows in another order or form)".to_owned(),
        Some(rows) => format!(" (+{} −{})", format::count(rows.added), format::count(rows.removed)),
        None => String::new(),
    };
    format!("{}{rows}{changes}", format::clean(&data.name))
}
