//! Orchestration: pipelines, plans, the store, lineage, devices, runs.
//!
//! Must not know: any operator by name, tensors, Parquet, how anything is printed.
//! Built so far: [`pipeline`], [`event`], [`home`]. `plan/` and `run/` are written and wait for store and lineage.

pub mod event;
pub mod home;
pub mod pipeline;
pub mod plan {
    //! A plan as people and programs read it.
    mod view;
    pub use view::{Change, PlanView, StageView, Will};
}
