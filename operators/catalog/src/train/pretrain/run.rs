//! Joins documents, cuts windows, learns, writes the model.

use llmflow_contract::{AnyArtifact, Context, Failure, Made, Report};
use llmflow_dataset::{Content, Row, TraceWriter};
use llmflow_model::{
    Checkpoint, Generation, TextTokenizer,
    training::{Example, Policy, init},
};

use super::{
    Params,
    spec::{In, Out},
};
use crate::{
    language_model::{facts_of, failure},
    train::{
        course::Course,
        encode::Encoder,
        examples::Examples,
        gather::{Gathered, Read, gather},
        licences,
        session::{self, Finished},
        show, uniform,
    },
};

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let tokenizer = TextTokenizer::from_folder(inputs.tokenizer.folder()).map_err(failure)?;
    let config = params.config(&tokenizer)?;
    let settings = params.settings();
    let length = params.max_length as usize;
    let datasets: Vec<&AnyArtifact> = inputs.data.iter().map(|artifact| &**artifact).collect();
    let mut trace = TraceWriter::create(ctx)?;
    let gathered = read(ctx, &tokenizer, &datasets, Some(&mut trace))?;
    let documents = gathered.lessons.len() as u64;
    let funnel = trace.finish(documents + gathered.dropped_rows(), documents)?;
    let held_out = match &inputs.eval {
        Some(eval) => windows(&read(ctx, &tokenizer, &[eval], None)?.lessons, length),
        None => Vec::new(),
    };
    let lesson = Examples { learned: windows(&gathered.lessons, length), held_out };
    drop(gathered);
    let course = Course::new(ctx, &settings, lesson.learned.iter().map(Example::tokens).collect())?;
    let decoder = init(&config, &mut uniform(ctx, "weights")).map_err(failure)?;
    let finished = session::run(ctx, &settings, course, Policy::whole(decoder), &lesson)?;

    let mut report = Report { funnel: Some(funnel), ..Report::default() };
    if let Some(window) = lesson.learned.first() {
        report.samples.push(show::sample(&tokenizer, "first window", "", window)?);
    }
    finish(params, ctx, &finished, &tokenizer, (documents, lesson.learned.len()), report)?;
    let weights = finished.policy.decoder().to_weights().map_err(failure)?;
    let checkpoint = Checkpoint { config, weights, tokenizer, generation: Generation::default() };
    let folder = ctx.output("model")?;
    checkpoint.save_folder(&folder).map_err(failure)?;
    let facts = facts_of(&checkpoint, "float32", licences(inputs.data.iter().map(|artifact| artifact.facts())));
    Ok(Out { model: Made::new(folder, facts) })
}

/// Documents as tokens, each with its end.
fn read(
    ctx: &Context,
    tokenizer: &TextTokenizer,
    datasets: &[&AnyArtifact],
    trace: Option<&mut TraceWriter>,
) -> Result<Gathered<Example>, Failure> {
    let encoder = Encoder { tokenizer, system: None, max_length: usize::MAX, answers_only: false };
    let encode = |row: &Row| match &row.content {
        Content::Text(text) if text.is_empty() => Ok(Read::Dropped("empty")),
        Content::Text(text) => encoder.document(text).map(Read::Whole),
        _ => encoder.example(row),
    };
    gather(ctx, datasets, encode, Example::tokens, trace)
}

/// All documents one after another, cut every `length` tokens; a last window of a single token predicts nothing.
fn windows(documents: &[Example], length: usize) -> Vec<Example> {
    let ids: Vec<u32> = documents.iter().flat_map(|document| document.ids.iter().copied()).collect();
    let windows = ids.chunks(length).filter(|window| window.len() > 1);
    windows.map(|window| Example { ids: window.to_vec(), loss_mask: vec![true; window.len()] }).collect()
}

fn finish(
    params: &Params,
    ctx: &Context,
    finished: &Finished,
    tokenizer: &TextTokenizer,
    (documents, windows): (u64, usize),
    mut report: Report,
) -> Result<(), Failure> {
    let parameters = finished.policy.parameters().values.len();
    let mut figures = show::figures(finished);
    figures.extend([
        ("windows", windows as f64),
        ("rows", documents as f64),
        ("vocab", tokenizer.vocab_size() as f64),
        ("parameters", parameters as f64),
    ]);
    report.tables.push(show::settings_table(vec![
        ("parameters", format!("{:.2} million", parameters as f64 / 1e6)),
        ("shape", format!("{} blocks, {} wide", params.num_hidden_layers, params.hidden_size)),
        ("context", format!("{} tokens", params.max_length)),
        ("learning rate", format!("{:e}, {:?}", params.learning_rate, params.lr_scheduler_type).to_lowercase()),
        ("steps", format!("{}, {} to warm up", finished.total_steps, finished.warmup_steps)),
        ("windows a step", params.per_device_train_batch_size.to_string()),
    ]));
    show::finish(ctx, show::summary(finished), &figures, &finished.history, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_run_over_the_borders_of_documents_and_lose_at_most_one_token() {
        let document = |ids: &[u32]| Example { ids: ids.to_vec(), loss_mask: vec![true; ids.len()] };
        let windows = windows(&[document(&[1, 2, 3]), document(&[4, 5, 6, 7])], 3);
        assert_eq!(windows.iter().map(|window| window.ids.clone()).collect::<Vec<_>>(), [vec![1, 2, 3], vec![4, 5, 6]]);
    }
}
