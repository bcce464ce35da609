//! Block formats: numbers packed with a shared scale, and the GGUF files made of them.
//!
//! Owns: packing and unpacking, byte-identical to the reference implementation of llama.cpp (x86-64 default build).
//! Must not know: pipelines; how a decoder uses the numbers.

mod block;
mod gguf;
mod pack;
mod unpack;

pub use block::BlockType;
pub use gguf::{Quantized, TensorReport, write_gguf};

#[cfg(test)]
mod tests;
