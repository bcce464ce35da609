//! `check`

use llmflow_runtime::run::{self, Error};

use super::{DONE, Setting, block_on, pipeline_file};
use crate::args::PipelineArgs;

/// Checks a file; nothing is opened but the file and its sources.
pub fn check(args: PipelineArgs, setting: &Setting) -> Result<u8, Error> {
    let path = pipeline_file::find(args.pipeline.as_deref())?;
    let stages = block_on(run::check(&path, &args.set, setting.registry))?;
    if setting.screen.json {
        setting.screen.print_json(&serde_json::json!({ "file": path, "stages": stages, "errors": [] }));
    } else {
        setting.screen.say(&format!("{}: {stages} stages, no errors", path.display()));
    }
    Ok(DONE)
}
