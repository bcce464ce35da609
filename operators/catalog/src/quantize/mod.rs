//! Operators that make models smaller.

pub mod gguf;
