//! The operators, one folder each, grouped by family and listed in life-cycle order.
//!
//! Owns: what each step of a language model's life does, its params, ports and docs.
//! Must not know: how a stage is scheduled, stored or shown; operators meet only through artifacts.
//! Start at [`registry`].

pub mod align;
pub mod data;
pub mod deploy;
pub mod eval;
mod http;
pub mod language_model;
pub mod model;
pub mod quantize;
pub mod remote;
pub mod run;
pub mod synth;
pub mod tokenizer;
pub mod train;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod testing;

use llmflow_contract::Registry;

/// Every operator, in life-cycle order: data, synth, model, tokenizer, train, align, eval, quantize, deploy, run.
pub fn registry() -> Registry {
    Registry::new()
        .with::<data::load::Load>()
        .with::<data::map::Map>()
        .with::<data::filter::Filter>()
        .with::<data::dedup::Dedup>()
        .with::<data::split::Split>()
        .with::<synth::generate::Generate>()
        .with::<synth::answer::Answer>()
        .with::<model::load::Load>()
        .with::<model::adapter_merge::AdapterMerge>()
        .with::<tokenizer::train::TrainTokenizer>()
        .with::<train::pretrain::Pretrain>()
        .with::<train::sft::Sft>()
        .with::<align::preference::AlignPreference>()
        .with::<eval::benchmark::Benchmark>()
        .with::<eval::perplexity::Perplexity>()
        .with::<eval::compare::Compare>()
        .with::<quantize::gguf::QuantizeGguf>()
        .with::<deploy::serve::Serve>()
        .with::<run::command::RunCommand>()
}
