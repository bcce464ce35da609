//! Estimates with their intervals, beside the line of zero.

use llmflow_contract::Interval;

use super::{Anchor, label, scale::Scale, segment, shortened, svg, width_of};
use crate::report::{
    markup::{Markup, Px},
    number::number,
};

const WIDTH: f64 = 456.0;
const RIGHT: f64 = 148.0;
const ROW: f64 = 34.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;
/// Characters of a label.
const LABEL: usize = 22;

/// Draws the intervals one below the other on an axis that holds zero.
///
/// An interval that holds zero is drawn hollow: there is no clear difference.
pub fn draw(into: &mut Markup, title: &str, unit: &str, intervals: &[Interval]) {
    let finite = |value: &f64| value.is_finite();
    let ends = intervals.iter().flat_map(|interval| [interval.lower, interval.upper, interval.value]).filter(finite);
    let (low, high) = ends.fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let scale = Scale::round(low, high, 5);
    let labels: Vec<String> = intervals.iter().map(|interval| shortened(&interval.label, LABEL)).collect();
    let left = labels.iter().map(|text| width_of(text)).fold(40.0, f64::max) + 14.0;
    let at = |value: f64| left + scale.share(value).clamp(0.0, 1.0) * (WIDTH - left - RIGHT);
    let floor = TOP + ROW * intervals.len() as f64;
    svg(into, WIDTH, floor + BOTTOM, &format!("{title} ({unit})"), |into| {
        for tick in &scale.ticks {
            let class = if tick.abs() < 1e-12 { "zero" } else { "grid" };
            segment(into, class, (at(*tick), TOP), (at(*tick), floor));
            label(into, "tick", (at(*tick), floor + 15.0), Anchor::Middle, &scale.label(*tick));
        }
        for (index, (interval, name)) in intervals.iter().zip(&labels).enumerate() {
            let y = TOP + ROW * (index as f64 + 0.5);
            label(into, "name", (left - 12.0, y + 4.0), Anchor::End, name);
            draw_one(into, interval, y, &at);
            label(into, "value", (WIDTH - RIGHT + 14.0, y + 4.0), Anchor::Start, &words(interval));
        }
    });
}

fn draw_one(into: &mut Markup, interval: &Interval, y: f64, at: &dyn Fn(f64) -> f64) {
    if !interval.value.is_finite() {
        return;
    }
    let holds_zero = interval.lower <= 0.0 && interval.upper >= 0.0;
    let (whisker, dot) = if holds_zero { ("whisker open", "mark open") } else { ("whisker", "mark") };
    into.element("g", &[], |into| {
        into.line("title", &[], &format!("{}: {}", interval.label, words(interval)));
        if interval.lower.is_finite() && interval.upper.is_finite() {
            let (lower, upper) = (at(interval.lower), at(interval.upper));
            segment(into, whisker, (lower, y), (upper, y));
            segment(into, whisker, (lower, y - 5.0), (lower, y + 5.0));
            segment(into, whisker, (upper, y - 5.0), (upper, y + 5.0));
        }
        into.leaf("circle", &[("class", &dot), ("cx", &Px(at(interval.value))), ("cy", &Px(y)), ("r", &5)]);
    });
}

/// `0.27  (0.13…0.40)`
pub fn words(interval: &Interval) -> String {
    format!("{} ({}…{})", number(interval.value), number(interval.lower), number(interval.upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(value: f64, lower: f64, upper: f64) -> String {
        let mut markup = Markup::new();
        draw(&mut markup, "t", "share", &[Interval { label: "acc".into(), value, lower, upper }]);
        markup.finish()
    }

    #[test]
    fn an_interval_that_holds_zero_looks_different() {
        assert!(drawn(0.27, 0.13, 0.40).contains("class=\"mark\""));
        assert!(drawn(0.02, -0.08, 0.12).contains("class=\"mark open\""));
        assert!(drawn(0.02, -0.08, 0.12).contains("0.02 (−0.08…0.12)"));
        assert!(drawn(0.27, 0.13, 0.40).contains("class=\"zero\""));
    }

    #[test]
    fn an_estimate_that_is_no_number_is_left_out_of_the_drawing() {
        let drawn = drawn(f64::NAN, f64::NEG_INFINITY, f64::INFINITY);
        assert!(!drawn.contains("NaN") && !drawn.contains("circle"), "{drawn}");
    }
}
