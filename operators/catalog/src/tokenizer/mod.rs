//! Operators that make tokenizers.

pub mod train;
