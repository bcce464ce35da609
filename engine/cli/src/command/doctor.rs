//! `doctor`

use std::path::Path;

use llmflow_runtime::{doctor, home::Home, run::Error};

use super::{DONE, Setting, block_on, history::find_home};
use crate::render::doctor as screen;

/// Exit code where something is broken: the environment's.
const BROKEN: u8 = 3;

/// Tries out the machine, and the home if there is one.
pub fn doctor(setting: &Setting) -> Result<u8, Error> {
    let home = find_home(setting.home.as_deref())?;
    let place = Home::find(setting.home.as_deref(), Path::new("."))?;
    let health = block_on(async { Ok(doctor::examine(home.as_ref(), &place).await) })?;
    let out = setting.screen;
    if out.json {
        out.print_json(&health);
    } else {
        out.print(&screen::doctor(&health, home.as_ref().map(|home| home.root()), out.width, out.paint));
    }
    Ok(if health.is_broken() { BROKEN } else { DONE })
}
