//! The rules that a written question must pass.
//!
//! Owns: what a question is, what it shares with its answer. Must not know: models, rows.

use std::collections::BTreeSet;

use unicode_segmentation::UnicodeSegmentation;

/// Words of a question.
const WORDS: std::ops::RangeInclusive<usize> = 4..=25;
/// Longest run of the answer's words that a question may repeat, as a share of the answer.
const MAX_COPIED: f64 = 0.7;
/// Words that tell nothing of the subject.
const COMMON: [&str; 44] = [
    "a", "an", "the", "of", "to", "in", "on", "at", "by", "for", "from", "with", "and", "or", "is", "are", "was",
    "were", "be", "been", "do", "does", "did", "has", "have", "can", "will", "would", "should", "it", "its", "this",
    "that", "what", "which", "who", "when", "where", "why", "how", "you", "your", "as", "if",
];

/// The question in what the model said: its first line, without a label or quotes.
pub(super) fn clean(said: &str) -> String {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = ["Question:", "question:", "Q:"].into_iter().find_map(|label| line.strip_prefix(label)).unwrap_or(line);
    line.trim().trim_matches(['"', '“', '”', '*']).trim().to_owned()
}

/// The rule that a question breaks, if any.
pub(super) fn broken(question: &str, answer: &str, min_overlap: f64) -> Option<&'static str> {
    if question.matches('?').count() != 1 || !question.ends_with('?') {
        return Some("no_question");
    }
    let words = words_of(question);
    if !WORDS.contains(&words.len()) {
        return Some("length");
    }
    let answer = words_of(answer);
    if copied(&words, &answer) > MAX_COPIED {
        return Some("copies");
    }
    (overlap(&words, &answer) < min_overlap).then_some("ungrounded")
}

/// What makes two questions the same: their words alone.
pub(super) fn same_as(question: &str) -> String {
    words_of(question).join(" ")
}

/// Lower-cased words without a plural `s`.
fn words_of(text: &str) -> Vec<String> {
    let stem = |word: &str| {
        let lower = word.to_lowercase();
        match lower.strip_suffix('s') {
            Some(stem) if stem.chars().count() > 2 && !stem.ends_with('s') => stem.to_owned(),
            _ => lower,
        }
    };
    text.unicode_words().map(stem).collect()
}

/// Share of the question's telling words that the answer has too; 0 if it has none.
fn overlap(question: &[String], answer: &[String]) -> f64 {
    let telling: BTreeSet<&String> = question.iter().filter(|word| !COMMON.contains(&word.as_str())).collect();
    let shared = telling.iter().filter(|word| answer.contains(word)).count();
    if telling.is_empty() { 0.0 } else { shared as f64 / telling.len() as f64 }
}

/// Length of the longest run of words that both have, as a share of the answer.
fn copied(question: &[String], answer: &[String]) -> f64 {
    let mut longest = 0;
    let mut row = vec![0_usize; answer.len() + 1];
    for word in question {
        // From the end, so that `row[place]` is still that of the word before.
        for place in (0..answer.len()).rev() {
            row[place + 1] = if *word == answer[place] { row[place] + 1 } else { 0 };
            longest = longest.max(row[place + 1]);
        }
    }
    longest as f64 / answer.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "The store keeps every result by its content.";

    #[test]
    fn each_rule_drops_what_it_names() {
        let rule = |question: &str| broken(question, ANSWER, 0.3);
        assert_eq!(rule("How does the store keep a result?"), None);
        assert_eq!(rule("The store keeps it."), Some("no_question"));
        assert_eq!(rule("What? How does the store keep it?"), Some("no_question"));
        assert_eq!(rule("Which store?"), Some("length"));
        assert_eq!(rule("What colour has the big summer sky?"), Some("ungrounded"));
        assert_eq!(rule("The store keeps every result by its content?"), Some("copies"));
    }

    #[test]
    fn overlap_counts_telling_words_once_and_plurals_as_one() {
        // keep, result, store: two of three are in the answer, `keeps` as `keep`.
        let (question, answer) = (words_of("Do stores keep colours?"), words_of(ANSWER));
        assert!((overlap(&question, &answer) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(overlap(&words_of("what is it"), &answer), 0.0);
    }

    #[test]
    fn the_longest_common_run_is_measured() {
        let run = |question: &str| copied(&words_of(question), &words_of("a b c d"));
        assert_eq!(run("x b c y d"), 0.5);
        assert_eq!(run("x"), 0.0);
    }

    #[test]
    fn the_first_line_without_its_label_is_the_question() {
        assert_eq!(clean("\n Question: \"What is it?\"\nAnswer: x"), "What is it?");
        assert_eq!(same_as("What is a Stage?"), same_as("what is a stage"));
    }
}
