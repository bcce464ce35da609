//! `report.json`: data only. One renderer turns it into terminal, Markdown, SVG and HTML.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nan;

/// What a stage has to show: figures, tables, curves, samples, charts as data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The result in one line, as the run's table shows it: `301 kept · 4 too_short`.
    pub summary: String,
    #[serde(deserialize_with = "nan::by_name")]
    pub metrics: BTreeMap<String, f64>,
    pub tables: Vec<Table>,
    pub series: Vec<Series>,
    pub samples: Vec<Sample>,
    pub charts: Vec<Chart>,
    pub funnel: Option<Funnel>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A curve: `y` over `x` (usually steps).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub x_label: String,
    pub y_label: String,
    #[serde(deserialize_with = "nan::points")]
    pub points: Vec<(f64, f64)>,
}

/// Something to read: a question and its answers, a rendered example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The row it comes from, if any.
    pub row: Option<String>,
    pub title: String,
    /// Named texts, in order: (`prompt`, …), (`answer`, …).
    pub texts: Vec<(String, String)>,
    #[serde(deserialize_with = "nan::by_name")]
    pub metrics: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "chart", rename_all = "snake_case")]
pub enum Chart {
    /// Bars with one value a label.
    Bars {
        title: String,
        unit: String,
        #[serde(deserialize_with = "nan::bars")]
        bars: Vec<(String, f64)>,
    },
    /// Estimates with their intervals.
    Intervals { title: String, unit: String, intervals: Vec<Interval> },
}

/// An estimate with the ends of its interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub label: String,
    #[serde(deserialize_with = "nan::one")]
    pub value: f64,
    #[serde(deserialize_with = "nan::one")]
    pub lower: f64,
    #[serde(deserialize_with = "nan::one")]
    pub upper: f64,
}

/// What a data stage did to its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Funnel {
    pub rows_in: u64,
    pub kept: u64,
    pub made: u64,
    pub set_aside: u64,
    /// Rows dropped, by rule.
    pub dropped: BTreeMap<String, u64>,
}
