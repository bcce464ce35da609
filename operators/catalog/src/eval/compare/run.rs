//! Pairs the answers, draws the intervals, writes the verdict.

use llmflow_contract::{Chart, Context, Facts, Failure, Interval, Made, Report, Sample, write_report};

use super::{
    Params, pairs,
    spec::{In, METRICS, Out},
    words,
};
use crate::eval::statistics::{mean, paired_bootstrap};

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let baseline = pairs::read(&inputs.baseline, "baseline")?;
    let candidate = pairs::read(&inputs.candidate, "candidate")?;
    let pairs = pairs::pair(baseline, candidate)?;
    ctx.check()?;
    let total = pairs.len();
    let deltas: Vec<Vec<f64>> =
        METRICS.iter().map(|metric| pairs.iter().map(|pair| pair.delta(metric)).collect()).collect();
    let ends = paired_bootstrap(&deltas, params.samples as usize, &mut ctx.rng("bootstrap"));
    ctx.progress(u64::from(params.samples), Some(u64::from(params.samples)), "samples");

    let mut report = Report::default();
    let mut charts = (Vec::new(), Vec::new());
    for ((metric, deltas), ends) in METRICS.iter().zip(&deltas).zip(&ends) {
        let of = |side: fn((f64, f64)) -> f64| -> f64 {
            mean(&pairs.iter().map(|pair| side(pair.values(metric))).collect::<Vec<_>>())
        };
        let delta = mean(deltas);
        for (name, value) in [
            (format!("{metric}.baseline"), of(|values| values.0)),
            (format!("{metric}.candidate"), of(|values| values.1)),
            (format!("{metric}_delta"), delta),
            (format!("{metric}_delta.lower95"), ends.lower),
            (format!("{metric}_delta.upper95"), ends.upper),
        ] {
            report.metrics.insert(name, value);
        }
        let interval = Interval { label: (*metric).to_owned(), value: delta, lower: ends.lower, upper: ends.upper };
        if *metric == "gold_logprob" { charts.1.push(interval) } else { charts.0.push(interval) }
    }
    report.metrics.insert("n".into(), total as f64);
    for (name, value) in &report.metrics {
        ctx.metric(name, *value, None);
    }

    let right = |side: fn((f64, f64)) -> f64| pairs.iter().filter(|pair| side(pair.values("acc")) > 0.5).count();
    let right = (right(|values| values.0), right(|values| values.1));
    let acc = |name: &str| report.metrics[name];
    report.summary = words::summary(acc("acc.baseline"), acc("acc.candidate"), acc("acc_delta"), ends[0], total);
    let sentence = words::sentence(params, right, total, acc("acc_delta"), ends[0]);
    report.samples.push(Sample {
        title: "verdict".into(),
        texts: vec![("verdict".into(), sentence)],
        ..Sample::default()
    });
    report.samples.extend(words::side_by_side(params, &pairs));
    report.tables.push(words::changed_most(params, &pairs));
    report.charts = vec![
        intervals("candidate minus baseline, with 95 % interval", "share of questions", charts.0),
        intervals("candidate minus baseline, with 95 % interval", "nats an answer", charts.1),
    ];
    let folder = ctx.output("comparison")?;
    write_report(&folder, &report)?;
    ctx.report(&report)?;
    Ok(Out { comparison: Made::new(folder, Facts::default()) })
}

fn intervals(title: &str, unit: &str, intervals: Vec<Interval>) -> Chart {
    Chart::Intervals { title: title.into(), unit: unit.into(), intervals }
}
