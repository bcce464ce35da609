//! The work of `model.adapter_merge`.

use llmflow_contract::{Context, Failure, Made, Report};
use llmflow_model::weights::Adapter;

use super::spec::{In, Out};
use crate::language_model::{facts_of, failure, load};

pub(super) fn run(inputs: &In, ctx: &Context) -> Result<Out, Failure> {
    let mut checkpoint = load(&inputs.model)?.checkpoint;
    ctx.check()?;
    let adapter = Adapter::open(inputs.adapter.folder()).map_err(failure)?;
    adapter.merge_into(&mut checkpoint.weights).map_err(failure)?;
    ctx.check()?;
    let folder = ctx.output("model")?;
    checkpoint.save_folder(&folder).map_err(failure)?;
    let modules = adapter.modules.len() as f64;
    ctx.metric("modules", modules, None);
    ctx.report(&Report {
        summary: format!("{} matrices changed", adapter.modules.len()),
        metrics: [("modules".to_owned(), modules)].into(),
        ..Report::default()
    })?;
    let facts = facts_of(&checkpoint, "float32", inputs.model.facts().licences.clone());
    Ok(Out { model: Made::new(folder, facts) })
}
