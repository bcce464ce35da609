//! From values to places on an axis, and the round values worth a tick.

/// A linear axis between two ends that a person would choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    pub low: f64,
    pub high: f64,
    /// From `low` to `high` where the ends are round.
    pub ticks: Vec<f64>,
    decimals: usize,
}

impl Scale {
    /// An axis that covers `low..=high` with about `count` ticks and ends on round values.
    ///
    /// Ends that are not finite, or in the wrong order, give the axis from 0 to 1.
    pub fn round(low: f64, high: f64, count: usize) -> Self {
        let (low, high) = wide(low, high);
        let step = round_step((high - low) / count.max(1) as f64);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        Self::of_ticks(first, last, step, first * step, last * step)
    }

    /// An axis from exactly `low` to `high`, with round ticks inside.
    pub fn exact(low: f64, high: f64, count: usize) -> Self {
        let (low, high) = wide(low, high);
        Self::inside(low, high, round_step((high - low) / count.max(1) as f64))
    }

    /// The same for steps and counts: no tick between whole numbers.
    pub fn whole(low: f64, high: f64, count: usize) -> Self {
        let (low, high) = if low == high { (low - 1.0, high + 1.0) } else { wide(low, high) };
        Self::inside(low, high, round_step((high - low) / count.max(1) as f64).max(1.0))
    }

    fn inside(low: f64, high: f64, step: f64) -> Self {
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        Self::of_ticks(first, last, step, low, high)
    }

    fn of_ticks(first: f64, last: f64, step: f64, low: f64, high: f64) -> Self {
        let count = (last - first).round().clamp(0.0, 50.0) as usize;
        let ticks = (0..=count).map(|index| (first + index as f64) * step).collect();
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        Self { low, high, ticks, decimals }
    }

    /// Where `value` lies between the ends, from 0 to 1; outside for values outside.
    pub fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A tick's text, all ticks with the same decimals.
    pub fn label(&self, tick: f64) -> String {
        let tick = if tick.abs() < (self.high - self.low) * 1e-9 { 0.0 } else { tick };
        let size = self.low.abs().max(self.high.abs());
        match size {
            size if size >= 1e6 => format!("{}M", trimmed(tick / 1e6)),
            size if size >= 1e4 => format!("{}k", trimmed(tick / 1e3)),
            size if size < 1e-3 => format!("{tick:.0e}"),
            _ => format!("{tick:.*}", self.decimals).replace('-', "−"),
        }
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Two finite ends with room between them.
fn wide(low: f64, high: f64) -> (f64, f64) {
    if !low.is_finite() || !high.is_finite() || low > high || (high - low).is_infinite() {
        return (0.0, 1.0);
    }
    if high - low > low.abs().max(high.abs()) * 1e-9 {
        return (low, high);
    }
    let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
    (low - room, high + room)
}

/// The next of 1, 2, 5 × a power of ten.
fn round_step(raw: f64) -> f64 {
    let power = 10_f64.powf(raw.log10().floor());
    let lead = raw / power;
    let round = [1.0, 2.0, 5.0].into_iter().find(|round| lead <= round * 1.000_001).unwrap_or(10.0);
    round * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let scale = Scale::round(1.47, 3.02, 4);
        assert_eq!(
            scale.ticks.iter().map(|tick| scale.label(*tick)).collect::<Vec<_>>(),
            ["1.0", "1.5", "2.0", "2.5", "3.0", "3.5"]
        );
        assert_eq!((scale.low, scale.high), (1.0, 3.5));
        let steps = Scale::exact(1.0, 168.0, 5);
        assert_eq!((steps.low, steps.high), (1.0, 168.0));
        assert_eq!(steps.ticks, [50.0, 100.0, 150.0]);
        assert_eq!(steps.share(168.0), 1.0);
        assert_eq!(Scale::whole(1.0, 3.0, 5).ticks, [1.0, 2.0, 3.0]);
        assert_eq!(Scale::whole(7.0, 7.0, 5).ticks, [6.0, 7.0, 8.0]);
    }

    #[test]
    fn odd_values_still_give_an_axis() {
        for (low, high) in [(f64::NAN, 1.0), (2.0, 2.0), (0.0, 0.0), (5.0, 1.0), (f64::MIN, f64::MAX), (1e-300, 2e-300)]
        {
            let scale = Scale::round(low, high, 5);
            assert!(
                scale.high > scale.low && scale.ticks.len() >= 2 && scale.ticks.len() < 52,
                "{low} {high}: {scale:?}"
            );
        }
        let small = Scale::round(0.0, 2e-4, 4);
        assert_eq!(small.label(1e-4), "1e-4");
        assert_eq!(Scale::round(0.0, 51_204.0, 4).label(20_000.0), "20k");
        assert_eq!(Scale::round(-0.4, 0.4, 4).label(-0.2), "−0.2");
    }
}
