//! Curves: values over steps.

use super::{Anchor, TEXT, label, scale::Scale, segment, svg};
use crate::report::{
    markup::{Markup, Px},
    number::number,
};

/// Width, height and the plot's margins.
const SIZE: (f64, f64) = (440.0, 232.0);
const LEFT: f64 = 46.0;
const RIGHT: f64 = 48.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 38.0;
/// Points drawn of one curve; more are thinned to the lowest and highest of each stretch.
const MOST_POINTS: usize = 600;
/// From this many points on a curve that goes up and down is drawn faint, and its moving mean over it.
const LONG: usize = 40;
/// Up to this many points each gets a dot.
const DOTTED: usize = 24;

/// Curves that share their axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineChart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub curves: Vec<Curve>,
}

/// One curve; a point that is not finite interrupts it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
    /// First and last value, finite or not: a curve that ended as no number is not to look sound.
    pub fn ends(&self) -> Option<(f64, f64)> {
        Some((self.points.first()?.1, self.points.last()?.1))
    }
    /// How many points the moving mean takes together, if the curve has one.
    pub fn window(&self) -> Option<usize> {
        (self.points.len() >= LONG && self.is_noisy()).then(|| (self.points.len() / 15).max(5))
    }
    /// Does it turn at more than a third of its points?
    fn is_noisy(&self) -> bool {
        let values: Vec<f64> = self.finite().map(|point| point.1).collect();
        let turns = values.windows(3).filter(|three| (three[1] - three[0]) * (three[2] - three[1]) < 0.0).count();
        turns * 3 > values.len()
    }
}

impl LineChart {
    /// Curves with anything to draw?
    pub fn is_empty(&self) -> bool {
        self.curves.iter().all(|curve| curve.finite().next().is_none())
    }

    /// The chart as SVG; its title and legend are the page's.
    pub fn draw(&self, into: &mut Markup) {
        let ends = |of: fn((f64, f64)) -> f64| {
            let values = self.curves.iter().flat_map(Curve::finite).map(of);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (x_ends, y_ends) = (ends(|point| point.0), ends(|point| point.1));
        let are_whole = self.curves.iter().flat_map(Curve::finite).all(|(x, _)| x.fract() == 0.0);
        let x = if are_whole { Scale::whole(x_ends.0, x_ends.1, 5) } else { Scale::exact(x_ends.0, x_ends.1, 5) };
        let axes = Axes { x, y: Scale::round(y_ends.0, y_ends.1, 4) };
        svg(into, SIZE.0, SIZE.1, &format!("{}: {} over {}", self.title, self.y_label, self.x_label), |into| {
            axes.draw(into, &self.x_label, &self.y_label);
            for (index, curve) in self.curves.iter().enumerate() {
                draw_curve(into, &axes, curve, index, &self.x_label);
            }
            label_ends(into, &axes, &self.curves);
        });
    }
}

struct Axes {
    x: Scale,
    y: Scale,
}

impl Axes {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (width, height) = (SIZE.0 - LEFT - RIGHT, SIZE.1 - TOP - BOTTOM);
        (LEFT + self.x.share(x) * width, TOP + (1.0 - self.y.share(y)) * height)
    }

    fn draw(&self, into: &mut Markup, x_label: &str, y_label: &str) {
        for tick in &self.y.ticks {
            let (_, y) = self.place((self.x.low, *tick));
            segment(into, "grid", (LEFT, y), (SIZE.0 - RIGHT, y));
            label(into, "tick", (LEFT - 8.0, y + 4.0), Anchor::End, &self.y.label(*tick));
        }
        let floor = SIZE.1 - BOTTOM;
        segment(into, "axis", (LEFT, floor), (SIZE.0 - RIGHT, floor));
        for tick in &self.x.ticks {
            let (x, _) = self.place((*tick, self.y.low));
            segment(into, "axis", (x, floor), (x, floor + 4.0));
            label(into, "tick", (x, floor + 17.0), Anchor::Middle, &self.x.label(*tick));
        }
        label(into, "unit", (0.0, TEXT - 2.0), Anchor::Start, y_label);
        label(into, "unit", (SIZE.0 - RIGHT, SIZE.1 - 4.0), Anchor::End, x_label);
    }
}

fn draw_curve(into: &mut Markup, axes: &Axes, curve: &Curve, index: usize, x_label: &str) {
    let colour = index % 4;
    let mut path = |class: &str, points: &[(f64, f64)]| {
        into.leaf("path", &[("class", &format!("{class} s{colour}")), ("d", &steps(axes, points))]);
    };
    match curve.window() {
        Some(window) => {
            path("curve faint", &thinned(&curve.points));
            path("curve", &moving_mean(&curve.points, window));
        }
        None => path("curve", &curve.points),
    }
    if curve.points.len() > DOTTED {
        return;
    }
    for point in curve.finite() {
        let (x, y) = axes.place(point);
        into.element(
            "circle",
            &[("class", &format!("dot s{colour}")), ("cx", &Px(x)), ("cy", &Px(y)), ("r", &3)],
            |dot| {
                dot.line("title", &[], &format!("{} at {x_label} {}: {}", curve.name, point.0, number(point.1)));
            },
        );
    }
}

/// The last value of each curve beside its end, moved apart where two would touch.
fn label_ends(into: &mut Markup, axes: &Axes, curves: &[Curve]) {
    let mut ends: Vec<(usize, f64, f64, f64)> = curves
        .iter()
        .enumerate()
        .filter_map(|(index, curve)| {
            let last = match curve.window() {
                Some(window) => moving_mean(&curve.points, window).last().copied(),
                None => curve.finite().last(),
            }?;
            let (x, y) = axes.place(last);
            Some((index, x, y, last.1))
        })
        .collect();
    ends.sort_by(|a, b| a.2.total_cmp(&b.2));
    let mut above = f64::NEG_INFINITY;
    for (index, x, y, value) in ends {
        let y = y.max(above + TEXT + 1.0);
        above = y;
        let class = ["end s0", "end s1", "end s2", "end s3"][index % 4];
        label(into, class, (x + 7.0, y + 4.0), Anchor::Start, &number(value));
    }
}

/// The path through the points, lifted over those that are not finite.
fn steps(axes: &Axes, points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    let mut is_down = false;
    for (x, y) in points {
        if !x.is_finite() || !y.is_finite() {
            is_down = false;
            continue;
        }
        let (x, y) = axes.place((*x, *y));
        path += &format!("{}{} {}", if is_down { 'L' } else { 'M' }, Px(x), Px(y));
        is_down = true;
    }
    path
}

/// The mean of `window` points around each, fewer at the ends.
fn moving_mean(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let half = window / 2;
    let mean = |index: usize| {
        let around = &points[index.saturating_sub(half)..(index + half + 1).min(points.len())];
        around.iter().map(|point| point.1).sum::<f64>() / around.len() as f64
    };
    (0..points.len()).map(|index| (points[index].0, mean(index))).collect()
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 2);
    let ends = |part: &[(f64, f64)]| {
        let low = part.iter().copied().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let high = part.iter().copied().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let mut both: Vec<_> = low.into_iter().chain(high).collect();
        both.sort_by_key(|(index, _)| *index);
        both.into_iter().map(|(_, point)| point)
    };
    points.chunks(stretch).flat_map(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let curves = vec![Curve { name: "loss".into(), points }];
        let chart = LineChart { title: "loss".into(), x_label: "step".into(), y_label: "nats a token".into(), curves };
        let mut markup = Markup::new();
        chart.draw(&mut markup);
        markup.finish()
    }

    #[test]
    fn a_curve_has_axes_units_ticks_and_its_last_value() {
        let drawn = chart(vec![(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]);
        for part in [">nats a token<", ">step<", ">1.0<", ">3.0<", ">1.00<", "<title>loss at step 2: 2.00</title>"] {
            assert!(drawn.contains(part), "{part} in {drawn}");
        }
        assert!(drawn.contains("d=\"M46 22L219 108L392 194\""), "{drawn}");
    }

    #[test]
    fn a_value_that_is_not_finite_interrupts_the_curve() {
        assert!(chart(vec![(1.0, 3.0), (2.0, f64::NAN), (3.0, 1.0)]).contains("d=\"M46 22M392 194\""));
        assert!(!chart(vec![(1.0, f64::INFINITY)]).contains("NaN"));
        assert!(!chart(Vec::new()).contains("inf"));
    }

    #[test]
    fn a_smooth_curve_is_drawn_as_it_is_however_long() {
        let curve =
            |y: fn(u32) -> f64| Curve { name: "y".into(), points: (0..90).map(|x| (f64::from(x), y(x))).collect() };
        assert_eq!(curve(|x| 2e-3 * f64::from(90 - x)).window(), None);
        assert_eq!(curve(|x| f64::from(x * 7 % 5)).window(), Some(6));
    }

    #[test]
    fn a_long_noisy_curve_stays_small_and_keeps_its_peaks() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|step| (f64::from(step), f64::from(step % 7))).collect();
        points[5_003].1 = 99.0;
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS && thin.contains(&(5_003.0, 99.0)));
        let line: Vec<(f64, f64)> = (0..100).map(|step| (f64::from(step), 2.0 * f64::from(step))).collect();
        assert_eq!(moving_mean(&line, 9)[4..96], line[4..96]);
    }
}
