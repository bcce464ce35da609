//! `diff`: two runs side by side.

mod answers;
mod artifacts;
mod cause;
mod ends;
mod figures;
mod rows;

use std::{collections::HashMap, path::PathBuf};

use llmflow_contract::{Failure, StageId};
use llmflow_runtime::{
    address::Address,
    event::RunId,
    lineage::{PipelineRow, RunRow, StageRow},
    plan::Component,
    run::Error,
    store::Store,
};

use super::{DONE, Setting, block_on, history::History};
use crate::{
    args::DiffArgs,
    render::diff::{self as screen, Diff, Wanted},
};

/// Says why two runs, or two stages, differ, and in what.
pub fn diff(args: DiffArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let (before, now) = sides(&history, &args).await?;
        let stages = before.only.clone().zip(now.only.clone());
        let wanted = Wanted { answers: args.answers, rows: args.rows, all: args.all };
        let is_new = stages.is_some() && before.stages.is_empty(); // nothing to be the same as
        let pairs = pairs(&before, &now);
        let store_of = async |run: &RunId| match args.answers || args.rows {
            true => history.lineage.store_of(run, &history.home).await,
            false => history.store_at_least(run).await,
        };
        let stores = Stores {
            before: store_of(&before.row.run).await?,
            now: store_of(&now.row.run).await?,
            work: history.home.work(),
        };
        let answers = answers::answers(&stores, &pairs).await?;
        let it = Diff {
            not_run: cause::not_run(&history.lineage, &before, &now).await?,
            causes: cause::causes(&history.lineage, &before, &now, &pairs, setting).await?,
            same: Vec::new(),
            ends: ends::ends(&pairs),
            figures: figures::figures(&pairs, &answers),
            times: figures::times(&before, &now, &pairs),
            answers: answers.into_iter().map(|compared| compared.shown).collect(),
            data: rows::data(&stores, &pairs, wanted).await?,
            artifacts: artifacts::artifacts(&pairs),
            is_identical: artifacts::are_identical(&pairs),
            limit_before: before.row.limit,
            limit_now: now.row.limit,
            before: before.row.run,
            now: now.row.run,
            stages,
        };
        let is_told = !is_new && it.not_run.is_empty();
        let it = if is_told { Diff { same: cause::same(&it.causes), ..it } } else { it };
        let out = setting.screen;
        if out.json {
            out.print_json(&it);
        } else {
            out.say(&screen::heading(&it));
            out.print(&screen::diff(&it, wanted, out.width, out.paint));
        }
        Ok(DONE)
    })
}

/// Where the results of the two lie.
struct Stores {
    before: Store,
    now: Store,
    /// Where files of a store elsewhere are laid out.
    work: PathBuf,
}

/// One of the two, with all that is compared.
struct Side {
    row: RunRow,
    file: PipelineRow,
    stages: Vec<StageRow>,
    components: HashMap<StageId, Vec<Component>>,
    /// The stage that is compared, where it is not the whole run.
    only: Option<StageId>,
}

impl Side {
    async fn of(history: &History, run: &RunId, only: Option<StageId>) -> Result<Self, Failure> {
        let lineage = &history.lineage;
        let (stages, components) = match &only {
            Some(stage) => {
                let components = lineage.components_of(run, stage).await?;
                let row = lineage.stage_of_run(run, stage).await?;
                (row.into_iter().collect(), components.map(|parts| (stage.clone(), parts)).into_iter().collect())
            }
            None => (lineage.stages_of_run(run).await?, lineage.components_of_run(run).await?),
        };
        Ok(Self { row: lineage.run(run).await?, file: lineage.pipeline_of(run).await?, stages, components, only })
    }
}

/// The stages that stand for one another.
struct Pair<'a> {
    before: &'a StageRow,
    now: &'a StageRow,
}

impl Pair<'_> {
    fn name(&self) -> &str {
        self.now.stage.as_str()
    }
}

fn pairs<'a>(before: &'a Side, now: &'a Side) -> Vec<Pair<'a>> {
    if let (Some(_), [before], [now]) = (&now.only, before.stages.as_slice(), now.stages.as_slice()) {
        return vec![Pair { before, now }];
    }
    let by_name: HashMap<&StageId, &StageRow> = before.stages.iter().map(|stage| (&stage.stage, stage)).collect();
    let pair = |now: &'a StageRow| Some(Pair { before: by_name.get(&now.stage).copied()?, now });
    now.stages.iter().filter_map(pair).collect()
}

/// Which two are meant: the newest run and the one before it of the same pipeline, unless the arguments say otherwise.
async fn sides(history: &History, args: &DiffArgs) -> Result<(Side, Side), Failure> {
    let lineage = &history.lineage;
    let first = history.address(args.before.as_deref().unwrap_or("@")).await?;
    let Some(second) = &args.now else {
        let (run, stage) = meant(history, &first).await?;
        let before = lineage.run_before(&run).await?.ok_or_else(|| {
            Failure::input("diff/first", format!("run `{run}` is the first of its pipeline: there is none before it"))
                .help(format!("llmflow diff RUN RUN compares any two; {} lists them", history.typed("llmflow runs")))
        })?;
        return Ok((Side::of(history, &before, stage.clone()).await?, Side::of(history, &run, stage).await?));
    };
    let second = history.address(second).await?;
    if first.stage.is_some() != second.stage.is_some() {
        return Err(Failure::input("diff/form", "one address names a stage, the other a whole run")
            .help("llmflow diff RUN RUN, or llmflow diff RUN/STAGE RUN/STAGE"));
    }
    let ((before, old), (now, new)) = (meant(history, &first).await?, meant(history, &second).await?);
    Ok((Side::of(history, &before, old).await?, Side::of(history, &now, new).await?))
}

async fn meant(history: &History, address: &Address) -> Result<(RunId, Option<StageId>), Failure> {
    match &address.stage {
        Some(_) => history.lineage.find_stage(address).await.map(|(run, stage)| (run, Some(stage.stage))),
        None => Ok((history.lineage.find_run(&address.run).await?, None)),
    }
}
