//! GGUF v3: one file with metadata, tokenizer and tensors.
//!
//! Owns: the format, its limits, the names it gives to tensors.
//! Must not know: what a tokenizer or a decoder does with the metadata.
//!
//! Source: the GGUF specification and the stricter rules of its reference implementation: offsets equal the running padded
//! sum, names are unique, a row is whole blocks.

mod llama;
mod reader;
mod value;
mod writer;

pub(crate) use llama::{config_from, metadata_of, tensor_names, to_half_rotation, to_interleaved_rotation};
pub use reader::{GgufFile, TensorInfo};
pub use value::Value;
pub use writer::{GgufWriter, TensorPlan};

/// The first four bytes.
const MAGIC: [u8; 4] = *b"GGUF";
/// The version read and written.
const VERSION: u32 = 3;
/// Tensors start at multiples of this, unless `general.alignment` says otherwise.
const ALIGNMENT: u64 = 32;
