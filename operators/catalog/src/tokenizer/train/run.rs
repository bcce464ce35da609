//! The work of `tokenizer.train`.

use llmflow_contract::{Context, Digest, Facts, Failure, Made, Report};
use llmflow_dataset::Dataset;
use llmflow_model::tokenizer::train_bpe;

use super::spec::{In, Out, Params};
use crate::language_model::failure;

pub(super) fn run(params: &Params, inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let mut texts = Vec::new();
    for artifact in &inputs.data {
        ctx.check()?;
        let rows = Dataset::open(artifact)?.read_all()?;
        texts.extend(rows.iter().map(|row| row.text().into_owned()));
        ctx.progress(texts.len() as u64, None, "rows");
    }
    if texts.iter().all(String::is_empty) {
        return Err(Failure::input("tokenizer/no-text", "there is no text to learn a vocabulary from"));
    }
    ctx.check()?;
    let tokenizer = train_bpe(texts.iter(), params.vocab_size, params.min_frequency).map_err(failure)?;
    let folder = ctx.output("tokenizer")?;
    tokenizer.save_folder(&folder).map_err(failure)?;
    let vocab = tokenizer.vocab_size();
    ctx.metric("vocab", vocab as f64, None);
    ctx.report(&Report {
        summary: format!("{vocab} tokens"),
        metrics: [("vocab".to_owned(), vocab as f64)].into(),
        ..Report::default()
    })?;
    let facts = Facts {
        tokenizer: Some(Digest::of_json(tokenizer.json())),
        chat_template: tokenizer.template().map(|template| Digest::of(template.as_bytes())),
        vocab: Some(vocab as u64),
        ..Facts::default()
    };
    Ok(Out { tokenizer: Made::new(folder, facts) })
}
