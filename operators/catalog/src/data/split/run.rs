//! Groups like rows, draws groups for the test side, writes both sides in order.

use std::collections::BTreeMap;

use llmflow_contract::{Context, Digest, Facts, Failure, Hasher, Report};
use llmflow_dataset::{Dataset, DatasetWriter, RowId, TraceRecord, TraceWriter};

use super::{
    Params,
    spec::{In, Out},
};
use crate::data::{
    count_of,
    near_duplicates::{self, Settings},
};

/// Rows between two looks at cancellation.
const CHUNK_ROWS: usize = 1024;

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let dataset = Dataset::open(&inputs.data)?;
    let settings = Settings { ngram: params.ngram, num_perm: params.num_perm, threshold: params.threshold };
    let (mut ids, mut shingles) = (Vec::new(), Vec::new());
    for row in dataset.rows() {
        let row = row?;
        if ids.len() % CHUNK_ROWS == 0 {
            ctx.check()?;
            ctx.progress(ids.len() as u64, Some(dataset.len()), "rows");
        }
        shingles.push(settings.shingles(&row.text()));
        ids.push(row.id);
    }
    let groups = near_duplicates::clusters(ctx, &shingles, &settings)?;
    let is_test = draw(ctx, &ids, &groups.first, params.test_size)?;

    let mut train = DatasetWriter::create(ctx, "train", dataset.kind())?;
    let mut test = DatasetWriter::create(ctx, "test", dataset.kind())?;
    let mut trace = TraceWriter::create(ctx)?;
    for (row, is_test) in dataset.rows().zip(&is_test) {
        let row = row?;
        let (writer, port) = if *is_test { (&mut test, "test") } else { (&mut train, "train") };
        trace.push(TraceRecord::kept(&row.id).port(port))?;
        writer.push(row)?;
    }
    let funnel = trace.finish(dataset.len(), train.rows() + test.rows())?;
    let metrics = [("rows", dataset.len()), ("train", train.rows()), ("test", test.rows())];
    for (name, value) in metrics {
        ctx.metric(name, value as f64, None);
    }
    ctx.report(&Report {
        summary: format!("{} to train on · {} to test", count_of(train.rows(), "row"), test.rows()),
        metrics: metrics.map(|(name, value)| (name.to_owned(), value as f64)).into(),
        funnel: Some(funnel),
        ..Report::default()
    })?;
    let facts = Facts { rows: None, ..inputs.data.facts().clone() };
    Ok(Out { train: train.finish(facts.clone())?, test: test.finish(facts)? })
}

/// Which rows are tested. Groups are taken in an order that hashes the seed with the id of their first row, each if it
/// still fits; where none fits, the smallest.
///
/// # Errors
/// `data/split-empty` if one side would have no row.
fn draw(ctx: &Context, ids: &[RowId], first: &[usize], test_size: f64) -> Result<Vec<bool>, Failure> {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for group in first {
        *sizes.entry(*group).or_default() += 1;
    }
    let wanted = if test_size < 1.0 { (ids.len() as f64 * test_size).round() } else { test_size };
    let wanted = (wanted as usize).max(1);
    if sizes.len() < 2 || wanted >= ids.len() {
        let groups = sizes.len();
        return Err(Failure::input(
            "data/split-empty",
            format!("{} in {groups} groups of like rows cannot give {wanted} to test and leave some", ids.len()),
        )
        .help("lower `test_size`, raise `threshold`, or give more rows")
        .param("test_size"));
    }
    let place = |group: usize| -> Digest {
        let mut hasher = Hasher::new();
        hasher.part(b"data.split").part(&ctx.seed().to_le_bytes()).part(ids[group].as_str().as_bytes());
        hasher.finish()
    };
    let mut order: Vec<(Digest, usize)> = sizes.keys().map(|group| (place(*group), *group)).collect();
    order.sort_unstable();
    let mut tested = vec![false; ids.len()];
    let mut count = 0;
    for (_, group) in &order {
        if count + sizes[group] <= wanted {
            tested[*group] = true;
            count += sizes[group];
        }
    }
    if count == 0 {
        let smallest = order.iter().min_by_key(|(_, group)| sizes[group]).expect("there are two groups");
        tested[smallest.1] = true;
    }
    Ok(first.iter().map(|group| tested[*group]).collect())
}
