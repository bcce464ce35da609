//! Charts as SVG: pure functions from values to markup, coloured by classes of `page.css`, so they follow light and dark.
//!
//! Must not know: stages, files, where a value comes from.

pub mod bars;
pub mod funnel;
pub mod graph;
pub mod intervals;
mod layout;
pub mod line;
mod scale;

use super::markup::{Markup, Px};

/// Height of a chart's text, in its own units.
const TEXT: f64 = 12.0;

/// An SVG of this size that shrinks with the page; `label` says to those who cannot see it what it shows.
fn svg(into: &mut Markup, width: f64, height: f64, label: &str, inside: impl FnOnce(&mut Markup)) {
    let view = format!("0 0 {} {}", Px(width), Px(height));
    into.element(
        "svg",
        &[("viewBox", &view), ("width", &Px(width)), ("height", &Px(height)), ("role", &"img"), ("aria-label", &label)],
        inside,
    );
}

/// Where a text hangs on its point.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

fn label(into: &mut Markup, class: &'static str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    into.line("text", &[("class", &class), ("x", &Px(x)), ("y", &Px(y)), ("text-anchor", &anchor)], text);
}

fn segment(into: &mut Markup, class: &'static str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    into.leaf("line", &[("class", &class), ("x1", &Px(x1)), ("y1", &Px(y1)), ("x2", &Px(x2)), ("y2", &Px(y2))]);
}

/// A text of at most `most` characters, its middle left out: the ends of a tensor's name tell it apart.
fn shortened(text: &str, most: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= most {
        return text.to_owned();
    }
    let head = (most.saturating_sub(1)) / 2;
    let tail = most.saturating_sub(1) - head;
    characters[..head].iter().chain(&['…']).chain(&characters[characters.len() - tail..]).collect()
}

/// About how wide a text is at [`TEXT`].
fn width_of(text: &str) -> f64 {
    text.chars().map(|character| if character.is_ascii() { 0.6 } else { 0.8 }).sum::<f64>() * TEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(shortened("model.layers.0.mlp.down_proj.weight", 21), "model.laye…roj.weight");
        assert_eq!(shortened("short", 21), "short");
    }
}
