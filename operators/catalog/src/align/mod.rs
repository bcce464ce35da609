//! Preferring: from pairs of a better and a worse answer.

pub mod preference;
