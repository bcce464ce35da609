//! The rules, and the loop that asks them of every row.

use std::collections::HashSet;

use llmflow_contract::{Context, Facts, Failure};
use llmflow_dataset::{Dataset, DatasetWriter, Row, TraceWriter, Verdict, map_rows};
use serde_json::json;
use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Params,
    spec::{In, Out},
};
use crate::data::report_kept;

/// Words of a run in `max_repeated_ngrams`.
const NGRAM: usize = 5;

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let dataset = Dataset::open(&inputs.data)?;
    let mut writer = DatasetWriter::create(ctx, "data", dataset.kind())?;
    let trace = TraceWriter::create(ctx)?;
    let funnel = map_rows(ctx, &dataset, &mut writer, trace, params, |row| Ok(judge(params, row)))?;
    report_kept(ctx, &funnel, Vec::new())?;
    Ok(Out { data: writer.finish(Facts { rows: None, ..inputs.data.facts().clone() })? })
}

/// The first rule that a row breaks, in the order of the params.
pub(super) fn judge(params: &Params, row: &Row) -> Verdict {
    let text = row.field(params.field.field());
    let words: Vec<&str> = text.unicode_words().collect();
    let chars = text.chars().count();
    let letters_in_words: usize = words.iter().map(|word| word.chars().count()).sum();
    let mean_word = letters_in_words as f64 / words.len().max(1) as f64;
    let below = |bound: Option<u64>, value: usize| bound.is_some_and(|bound| (value as u64) < bound);
    let above = |bound: Option<u64>, value: usize| bound.is_some_and(|bound| (value as u64) > bound);

    if below(params.min_words, words.len()) {
        return Verdict::Drop { rule: "too_short".into(), evidence: json!({"words": words.len()}) };
    }
    if above(params.max_words, words.len()) {
        return Verdict::Drop { rule: "too_long".into(), evidence: json!({"words": words.len()}) };
    }
    if below(params.min_chars, chars) {
        return Verdict::Drop { rule: "too_short".into(), evidence: json!({"chars": chars}) };
    }
    if above(params.max_chars, chars) {
        return Verdict::Drop { rule: "too_long".into(), evidence: json!({"chars": chars}) };
    }
    if params.min_mean_word_length.is_some_and(|least| mean_word < least)
        || params.max_mean_word_length.is_some_and(|most| mean_word > most)
    {
        return Verdict::Drop { rule: "word_length".into(), evidence: json!({"mean": rounded(mean_word)}) };
    }
    let shares: [Limited; 4] = [
        ("repeated_lines", params.max_repeated_lines, &|| repeated_lines(&text)),
        ("repeated_ngrams", params.max_repeated_ngrams, &|| repeated_ngrams(&words)),
        ("few_letters", params.min_alpha_ratio.map(|least| 1.0 - least), &|| {
            1.0 - share_of(&text, char::is_alphabetic)
        }),
        ("many_symbols", params.max_symbol_ratio, &|| 1.0 - share_of(&text, char::is_alphanumeric)),
    ];
    for (rule, most, share) in shares {
        let Some(most) = most else { continue };
        let share = share();
        if share > most + 1e-9 {
            return Verdict::Drop { rule: rule.into(), evidence: json!({"share": rounded(share)}) };
        }
    }
    Verdict::Keep
}

/// Share of non-empty lines that equal an earlier one, white space at their ends aside.
fn repeated_lines(text: &str) -> f64 {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    repeated(lines.iter().map(|line| xxh3_64(line.as_bytes())), lines.len())
}

/// Share of runs of [`NGRAM`] words that equal an earlier one, case aside.
fn repeated_ngrams(words: &[&str]) -> f64 {
    let lower: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let runs = lower.windows(NGRAM);
    let count = runs.len();
    repeated(runs.map(|run| xxh3_64(run.join(" ").as_bytes())), count)
}

fn repeated(hashes: impl Iterator<Item = u64>, count: usize) -> f64 {
    let distinct = hashes.collect::<HashSet<_>>().len();
    if count == 0 { 0.0 } else { (count - distinct) as f64 / count as f64 }
}

/// Share of the characters that are no white space for which `is` holds; 1 for an empty text.
fn share_of(text: &str, is: impl Fn(char) -> bool) -> f64 {
    let (mut seen, mut held) = (0_u64, 0_u64);
    for character in text.chars().filter(|character| !character.is_whitespace()) {
        seen += 1;
        held += u64::from(is(character));
    }
    if seen == 0 { 1.0 } else { held as f64 / seen as f64 }
}

/// A rule, the most it allows, and how to find a text's share: computed only if the rule is on.
type Limited<'a> = (&'static str, Option<f64>, &'a dyn Fn() -> f64);

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
