//! `runs`

use llmflow_runtime::{
    lineage::{Lineage, RunRow},
    run::Error,
};

use super::{DONE, Setting, block_on, history::History};
use crate::{
    args::RunsArgs,
    render::{
        runs::{self as screen, Listed},
        when,
    },
};

/// Metrics that have a column where a run has them, and the column's head. Of several stages the last counts.
const FIGURES: [(&str, &str); 3] = [("acc", "acc"), ("eval_loss", "loss"), ("perplexity", "ppl")];

/// Lists the newest runs.
pub fn runs(args: RunsArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let lineage = History::open(setting.home.as_deref()).await?.lineage;
        let mut list = Vec::new();
        let all = lineage.runs(u32::MAX).await?;
        for (number, row) in all.iter().enumerate().take(args.limit as usize) {
            let is_first = all[number + 1..].iter().all(|older| older.pipeline != row.pipeline);
            list.push(listed(&lineage, row.clone(), is_first).await?);
        }
        let out = setting.screen;
        if out.json {
            out.print_json(&list);
        } else {
            out.print(&screen::runs(&list, &FIGURES, &when::now(), out.width, out.paint));
        }
        Ok(DONE)
    })
}

async fn listed(lineage: &Lineage, row: RunRow, is_first: bool) -> Result<Listed, Error> {
    let stages = lineage.stages_of_run(&row.run).await?;
    let broken = stages.iter().find(|stage| matches!(stage.status.as_str(), "failed" | "refused"));
    let figures = FIGURES.iter().filter_map(|(name, _)| {
        let value = stages.iter().rev().find_map(|stage| stage.metrics.get(*name))?;
        Some(((*name).to_owned(), *value))
    });
    Ok(Listed { at: broken.map(|stage| stage.stage.to_string()), figures: figures.collect(), is_first, row })
}
