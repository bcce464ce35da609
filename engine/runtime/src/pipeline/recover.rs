//! What can still be read of a file that is no YAML.
//!
//! Owns: which stages a syntax error spoils: each is parsed by itself, so that one does not hide the others' mistakes.
//! Must not know: what a stage is.

use super::{
    diagnostic::Diagnostic,
    node::Node,
    source::{SourceFile, Span},
};

/// A file of which some stages are no YAML.
pub(super) struct Recovered {
    /// The file without them: each has its name and nothing else.
    pub root: Option<Node>,
    pub spoilt: Vec<String>,
    pub found: Vec<Diagnostic>,
}

/// Parses a file, and where it cannot be parsed as a whole, what is whole in it.
pub(super) fn parse(source: &SourceFile) -> Recovered {
    match Node::parse(source) {
        Ok((root, found)) => Recovered { root: Some(root), spoilt: Vec::new(), found },
        Err(error) if error.code == "yaml/budget" || error.code == "yaml/documents" => {
            Recovered { root: None, spoilt: Vec::new(), found: vec![error] }
        }
        Err(error) => without_spoilt(source, error),
    }
}

fn without_spoilt(source: &SourceFile, error: Diagnostic) -> Recovered {
    let mut text = source.text.clone();
    let mut recovered = Recovered { root: None, spoilt: Vec::new(), found: Vec::new() };
    for entry in entries_of_stages(&source.text) {
        let part = SourceFile::new(&source.path, &source.text[entry.start..entry.end]);
        let Err(error) = Node::parse(&part) else { continue };
        // In one stage alone, an anchor of another is unknown.
        if error.code == "yaml/alias" {
            continue;
        }
        recovered.found.push(shifted(error, entry.start));
        recovered.spoilt.push(source.text[entry.name.start..entry.name.end].trim_matches(['"', '\'']).to_owned());
        blank(&mut text, Span::new(entry.name.end + 1, entry.end));
    }
    if recovered.spoilt.is_empty() {
        recovered.found.push(error);
        return recovered;
    }
    match Node::parse(&SourceFile::new(&source.path, text)) {
        Ok((root, found)) => {
            recovered.root = Some(root);
            recovered.found.extend(found);
        }
        // An alias of what a spoilt stage gives, or a mistake outside of `stages`.
        Err(error) if error.code == "yaml/alias" => {}
        Err(error) => recovered.found.push(error),
    }
    recovered
}

/// One entry of `stages` in block form.
struct Entry {
    name: Span,
    start: usize,
    end: usize,
}

fn entries_of_stages(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut at, mut indent, mut is_inside) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        let trimmed = line.trim_start_matches(' ');
        let depth = line.len() - trimmed.len();
        let is_blank = trimmed.trim().is_empty() || trimmed.starts_with('#');
        if !is_inside {
            is_inside = line.trim_end() == "stages:" || line.starts_with("stages: #");
            continue;
        }
        if !is_blank && depth == 0 && !line.starts_with(['}', ']', '\t']) {
            break;
        }
        let name = name_len(trimmed).filter(|_| depth > 0 && (indent == 0 || depth == indent));
        match (name, entries.last_mut()) {
            (Some(len), _) => {
                indent = depth;
                let name = Span::new(start + depth, start + depth + len);
                entries.push(Entry { name, start, end });
            }
            (None, Some(last)) => last.end = end,
            (None, None) => {}
        }
    }
    entries
}

/// The length of the key that a line begins with.
fn name_len(line: &str) -> Option<usize> {
    let len = line.find(':')?;
    let is_key = line[len + 1..].starts_with([' ', '\n', '\r']) || line.len() == len + 1;
    let is_name = line[..len].chars().all(|c| c.is_alphanumeric() || "_-\"'./".contains(c));
    (is_key && is_name && len > 0 && !line.starts_with('-')).then_some(len)
}

/// Puts spaces in place of all but line ends, so that every other place stays what it is.
fn blank(text: &mut String, span: Span) {
    let blanked: String =
        text[span.start..span.end].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(span.start..span.end, &blanked);
}

fn shifted(mut diagnostic: Diagnostic, by: usize) -> Diagnostic {
    let shift = |span: Span| Span::new(span.start + by, span.end + by);
    diagnostic.span = diagnostic.span.map(shift);
    diagnostic.also.iter_mut().for_each(|(span, _)| *span = shift(*span));
    diagnostic
}
