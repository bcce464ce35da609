//! `runs`

use std::collections::BTreeMap;

use llmflow_contract::Failure;
use llmflow_runtime::{
    event::RunStatus,
    lineage::{Lineage, RunFilter, RunRow},
    run::Error,
    store::Names,
};

use super::{
    DONE, Setting, block_on,
    history::{History, note_silent},
};
use crate::{
    args::RunsArgs,
    render::{
        runs::{self as screen, FIGURES, Listed},
        when,
    },
};

/// Lists the newest runs.
pub fn runs(args: RunsArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let filter = RunFilter {
            pipeline: args.pipeline.clone(),
            status: args.status.as_deref().map(RunStatus::from_name),
            limit: Some(args.limit),
        };
        let names = Names::of(&history.stores()?).await;
        note_silent(&names, setting.screen);
        let mut tags = names.of_runs();
        let mut list = Vec::new();
        for row in history.lineage.runs(&filter).await? {
            list.push(listed(&history.lineage, row, &mut tags).await?);
        }
        let out = setting.screen;
        if out.json {
            out.print_json(&list);
        } else if list.is_empty() {
            let is_filtered = args.pipeline.is_some() || args.status.is_some();
            out.say(match is_filtered {
                true => "no such run: llmflow runs lists all of them",
                false => "no runs yet: llmflow run FILE.yaml",
            });
        } else {
            out.print(&screen::runs(&list, &when::now(), out.width, out.paint));
        }
        Ok(DONE)
    })
}

async fn listed(lineage: &Lineage, row: RunRow, tags: &mut BTreeMap<String, Vec<String>>) -> Result<Listed, Failure> {
    let broken = match row.failed + row.refused {
        0 => None,
        _ => lineage.broken_stages(&row.run, 1).await?.pop(),
    };
    let names: Vec<&str> = FIGURES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    Ok(Listed {
        figures: lineage.figures_of_run(&row.run, &names).await?,
        failure: broken.as_ref().and_then(|stage| stage.failure.as_ref()).map(|failure| failure.message.clone()),
        at: broken.map(|stage| stage.stage.to_string()),
        tags: tags.remove(&row.run.0).unwrap_or_default(),
        row,
    })
}
