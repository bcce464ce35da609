//! A model that learns through an adapter, and the adapter as an artifact.

use llmflow_contract::{AnyArtifact, Context, Facts, Failure, Made, kinds};
use llmflow_model::{
    TextTokenizer,
    training::Policy,
    transformer::{Decoder, lora::Lora},
};

use super::{licences, settings::Targets, uniform};
use crate::language_model::{self, facts_of, failure};

/// A model ready to learn.
pub(crate) struct Student {
    pub tokenizer: TextTokenizer,
    /// Longest sequence, in tokens.
    pub context: u64,
    decoder: Decoder,
    facts: Facts,
}

impl Student {
    /// Opens a model, or an adapter with its base.
    pub fn open(artifact: &AnyArtifact) -> Result<Self, Failure> {
        let loaded = language_model::load(artifact)?;
        let decoder = loaded.decoder()?;
        let facts = facts_of(&loaded.checkpoint, "float32", Vec::new());
        let context = decoder.longest() as u64;
        Ok(Self { tokenizer: loaded.checkpoint.tokenizer, context, decoder, facts })
    }

    /// Small matrices beside the model, as they start: they change nothing.
    pub fn adapted(&self, ctx: &Context, targets: &Targets, rank: u32, alpha: f64) -> Policy {
        let (layers, shapes) = (self.decoder.config.layers, self.decoder.module_shapes());
        let lora = Lora::zeros(layers, shapes, &targets.names(), rank as usize, alpha as f32);
        Policy::adapted(self.decoder.clone(), lora, &mut uniform(ctx, "adapter"))
    }

    /// Facts of an adapter: it runs as its base does.
    pub fn facts<'a>(&self, base: &'a AnyArtifact, data: impl Iterator<Item = &'a Facts>) -> Facts {
        let licences = licences(std::iter::once(base.facts()).chain(data));
        Facts { base: Some(base.digest), licences, ..self.facts.clone() }
    }
}

/// Writes the small matrices in PEFT's files.
///
/// # Errors
/// The failure of [`failure`].
pub(crate) fn write(
    ctx: &Context,
    policy: &Policy,
    base: &AnyArtifact,
    facts: Facts,
) -> Result<Made<kinds::Adapter>, Failure> {
    let adapter = policy.adapter(&base.digest.to_string()).map_err(failure)?;
    let adapter = adapter.ok_or_else(|| Failure::bug("an adapter was to learn, and none did"))?;
    let folder = ctx.output("adapter")?;
    adapter.save_folder(&folder).map_err(failure)?;
    Ok(Made::new(folder, facts).refers_to("base", base.digest))
}
