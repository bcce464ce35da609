//! The model core: weights, tokenizer, decoder, training and sampling.
//!
//! Owns: tensors and the files that hold them, the maths of a decoder, its gradients, its objectives, its tokens.
//! Must not know: pipelines, stages, artifacts, contexts.
//! Start at [`Checkpoint`]; [`transformer`] computes with its weights, [`training`] changes them.

pub mod config;
pub mod error;
pub mod objective;
pub mod quantization;
pub mod sampling;
pub mod tokenizer;
pub mod training;
pub mod transformer;
pub mod weights;

pub use config::Config;
pub use error::{ModelError, Result};
pub use tokenizer::{ChatMessage, Encoded, TextTokenizer};
pub use weights::{Checkpoint, Generation, Weights};

#[cfg(test)]
mod tests_stories;
#[cfg(test)]
pub(crate) mod tests_support;
