//! Figures, times and digests in words.

use llmflow_contract::{Digest, Facts};

use crate::{
    render::format::{bytes, count, counted, duration},
    report::number::number,
};

/// A metric's value by the unit its name ends in: `bytes`, `seconds`; whole numbers as counts.
pub fn figure(name: &str, value: f64) -> String {
    let is_whole = value.fract() == 0.0 && value.abs() < 1e15;
    if name.ends_with("bytes") && value >= 0.0 {
        return bytes(value as u64);
    }
    if name.ends_with("seconds") && value >= 0.0 {
        return duration(value);
    }
    if is_whole && !name.contains("delta") {
        return format!("{}{}", if value < 0.0 { "−" } else { "" }, count(value.abs() as u64));
    }
    number(value)
}

/// `+0.27`, `−0.03`.
pub fn signed(value: f64) -> String {
    format!("{}{}", if value < 0.0 { "" } else { "+" }, number(value))
}

/// The first eight digits; `–` for what was never made.
pub fn short(digest: Option<&Digest>) -> String {
    digest.map_or_else(|| "–".to_owned(), Digest::short)
}

/// What is known of an artifact: `268 rows`, `134.5M parameters`, `513 MiB`.
pub fn known(facts: &Facts, size_bytes: Option<u64>) -> String {
    let rows = facts.rows.map(|rows| counted(rows, "row"));
    let parameters = facts.parameters.map(|count| format!("{:.1}M parameters", count as f64 / 1e6));
    let size = size_bytes.map(bytes);
    let parts: Vec<String> = [rows, parameters, size].into_iter().flatten().collect();
    parts.join(" · ")
}

/// `one`, `one and two`, `one, two and three`.
pub fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `2026-11-24 13:40 UTC`.
pub fn moment(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(String::new, |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_the_unit_of_its_name() {
        let shown = [("size_bytes", 96_000_000.0), ("answer_seconds", 1.5), ("rows", 51_204.0), ("acc", 0.683)];
        assert_eq!(shown.map(|(name, value)| figure(name, value)), ["92 MiB", "2 s", "51,204", "0.68"]);
        assert_eq!((figure("gold_logprob", -12.5), figure("acc_delta", 0.0)), ("−12.50".into(), "0".into()));
        assert_eq!(figure("x", f64::NAN), "–");
    }

    #[test]
    fn words_read_as_words() {
        assert_eq!((signed(0.625), signed(-0.03), signed(-0.001)), ("+0.63".into(), "−0.03".into(), "−0.00100".into()));
        assert_eq!(listed(&["a".into(), "b".into(), "c".into()]), "a, b and c");
        assert_eq!(moment(1_795_527_600_000), "2026-11-24 13:40 UTC");
    }
}
