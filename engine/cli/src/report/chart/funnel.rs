//! Rows on their way: what each data stage kept, made, dropped and set aside.

use llmflow_contract::Funnel;

use super::{Anchor, label, shortened, svg};
use crate::{
    render::format::count,
    report::markup::{Markup, Px},
};

const WIDTH: f64 = 560.0;
const LEFT: f64 = 104.0;
const RIGHT: f64 = 96.0;
const ROW: f64 = 32.0;
const THICK: f64 = 16.0;

/// What became of rows, in the order of the bar's parts, with the class that colours it.
pub const PARTS: [(&str, &str); 4] =
    [("kept", "kept"), ("made", "made"), ("dropped", "dropped"), ("set aside", "aside")];

/// Rows of each of [`PARTS`].
pub fn counts(funnel: &Funnel) -> [u64; 4] {
    [funnel.kept, funnel.made, funnel.dropped.values().sum(), funnel.set_aside]
}

/// Draws one bar a stage, all on one scale.
pub fn draw(into: &mut Markup, stages: &[(String, Funnel)]) {
    let total = |funnel: &Funnel| counts(funnel).iter().sum::<u64>();
    let most = stages.iter().map(|(_, funnel)| total(funnel)).max().unwrap_or_default().max(1) as f64;
    let wide = |rows: u64| rows as f64 / most * (WIDTH - LEFT - RIGHT);
    svg(into, WIDTH, ROW * stages.len() as f64, "rows of each data stage", |into| {
        for (index, (stage, funnel)) in stages.iter().enumerate() {
            let middle = ROW * (index as f64 + 0.5);
            label(into, "name", (LEFT - 12.0, middle + 4.0), Anchor::End, &shortened(stage, 16));
            let mut x = LEFT;
            for ((name, class), rows) in PARTS.iter().zip(counts(funnel)) {
                if rows == 0 {
                    continue;
                }
                let width = wide(rows).max(2.0);
                let place: [(&'static str, &dyn std::fmt::Display); 5] = [
                    ("class", &format!("part {class}")),
                    ("x", &Px(x)),
                    ("y", &Px(middle - THICK / 2.0)),
                    ("width", &Px((width - 1.0).max(1.0))),
                    ("height", &Px(THICK)),
                ];
                into.element("rect", &place, |part| {
                    part.line("title", &[], &format!("{stage}: {} {name}", count(rows)));
                });
                x += width;
            }
            label(into, "value", (x + 8.0, middle + 4.0), Anchor::Start, &words(funnel));
        }
    });
}

/// `320 → 301`: what came in, and what goes on.
pub fn words(funnel: &Funnel) -> String {
    let out = funnel.kept + funnel.made;
    if funnel.rows_in == out { count(out) } else { format!("{} → {}", count(funnel.rows_in), count(out)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_stage_is_drawn_to_one_scale() {
        let rows = Funnel { rows_in: 320, kept: 314, set_aside: 6, ..Funnel::default() };
        let clean = Funnel { rows_in: 314, kept: 307, dropped: [("short".to_owned(), 7)].into(), ..Funnel::default() };
        let mut markup = Markup::new();
        draw(&mut markup, &[("rows".into(), rows), ("clean".into(), clean)]);
        let drawn = markup.finish();
        for part in ["rows: 314 kept", "rows: 6 set aside", "clean: 7 dropped", "320 → 314", "314 → 307"] {
            assert!(drawn.contains(part), "{part} in {drawn}");
        }
        assert!(!drawn.contains("made"));
    }
}
