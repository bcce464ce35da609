//! The marks of one question: from ln p of its choices to right or wrong.

/// What one question gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Marks {
    /// The likeliest choice; the first of equals.
    pub predicted: usize,
    /// Whether it is the right one.
    pub acc: bool,
    /// Whether the likeliest per byte is the right one.
    pub acc_norm: bool,
    /// ln p of the right choice.
    pub gold_logprob: f64,
}

impl Marks {
    /// `logprobs[i]` is the summed ln p of `spoken[i]`, a choice as it was scored (with `template: none` a space stands
    /// before it, and counts as a byte); `gold` is an index into both.
    pub fn of(logprobs: &[f64], spoken: &[String], gold: usize) -> Self {
        let predicted = likeliest(logprobs.iter().copied());
        let per_byte = logprobs.iter().zip(spoken).map(|(logprob, spoken)| logprob / spoken.len().max(1) as f64);
        Self {
            predicted,
            acc: predicted == gold,
            acc_norm: likeliest(per_byte) == gold,
            gold_logprob: logprobs.get(gold).copied().unwrap_or(f64::MIN),
        }
    }
}

fn likeliest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// Whether an answer has a key phrase: letter case and runs of white space aside.
pub(super) fn has_phrase(answer: &str, phrase: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let phrase = plain(phrase);
    !phrase.is_empty() && plain(answer).contains(&phrase)
}

/// `count` indices of `0..total`, evenly spaced from the first: every n-th, unpicked.
pub(super) fn every_nth(total: usize, count: usize) -> Vec<usize> {
    let count = count.min(total);
    (0..count).map(|index| index * total / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_choice_and_the_likeliest_per_byte_may_differ() {
        let choices = ["ab".to_owned(), "abcdefgh".to_owned()];
        // Per byte: -1.5 and -0.5, so the longer one wins there.
        let marks = Marks::of(&[-3.0, -4.0], &choices, 1);
        assert_eq!((marks.predicted, marks.acc, marks.acc_norm, marks.gold_logprob), (0, false, true, -4.0));
    }

    #[test]
    fn the_first_of_equals_is_predicted() {
        assert_eq!(Marks::of(&[-1.0, -1.0], &["a".into(), "b".into()], 1).predicted, 0);
    }

    #[test]
    fn a_phrase_is_found_whatever_its_case_and_line_breaks() {
        assert!(has_phrase("It finds Mistakes in\nthe file.", "mistakes in the file"));
        assert!(!has_phrase("It finds errors.", "mistakes in the file"));
        assert!(!has_phrase("anything", " "));
    }

    #[test]
    fn answers_are_taken_every_nth() {
        assert_eq!(every_nth(60, 5), [0, 12, 24, 36, 48]);
        assert_eq!(every_nth(3, 5), [0, 1, 2]);
        assert!(every_nth(0, 5).is_empty());
    }
}
