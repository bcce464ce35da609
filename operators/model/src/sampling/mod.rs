//! Text from a decoder, and the probability of text: [`generate`] and [`score`].
//!
//! Owns: the choice of the next token, batches of sequences, when a sequence ends.
//! Must not know: tokenizers, files. A result depends on its own request, never on its companions in a batch.

mod choose;
mod generate;
mod score;
#[cfg(test)]
mod tests;

pub use generate::{Completion, Control, Event, GenerateConfig, generate};
pub use score::{Score, ScoreRequest, score};
