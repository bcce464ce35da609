//! What a syntax error most likely means.
//!
//! Owns: the slips that people make in YAML, each with what to write instead.
//! Must not know: what a pipeline is, how YAML is parsed. The parser says where it gave up, and in which words.

use super::{diagnostic::Diagnostic, source::Span};

/// The slip behind an error of these words, if it is a usual one.
pub(super) fn explained(words: &str, text: &str, span: Span) -> Option<Diagnostic> {
    let here = Spot::new(text, span.start);
    let says = |part: &str| words.contains(part);
    if says("unexpected character") {
        return Some(here.reserved(span));
    }
    if says("unknown escape character") {
        return Some(here.escape(span));
    }
    if says("unsupported tag") {
        return here.tag(words.split('`').nth(1)?);
    }
    if says("scanning a block scalar") {
        return here.block(span);
    }
    if says("tab") {
        return here.tab();
    }
    if says("recursive references") {
        let diagnostic = syntax("this alias stands within the value that it names", span);
        return Some(diagnostic.help("write the value out here, or name another anchor"));
    }
    if says("merge value must be") {
        return Some(here.merge());
    }
    if says("mapping values are not allowed") {
        return here.colon();
    }
    None
}

/// An alias without an anchor that is a text: `*.jsonl`.
pub(super) fn glob(text: &str, span: Span) -> Option<Diagnostic> {
    let word = Spot::new(text, span.start).value();
    let is_alias = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let is_text = word.strip_prefix('*')?.contains(|c| !is_alias(c));
    let message = format!("`{word}` is read as an alias, and there is no such anchor");
    is_text.then(|| Diagnostic::new("yaml/alias", message, over(span, word)).help(quote(word)))
}

fn syntax(message: impl std::fmt::Display, span: Span) -> Diagnostic {
    Diagnostic::new("yaml/syntax", format!("this is no YAML: {message}"), span)
}

fn over(span: Span, word: &str) -> Span {
    Span::new(span.start, span.start + word.len())
}

fn quote(word: &str) -> String {
    if word.contains(['"', '\\']) { format!("quote it: '{word}'") } else { format!("quote it: \"{word}\"") }
}

/// A place in a text, its line taken apart there.
struct Spot<'a> {
    text: &'a str,
    start: usize,
    line_start: usize,
    /// What stands before it on its line.
    before: &'a str,
    /// From it to the end of the line.
    rest: &'a str,
}

impl<'a> Spot<'a> {
    fn new(text: &'a str, start: usize) -> Self {
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let rest = text[start..].lines().next().unwrap_or_default();
        Self { text, start, line_start, before: &text[line_start..start], rest }
    }

    /// The value that begins here; within brackets it ends where the next begins.
    fn value(&self) -> &'a str {
        let rest = self.rest.split(" #").next().unwrap_or_default();
        let is_within = self.before.contains(['{', '[']);
        let len = rest.find(|c| is_within && ",]}".contains(c)).unwrap_or(rest.len());
        rest[..len].trim_end()
    }

    /// `@x`, `` `x` ``, `%x`
    fn reserved(&self, span: Span) -> Diagnostic {
        let word = self.value();
        let first: String = word.chars().take(1).collect();
        syntax(format!("no text without quotes begins with `{first}`"), over(span, word)).help(quote(word))
    }

    /// `"C:\data"`
    fn escape(&self, span: Span) -> Diagnostic {
        let inner = self.rest.strip_prefix('"').and_then(|rest| rest.split_once('"')).map(|(inner, _)| inner);
        let help = match inner.filter(|inner| !inner.contains('\'')) {
            Some(inner) => format!("single quotes keep `\\` as it is: '{inner}'"),
            None => "write `\\\\` for a backslash".to_owned(),
        };
        syntax("in double quotes `\\` begins an escape, and this is none", span).help(help)
    }

    /// `when: !params.x`
    fn tag(&self, tag: &str) -> Option<Diagnostic> {
        let at = self.text[..self.start + self.rest.len()].rfind(tag)?;
        let diagnostic = syntax(format!("`!` begins a tag, and `{tag}` is none"), Span::new(at, at + tag.len()));
        let name = tag.trim_start_matches('!');
        Some(
            diagnostic.help(format!("in a condition write `not {name}`; a text that begins with `!` stands in quotes")),
        )
    }

    /// `when: > 5`
    fn block(&self, span: Span) -> Option<Diagnostic> {
        let sign = self.rest.chars().next().filter(|sign| ['>', '|'].contains(sign))?;
        let key = self.before.rsplit(['{', ',']).next()?.trim().trim_end_matches(':');
        let help = match ["when", "require"].contains(&key) {
            true => format!("a condition says what it compares, in quotes: `{key}: \"METRIC {}\"`", self.value()),
            false => quote(self.value()),
        };
        Some(syntax(format!("after `{sign}` a block of text begins on the next line"), span).help(help))
    }

    /// The first tab that indents a line, from this line on.
    fn tab(&self) -> Option<Diagnostic> {
        let mut at = self.line_start;
        for line in self.text[at..].split_inclusive('\n') {
            let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
            if let Some(tab) = line[..indent].find('\t') {
                let diagnostic = syntax("a tab indents this line", Span::new(at + tab, at + tab + 1));
                return Some(diagnostic.help("YAML is indented with spaces, never with tabs"));
            }
            at += line.len();
        }
        None
    }

    /// `<<: *scalar`: the parser points at the scalar, which may stand far above.
    fn merge(&self) -> Diagnostic {
        let from = if self.before.contains("<<") { self.line_start } else { self.start };
        let at = self.text[from..].find("<<").map_or(self.start, |at| from + at);
        let diagnostic = syntax("`<<` takes a map, or a list of maps", Span::new(at, at + 2));
        diagnostic.help("let the anchor stand before a map, `&defaults {…}`; write a single value out")
    }

    /// A colon too many, or one above that is none.
    fn colon(&self) -> Option<Diagnostic> {
        if let Some((key, value)) = self.before.split_once(": ") {
            let at = self.line_start + key.len() + 2;
            let value = format!("{value}{}", self.rest);
            let value = value.split(" #").next().unwrap_or_default().trim_end();
            let diagnostic = syntax("a text with `: ` in it stands in quotes", Span::new(at, at + value.len()));
            return Some(diagnostic.help(format!("{}: {}", key.trim(), quote(value).trim_start_matches("quote it: "))));
        }
        let mut above = self.text[..self.line_start].trim_end().rsplit('\n');
        let line = above.next()?.trim();
        let (key, value) = line.split_once(':').filter(|_| !line.contains(": "))?;
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        if !is_key || value.is_empty() || value.starts_with([' ', '/']) {
            return None;
        }
        let at = self.text[..self.line_start].rfind(line)?;
        let diagnostic = syntax(format!("a space is missing after `{key}:`"), Span::new(at, at + line.len()));
        Some(diagnostic.help(format!("{key}: {value}")))
    }
}

#[cfg(test)]
mod tests {
    use crate::pipeline::{Node, SourceFile};

    fn shown(text: &str) -> String {
        let source = SourceFile::new("p.yaml", text);
        let found = Node::parse(&source).unwrap_err();
        let (line, column) = source.position(found.span.unwrap().start);
        format!("{line}:{column} {}; {}", found.message.trim_start_matches("this is no YAML: "), found.help.unwrap())
    }

    #[test]
    fn a_usual_slip_says_what_to_write() {
        for (text, expected) in [
            ("a: *.jsonl\n", "1:4 `*.jsonl` is read as an alias, and there is no such anchor; quote it: \"*.jsonl\""),
            ("a: {b: @x, c: 1}\n", "1:8 no text without quotes begins with `@`; quote it: \"@x\""),
            ("a: %x y # z\n", "1:4 no text without quotes begins with `%`; quote it: \"%x y\""),
            (
                "a: \"C:\\data\"\n",
                "1:4 in double quotes `\\` begins an escape, and this is none; single quotes keep `\\` as it is: 'C:\\data'",
            ),
            (
                "when: !params.x\n",
                "1:7 `!` begins a tag, and `!params.x` is none; in a condition write `not params.x`; a text that begins with `!` stands in quotes",
            ),
            (
                "when: > 5\n",
                "1:7 after `>` a block of text begins on the next line; a condition says what it compares, in quotes: `when: \"METRIC > 5\"`",
            ),
            ("a:\n  b: c\n\td: e\n", "3:1 a tab indents this line; YAML is indented with spaces, never with tabs"),
            (
                "a: &a [*a]\n",
                "1:8 this alias stands within the value that it names; write the value out here, or name another anchor",
            ),
            (
                "x: &s 5\ny: {<<: *s}\n",
                "2:5 `<<` takes a map, or a list of maps; let the anchor stand before a map, `&defaults {…}`; write a single value out",
            ),
            ("a:\n  op:x\n  b: c\n", "2:3 a space is missing after `op:`; op: x"),
            ("a: b: c\n", "1:4 a text with `: ` in it stands in quotes; a: \"b: c\""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
