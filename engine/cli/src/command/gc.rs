//! `gc`

use llmflow_runtime::{run::Error, store::Keep};

use super::{DONE, Setting, block_on, history::History};
use crate::{args::GcArgs, render::store as screen};

/// Deletes what no kept run, tag or live work needs.
pub fn gc(args: GcArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open_with_store(setting.home.as_deref(), args.at.store.as_deref()).await?;
        if !args.dry_run {
            history.write_missing_records().await?; // a run without one keeps nothing
        }
        let keep = Keep { runs: args.keep, days: args.keep_days, answer_days: args.answer_days };
        let collected = history.store.collect(keep, args.dry_run).await?;
        let out = setting.screen;
        if out.json {
            out.print_json(&collected);
        } else {
            out.print(&screen::collected(&collected, args.dry_run, out.paint));
        }
        Ok(DONE)
    })
}
