//! Bars: one value a label.

use super::{Anchor, label, shortened, svg, width_of};
use crate::report::{
    markup::{Markup, Px},
    number::in_three_digits,
};

const WIDTH: f64 = 580.0;
const RIGHT: f64 = 66.0;
const ROW: f64 = 24.0;
const THICK: f64 = 12.0;
/// Characters of a label.
const LABEL: usize = 42;

/// Draws the bars one below the other, from zero; negative ones go left of it.
pub fn draw(into: &mut Markup, title: &str, unit: &str, bars: &[(String, f64)]) {
    let (low, high) = bars
        .iter()
        .map(|bar| bar.1)
        .filter(|value| value.is_finite())
        .fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let span = if high - low > 0.0 { high - low } else { 1.0 };
    let labels: Vec<String> = bars.iter().map(|bar| shortened(&bar.0, LABEL)).collect();
    let left = labels.iter().map(|text| width_of(text)).fold(40.0, f64::max) + 12.0;
    let at = |value: f64| left + (value - low) / span * (WIDTH - left - RIGHT);
    svg(into, WIDTH, ROW * bars.len() as f64 + 4.0, &format!("{title} ({unit})"), |into| {
        for (index, ((name, value), shown)) in bars.iter().zip(&labels).enumerate() {
            let middle = ROW * (index as f64 + 0.5) + 2.0;
            label(into, "name", (left - 10.0, middle + 4.0), Anchor::End, shown);
            let (from, to) = if value.is_finite() { (at(value.min(0.0)), at(value.max(0.0))) } else { (left, left) };
            let (width, top) = ((to - from).max(1.0), middle - THICK / 2.0);
            let place: [(&'static str, &dyn std::fmt::Display); 6] = [
                ("class", &"bar"),
                ("x", &Px(from)),
                ("y", &Px(top)),
                ("width", &Px(width)),
                ("height", &Px(THICK)),
                ("rx", &2),
            ];
            into.element("rect", &place, |bar| bar.line("title", &[], &format!("{name}: {value} {unit}")));
            label(into, "value", (to + 8.0, middle + 4.0), Anchor::Start, &in_three_digits(*value));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_largest_value_and_its_full_name_is_in_the_title() {
        let mut markup = Markup::new();
        let name = "model.layers.12.self_attn.q_proj.weight.of.a.long.name".to_owned();
        draw(&mut markup, "errors", "", &[(name.clone(), 0.08), ("b".into(), 0.04), ("c".into(), f64::NAN)]);
        let drawn = markup.finish();
        let widths: Vec<f64> = drawn
            .match_indices("<rect ")
            .map(|(at, _)| drawn[at..].split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.01, "{widths:?}");
        assert_eq!(widths[2], 1.0);
        assert!(drawn.contains(&format!("<title>{name}: 0.08 </title>")));
    }
}
