//! `lineage`: what an artifact was made from and what was made of it, down to a row, and in forms that others read.

mod artifact;
mod events;
mod row;

use llmflow_contract::{Failure, StageId};
use llmflow_runtime::{event::RunId, run::Error};

use super::{DONE, Setting, block_on, history::History, ro_crate};
use crate::{
    args::{LineageArgs, LineageFormat},
    render::{
        format, graph,
        lineage::{self as screen, Artifacts},
        open_lineage,
    },
};

/// Shows where an artifact, or one of its rows, comes from, and where it went.
pub fn lineage(args: LineageArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let address = history.address(&args.address).await?;
        let (run, stage) = match &address.stage {
            Some(_) => history.lineage.find_stage(&address).await.map(|(run, stage)| (run, Some(stage)))?,
            None => (history.lineage.find_run(&address.run).await?, None),
        };
        let history = match args.row.is_some() || args.format == LineageFormat::RoCrate {
            true => history.of_run(&run).await?,
            false => history.of_run_at_least(&run).await?,
        };
        let out = setting.screen;
        let limit = history.lineage.limit_of(&run).await?;
        if let Some(limit) = limit.filter(|_| args.row.is_some() || args.format != LineageFormat::Text) {
            out.say(&format::rehearsed(&run, limit));
        }
        match (args.row.as_deref(), &stage, args.format) {
            (Some(id), Some(stage), LineageFormat::Text) => {
                let found = row::rows(&history, &run, &stage.stage, id).await?;
                match out.json {
                    true => out.print_json(&found),
                    false => out.print(&screen::rows(&found, out.width, out.paint)),
                }
            }
            (Some(_), None, _) => {
                return Err(refused("a row belongs to a stage, and the address names a run").into());
            }
            (Some(_), ..) => return Err(refused("a row is shown as text, or with --json").into()),
            (None, _, LineageFormat::Openlineage) => {
                for event in open_lineage(&history, &run, stage.as_ref().map(|stage| &stage.stage)).await? {
                    out.print_json(&event);
                }
            }
            (None, _, LineageFormat::RoCrate) => {
                ro_crate::write(&history, &address, args.to.as_deref(), setting).await?;
            }
            (None, _, LineageFormat::Mermaid | LineageFormat::Dot) => {
                let form = if args.format == LineageFormat::Dot { graph::Format::Dot } else { graph::Format::Mermaid };
                let drawn = artifact::graph(&history, &run, &address).await?;
                out.print(&drawn.draw(form, out.width, out.paint));
            }
            (None, ..) => {
                let shown = Artifacts { limit, ..artifact::shown(&history, &run, &address).await? };
                match out.json {
                    true => out.print_json(&shown),
                    false => out.print(&screen::artifacts(&shown, out.width, out.paint)),
                }
            }
        }
        Ok(DONE)
    })
}

fn refused(message: &str) -> Failure {
    Failure::input("lineage/address", message).help("llmflow lineage @/STAGE --row ID")
}

async fn open_lineage(
    history: &History,
    run: &RunId,
    only: Option<&StageId>,
) -> Result<Vec<serde_json::Value>, Failure> {
    Ok(open_lineage::events(&events::told(history, run).await?, only))
}
