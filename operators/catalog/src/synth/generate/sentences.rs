//! The full sentences of Markdown prose.
//!
//! Owns: what is prose, where a sentence ends, which sentences stand alone. Must not know: models, rows.

/// Words of a sentence worth asking about.
const WORDS: std::ops::RangeInclusive<usize> = 5..=40;
/// A full stop after these ends no sentence.
const ABBREVIATIONS: [&str; 12] =
    ["e.g.", "i.e.", "etc.", "vs.", "cf.", "al.", "mr.", "mrs.", "dr.", "no.", "fig.", "approx."];
/// Openings that lean on the sentence before.
const LEANING: [&str; 20] = [
    "it",
    "its",
    "this",
    "that",
    "these",
    "those",
    "they",
    "their",
    "he",
    "she",
    "so",
    "then",
    "but",
    "and",
    "or",
    "here",
    "there",
    "such",
    "both",
    "otherwise",
];

/// The sentences of a document that can be asked about, in order.
pub(super) fn askable(document: &str) -> Vec<String> {
    let sentences = paragraphs(document).into_iter().flat_map(|paragraph| split(&paragraph));
    sentences.filter(|sentence| stands_alone(sentence)).collect()
}

/// Prose only: headings, code, tables and HTML are left out; an item of a list is a paragraph of its own.
fn paragraphs(document: &str) -> Vec<String> {
    let (mut paragraphs, mut current, mut fence) = (Vec::new(), Vec::<String>::new(), None);
    for line in document.lines() {
        let trimmed = line.trim_start();
        let opened = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        if let Some(mark) = fence {
            if opened == Some(mark) {
                fence = None;
            }
            continue;
        }
        let is_code = (line.starts_with("    ") || line.starts_with('\t')) && current.is_empty();
        let is_underline = !trimmed.is_empty() && trimmed.chars().all(|character| "=-".contains(character));
        if is_underline {
            // The line above was a heading, or this is a rule.
            current.clear();
        }
        let is_other = trimmed.starts_with(['#', '|', '<']) || is_underline || is_code;
        if opened.is_some() || is_other || trimmed.is_empty() {
            fence = opened;
            end(&mut current, &mut paragraphs);
            continue;
        }
        let text = trimmed.trim_start_matches(['>', ' ']);
        match item(text) {
            Some(text) => {
                end(&mut current, &mut paragraphs);
                current.push(text.to_owned());
            }
            None => current.push(text.trim_end().to_owned()),
        }
    }
    end(&mut current, &mut paragraphs);
    paragraphs
}

fn end(current: &mut Vec<String>, paragraphs: &mut Vec<String>) {
    if !current.is_empty() {
        paragraphs.push(plain(&current.join(" ")));
        current.clear();
    }
}

/// The text of a list's item: after `- `, `* `, `+ ` or `12. `.
fn item(line: &str) -> Option<&str> {
    if let Some(text) = ["- ", "* ", "+ "].into_iter().find_map(|mark| line.strip_prefix(mark)) {
        return Some(text.trim());
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = line.get(digits..).filter(|_| (1..=3).contains(&digits))?;
    rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") ")).map(str::trim)
}

/// Without emphasis and link targets; code spans keep their marks.
fn plain(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(open) = rest.find('[') {
        let target = rest[open..].find("](").map(|middle| open + middle);
        let close = target.and_then(|middle| rest[middle..].find(')').map(|close| middle + close));
        let (Some(middle), Some(close)) = (target, close) else { break };
        plain.push_str(rest[..open].strip_suffix('!').unwrap_or(&rest[..open]));
        plain.push_str(&rest[open + 1..middle]);
        rest = &rest[close + 1..];
    }
    plain.push_str(rest);
    plain.replace("**", "").replace("__", "").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cuts a paragraph after `.`, `!` or `?` where a new sentence begins.
fn split(paragraph: &str) -> Vec<String> {
    let words: Vec<&str> = paragraph.split(' ').collect();
    let (mut sentences, mut current) = (Vec::new(), Vec::new());
    for (index, word) in words.iter().enumerate() {
        current.push(*word);
        let next = words.get(index + 1).and_then(|next| next.chars().next());
        let begins = next.is_none_or(|first| first.is_uppercase() || first.is_numeric() || "`\"'(“".contains(first));
        if begins && ends(word) {
            sentences.push(current.join(" "));
            current.clear();
        }
    }
    if !current.is_empty() {
        sentences.push(current.join(" "));
    }
    sentences
}

fn ends(word: &str) -> bool {
    let bare = word.trim_end_matches(['"', '\'', ')', '”', '*', '_']);
    let is_initial = bare.ends_with('.') && bare.chars().filter(|character| character.is_alphabetic()).count() == 1;
    bare.ends_with(['.', '!', '?']) && !is_initial && !ABBREVIATIONS.contains(&bare.to_lowercase().as_str())
}

/// A statement of fair length that begins and ends like one and needs no other sentence.
fn stands_alone(sentence: &str) -> bool {
    let words: Vec<&str> = sentence.split(' ').collect();
    let first = words[0].trim_end_matches([',', ':', ';']).to_lowercase();
    let begins = sentence.chars().next().is_some_and(|letter| letter.is_uppercase() || letter == '`');
    WORDS.contains(&words.len()) && begins && sentence.ends_with('.') && !LEANING.contains(&first.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_read_and_headings_code_and_tables_are_not() {
        let document = "# A heading that reads like prose, long enough.\n\nThe store keeps every result by\nits content. \
                        It is read-only for everybody here.\n\n```\nThis is code that looks like prose, is it not.\n```\n\
                        | A table | that has enough words in it. |\n\nA title that is underlined here.\n===\n";
        assert_eq!(askable(document), ["The store keeps every result by its content."]);
    }

    #[test]
    fn an_item_of_a_list_stays_only_as_a_full_sentence() {
        let document =
            "- fast and small\n- The plan command lists what will run.\n2. A run ends with one table always.";
        assert_eq!(askable(document), ["The plan command lists what will run.", "A run ends with one table always."]);
    }

    #[test]
    fn abbreviations_initials_and_numbers_end_no_sentence() {
        let text =
            "Some files, e.g. Parquet parts, are read by J. Doe at 2.5 times the speed. Other files wait until then.";
        assert_eq!(split(text).len(), 2);
    }

    #[test]
    fn links_and_emphasis_go_and_code_stays() {
        assert_eq!(plain("See **the** [store](a.md) and `plan`. ![x](y.png)"), "See the store and `plan`. x");
        assert_eq!(plain("an [open bracket"), "an [open bracket");
    }

    #[test]
    fn odd_documents_do_no_harm() {
        for odd in ["", "```", "[](", "![", "1.", "é. É.", "- ", ">", "[a](b", "....", "\u{0}"] {
            askable(odd);
        }
    }
}
