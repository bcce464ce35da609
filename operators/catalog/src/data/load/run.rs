//! Reads every record, keeps the good rows, sets the bad ones aside or stops at the first.

use llmflow_contract::{Context, Failure, Funnel, Place, Sample};
use llmflow_dataset::{DatasetWriter, Fate, Numbering, TraceRecord, TraceWriter};
use serde_json::json;

use super::{
    convert, files, records,
    remote_files::RemoteFiles,
    spec::{self, Format, OnBadRow, Out, Params},
};
use crate::{
    data::{count_of, excerpt, report_counts},
    remote::Hub,
};

/// Rows between two looks at cancellation.
const CHUNK_ROWS: u64 = 512;
/// Rows shown in the report.
const SAMPLES: usize = 3;

/// A row that was left out: where, and what it lacks.
struct Bad {
    place: String,
    number: u64,
    reason: String,
}

/// The files, on this machine.
pub(super) fn find(params: &Params, ctx: &Context, hub: &Hub) -> Result<Vec<files::Found>, Failure> {
    match RemoteFiles::of(params)? {
        Some(remote) => remote.fetch(params, ctx, hub),
        None => {
            let mut files = files::find(&params.path, &ctx.resolve(""))?;
            files.retain(|file| ctx.is_source(&file.path));
            Ok(files)
        }
    }
}

pub(super) fn run(params: &Params, ctx: &Context, hub: &Hub) -> Result<Out, Failure> {
    let files = find(params, ctx, hub)?;
    let format = if params.format == Format::Auto { spec::detect(&files)? } else { params.format };
    let kind = format.kind().expect("`auto` was settled");
    let mut writer = DatasetWriter::create(ctx, "data", kind)?;
    let mut trace = TraceWriter::create(ctx)?;
    let mut numbering = Numbering::new();
    let (mut read, mut bad, mut samples) = (0, Vec::new(), Vec::new());
    'files: for file in &files {
        for record in records::read(file, params.split)? {
            let record = record?;
            if read % CHUNK_ROWS == 0 {
                ctx.check()?;
                ctx.progress(read, None, "rows");
            }
            read += 1;
            match record.body.and_then(|fields| convert::row(format, fields)) {
                Ok(mut row) => {
                    row.id = numbering.unique(row.id);
                    if samples.len() < SAMPLES {
                        samples.push(Sample {
                            row: Some(row.id.to_string()),
                            title: record.place.clone(),
                            texts: vec![("text".into(), excerpt(&row.text()))],
                            ..Sample::default()
                        });
                    }
                    trace.push(TraceRecord::new(&row.id, vec![record.place], Fate::Kept))?;
                    writer.push(row)?;
                }
                Err(reason) if params.on_bad_row == OnBadRow::Fail => {
                    return Err(bad_row(&record.place, file, record.number, &reason));
                }
                Err(reason) => {
                    let (place, evidence) = (record.place, json!(reason));
                    let aside = TraceRecord::new(&place, vec![place.clone()], Fate::SetAside);
                    trace.push(aside.why("bad_row", evidence))?;
                    bad.push(Bad { place, number: record.number, reason });
                }
            }
            if params.max_rows == Some(writer.rows()) {
                break 'files;
            }
        }
    }
    if writer.rows() == 0 {
        let why = bad.first().map_or(String::new(), |bad| format!(": `{}` {}", bad.place, bad.reason));
        return Err(Failure::input("data/empty", format!("`{}` gives no row{why}", params.path)).param("path"));
    }
    let funnel = trace.finish(read, writer.rows())?;
    report(ctx, funnel, &bad, samples)?;
    Ok(Out { data: writer.finish(spec::facts_of(params))? })
}

fn bad_row(place: &str, file: &files::Found, number: u64, reason: &str) -> Failure {
    Failure::input("data/bad-row", format!("`{place}` {reason}"))
        .help("mend the row, or leave such rows out: `on_bad_row: set_aside`")
        .at(Place { file: file.path.clone(), line: Some(number as usize), column: None })
}

fn report(ctx: &Context, funnel: Funnel, bad: &[Bad], samples: Vec<Sample>) -> Result<(), Failure> {
    let mut summary = count_of(funnel.kept, "row");
    if let Some(first) = bad.first() {
        let lines: Vec<String> = bad.iter().take(2).map(|bad| bad.number.to_string()).collect();
        let more = if bad.len() > lines.len() { ", …" } else { "" };
        let reason = first.reason.trim_start_matches("has ");
        summary += &format!(" · {} set aside ({reason}: lines {}{more})", bad.len(), lines.join(", "));
    }
    let metrics = [("rows", funnel.kept), ("set_aside", funnel.set_aside)];
    report_counts(ctx, summary, metrics, funnel, samples)
}
