//! `devices`

use llmflow_runtime::{device, run::Error};

use super::{DONE, Setting, block_on};
use crate::render::devices::{self as screen, Devices};

/// Shows what this machine offers.
pub fn devices(setting: &Setting) -> Result<u8, Error> {
    let compute = block_on(async { Ok(device::inventory().await?) })?;
    let devices = Devices { compute, limits: device::bounds(), is_fake: device::is_fake() };
    let out = setting.screen;
    if out.json {
        out.print_json(&devices);
    } else {
        out.print(&screen::devices(&devices, out.width, out.paint));
    }
    Ok(DONE)
}
