//! The work of `quantize.gguf`.

use llmflow_contract::{Chart, Context, Failure, Made, Report, Table};
use llmflow_model::quantization::{Quantized, write_gguf};

use super::spec::{In, Out, Params};
use crate::language_model::{facts_of, failure, load};

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let checkpoint = load(&inputs.model)?.checkpoint;
    let block_type = params.block_type.block_type();
    let folder = ctx.output("gguf")?;
    let mut on_tensor = |done: usize, total: usize| {
        ctx.progress(done as u64, Some(total as u64), "tensors");
        !ctx.cancelled()
    };
    let made = write_gguf(&folder.join("model.gguf"), &checkpoint, block_type, &mut on_tensor).map_err(failure)?;
    let report = report(&made, block_type.name());
    for (name, value) in &report.metrics {
        ctx.metric(name, *value, None);
    }
    ctx.report(&report)?;
    let facts = facts_of(&checkpoint, block_type.name(), inputs.model.facts().licences.clone());
    Ok(Out { gguf: Made::new(folder, facts) })
}

fn report(made: &Quantized, name: &str) -> Report {
    let numbers: u64 = made.tensors.iter().map(|tensor| tensor.numbers).sum();
    let bytes: u64 = made.tensors.iter().map(|tensor| tensor.size_bytes).sum();
    let matrices: Vec<_> = made.tensors.iter().filter(|tensor| tensor.relative_error > 0.0).collect();
    let weighed: f64 = matrices.iter().map(|tensor| tensor.relative_error.powi(2) * tensor.numbers as f64).sum();
    let relative_error = (weighed / numbers.max(1) as f64).sqrt();
    let bits_per_weight = bytes as f64 * 8.0 / numbers.max(1) as f64;
    let rows = made.tensors.iter().map(|tensor| {
        vec![
            tensor.name.clone(),
            tensor.block_type.to_string(),
            tensor.size_bytes.to_string(),
            format!("{:.5}", tensor.relative_error),
        ]
    });
    let mut worst = matrices;
    worst.sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error).then_with(|| a.name.cmp(&b.name)));
    let bars = worst.iter().take(10).map(|tensor| (tensor.name.clone(), tensor.relative_error)).collect();
    Report {
        summary: format!("{name}, {}", size(made.size_bytes)),
        metrics: [
            ("size_bytes".to_owned(), made.size_bytes as f64),
            ("bits_per_weight".to_owned(), bits_per_weight),
            ("relative_error".to_owned(), relative_error),
        ]
        .into(),
        tables: vec![Table {
            title: "tensors".into(),
            columns: ["tensor", "type", "bytes", "relative error"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
        }],
        charts: vec![Chart::Bars { title: "largest relative errors".into(), unit: String::new(), bars }],
        ..Report::default()
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}
