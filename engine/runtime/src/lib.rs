//! Orchestration: pipelines, plans, the store, lineage, devices, runs.
//!
//! Must not know: any operator by name, tensors, Parquet, how anything is printed.
//! Built so far: [`pipeline`], [`event`], [`home`], [`store`], [`device`], [`address`]. `plan/mod.rs` and `run/` are written and
//! wait for the lineage.

pub mod address;
pub mod device;
pub mod event;
pub mod home;
pub mod pipeline;
pub mod plan {
    //! A plan as people and programs read it.
    pub mod key;
    mod view;
    pub use key::Component;
    pub use view::{Change, PlanView, StageView, Will};
}
pub mod store;
