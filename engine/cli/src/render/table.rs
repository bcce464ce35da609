//! Columns: one space before each line, two between columns, one column that gives way where the screen is narrow.

use console::{measure_text_width, pad_str, truncate_str};

/// Least width of the column that gives way.
const LEAST: usize = 16;

/// A table of text. Cells may be painted; their width is what is seen.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<String>,
    right: Vec<usize>,
    flexible: usize,
    wraps: bool,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
enum Row {
    Cells(Vec<String>),
    /// Not in columns.
    Line(String),
}

impl Table {
    /// The last column gives way, by being cut. An empty head is not drawn.
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).to_vec(), flexible: N.saturating_sub(1), ..Self::default() }
    }
    /// These columns stand at their right edge.
    pub fn right(mut self, columns: &[usize]) -> Self {
        self.right = columns.to_vec();
        self
    }
    /// This column gives way, by going on in the next line.
    pub fn wrap(mut self, column: usize) -> Self {
        (self.flexible, self.wraps) = (column, true);
        self
    }
    /// One row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(Row::Cells(cells.to_vec()));
    }
    /// A row of as many cells as there are columns, where their number is not fixed.
    pub fn row_of(&mut self, cells: Vec<String>) {
        self.rows.push(Row::Cells(cells));
    }
    /// A column more, before the last; the last gives way as before.
    pub fn insert_before_last(&mut self, head: &str) {
        let last = self.head.len().saturating_sub(1);
        self.head.insert(last, head.to_owned());
        self.flexible = self.head.len() - 1;
    }
    /// A column more, at the end; it gives way.
    pub fn push_column(&mut self, head: &str) {
        self.head.push(head.to_owned());
        self.flexible = self.head.len() - 1;
    }
    /// A line between rows that is in no column.
    pub fn line(&mut self, text: String) {
        self.rows.push(Row::Line(text));
    }

    /// What a screen of this width leaves to the column that gives way, and that column wants, in characters.
    pub fn room(&self, width: usize) -> (usize, usize) {
        let (narrow, whole) = (self.widths(width), self.widths(usize::MAX));
        let of = |widths: &[usize]| widths.get(self.flexible).copied().unwrap_or_default();
        (of(&narrow), of(&whole))
    }

    /// The lines of the table, none wider than `width` as long as the other columns leave room.
    pub fn lines(&self, width: usize) -> Vec<String> {
        let widths = self.widths(width);
        let mut lines = Vec::new();
        if self.head.iter().any(|name| !name.is_empty()) {
            lines.extend(self.draw(&self.head, &widths));
        }
        for row in &self.rows {
            match row {
                Row::Cells(cells) => lines.extend(self.draw(cells, &widths)),
                Row::Line(text) => lines.push(text.clone()),
            }
        }
        lines
    }

    fn widths(&self, width: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|name| measure_text_width(name)).collect();
        for row in &self.rows {
            let Row::Cells(cells) = row else { continue };
            for (column, cell) in cells.iter().enumerate() {
                widths[column] = widths[column].max(measure_text_width(cell));
            }
        }
        let total: usize = widths.iter().sum::<usize>() + 1 + 2 * widths.len().saturating_sub(1);
        if let Some(flexible) = widths.get_mut(self.flexible) {
            *flexible = flexible.saturating_sub(total.saturating_sub(width)).max(LEAST.min(*flexible));
        }
        widths
    }

    fn draw(&self, cells: &[String], widths: &[usize]) -> Vec<String> {
        let flexible = cells.get(self.flexible).map(String::as_str).unwrap_or_default();
        let room = widths.get(self.flexible).copied().unwrap_or(LEAST);
        let pieces =
            if self.wraps { wrap(flexible, room) } else { vec![truncate_str(flexible, room, "…").into_owned()] };
        let mut lines = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let mut line = String::from(" ");
            for (column, cell) in cells.iter().enumerate() {
                let cell = match (column == self.flexible, number) {
                    (true, _) => piece.as_str(),
                    (false, 0) => cell.as_str(),
                    _ => "",
                };
                let side =
                    if self.right.contains(&column) { console::Alignment::Right } else { console::Alignment::Left };
                line.push_str(&pad_str(cell, widths[column], side, None));
                line.push_str("  ");
            }
            lines.push(line.trim_end().to_owned());
        }
        lines
    }
}

/// Breaks a text at its spaces; a longer word stays whole. At least one line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Breaks a list at its separators ` · `; an item wider than a line is broken at its spaces.
pub fn wrap_items(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in text.split(" · ") {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 3 + measure_text_width(item) <= width => {
                line.push_str(" · ");
                line.push_str(item);
            }
            _ => lines.extend(wrap(item, width)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::style::Paint;

    #[test]
    fn columns_stand_under_their_heads_and_the_flexible_one_gives_way() {
        let mut table = Table::new(["stage", "time", "result"]).right(&[1]);
        table.row(["sft".into(), "2:11".into(), "eval loss 2.48 → 1.47".into()]);
        table.row([Paint(true).green("verdict"), "–".into(), "acc 0.42 → 0.68".into()]);
        let lines = table.lines(33);
        assert_eq!(lines[0], " stage    time  result");
        assert_eq!(lines[1], " sft      2:11  eval loss 2.48 →…");
        assert_eq!(console::strip_ansi_codes(&lines[2]), " verdict     –  acc 0.42 → 0.68");
    }

    #[test]
    fn a_list_is_broken_between_its_items() {
        assert_eq!(wrap_items("method lora · lora_r 32 · 9 defaults", 24), ["method lora · lora_r 32", "9 defaults"]);
        assert_eq!(wrap_items("a b c d · e", 4), ["a b", "c d", "e"]);
    }

    #[test]
    fn a_long_reason_goes_on_below_itself() {
        let mut table = Table::new(["stage", "because", "time"]).wrap(1);
        table.row(["sft".into(), "with.lora_r 16 → 32 (params.rank, a.yaml:10)".into(), "3m10s".into()]);
        assert_eq!(
            table.lines(40),
            [
                " stage  because                    time",
                " sft    with.lora_r 16 → 32        3m10s",
                "        (params.rank, a.yaml:10)"
            ]
        );
    }
}
