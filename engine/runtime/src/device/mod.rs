//! Devices: what this process may use of the machine, and the GPUs, found by a short-lived child.
//!
//! Owns: limits of cgroups and schedulers, the inventory through cudarc. The engine itself opens no CUDA context.

mod limits;

use std::{process::Stdio, time::Duration};

use cudarc::driver::{result, sys};
use tokio::process::Command;

pub use limits::out_of_memory_kills;

use crate::event::Compute;

/// A driver that hangs must not hold up a run.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hidden subcommand `__devices`: prints the names of the GPUs as a JSON list. Returns the exit code.
pub fn child_main() -> i32 {
    std::panic::set_hook(Box::new(|_| {})); // a broken driver means no GPU, not a crash report
    let names = std::panic::catch_unwind(gpu_names).unwrap_or_default();
    println!("{}", serde_json::Value::from(names));
    0
}

/// No driver, or one that fails: none.
fn gpu_names() -> Vec<String> {
    // SAFETY: looks for the driver's library and loads it; nothing of it is called.
    if !unsafe { sys::is_culib_present() } || result::init().is_err() {
        return Vec::new();
    }
    let count = result::device::get_count().unwrap_or(0);
    (0..count).filter_map(|ordinal| result::device::get_name(result::device::get(ordinal).ok()?).ok()).collect()
}

/// Cores and memory of this process, without a look for GPUs: no child starts.
pub fn limits() -> Compute {
    Compute { cores: limits::cores(), memory_bytes: limits::memory_bytes(), gpus: Vec::new(), usable_gpus: 0 }
}

/// What this process may compute on. No GPU serves a build without CUDA.
pub async fn inventory() -> Compute {
    let gpus = ask_child().await.unwrap_or_default();
    Compute { gpus, ..limits() }
}

async fn ask_child() -> Option<Vec<String>> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.arg("__devices").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    serde_json::from_slice(&output.stdout).ok()
}
