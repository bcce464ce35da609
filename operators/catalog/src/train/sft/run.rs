//! Reads rows, learns, writes the adapter.

use llmflow_contract::{AnyArtifact, Context, Failure, Report};
use llmflow_dataset::TraceWriter;
use llmflow_model::training::Example;

use super::{
    Params,
    spec::{In, Out},
};
use crate::train::{
    adapter::{self, Student},
    course::Course,
    encode::Encoder,
    examples::Examples,
    gather::{Gathered, gather},
    longest,
    session::{self, Finished},
    show,
};

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let student = Student::open(&inputs.model)?;
    let (settings, tokenizer) = (params.settings(), student.tokenizer.clone());
    let encoder = Encoder {
        tokenizer: &tokenizer,
        system: params.system.as_deref(),
        max_length: longest(params.max_length, student.context)?,
        answers_only: params.assistant_only_loss,
    };
    let datasets: Vec<&AnyArtifact> = inputs.data.iter().map(|artifact| &**artifact).collect();
    let mut trace = TraceWriter::create(ctx)?;
    let read = |datasets: &[&AnyArtifact], trace: Option<&mut TraceWriter>| {
        gather(ctx, datasets, |row| encoder.example(row), Example::tokens, trace)
    };
    let mut gathered = read(&datasets, Some(&mut trace))?;
    let kept = gathered.lessons.len() as u64;
    let funnel = trace.finish(kept + gathered.dropped_rows(), kept)?;
    let held_out = match &inputs.eval {
        Some(eval) => read(&[eval], None)?.lessons,
        None => Vec::new(),
    };
    let examples = Examples { learned: std::mem::take(&mut gathered.lessons), held_out };
    let course = Course::new(ctx, &settings, examples.learned.iter().map(Example::tokens).collect())?;
    let policy = student.adapted(ctx, &params.lora_target_modules, params.lora_r, params.alpha());
    let finished = session::run(ctx, &settings, course, policy, &examples)?;
    let mut report = Report { funnel: Some(funnel), ..Report::default() };
    for (row, example) in gathered.rows.iter().zip(&examples.learned).take(show::SHOWN) {
        report.samples.push(show::sample(&tokenizer, "example", row, example)?);
    }
    finish(params, ctx, &finished, &gathered, &examples, report)?;
    let facts = student.facts(&inputs.model, inputs.data.iter().map(|artifact| artifact.facts()));
    Ok(Out { adapter: adapter::write(ctx, &finished.policy, &inputs.model, facts)? })
}

fn finish(
    params: &Params,
    ctx: &Context,
    finished: &Finished,
    gathered: &Gathered<Example>,
    examples: &Examples,
    mut report: Report,
) -> Result<(), Failure> {
    let mut figures = show::figures(finished);
    let learned_tokens: usize = examples.learned.iter().map(Example::supervised).sum();
    let all_tokens: usize = examples.learned.iter().map(Example::tokens).sum();
    figures.extend([
        ("learned_tokens", learned_tokens as f64),
        ("rows", examples.learned.len() as f64),
        ("cut", gathered.cut as f64),
        ("dropped", gathered.dropped_rows() as f64),
        ("rank", f64::from(params.lora_r)),
        ("parameters", finished.policy.parameters().values.len() as f64),
    ]);
    report.tables.push(show::settings_table(vec![
        ("rank", params.lora_r.to_string()),
        ("alpha", params.alpha().to_string()),
        ("layers", params.lora_target_modules.names().join(", ")),
        ("learning rate", format!("{:e}, {:?}", params.learning_rate, params.lr_scheduler_type).to_lowercase()),
        ("steps", format!("{}, {} to warm up", finished.total_steps, finished.warmup_steps)),
        ("rows a step", params.settings().batch_size.to_string()),
        ("tokens learned", format!("{:.0} %", 100.0 * learned_tokens as f64 / all_tokens.max(1) as f64)),
    ]));
    show::finish(ctx, show::summary(finished), &figures, &finished.history, report)
}
