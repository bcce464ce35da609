//! What a program tells on standard output: `LLMFLOW {"progress": …}` and `LLMFLOW {"metric": …}`.

use std::collections::BTreeMap;

use llmflow_contract::{Context, Failure, Report, Series};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// What a line of the protocol starts with.
const MARK: &str = "LLMFLOW ";
/// Points of one curve that are kept for the report.
const POINTS: usize = 10_000;
/// After so many lines that are not understood no more is said of them.
const TOLD: u64 = 20;
/// Characters of a line that a failure shows.
const SHOWN_CHARS: usize = 200;
/// Figures that are no number, as Python and others write them into JSON, which has none.
const WORDS: [(&str, f64); 3] = [("NaN", f64::NAN), ("-Infinity", f64::NEG_INFINITY), ("Infinity", f64::INFINITY)];

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Told {
    /// Done, total, unit.
    Progress(u64, Option<u64>, String),
    /// Name, value, step.
    Metric(String, #[serde(deserialize_with = "figure")] f64, #[serde(default)] Option<u64>),
}

/// Passes on what is told, and keeps it for the report.
pub(super) struct Listener<'a> {
    ctx: &'a Context<'a>,
    declared: &'a [String],
    curves: BTreeMap<String, Vec<(f64, f64)>>,
    last: BTreeMap<String, f64>,
    /// The first line that was not understood, and why.
    misheard: Option<String>,
    /// How many there were.
    unheard: u64,
}

impl<'a> Listener<'a> {
    pub fn new(ctx: &'a Context<'a>, declared: &'a [String]) -> Self {
        Self { ctx, declared, curves: BTreeMap::new(), last: BTreeMap::new(), misheard: None, unheard: 0 }
    }

    /// What the log says of a line: nothing of one that was told to us and understood. `scrub` takes secrets out of names.
    pub fn hear(&mut self, line: &str, scrub: &dyn Fn(&str) -> String) -> Option<String> {
        let Some(told) = line.strip_prefix(MARK) else { return Some(line.to_owned()) };
        match serde_json::from_str(&with_quoted_words(told)) {
            Ok(Told::Progress(done, total, unit)) => self.ctx.progress(done, total, &scrub(&unit)),
            Ok(Told::Metric(name, value, step)) => self.measure(name, value, step, scrub),
            Err(error) => {
                let clean = scrub(line);
                // What is wrong quotes a value as it reads it, or a part of one: of a secret that is no longer known.
                let why = match clean == line {
                    true => error.to_string(),
                    false => format!("what is wrong is at column {}, and the line holds a secret", error.column()),
                };
                let shown: String = clean.chars().take(SHOWN_CHARS).collect(); // never cut through a secret
                self.misheard.get_or_insert_with(|| format!("`{shown}` was not understood: {why}"));
                self.unheard += 1;
                return Some(match self.unheard {
                    0..TOLD => format!("{line}\nwarning: the line above was not understood: {why}"),
                    TOLD => format!("{line}\nwarning: {TOLD} lines were not understood; of more no word is said"),
                    _ => line.to_owned(),
                });
            }
        }
        None
    }

    fn measure(&mut self, name: String, value: f64, step: Option<u64>, scrub: &dyn Fn(&str) -> String) {
        if !self.declared.contains(&name) {
            return self.ctx.measured(&scrub(&name), value, step);
        }
        self.ctx.metric(&name, value, step);
        let points = self.curves.entry(name.clone()).or_default();
        if let Some(step) = step.filter(|_| points.len() < POINTS) {
            points.push((step as f64, value));
        }
        self.last.insert(name, value);
    }

    /// The report, with what was left behind.
    ///
    /// # Errors
    /// `command/no-metric` if a declared metric was never told.
    pub fn report(self, left: &[String]) -> Result<Report, Failure> {
        if let Some(name) = self.declared.iter().find(|name| !self.last.contains_key(*name)) {
            let message = format!("`{name}` is declared under `metrics`, and the command never told it");
            let mut failure = Failure::input("command/no-metric", message).param("metrics").help(format!(
                "print `LLMFLOW {{\"metric\": [\"{name}\", 0.1, 3]}}` on a line of its own, or remove it"
            ));
            failure.causes.extend(self.misheard);
            return Err(failure);
        }
        let told = self.declared.iter().map(|name| format!("{name} {:.4}", self.last[name]));
        let series = self.curves.into_iter().filter(|(_, points)| points.len() > 1).map(|(name, points)| Series {
            y_label: name.clone(),
            name,
            x_label: "step".into(),
            points,
        });
        Ok(Report {
            summary: told.chain(left.iter().cloned()).collect::<Vec<_>>().join(" · "),
            series: series.collect(),
            metrics: self.last,
            ..Report::default()
        })
    }
}

/// JSON in which the [`WORDS`] stand between quotes, where they stood bare.
fn with_quoted_words(json: &str) -> String {
    let (mut quoted, mut is_text) = (String::with_capacity(json.len()), false);
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let word = WORDS.iter().map(|(word, _)| *word).find(|word| !is_text && rest.starts_with(word));
        let taken = match (word, first) {
            (Some(word), _) => word.len(),
            (None, '\\') => first.len_utf8() + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => first.len_utf8(),
        };
        is_text ^= first == '"';
        let (part, after) = rest.split_at(taken);
        match word {
            Some(word) => quoted.extend(["\"", word, "\""]),
            None => quoted.push_str(part),
        }
        rest = after;
    }
    quoted
}

fn figure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let word = |text: &str| WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    let figure = value.as_f64().or_else(|| value.as_str().and_then(word));
    figure.ok_or_else(|| D::Error::custom(format!("{value} is no number")))
}
