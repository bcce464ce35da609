//! Orchestration: pipelines, plans, the store, lineage, devices, runs.
//!
//! Must not know: any operator by name, tensors, Parquet, how anything is printed.
//! A command reads a file ([`pipeline`]), settles it against the store ([`plan`]), and carries it out ([`run`]), telling
//! whoever listens ([`event`]); [`lineage`] is the reader that remembers.

pub mod address;
pub mod device;
pub mod doctor;
pub mod event;
mod failpoint;
pub mod home;
pub mod lineage;
mod owner;
pub mod pipeline;
pub mod plan;
pub mod remote;
pub mod run;
pub mod store;
pub mod tls;
