//! Figures that are no number, in JSON: JSON has none, so they are written as `null`, and `null` is read as NaN.
//!
//! A loss that went to infinity is a result too: a record or report that holds one must come back.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

fn number(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

/// For a field of type `f64`.
pub fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::deserialize(deserializer).map(number)
}

/// For figures by name.
pub fn by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let figures = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(figures.into_iter().map(|(name, value)| (name, number(value))).collect())
}

/// For the points of a curve.
pub(crate) fn points<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(f64, f64)>, D::Error> {
    let points = Vec::<(Option<f64>, Option<f64>)>::deserialize(deserializer)?;
    Ok(points.into_iter().map(|(x, y)| (number(x), number(y))).collect())
}

/// For bars: labels with their values.
pub(crate) fn bars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
    let bars = Vec::<(String, Option<f64>)>::deserialize(deserializer)?;
    Ok(bars.into_iter().map(|(label, value)| (label, number(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chart, Interval, Report, Sample, Series};

    #[test]
    fn a_report_with_figures_that_are_no_number_comes_back() {
        let (nan, infinite) = (f64::NAN, f64::INFINITY);
        let figures = BTreeMap::from([("loss".to_owned(), infinite), ("acc".to_owned(), 0.5)]);
        let report = Report {
            metrics: figures.clone(),
            series: vec![Series { points: vec![(1.0, nan), (2.0, 0.5)], ..Series::default() }],
            samples: vec![Sample { metrics: figures, ..Sample::default() }],
            charts: vec![
                Chart::Bars { title: String::new(), unit: String::new(), bars: vec![("a".into(), nan)] },
                Chart::Intervals {
                    title: String::new(),
                    unit: String::new(),
                    intervals: vec![Interval { label: "b".into(), value: 1.0, lower: -infinite, upper: infinite }],
                },
            ],
            ..Report::default()
        };
        let text = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert!(back.metrics["loss"].is_nan() && back.samples[0].metrics["loss"].is_nan());
        assert_eq!((back.metrics["acc"], back.series[0].points[1]), (0.5, (2.0, 0.5)));
        assert_eq!(serde_json::to_string(&back).unwrap(), text, "written again, the same bytes");
    }
}
