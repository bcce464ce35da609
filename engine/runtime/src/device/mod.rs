//! Devices: what this process may use of the machine, and the GPUs, found by a short-lived child.
//!
//! Owns: limits of cgroups and schedulers, the inventory through cudarc, fake GPUs, which kind a file system is.
//! The engine itself opens no CUDA context.

mod cgroup;
mod driver;
mod fake;
pub mod filesystem;
mod glance;
mod limits;

use std::{process::Stdio, time::Duration};

use llmflow_contract::{Failure, Lease};
use tokio::process::Command;

pub use cgroup::out_of_memory_kills;
pub use driver::child_main;
pub use limits::{Bound, Bounds, Source};

use crate::event::{Compute, Gpu};

/// A driver that hangs must not hold up a run.
const PATIENCE: Duration = Duration::from_secs(5);

/// Replaces the GPUs of this machine: `4x80GiB`, or `2x24GiB,1x80GiB`.
const FAKE: &str = "LLMFLOW_FAKE_GPUS";

/// How a process is told which GPUs are its own.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Cores and memory of this process, without a look for GPUs: no child starts. Fake GPUs are there from the start.
pub fn limits() -> Compute {
    let bounds = bounds();
    let gpus = fakes().and_then(Result::ok).unwrap_or_default();
    let usable_gpus = gpus.len() as u32;
    Compute { cores: bounds.cores(), memory_bytes: bounds.memory_bytes(), usable_gpus, gpus, asked_gpus: 0 }
}

/// Every limit on this process, with who set it.
pub fn bounds() -> Bounds {
    Bounds::of_this_process()
}

/// What this process may compute on. No GPU but a fake one serves a build without CUDA.
///
/// # Errors
/// Class `input` if `LLMFLOW_FAKE_GPUS` is not as it should be written.
pub async fn inventory() -> Result<Compute, Failure> {
    let found = fakes().transpose()?;
    let limits = limits();
    match found {
        Some(_) => Ok(limits),
        None => Ok(Compute { gpus: ask_child().await.unwrap_or_default(), ..limits }),
    }
}

/// The same for work that asks for no GPU: what the machine has is named, at once where its kernel can tell.
///
/// # Errors
/// Those of [`inventory`].
pub async fn glance() -> Result<Compute, Failure> {
    if is_fake() || !has_driver() {
        return inventory().await;
    }
    match glance::gpus(std::env::var(VISIBLE).ok().as_deref()) {
        Some(gpus) => Ok(Compute { gpus, ..limits() }),
        None => inventory().await,
    }
}

/// This machine as records name it.
pub fn machine_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The GPUs of a lease as records name them: `2× NVIDIA H100 (0, 3)`; empty without any.
pub fn leased(lease: &Lease, gpus: &[Gpu]) -> String {
    let held: Vec<&Gpu> = lease.gpus.iter().filter_map(|ordinal| gpus.get(*ordinal as usize)).collect();
    let kinds = held.chunk_by(|one, next| one.name == next.name).map(|same| {
        let ids: Vec<&str> = same.iter().map(|gpu| gpu.id.as_str()).collect();
        format!("{}× {} ({})", same.len(), same[0].name, ids.join(", "))
    });
    kinds.collect::<Vec<_>>().join(" · ")
}

/// Whether the GPUs are those of `LLMFLOW_FAKE_GPUS`.
pub fn is_fake() -> bool {
    fakes().is_some()
}

/// The value of [`VISIBLE`] for a worker that holds `lease`: its GPUs alone, none without a lease of one. The worker
/// numbers them from 0.
pub fn visible(lease: &Lease, gpus: &[Gpu]) -> String {
    let ids = lease.gpus.iter().filter_map(|ordinal| gpus.get(*ordinal as usize));
    ids.map(|gpu| gpu.id.as_str()).collect::<Vec<_>>().join(",")
}

fn fakes() -> Option<Result<Vec<Gpu>, Failure>> {
    std::env::var(FAKE).ok().map(|text| fake::gpus(&text))
}

/// Files that a driver makes: without any of them there is no GPU, and no child is asked. NVIDIA's driver, that of
/// Windows' subsystem, those of its boards.
const DRIVERS: [&str; 4] = ["/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvgpu"];

fn has_driver() -> bool {
    DRIVERS.iter().any(|path| std::path::Path::new(path).exists())
}

async fn ask_child() -> Option<Vec<Gpu>> {
    if !has_driver() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.arg("__devices").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_the_gpus_of_a_lease() {
        let gpu = |id: &str, name: &str| Gpu { id: id.into(), name: name.into(), ..Gpu::default() };
        let gpus = [gpu("4", "H100"), gpu("5", "H100"), gpu("6", "H100"), gpu("7", "T4")];
        let lease = |gpus: &[u32]| Lease { cores: 1, memory_bytes: 0, gpus: gpus.to_vec(), gpu_memory_bytes: 0 };
        assert_eq!(leased(&lease(&[0, 2, 3]), &gpus), "2× H100 (4, 6) · 1× T4 (7)");
        assert_eq!(leased(&lease(&[]), &gpus), "");
    }

    #[test]
    fn a_worker_sees_the_gpus_of_its_lease_by_the_names_the_engine_was_given() {
        let gpu = |id: &str| Gpu { id: id.into(), ..Gpu::default() };
        let gpus = [gpu("2"), gpu("MIG-5c1a"), gpu("GPU-9f")];
        let lease = |gpus: &[u32]| Lease { cores: 1, memory_bytes: 0, gpus: gpus.to_vec(), gpu_memory_bytes: 0 };
        assert_eq!(visible(&lease(&[0, 1]), &gpus), "2,MIG-5c1a");
        assert_eq!(visible(&lease(&[]), &gpus), "", "no lease, no GPU");
    }
}
