//! The child that asks the CUDA driver what is there. What it does to a driver, or a driver to it, ends with it.

use std::thread;

use cudarc::driver::{DriverError, result, sys};

use crate::event::Gpu;

/// The hidden subcommand `__devices`: prints the GPUs as a JSON list. Returns the exit code.
pub fn child_main() -> i32 {
    std::panic::set_hook(Box::new(|_| {})); // a broken driver means no GPU, not a crash report
    let gpus = std::panic::catch_unwind(gpus).unwrap_or_default();
    println!("{}", serde_json::json!(gpus));
    0
}

/// No driver, or one that fails: none. The driver itself heeds `CUDA_VISIBLE_DEVICES`.
fn gpus() -> Vec<Gpu> {
    // SAFETY: looks for the driver's library and loads it; nothing of it is called.
    if !unsafe { sys::is_culib_present() } || result::init().is_err() {
        return Vec::new();
    }
    let visible = std::env::var(super::VISIBLE).ok();
    let count = result::device::get_count().unwrap_or(0);
    // A context takes a few tenths of a second: all at once.
    thread::scope(|scope| {
        let asked: Vec<_> = (0..count).map(|ordinal| (ordinal, scope.spawn(move || look(ordinal)))).collect();
        let found = asked.into_iter().filter_map(|(ordinal, thread)| {
            let gpu = thread.join().ok()?.ok()?;
            Some(Gpu { id: id(visible.as_deref(), ordinal as usize), ..gpu })
        });
        found.collect()
    })
}

fn look(ordinal: i32) -> Result<Gpu, DriverError> {
    use sys::CUdevice_attribute_enum as attribute;
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` comes from the driver, which is initialised.
    let (memory, major, minor) = unsafe {
        (
            result::device::total_mem(device)?,
            result::device::get_attribute(device, attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            result::device::get_attribute(device, attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        )
    };
    Ok(Gpu {
        id: String::new(),
        name: result::device::get_name(device)?,
        memory_bytes: memory as u64,
        free_bytes: free_bytes(device).unwrap_or(0),
        capability: Some(format!("{major}.{minor}")),
    })
}

/// Only a context can tell; one that another process keeps to itself gives none.
fn free_bytes(device: sys::CUdevice) -> Result<u64, DriverError> {
    // SAFETY: `device` comes from the driver; the context is this thread's alone and is given back below.
    let context = unsafe { result::primary_ctx::retain(device)? };
    // SAFETY: `context` was retained just now.
    let free = unsafe { result::ctx::set_current(context) }.and_then(|()| result::mem_get_info());
    // SAFETY: retained once, released once.
    unsafe { result::primary_ctx::release(device)? };
    free.map(|(free, _total)| free as u64)
}

/// What `CUDA_VISIBLE_DEVICES` calls the GPU that this process sees as `ordinal`: an id, of a MIG slice for one, passes
/// untouched.
fn id(visible: Option<&str>, ordinal: usize) -> String {
    let given = visible.and_then(|list| list.split(',').nth(ordinal)).map(str::trim).filter(|id| !id.is_empty());
    given.map_or_else(|| ordinal.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_keeps_the_name_that_made_it_visible() {
        assert_eq!(id(Some("3, MIG-GPU-5c1a/1/0"), 0), "3");
        assert_eq!(id(Some("3, MIG-GPU-5c1a/1/0"), 1), "MIG-GPU-5c1a/1/0");
        assert_eq!(id(None, 2), "2");
    }
}
