//! Operators that bring, join and change models.

pub mod adapter_merge;
pub mod load;
#[cfg(test)]
pub(crate) mod toy;
