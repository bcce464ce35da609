//! Deployment: a model where programs can reach it.

pub mod serve;
