//! Draws what is wrong: a pipeline's messages with their lines, and failures with their causes.
//!
//! Owns: the look of errors, plain and coloured. Returns text; printing is its caller's.
//! Must not know: how an error comes about.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use llmflow_contract::{Class, Failure};
use llmflow_runtime::pipeline::{Diagnostic, Diagnostics, SourceFile, Span};

use super::format;

/// The help of an error goes below its excerpt, never wrapped.
const HELP_INDENT: &str = "  help: ";

/// All of a file's messages in file order, and how many there are.
///
/// `colour` adds ANSI styles; without them the text is the same.
pub fn diagnostics(all: &Diagnostics, colour: bool) -> String {
    let mut text = String::new();
    for item in all.iter() {
        let mut item = item.clone();
        item.message = format::clean(&item.message);
        item.label = item.label.as_deref().map(format::clean);
        item.help = item.help.as_deref().map(format::clean_lines);
        text.push_str(&diagnostic(&item, &all.source, colour));
        text.push('\n');
    }
    let shown = all.iter().len();
    if all.len() > shown {
        text.push_str(&format!("… and {} more\n", all.len() - shown));
    }
    let errors = if all.len() == 1 { "error" } else { "errors" };
    text.push_str(&format!("{} {errors}, nothing ran\n", all.len()));
    text
}

/// One message: its code, its line with a caret, its help. Without a final line break.
fn diagnostic(item: &Diagnostic, source: &SourceFile, colour: bool) -> String {
    let mut text = match item.span {
        Some(span) => excerpt(item, span, source, colour),
        None => {
            let mut text = format!("{}: {}", title(&item.code, colour), item.message);
            if let Some(label) = &item.label {
                text.push_str(&format!("\n  {label}"));
            }
            for (span, label) in &item.also {
                let (line, column) = source.position(span.start);
                text.push_str(&format!("\n  --> {}:{line}:{column}: {label}", source.path.display()));
            }
            text
        }
    };
    if let Some(help) = &item.help {
        text.push_str(&help_lines(help, colour));
    }
    text
}

fn excerpt(item: &Diagnostic, span: Span, source: &SourceFile, colour: bool) -> String {
    let path = source.path.display().to_string();
    let snippet = Snippet::source(source.text.as_str())
        .path(path)
        .fold(true)
        .annotation(AnnotationKind::Primary.span(on_one_line(span, source)).label(item.label.as_deref()))
        .annotations(
            item.also
                .iter()
                .map(|(span, label)| AnnotationKind::Context.span(on_one_line(*span, source)).label(label.as_str())),
        );
    let report = [Level::ERROR.primary_title(item.message.as_str()).id(item.code.as_str()).element(snippet)];
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&report)
}

/// The first line of a span, at least one character of it: a caret under a whole block says nothing.
fn on_one_line(span: Span, source: &SourceFile) -> std::ops::Range<usize> {
    let text = source.text.as_str();
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let first = text[start..].chars().next().map_or(0, char::len_utf8);
    let mut end = span.end.min(line_end).max(start + first);
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// A failure whose texts cannot move the cursor, whatever file or library they come from.
pub fn cleaned(failure: &Failure) -> Failure {
    let mut failure = failure.clone();
    failure.message = format::clean(&failure.message);
    failure.help = failure.help.as_deref().map(format::clean_lines);
    for cause in &mut failure.causes {
        *cause = format::clean_lines(cause.trim_end());
    }
    failure
}

/// A failure outside any pipeline file: what, where, why, and what to do.
pub fn failure(failure: &Failure, colour: bool) -> String {
    let failure = cleaned(failure);
    let mut text = format!("{}: {}\n", title(&failure.code, colour), failure.message);
    if let Some(at) = &failure.at {
        text.push_str(&format!("  --> {}", format::clean(&at.file.display().to_string())));
        for number in [at.line, at.column].into_iter().flatten() {
            text.push_str(&format!(":{number}"));
        }
        text.push('\n');
    }
    for cause in &failure.causes {
        text.push_str(&format!("  because: {}\n", cause.replace('\n', "\n           ")));
    }
    let help = match (&failure.help, failure.class) {
        (Some(help), _) => Some(help.as_str()),
        (None, Class::Bug) => Some("this is LLMflow's fault, not yours: please report it with the text above"),
        (None, _) => None,
    };
    if let Some(help) = help {
        text.push_str(help_lines(help, colour).trim_start_matches('\n'));
        text.push('\n');
    }
    text
}

fn title(code: &str, colour: bool) -> String {
    if colour { format!("\x1b[1m\x1b[91merror[{code}]\x1b[0m") } else { format!("error[{code}]") }
}

/// Further lines stand under the first.
fn help_lines(help: &str, colour: bool) -> String {
    let indent = if colour { "  \x1b[1m\x1b[96mhelp\x1b[0m: " } else { HELP_INDENT };
    format!("\n{indent}{}", help.replace('\n', &format!("\n{}", " ".repeat(HELP_INDENT.len()))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llmflow_contract::{Kind, KindSet, Place};

    use super::*;

    const TEXT: &str = "stages:\n  sft:\n    with:\n      learning_rat: 1\n  dpo:\n    in: { data: split.train }\n";

    fn two_errors() -> Diagnostics {
        let mut all = Diagnostics::new(Arc::new(SourceFile::new("assistant.yaml", TEXT)));
        let at = |words: &str| {
            let start = TEXT.find(words).unwrap();
            Span { start, end: start + words.len() }
        };
        let accepts = KindSet::of(&["dataset/preference"]);
        all.push(Diagnostic::kind_mismatch(
            "dpo.data",
            &accepts,
            "split.train",
            &Kind::of("dataset/chat"),
            at("split.train"),
        ));
        let unknown = Diagnostic::new("param/unknown", "`train.sft` has no param `learning_rat`", at("learning_rat"));
        all.push(unknown.label("the nearest is `learning_rate`").help("llmflow operators train.sft"));
        all
    }

    #[test]
    fn a_message_shows_its_line_its_caret_and_its_help() {
        insta::assert_snapshot!(diagnostics(&two_errors(), false), @r"
        error[param/unknown]: `train.sft` has no param `learning_rat`
         --> assistant.yaml:4:7
          |
        4 |       learning_rat: 1
          |       ^^^^^^^^^^^^ the nearest is `learning_rate`
          help: llmflow operators train.sft
        error[plan/kind-mismatch]: `dpo.data` takes dataset/preference, `split.train` gives dataset/chat
         --> assistant.yaml:6:17
          |
        6 |     in: { data: split.train }
          |                 ^^^^^^^^^^^ this gives dataset/chat
          help: make pairs first: `op: synth.answer`, `with: {as: preference}`
        2 errors, nothing ran
        ");
    }

    #[test]
    fn colour_changes_no_word() {
        let coloured = diagnostics(&two_errors(), true);
        assert!(coloured.contains("\x1b["));
        assert_eq!(console::strip_ansi_codes(&coloured), diagnostics(&two_errors(), false));
    }

    #[test]
    fn a_span_of_many_lines_or_none_is_drawn_too() {
        let mut all = Diagnostics::new(Arc::new(SourceFile::new("p.yaml", TEXT)));
        all.push(Diagnostic::new("a/block", "all of it", Span { start: 0, end: TEXT.len() }));
        all.push(Diagnostic::new("a/end", "the end", Span { start: TEXT.len(), end: TEXT.len() }));
        all.push(Diagnostic::new("a/far", "beyond", Span { start: 10_000, end: 20_000 }));
        all.push(Diagnostic::new("a/set", "not in the file", None).help("one\ntwo"));
        let shown = diagnostics(&all, false);
        assert!(shown.contains("1 | stages:\n  | ^^^^^^^"), "{shown}");
        assert!(shown.contains("error[a/set]: not in the file\n  help: one\n        two\n"), "{shown}");
        assert!(shown.ends_with("4 errors, nothing ran\n"));
    }

    #[test]
    fn a_failure_shows_its_causes_and_its_help() {
        let shown = Failure::environment("disk/full", "no space left while writing `x`")
            .at(Place { file: "x".into(), line: Some(3), column: None })
            .cause("ENOSPC")
            .help("free some space");
        assert_eq!(
            failure(&shown, false),
            "error[disk/full]: no space left while writing `x`\n  --> x:3\n  because: ENOSPC\n  help: free some space\n"
        );
        assert!(failure(&Failure::bug("oops"), false).contains("please report it"));
    }
}
