//! The contract between the engine and the operators: plain types and the [`Operator`] trait.
//!
//! Owns: kinds, ports, facts, artifacts, digests, params and their roles, plans, failures, reports, [`Context`].
//! Must not know: how a stage is scheduled, where artifacts are stored, what a tensor or a Parquet file is.
//! Start at [`Operator`]; [`Context`] is its only door to the engine.

mod artifact;
mod context;
mod digest;
mod failure;
mod ids;
mod kind;
pub mod nan;
mod needs;
mod operator;
mod params;
mod plan;
mod ports;
mod registry;
mod remote;
mod report;
mod rng;
mod secret;

pub use artifact::{AnyArtifact, AnyMade, Artifact, Facts, FileEntry, Made, Manifest, Use};
pub use context::{Checkpoint, Context, Host, Lease, Progress, Reach, write_report};
pub use digest::{Digest, Hasher};
pub use failure::{Class, Failure, Place};
pub use ids::{Port, StageId};
pub use kind::{Kind, KindSet, PortKind, kinds};
pub use needs::{Gpus, Machine, Needs, Work};
pub use operator::Operator;
pub use params::{ParamInfo, ParamType, Params, Role, params_of};
pub use plan::{Device, Known, KnownInput, MetricSpec, Numerics, Source, StagePlan};
pub use ports::{Arity, Bound, Inputs, Named, Outputs, PortSpec};
pub use registry::{Entry, Registry, Served};
pub use remote::{FileDigest, Locked, LockedFile, Locks, Remote};
pub use report::{Chart, Funnel, Interval, Report, Sample, Series, Table};
pub use rng::{CounterRng, counter_rng};
pub use secret::{Scrubber, Secret, SecretName};

#[doc(hidden)]
pub use ports::{InputField, OutputField};

/// Re-exports for operators, so that a macro or a derive finds them under one name.
pub use schemars;
