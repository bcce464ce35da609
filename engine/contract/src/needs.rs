//! What a stage asks of the machine, and what the machine has.

use serde::{Deserialize, Serialize};

/// How many GPUs an operator can use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gpus {
    pub min: u32,
    pub max: u32,
    /// Memory on each, in bytes.
    pub memory_bytes: u64,
}

/// How much there is to do, for the time shown in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    #[default]
    Unknown,
    Flops(f64),
    Bytes(u64),
    Rows(u64),
}

impl Work {
    /// How often this is `other`; None where the two are counted in different units, or one is nothing.
    pub fn times(self, other: Self) -> Option<f64> {
        let (this, that) = match (self, other) {
            (Self::Flops(this), Self::Flops(that)) => (this, that),
            (Self::Bytes(this), Self::Bytes(that)) | (Self::Rows(this), Self::Rows(that)) => (this as f64, that as f64),
            _ => return None,
        };
        Some(this / that).filter(|times| times.is_finite() && *times > 0.0)
    }
}

/// Cores, memory and disk that a stage wants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Needs {
    pub cores: u32,
    /// Peak resident memory, in bytes.
    pub memory_bytes: u64,
    /// Size of what it leaves in the store, in bytes.
    pub disk_bytes: u64,
    pub gpus: Gpus,
    pub work: Work,
}

impl Default for Needs {
    fn default() -> Self {
        Self { cores: 1, memory_bytes: 64 << 20, disk_bytes: 64 << 10, gpus: Gpus::default(), work: Work::Unknown }
    }
}

/// What this machine offers, limits of cgroups and schedulers taken off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cores: u32,
    pub memory_bytes: u64,
    /// GPUs that this build can compute on.
    pub usable_gpus: u32,
}
