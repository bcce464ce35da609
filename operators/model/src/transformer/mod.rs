//! The Llama/SmolLM2 decoder: hand-written forward and backward on `f32` slices.
//!
//! Owns: the order of parameters in memory, the block, attention, the output head, the cache of keys and values.
//! Must not know: files, tokenizers, objectives, optimizers.
//! Start at [`Decoder`]; [`Packed`] says which row holds which token; [`lora`] adds small matrices beside the frozen ones.

mod attention;
#[cfg(test)]
mod bench;
mod block;
mod cache;
mod decoder;
mod head;
mod linear;
pub mod lora;
mod memory;
mod norm;
mod packed;
mod parameters;
mod product;
#[cfg(test)]
mod reference;
mod rotary;
mod swiglu;
#[cfg(test)]
mod tests;
pub(crate) mod vector;

pub use block::Tape;
pub use cache::Cache;
pub use decoder::Decoder;
pub use head::{Judged, Target};
pub use packed::{Packed, Segment};
pub use parameters::{Parameters, Span};
