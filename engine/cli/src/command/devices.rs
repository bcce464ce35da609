//! `devices`

use llmflow_runtime::{device, run::Error};

use super::{DONE, Setting, block_on};
use crate::render::{format, header};

/// Shows what this machine offers.
pub fn devices(setting: &Setting) -> Result<u8, Error> {
    let compute = block_on(async { Ok(device::inventory().await) })?;
    let screen = setting.screen;
    if screen.json {
        screen.print_json(&compute);
        return Ok(DONE);
    }
    let mut text = format!("compute  {}\n", header::compute_line(&compute));
    text.push_str(&format!("memory   {}\n", format::bytes(compute.memory_bytes)));
    for name in &compute.gpus {
        text.push_str(&format!("gpu      {}\n", format::clean(name)));
    }
    screen.print(&text);
    Ok(DONE)
}
