//! `schema`

use llmflow_runtime::{pipeline, run::Error};

use super::{DONE, Setting};

/// Prints the JSON Schema of pipeline files.
pub fn schema(setting: &Setting) -> Result<u8, Error> {
    let schema = pipeline::schema(setting.registry);
    setting.screen.print(&serde_json::to_string_pretty(&schema).unwrap_or_default());
    Ok(DONE)
}
