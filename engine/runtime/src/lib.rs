//! Orchestration: pipelines, plans, the store, lineage, devices, runs.
//!
//! Must not know: any operator by name, tensors, Parquet, how anything is printed.
//! Start at [`run::run`]; [`plan::Plan`] says what will run and why; [`store::Store`] is the truth.

pub mod address;
pub mod device;
pub mod event;
pub mod home;
pub mod lineage;
pub mod pipeline;
pub mod plan;
pub mod run;
pub mod store;
