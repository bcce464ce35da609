//! `plan`

use llmflow_runtime::run::{self, Error};

use super::{DONE, Setting, block_on, pipeline_file};
use crate::{
    args::PlanArgs,
    render::{graph, plan as screen},
};

/// Exit code of `--exit-code` where work is pending.
const PENDING: u8 = 4;

/// Says what `run` would do, and why.
pub fn plan(args: PlanArgs, setting: &Setting) -> Result<u8, Error> {
    let mut options = pipeline_file::options(&args.pipeline, args.remote, setting.home.as_deref())?;
    options.selection = args.selection.selection();
    let limit = options.overrides.limit;
    let run::Planning { pipeline: name, plan: view, compute } = block_on(run::plan(options, setting.registry))?;
    let out = setting.screen;
    if out.json {
        let mut plan = serde_json::json!({ "pipeline": name, "compute": compute, "stages": view.stages });
        if let Some(limit) = limit {
            plan["limit"] = limit.into();
        }
        out.print_json(&plan);
    } else if let Some(format) = args.graph {
        out.print(&graph::draw(&view, format, out.width, out.paint));
    } else {
        out.print(&screen::plan(&name, &view, limit, &compute, out.width, out.paint));
    }
    Ok(if args.exit_code && view.to_run() > 0 { PENDING } else { DONE })
}
