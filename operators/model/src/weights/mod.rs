//! Weights and the files that hold them.
//!
//! Owns: [`Weights`], [`Checkpoint`], GGUF and safetensors, PEFT adapters.
//! Must not know: how a decoder computes, pipelines.

mod adapter;
mod checkpoint;
pub(crate) mod folder;
pub mod gguf;
mod safetensors_file;

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use candle_core::Tensor;

pub use adapter::{Adapter, AdapterConfig};
pub use checkpoint::{Checkpoint, Generation};
pub use folder::SaveType;

use crate::{Config, ModelError, Result};

/// Tensors by Hugging Face name, f32 on the CPU, in order of name.
#[derive(Clone, Debug, Default)]
pub struct Weights(BTreeMap<String, Tensor>);

impl Weights {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }
    /// The tensor of that name.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_owned() })
    }
    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }
    /// Every tensor, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Numbers in all tensors together.
    pub fn parameters(&self) -> u64 {
        self.0.values().map(|tensor| tensor.elem_count() as u64).sum()
    }
    /// Removes what a folder may hold though the decoder needs none of it: the head where it is the embedding,
    /// rotary frequencies that older versions of transformers saved.
    fn drop_needless(&mut self, config: &Config) {
        self.0.retain(|name, _| {
            !(name.ends_with(".rotary_emb.inv_freq") || (config.tie_embeddings && name == "lm_head.weight"))
        });
    }
    /// Checks that every tensor of this shape of model is here, and of its right size.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`].
    pub fn check(&self, config: &Config) -> Result<()> {
        for (_, name) in gguf::tensor_names(config) {
            let (expected, found) = (expected_shape(&name, config), self.get(&name)?.dims());
            if expected != found {
                return Err(ModelError::Shape { name, expected, found: found.to_vec() });
            }
        }
        Ok(())
    }
}

/// Refuses a tensor that the decoder does not compute with: it would be left out, and another model computed.
///
/// # Errors
/// [`ModelError::Unsupported`] with the first such tensor.
fn refuse_unknown<'a>(
    path: &Path,
    known: impl IntoIterator<Item = &'a String>,
    mut names: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let known: HashSet<&str> = known.into_iter().map(String::as_str).collect();
    names.find(|name| !known.contains(name)).map_or(Ok(()), |name| {
        Err(ModelError::Unsupported {
            path: path.to_owned(),
            what: "a kind of model with the tensor",
            found: name.to_owned(),
            known: "plain Llama, without biases or scaled rotary frequencies".into(),
        })
    })
}

pub(crate) fn expected_shape(name: &str, config: &Config) -> Vec<usize> {
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    match name.rsplit('.').nth(1).unwrap_or_default() {
        "embed_tokens" | "lm_head" => vec![config.vocab, config.hidden],
        "q_proj" => vec![queries, config.hidden],
        "k_proj" | "v_proj" => vec![keys, config.hidden],
        "o_proj" => vec![config.hidden, queries],
        "gate_proj" | "up_proj" => vec![config.intermediate, config.hidden],
        "down_proj" => vec![config.hidden, config.intermediate],
        _ => vec![config.hidden], // the norms
    }
}

#[cfg(test)]
mod tests;
