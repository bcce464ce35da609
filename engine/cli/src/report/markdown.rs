//! The story as Markdown: the same blocks, charts as tables of their values.
//!
//! Text of stages and rows is escaped so that it stays text: one line in tables and lists, fenced where it has several.
//! Must not know: what a block means.

use std::fmt::Write as _;

use llmflow_contract::{Chart, Table};

use super::{
    chart::{funnel, intervals, line::LineChart},
    markup::turns,
    number::number,
    story::{Block, Reading, Story},
};
use crate::render::format::{count, sparkline};

/// Rows of a table that are shown.
const MOST_ROWS: usize = 200;
/// Cells of a curve's drawing.
const CELLS: usize = 24;

/// The whole page.
/// The last line.
pub const MARK: &str = "<!-- a report of LLMflow -->";

pub fn page(story: &Story) -> String {
    let mut text = format!("# {} · {}\n\n", escape(&story.title), escape(&story.run));
    let facts: Vec<String> = story.facts.iter().map(|fact| escape(fact)).collect();
    line(&mut text, &format!("**{}** · {}", story.status, facts.join(" · ")));
    for section in &story.sections {
        line(&mut text, &format!("## {}", section.title));
        section.blocks.iter().for_each(|one| block(&mut text, one));
    }
    text.truncate(text.trim_end().len());
    text.push_str(&format!("\n\n{MARK}\n"));
    text
}

/// A paragraph.
fn line(text: &mut String, paragraph: &str) {
    let _ = write!(text, "{paragraph}\n\n"); // writing to a string cannot fail
}

fn block(text: &mut String, block: &Block) {
    match block {
        Block::Lead(sentence) => line(text, &format!("**{}**", escape(sentence))),
        Block::Text(sentence) => line(text, &escape(sentence)),
        Block::Heading(title) => line(text, &format!("### {}", escape(title))),
        Block::Alert { title, lines } => {
            let mut parts = vec![format!("> **✗ {}**", escape(title))];
            parts.extend(lines.iter().map(|line| format!("> {}", escape(line))));
            line(text, &parts.join("  \n"));
        }
        Block::Figures(figures) => {
            let rows =
                figures.iter().map(|figure| vec![figure.label.clone(), figure.value.clone(), figure.note.clone()]);
            let has_notes = figures.iter().any(|figure| !figure.note.is_empty());
            let columns: &[&str] = if has_notes { &["figure", "value", "change"] } else { &["figure", "value"] };
            table(text, columns, rows);
        }
        Block::Facts(facts) => {
            let facts: Vec<String> =
                facts.iter().map(|(name, value)| format!("- {}: {}", escape(name), escape(value))).collect();
            line(text, &facts.join("\n"));
        }
        Block::Table(data) => titled_table(text, data),
        Block::Readings(readings) => readings.iter().for_each(|one| reading(text, one)),
        Block::Lines(charts) => curves(text, charts),
        Block::Charts(charts) => charts.iter().for_each(|one| chart(text, one)),
        Block::Funnel(stages) => {
            let rows = stages.iter().map(|(stage, funnel)| {
                let parts = funnel::counts(funnel).map(count);
                [stage.clone(), count(funnel.rows_in)].into_iter().chain(parts).collect()
            });
            table(text, &["stage", "rows in", "kept", "made", "dropped", "set aside"], rows);
        }
        Block::Graph(_) => {} // the cards say what each stage needs
        Block::Code { text: code, .. } => fenced(text, code),
        Block::Fold { title, blocks } => {
            line(text, &format!("*{}*", escape(title)));
            blocks.iter().for_each(|one| self::block(text, one));
        }
        Block::Stage(card) => {
            line(text, &format!("### {} {}", card.status.sign(), escape(&card.name)));
            let parts = [card.operator.as_str(), card.status.name(), &card.time, &card.summary];
            let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).map(escape).collect();
            line(text, &parts.join(" · "));
            card.blocks.iter().for_each(|one| self::block(text, one));
        }
    }
}

fn titled_table(text: &mut String, data: &Table) {
    if !data.title.is_empty() {
        line(text, &format!("**{}**", escape(&data.title)));
    }
    let columns: Vec<&str> = data.columns.iter().map(String::as_str).collect();
    table(text, &columns, data.rows.iter().take(MOST_ROWS).cloned());
    if data.rows.len() > MOST_ROWS {
        line(text, &format!("… and {} more rows", data.rows.len() - MOST_ROWS));
    }
}

fn table(text: &mut String, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut row = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    row(&mut columns.iter().map(|name| escape(name)));
    row(&mut columns.iter().map(|_| "---".to_owned()));
    for cells in rows {
        row(&mut cells.iter().take(columns.len()).map(|cell| escape(cell)));
    }
    text.push('\n');
}

fn reading(text: &mut String, reading: &Reading) {
    let figures: Vec<String> =
        reading.figures.iter().map(|(name, value)| format!("{} {}", escape(name), escape(value))).collect();
    let title = (!reading.title.is_empty()).then(|| format!("**{}**", escape(&reading.title)));
    let head: Vec<String> = title.into_iter().chain(figures).collect();
    if !head.is_empty() {
        line(text, &head.join(" · "));
    }
    for (name, said) in reading.shared.iter().chain(&reading.sides).chain(&reading.parts) {
        line(text, &format!("{}:", escape(name)));
        fenced(text, if said.is_empty() { "(nothing)" } else { said });
    }
}

fn curves(text: &mut String, charts: &[LineChart]) {
    let rows = charts.iter().flat_map(|chart| chart.curves.iter().map(move |curve| (chart, curve)));
    let rows = rows.filter_map(|(chart, curve)| {
        let (first, last) = curve.ends()?;
        Some(vec![
            curve.name.clone(),
            chart.y_label.clone(),
            curve.points.len().to_string(),
            number(first),
            number(last),
            drawing(&curve.points),
        ])
    });
    table(text, &["curve", "unit", "points", "first", "last", "shape"], rows);
}

/// A curve in a few cells, each the mean of its stretch.
fn drawing(points: &[(f64, f64)]) -> String {
    let values: Vec<f64> = points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    let stretch = values.len().div_ceil(CELLS).max(1);
    let means: Vec<f64> = values.chunks(stretch).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    sparkline(&means, CELLS)
}

fn chart(text: &mut String, chart: &Chart) {
    match chart {
        Chart::Bars { title, unit, bars } => {
            line(text, &format!("**{}**", escape(&with_unit(title, unit))));
            table(text, &["", "value"], bars.iter().map(|(name, value)| vec![name.clone(), number(*value)]));
        }
        Chart::Intervals { title, unit, intervals } => {
            line(text, &format!("**{}**", escape(&with_unit(title, unit))));
            let rows = intervals.iter().map(|interval| vec![interval.label.clone(), intervals::words(interval)]);
            table(text, &["", "estimate (95 % interval)"], rows);
        }
    }
}

fn with_unit(title: &str, unit: &str) -> String {
    if unit.is_empty() { title.to_owned() } else { format!("{title}, {unit}") }
}

/// Text of several lines, word for word, inside a fence longer than any in it.
fn fenced(text: &mut String, code: &str) {
    let (mut longest, mut ticks) = (0, 0);
    for character in code.chars() {
        ticks = if character == '`' { ticks + 1 } else { 0 };
        longest = longest.max(ticks);
    }
    let fence = "`".repeat((longest + 1).max(3));
    let is_shown = |character: &char| *character == '\n' || *character == '\t' || !is_hidden(*character);
    let code: String = code.chars().filter(is_shown).collect();
    let _ = write!(text, "{fence}text\n{}\n{fence}\n\n", code.trim_end_matches('\n'));
}

/// Text on one line that stays text: every character with a meaning is escaped, line breaks become spaces.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let (text, mut before) = (text.trim(), ' ');
    for (at, character) in text.char_indices() {
        match character {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '#' | '|' | '!' | '~' | '$' | '&' | '^' => {
                escaped.push('\\');
                escaped.push(character);
            }
            // What makes a list, a rule or a heading's underline at the start of a line.
            '-' | '=' if escaped.is_empty() => {
                escaped.push('\\');
                escaped.push(character);
            }
            '+' | '.' | ')' if opens_item(&text[..at], &text[at..]) => {
                escaped.push('\\');
                escaped.push(character);
            }
            // `https://` and `www.` would become links.
            ':' if text[at..].starts_with("://") => escaped.push_str("\\:"),
            '.' if before == 'w' || before == 'W' => escaped.push_str("\\."),
            other if is_hidden(other) => escaped.push(' '),
            other => escaped.push(other),
        }
        before = character;
    }
    escaped
}

/// Would this sign, after what stands before it on the line, make an item of a list: `+ x`, `1. x`, `1) x`?
fn opens_item(before: &str, from: &str) -> bool {
    let is_number = !before.is_empty() && before.chars().all(|character| character.is_ascii_digit());
    let ends = from[1..].chars().next().is_none_or(char::is_whitespace);
    ends && if from.starts_with('+') { before.is_empty() } else { is_number }
}

fn is_hidden(character: char) -> bool {
    character.is_control() || turns(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_looks_like_markdown_stays_text() {
        for (hostile, escaped) in [
            ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
            ("- a\n# b", r"\- a \# b"),
            ("1. one", r"1\. one"),
            ("1) one", r"1\) one"),
            ("+ one", r"\+ one"),
            ("+0.27", "+0.27"),
            ("---", r"\---"),
            ("a | b", r"a \| b"),
            ("[x](http://y) ![z](w)", r"\[x\](http\://y) \!\[z\](w)"),
            ("www.example.org", r"www\.example.org"),
            ("&lt;b&gt;", r"\&lt;b\&gt;"),
            ("`a` *b* \\*", r"\`a\` \*b\* \\\*"),
            ("\u{202e}back", " back"),
        ] {
            assert_eq!(escape(hostile), escaped);
        }
    }

    #[test]
    fn a_fence_is_longer_than_any_inside() {
        let mut text = String::new();
        fenced(&mut text, "```\n<b>\n````\n");
        assert_eq!(text, "`````text\n```\n<b>\n````\n`````\n\n");
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_head() {
        let mut text = String::new();
        table(&mut text, &["a", "b"], [vec!["1|2".to_owned(), "x\ny".to_owned(), "extra".to_owned()]].into_iter());
        assert_eq!(text, "| a | b |\n| --- | --- |\n| 1\\|2 | x y |\n\n");
    }

    #[test]
    fn a_curve_keeps_its_shape_in_a_few_cells() {
        let points: Vec<(f64, f64)> = (0..240).map(|step| (f64::from(step), f64::from(240 - step))).collect();
        let drawn = drawing(&points);
        assert_eq!((drawn.chars().count(), drawn.chars().next(), drawn.chars().last()), (24, Some('▇'), Some('▁')));
    }
}
