//! Figures as people read them: times, sizes, counts, small curves.

use std::fmt::Write as _;

use llmflow_runtime::event::RunId;

/// Seconds as a clock: `0:21`, `13:52`, `1:02:05`.
pub fn clock(seconds: f64) -> String {
    let whole = whole_seconds(seconds);
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{rest:02}") } else { format!("{minutes}:{rest:02}") }
}

/// Seconds in words' shorthand: `0.03 s`, `41 s`, `13m52s`, `1h02m`.
pub fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{:.2} s", seconds.max(0.0));
    }
    let whole = whole_seconds(seconds);
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, rest) => format!("{rest} s"),
        (0, minutes, rest) => format!("{minutes}m{rest:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

fn whole_seconds(seconds: f64) -> u64 {
    // A cast from f64 saturates, so no figure can panic here; NaN becomes 0.
    seconds.max(0.0).round() as u64
}

/// A size in binary units: `212 GiB`, `2.4 GiB`, `512 B`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 10.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A count with its thousands apart: `51,204`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of things: `1 stage`, `3 stages`.
pub fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// What stands beside the figures of a rehearsal.
pub fn limited(limit: u64) -> String {
    format!("limited to {} rows or steps a stage", count(limit))
}

/// The note that goes with what a rehearsal gave.
pub fn rehearsed(run: &RunId, limit: u64) -> String {
    format!("note  {run} is a rehearsal, {}", limited(limit))
}

/// From here on a figure is written with its power of ten.
const HUGE: f64 = 1e15;

/// A measured value in about three digits: `2.31`, `142`, `1.9e-5`, `1.0e308`.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= HUGE => format!("{value:.1e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

/// Whole numbers whole, others in about three digits.
pub fn figure(value: f64) -> String {
    if value.fract() == 0.0 && (0.0..HUGE).contains(&value) { count(value as u64) } else { number(value) }
}

/// A difference, with its sign: `+0.27`, `-3`.
pub fn signed(value: f64) -> String {
    let sign = if value < 0.0 { '-' } else { '+' };
    format!("{sign}{}", figure(value.abs()))
}

/// The last `width` values as a line of blocks. Values that are not finite are left out.
pub fn sparkline(values: &[f64], width: usize) -> String {
    const BLOCKS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let shown = &finite[finite.len().saturating_sub(width)..];
    let lowest = shown.iter().copied().fold(f64::INFINITY, f64::min);
    let span = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max) - lowest;
    shown
        .iter()
        .map(|value| {
            let share = if span > 0.0 { (value - lowest) / span } else { 0.5 };
            BLOCKS[((share * 6.0).round() as usize).min(6)]
        })
        .collect()
}

/// A curve as its means over at most `stretches` stretches, so that noise does not hide where it goes.
pub fn trend(values: &[f64], stretches: usize) -> Vec<f64> {
    let stretches = stretches.min(values.len());
    (0..stretches)
        .map(|stretch| {
            let part = &values[stretch * values.len() / stretches..(stretch + 1) * values.len() / stretches];
            let finite: Vec<f64> = part.iter().copied().filter(|value| value.is_finite()).collect();
            finite.iter().sum::<f64>() / finite.len() as f64
        })
        .collect()
}

/// A bar of `width` cells, `done` of `total` filled.
pub fn bar(done: u64, total: u64, width: usize) -> String {
    let share = if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) };
    let full = (share * width as f64).floor() as usize;
    let mut text = String::new();
    for cell in 0..width {
        text.push(if cell < full { '█' } else { '░' });
    }
    text
}

/// Cuts a line to `width` characters; `…` says that something is gone.
pub fn fit(line: &str, width: usize) -> String {
    console::truncate_str(&clean(line), width, "…").into_owned()
}

/// One line that cannot move the cursor or turn the direction of writing: such characters become spaces.
pub fn clean(line: &str) -> String {
    line.chars().map(|character| if moves(character) { ' ' } else { character }).collect()
}

/// The same for text of many lines: line breaks stay, a tab becomes four spaces.
pub fn clean_lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => clean.push('\n'),
            '\t' => clean.push_str("    "),
            '\r' => {}
            other => clean.push(if moves(other) { ' ' } else { other }),
        }
    }
    clean
}

/// Control characters, and those that reorder text (Unicode's bidirectional formatting).
pub fn moves(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Names in a row, the rest counted: `merged pairs dpo … 5 more`.
pub fn names<'a>(names: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    joined(names, most, " ", " …")
}

/// The same with commas: `merged, pairs and 5 more`.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    joined(names, most, ", ", " and")
}

fn joined<'a>(names: impl IntoIterator<Item = &'a str>, most: usize, between: &str, and: &str) -> String {
    let all: Vec<&str> = names.into_iter().collect();
    let mut text = all[..all.len().min(most)].join(between);
    if all.len() > most {
        let _ = write!(text, "{and} {} more", all.len() - most);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_counts_read_as_on_the_screens() {
        assert_eq!([clock(21.2), clock(832.0), clock(3725.0)], ["0:21", "13:52", "1:02:05"]);
        assert_eq!([duration(0.03), duration(832.0), duration(41.0)], ["0.03 s", "13m52s", "41 s"]);
        assert_eq!([bytes(512), bytes(2_576_980_378), bytes(212 << 30)], ["512 B", "2.4 GiB", "212 GiB"]);
        assert_eq!((counted(1, "stage"), counted(1_200, "run")), ("1 stage".to_owned(), "1,200 runs".to_owned()));
        assert_eq!([number(142.4), number(-1e308), figure(1e308)], ["142", "-1.0e308", "1.0e308"]);
        assert_eq!([figure(999_999_999_999_999.0), figure(1e15)], ["999,999,999,999,999", "1.0e15"]);
        assert_eq!([count(7), count(320), count(51_204), count(1_000_000)], ["7", "320", "51,204", "1,000,000"]);
    }

    #[test]
    fn a_falling_loss_falls_and_a_broken_one_does_not_panic() {
        assert_eq!(sparkline(&[3.0, 2.0, 1.0], 8), "▇▄▁");
        assert_eq!(sparkline(&[f64::NAN, 1.0], 8), "▄");
        assert_eq!(trend(&[1.0, f64::NAN, 3.0, 5.0], 2), [1.0, 4.0], "one that diverged for a while has a mean");
        assert_eq!(trend(&[4.0, 2.0, 1.0, 1.0, 0.0], 2), [3.0, 2.0 / 3.0]);
        assert!(trend(&[], 8).is_empty());
        assert_eq!(bar(118, 168, 10), "███████░░░");
        assert_eq!((clock(f64::NAN), number(f64::INFINITY)), ("0:00".to_owned(), "–".to_owned()));
    }

    #[test]
    fn what_a_stage_says_cannot_move_the_cursor() {
        assert_eq!(fit("a\u{1b}[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(clean_lines("a\tb\r\n\u{9b}31mc\u{202e}"), "a    b\n 31mc ");
    }
}
