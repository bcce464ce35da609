//! What a training shows: figures, curves, examples with what was learned marked.

use llmflow_contract::{Context, Failure, Report, Sample, Series, StagePlan, Table};
use llmflow_model::{TextTokenizer, training::Example};

use super::session::{Finished, History};
use crate::language_model::failure;

/// Points of a curve; longer ones are averaged.
const MAX_POINTS: usize = 1_000;
/// Examples shown.
pub(crate) const SHOWN: usize = 3;
/// Tokens of an example shown.
const SHOWN_TOKENS: usize = 400;

/// Names every metric of [`figures`].
pub(crate) fn declare(plan: StagePlan, loss: &str) -> StagePlan {
    plan.metric("loss", format!("{loss}, over the last tenth of the steps"))
        .metric("loss_before", format!("{loss}, at the first step"))
        .metric("grad_norm", "largest gradient norm of any step, before clipping")
        .metric("steps", "steps taken")
        .metric("epochs", "how often each row was read")
        .metric("tokens", "tokens read, repeats counted")
        .metric("warmup_steps", "steps until the learning rate was at its peak")
}

/// Names what rows that are not learned from measure.
pub(crate) fn declare_eval(plan: StagePlan) -> StagePlan {
    plan.metric("eval_loss", "mean negative ln p of a token of `eval`, after training")
        .metric("eval_loss_before", "the same before training")
}

/// The figures every training ends with.
pub(crate) fn figures(finished: &Finished) -> Vec<(&'static str, f64)> {
    let history = &finished.history;
    let curve = |name: &str| history.curves.get(name).map(Vec::as_slice).unwrap_or_default();
    let mut figures = vec![
        ("loss", history.last("loss").unwrap_or_default()),
        ("loss_before", curve("loss").first().copied().unwrap_or_default()),
        ("grad_norm", curve("grad_norm").iter().copied().fold(0.0, f64::max)),
        ("steps", finished.total_steps as f64),
        ("epochs", finished.epochs),
        ("tokens", finished.tokens as f64),
        ("warmup_steps", finished.warmup_steps as f64),
    ];
    if let (Some((_, before)), Some((_, after))) = (history.evals.first(), history.evals.last()) {
        figures.extend([("eval_loss_before", *before), ("eval_loss", *after)]);
    }
    figures
}

/// `loss 3.02 → 1.31`, or that of held-out rows where there are any.
pub(crate) fn summary(finished: &Finished) -> String {
    let history = &finished.history;
    if let (Some((_, before)), Some((_, after))) = (history.evals.first(), history.evals.last()) {
        return format!("eval loss {before:.2} → {after:.2}");
    }
    let first = history.curves.get("loss").and_then(|curve| curve.first()).copied().unwrap_or_default();
    format!("loss {first:.2} → {:.2}", history.last("loss").unwrap_or_default())
}

/// Tells the figures to the engine and writes the report.
pub(crate) fn finish(
    ctx: &Context,
    summary: String,
    figures: &[(&'static str, f64)],
    history: &History,
    mut report: Report,
) -> Result<(), Failure> {
    for (name, value) in figures {
        ctx.metric(name, *value, None);
        report.metrics.insert((*name).to_owned(), *value);
    }
    report.summary = summary;
    report.series.extend(curves(history));
    ctx.report(&report)
}

/// A table of settings.
pub(crate) fn settings_table(rows: Vec<(&str, String)>) -> Table {
    Table {
        title: "settings".into(),
        columns: vec!["setting".into(), "value".into()],
        rows: rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect(),
    }
}

/// Every curve over the steps, the loss first.
fn curves(history: &History) -> Vec<Series> {
    let of_pairs = history.curves.contains_key("margin");
    let unit = |name: &str| match name {
        "loss" if of_pairs => "nats a pair",
        "loss" | "eval_loss" | "chosen_nll" => "nats a token",
        "learning_rate" => "rate",
        "grad_norm" => "norm",
        "accuracy" => "share",
        _ => "value",
    };
    let series = |name: &str, points: Vec<(f64, f64)>| Series {
        name: name.to_owned(),
        x_label: "step".into(),
        y_label: unit(name).to_owned(),
        points,
    };
    let evals = history.evals.iter().map(|(step, loss)| (*step as f64, *loss)).collect::<Vec<_>>();
    let loss = history.curves.get("loss").map(|curve| series("loss", thinned(curve)));
    let evals = (!evals.is_empty()).then(|| series("eval_loss", evals));
    let others = history.curves.iter().filter(|(name, _)| *name != "loss");
    loss.into_iter().chain(evals).chain(others.map(|(name, curve)| series(name, thinned(curve)))).collect()
}

/// A value a step, counted from 1; of long curves the mean of each stretch, at its end.
fn thinned(curve: &[f64]) -> Vec<(f64, f64)> {
    let width = curve.len().div_ceil(MAX_POINTS).max(1);
    let point = |(index, stretch): (usize, &[f64])| {
        let end = index * width + stretch.len();
        (end as f64, stretch.iter().sum::<f64>() / stretch.len() as f64)
    };
    curve.chunks(width).enumerate().map(point).collect()
}

/// An example as the model reads it, in turns of what it reads and what it learns.
///
/// # Errors
/// Those of the tokenizer.
pub(crate) fn sample(tokenizer: &TextTokenizer, title: &str, row: &str, example: &Example) -> Result<Sample, Failure> {
    let count = example.tokens().min(SHOWN_TOKENS);
    let mut texts = Vec::new();
    let mut start = 0;
    while start < count {
        let is_learned = example.loss_mask[start];
        let run = example.loss_mask[start..count].iter().take_while(|learned| **learned == is_learned).count();
        let text = tokenizer.decode(&example.ids[start..start + run], false).map_err(failure)?;
        texts.push((if is_learned { "learned" } else { "read" }.to_owned(), text));
        start += run;
    }
    let metrics = [
        ("tokens".to_owned(), example.tokens() as f64),
        ("learned".to_owned(), example.loss_mask.iter().filter(|learned| **learned).count() as f64),
    ];
    Ok(Sample { row: Some(row.to_owned()), title: title.to_owned(), texts, metrics: metrics.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmflow_model::tokenizer::train_bpe;

    #[test]
    fn an_example_shows_what_is_read_and_what_is_learned() {
        let tokenizer = train_bpe(["one two three"; 3].into_iter(), 270, 1).unwrap();
        let ids = tokenizer.encode("one two", false).unwrap();
        let learned = tokenizer.encode(" three", false).unwrap();
        let loss_mask = [vec![false; ids.len()], vec![true; learned.len()]].concat();
        let example = Example { ids: [ids, learned].concat(), loss_mask };
        let sample = sample(&tokenizer, "example", "a1", &example).unwrap();
        let texts: Vec<(&str, &str)> = sample.texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts, [("read", "one two"), ("learned", " three")]);
    }

    #[test]
    fn a_long_curve_is_averaged_and_keeps_its_last_step() {
        let points = thinned(&(0..2_500).map(f64::from).collect::<Vec<_>>());
        assert!(points.len() <= MAX_POINTS);
        assert_eq!((points[0], points.last().unwrap().0), ((3.0, 1.0), 2_500.0));
        assert_eq!(thinned(&[5.0]), [(1.0, 5.0)]);
    }
}
