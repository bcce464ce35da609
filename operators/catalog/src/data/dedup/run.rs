//! Two passes: fingerprints of every row, then the rows that are first of their group.

use std::collections::{BTreeMap, HashMap};

use llmflow_contract::{Context, Failure, Sample};
use llmflow_dataset::{Dataset, DatasetWriter, Row, RowId, TraceRecord, TraceWriter};
use rayon::prelude::*;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Method, Params,
    spec::{In, Out},
};
use crate::data::{excerpt, merged_facts, near_duplicates, report_kept};

/// Rows hashed at once.
const CHUNK_ROWS: usize = 1024;
/// Drops shown in the report.
const SAMPLES: usize = 5;

/// What the first pass keeps of each row.
struct Prints {
    ids: Vec<RowId>,
    exact: Vec<u128>,
    /// Empty for `exact`.
    shingles: Vec<Vec<u64>>,
}

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let datasets: Vec<Dataset> = inputs.data.iter().map(|input| Dataset::open(input)).collect::<Result<_, _>>()?;
    let kind = datasets.first().map(Dataset::kind).ok_or_else(|| Failure::bug("`data` was not bound"))?;
    let prints = fingerprints(params, &datasets, ctx)?;
    let first = match params.method {
        Method::Exact => first_equal(&prints.exact),
        Method::Minhash => near_duplicates::clusters(ctx, &prints.shingles, &params.settings())?.first,
    };

    let mut writer = DatasetWriter::create(ctx, "data", kind)?;
    let mut trace = TraceWriter::create(ctx)?;
    let mut samples = Samples::of(&first);
    let mut index = 0;
    for (input, dataset) in datasets.iter().enumerate() {
        for row in dataset.rows() {
            let row = row?;
            if index % CHUNK_ROWS == 0 {
                ctx.check()?;
            }
            let kept = first[index];
            samples.see(index, kept, &row);
            if kept == index {
                trace.push(TraceRecord::kept(&row.id).input(input))?;
                writer.push(row)?;
            } else {
                trace.push(dropped(&row, index, kept, &prints).input(input))?;
            }
            index += 1;
        }
    }
    let funnel = trace.finish(index as u64, writer.rows())?;
    report_kept(ctx, &funnel, samples.into_report())?;
    Ok(Out { data: writer.finish(merged_facts(inputs.data.iter().map(|input| input.facts())))? })
}

fn fingerprints(params: &Params, datasets: &[Dataset], ctx: &Context) -> Result<Prints, Failure> {
    let total: u64 = datasets.iter().map(Dataset::len).sum();
    let settings = params.settings();
    let mut prints = Prints { ids: Vec::new(), exact: Vec::new(), shingles: Vec::new() };
    for dataset in datasets {
        let mut rows = dataset.rows();
        loop {
            ctx.check()?;
            let chunk: Vec<Row> = rows.by_ref().take(CHUNK_ROWS).collect::<Result<_, _>>()?;
            if chunk.is_empty() {
                break;
            }
            let made: Vec<(u128, Vec<u64>)> = chunk
                .par_iter()
                .map(|row| {
                    let text = row.field(params.field.field());
                    let shingles = match params.method {
                        Method::Exact => Vec::new(),
                        Method::Minhash => settings.shingles(&text),
                    };
                    (xxh3_128(text.as_bytes()), shingles)
                })
                .collect();
            prints.ids.extend(chunk.into_iter().map(|row| row.id));
            for (exact, shingles) in made {
                prints.exact.push(exact);
                prints.shingles.push(shingles);
            }
            ctx.progress(prints.ids.len() as u64, Some(total), "rows");
        }
    }
    Ok(prints)
}

fn first_equal(prints: &[u128]) -> Vec<usize> {
    let mut first = HashMap::new();
    prints.iter().enumerate().map(|(index, print)| *first.entry(*print).or_insert(index)).collect()
}

fn dropped(row: &Row, index: usize, kept: usize, prints: &Prints) -> TraceRecord {
    let id = prints.ids[kept].as_str();
    if prints.exact[index] == prints.exact[kept] {
        return TraceRecord::dropped(&row.id, "duplicate", json!({"kept": id}));
    }
    let similarity = near_duplicates::jaccard(&prints.shingles[index], &prints.shingles[kept]);
    let rounded = (similarity * 1e4).round() / 1e4;
    TraceRecord::dropped(&row.id, "near_duplicate", json!({"kept": id, "jaccard": rounded}))
}

/// The first drops, each beside the row that stayed.
struct Samples {
    /// Kept and dropped row, by index.
    pairs: Vec<(usize, usize)>,
    texts: HashMap<usize, (String, String)>,
}

impl Samples {
    fn of(first: &[usize]) -> Self {
        let drops = first.iter().enumerate().filter(|(index, kept)| index != *kept);
        Self { pairs: drops.take(SAMPLES).map(|(index, kept)| (*kept, index)).collect(), texts: HashMap::new() }
    }
    fn see(&mut self, index: usize, kept: usize, row: &Row) {
        if self.pairs.iter().any(|pair| pair.0 == index || (pair.1 == index && pair.0 == kept)) {
            self.texts.insert(index, (row.id.to_string(), excerpt(&row.text())));
        }
    }
    fn into_report(self) -> Vec<Sample> {
        let text = |index: &usize| self.texts.get(index).map_or_else(String::new, |(_, text)| text.clone());
        let sample = |(kept, dropped): &(usize, usize)| Sample {
            row: self.texts.get(dropped).map(|(id, _)| id.clone()),
            title: "dropped as a repeat".into(),
            texts: vec![("kept".into(), text(kept)), ("dropped".into(), text(dropped))],
            metrics: BTreeMap::new(),
        };
        self.pairs.iter().map(sample).collect()
    }
}
