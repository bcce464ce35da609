//! Writes HTML and SVG so that text can never become markup.
//!
//! Owns: escaping. Names of elements and attributes are literals of this program; everything else is escaped here.
//! Must not know: what is written.

use std::fmt::{Display, Write as _};

/// An attribute: its name is ours, its value anyone's.
pub type Attribute<'a> = (&'static str, &'a dyn Display);

/// HTML or SVG that grows.
#[derive(Debug, Default)]
pub struct Markup {
    text: String,
}

impl Markup {
    pub fn new() -> Self {
        Self::default()
    }

    /// An element and what stands inside it.
    pub fn element(&mut self, tag: &'static str, attributes: &[Attribute], inside: impl FnOnce(&mut Self)) {
        self.open(tag, attributes);
        inside(self);
        self.text.push_str("</");
        self.text.push_str(tag);
        self.text.push('>');
    }

    /// An element with nothing but text inside.
    pub fn line(&mut self, tag: &'static str, attributes: &[Attribute], text: &str) {
        self.element(tag, attributes, |inside| inside.text(text));
    }

    /// An element that is closed as it opens: `<br>`, `<path …>` (HTML reads an SVG element's own `/>`).
    pub fn leaf(&mut self, tag: &'static str, attributes: &[Attribute]) {
        self.open(tag, attributes);
        self.text.insert(self.text.len() - 1, '/');
    }

    /// Text, escaped.
    pub fn text(&mut self, text: &str) {
        escape(text, &mut self.text);
    }

    /// Text of this program, as it is.
    pub fn raw(&mut self, text: &'static str) {
        self.text.push_str(text);
    }

    pub fn finish(self) -> String {
        self.text
    }

    fn open(&mut self, tag: &'static str, attributes: &[Attribute]) {
        self.text.push('<');
        self.text.push_str(tag);
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\""); // writing to a string cannot fail
            escape(&value.to_string(), &mut self.text);
            self.text.push('"');
        }
        self.text.push('>');
    }
}

/// Characters with a meaning become entities; control characters, which HTML forbids, and those that turn the
/// direction of writing become `�`.
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        match character {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '\'' => into.push_str("&#39;"),
            '\n' | '\t' => into.push(character),
            other if other.is_control() || turns(other) => into.push('\u{fffd}'),
            other => into.push(other),
        }
    }
}

/// Unicode's bidirectional formatting: could make what follows read backwards.
pub fn turns(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A length in an SVG, to a tenth.
#[derive(Clone, Copy, Debug)]
pub struct Px(pub f64);

impl Display for Px {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = (self.0 * 10.0).round() / 10.0;
        write!(f, "{}", if tenths == 0.0 { 0.0 } else { tenths }) // never `-0`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_text_nor_attribute_becomes_markup() {
        let mut page = Markup::new();
        page.element("p", &[("title", &"\"><script>")], |p| {
            p.text("<b>&amp;\u{1b}[2J'");
            p.leaf("br", &[]);
        });
        assert_eq!(page.finish(), "<p title=\"&quot;&gt;&lt;script&gt;\">&lt;b&gt;&amp;amp;\u{fffd}[2J&#39;<br/></p>");
    }

    #[test]
    fn lengths_are_short() {
        assert_eq!([Px(1.0), Px(2.345), Px(-0.01)].map(|px| px.to_string()), ["1", "2.3", "0"]);
    }
}
