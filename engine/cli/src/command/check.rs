//! `check`

use llmflow_runtime::run::{self, Error};

use super::{DONE, Setting, block_on, pipeline_file};
use crate::args::PipelineArgs;

/// Checks a file; nothing is opened but the file and its sources.
pub fn check(args: PipelineArgs, setting: &Setting) -> Result<u8, Error> {
    let path = pipeline_file::find(args.pipeline.as_deref())?;
    let overrides = pipeline_file::overrides(&args)?;
    let found = block_on(run::check(&path, &overrides, setting.registry))?;
    if setting.screen.json {
        let (stages, from_matrix) = (found.stages, found.from_matrix);
        let found = serde_json::json!({ "file": path, "stages": stages, "from_matrix": from_matrix, "errors": [] });
        setting.screen.print_json(&found);
    } else {
        let stages = if found.stages == 1 { "1 stage".to_owned() } else { format!("{} stages", found.stages) };
        let from =
            if found.from_matrix > 0 { format!(" ({} from a matrix)", found.from_matrix) } else { String::new() };
        setting.screen.say(&format!("ok: {stages}{from}"));
    }
    Ok(DONE)
}
