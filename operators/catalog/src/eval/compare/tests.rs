use llmflow_contract::{
    AnyArtifact, Artifact, Context, Facts, Failure, Host as _, Made, Operator as _, Report, Sample, kinds, write_report,
};

use super::{Compare, Params, spec::In};
use crate::testing::{TestHost, artifact, known};

fn sample(row: usize, right: bool, gold_logprob: f64, answer: Option<&str>) -> Sample {
    let mark = f64::from(u8::from(right));
    let mut texts = vec![
        ("question".to_owned(), format!("question {row}?")),
        ("gold".to_owned(), "right".to_owned()),
        ("predicted".to_owned(), if right { "right" } else { "wrong" }.to_owned()),
    ];
    texts.extend(answer.map(|answer| ("answer".to_owned(), answer.to_owned())));
    Sample {
        row: Some(format!("row-{row}")),
        title: String::new(),
        texts,
        metrics: [("acc", mark), ("acc_norm", mark), ("gold_logprob", gold_logprob)]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
    }
}

fn results(host: &TestHost, samples: Vec<Sample>) -> AnyArtifact {
    let folder = host.output("results").unwrap();
    write_report(&folder, &Report { samples, ..Report::default() }).unwrap();
    let made: Made<kinds::ReportFile> = Made::new(folder, Facts::default());
    artifact(made.into_any())
}

fn compare(ctx: &Context, baseline: AnyArtifact, candidate: AnyArtifact) -> Result<AnyArtifact, Failure> {
    let inputs = In { baseline: Artifact::new(baseline), candidate: Artifact::new(candidate) };
    let out = Compare::run(Params { samples: 2000, ..Params::default() }, inputs, ctx)?;
    Ok(artifact(out.comparison.into_any()))
}

/// 60 questions: the base is right in the first 25, the candidate in the first 41.
fn both(host: &TestHost) -> (AnyArtifact, AnyArtifact) {
    let answer = |row: usize| row.is_multiple_of(12).then_some("it said so");
    let base = (0..60).map(|row| sample(row, row < 25, -20.0, answer(row))).collect();
    let tuned = (0..60)
        .map(|row| sample(row, row < 41, if row == 7 { -30.0 } else { -10.0 - 0.13 * (row % 9) as f64 }, answer(row)))
        .rev()
        .collect();
    (results(host, base), results(host, tuned))
}

#[test]
fn the_verdict_has_its_figures_its_sentence_and_its_worst_answers() {
    let host = TestHost::new();
    let (base, tuned) = both(&host);
    compare(&host.context(), base, tuned).unwrap();
    assert!((host.metric("acc_delta").unwrap() - 16.0 / 60.0).abs() < 1e-12);
    assert!(host.metric("acc_delta.lower95").unwrap() > 0.1 && host.metric("acc_delta.upper95").unwrap() < 0.45);
    assert_eq!(host.metric("n"), Some(60.0));
    let report = host.stage_report();
    assert!(
        report.samples[0].texts[0]
            .1
            .starts_with("The tuned model answers 41 of 60 held-out questions; the base answered 25 (+0.27")
    );
    assert_eq!(report.samples.len(), 6);
    assert_eq!(report.samples[1].row.as_deref(), Some("row-7"));
    assert_eq!(report.tables[0].rows.len(), 10);
}

#[test]
fn every_figure_is_declared() {
    let host = TestHost::new();
    let (base, tuned) = both(&host);
    compare(&host.context(), base, tuned).unwrap();
    let plan = Compare::plan(&mut Params::default(), &known("".into(), &[])).unwrap();
    let mut declared: Vec<_> = plan.metrics.into_iter().map(|metric| metric.name).collect();
    declared.sort();
    assert_eq!(declared, host.stage_report().metrics.into_keys().collect::<Vec<_>>());
}

#[test]
fn equal_seeds_give_equal_bytes_and_another_seed_other_intervals() {
    let host = TestHost::new();
    let (base, tuned) = both(&host);
    let digest = |seed| compare(&host.context_with_seed(seed), base.clone(), tuned.clone()).unwrap().digest;
    assert_eq!(digest(42), digest(42));
    assert_ne!(digest(42), digest(43));
}

#[test]
fn results_of_other_questions_are_refused() {
    let host = TestHost::new();
    let base = results(&host, (0..3).map(|row| sample(row, true, -1.0, None)).collect());
    let other = results(&host, (1..4).map(|row| sample(row, true, -1.0, None)).collect());
    let failure = compare(&host.context(), base.clone(), other).unwrap_err();
    assert_eq!(failure.code, "eval/other-questions");
    assert!(failure.message.contains("1 only in the baseline, 1 only in the candidate, 2 in both"));
    let empty = results(&host, Vec::new());
    assert_eq!(compare(&host.context(), empty.clone(), empty).unwrap_err().code, "eval/no-results");
}
