//! `show`: a run, a stage, or rows.

use std::{collections::BTreeMap, process::Stdio};

use llmflow_contract::Failure;
use llmflow_runtime::{address::Address, event::RunId, lineage::StageRow, run::Error};

use super::{DONE, Setting, block_on, explain::reload, history::History, rows};
use crate::{
    args::ShowArgs,
    render::{
        run::{self as run_screen, ShownRun, Stages},
        stage::{self as stage_screen, ShownArtifact, ShownStage},
        when,
    },
    report,
};

/// Shows what an address names.
pub fn show(args: ShowArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let address = Address::parse(&args.address)?;
        if args.open {
            open_report(&history, &address, setting).await?;
            return Ok(DONE);
        }
        let wants_rows = args.rows.is_some() || args.grep.is_some();
        if address.stage.is_none() {
            if wants_rows || args.dropped {
                let message = "rows belong to a stage, and the address names a run";
                return Err(Failure::input("lineage/address", message).help("llmflow show @/STAGE --rows").into());
            }
            show_run(&history, &args, setting).await?;
        } else if args.dropped {
            rows::dropped(&history, &args, setting).await?;
        } else if wants_rows {
            rows::rows(&history, &args, setting).await?;
        } else {
            show_stage(&history, &args, setting).await?;
        }
        Ok(DONE)
    })
}

/// Writes the run's report into the home, prints where, and opens it where there is a desktop.
async fn open_report(history: &History, address: &Address, setting: &Setting<'_>) -> Result<(), Failure> {
    let run = history.lineage.find_run(&address.run).await?;
    let data = report::collect(&history.lineage, &history.store, &history.home, &run).await?;
    let path = history.home.work().join("reports").join(format!("{run}.html"));
    report::write(&data, &path)?;
    setting.screen.print(&path.display().to_string());
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if has_desktop {
        let opener = std::process::Command::new("xdg-open")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if opener.is_err() {
            setting.screen.say("no program here opens it: open it in a browser");
        }
    }
    Ok(())
}

async fn show_run(history: &History, args: &ShowArgs, setting: &Setting<'_>) -> Result<(), Failure> {
    let lineage = &history.lineage;
    let run = lineage.find_run(&Address::parse(&args.address)?.run).await?;
    let counts = lineage.stage_counts(&run).await?;
    let total: u32 = counts.iter().map(|count| count.stages).sum();
    let recorded = lineage.pipeline_of(&run).await?;
    let stages = match total > run_screen::MANY && !args.all {
        true => Stages::Counted {
            counts,
            broken: lineage.broken_stages(&run, run_screen::LISTED).await?,
            slowest: lineage.slowest_stages(&run, run_screen::LISTED).await?,
        },
        false => Stages::All { stages: lineage.stages_of_run(&run).await? },
    };
    let shown = ShownRun {
        row: lineage.run(&run).await?,
        file: recorded.path,
        tags: history.store.tags_of_runs().await?.remove(&run.0).unwrap_or_default(),
        published: lineage.published_by(&run).await?,
        stages,
    };
    let out = setting.screen;
    if out.json {
        out.print_json(&shown);
    } else {
        out.print(&run_screen::run(&shown, &when::now(), out.width, out.paint));
    }
    Ok(())
}

async fn show_stage(history: &History, args: &ShowArgs, setting: &Setting<'_>) -> Result<(), Failure> {
    let (run, stage) = history.lineage.find_stage(&Address::parse(&args.address)?).await?;
    let shown = gather(history, &run, stage, setting).await?;
    let out = setting.screen;
    if out.json {
        out.print_json(&shown);
        return Ok(());
    }
    let mut text = stage_screen::stage(&shown, args.all, out.width, out.paint);
    let first = shown.row.outputs.first();
    if first.is_some_and(|output| output.kind.is_dataset() && output.digest.is_some()) {
        text.push_str(&out.paint.dim(&format!("rows: llmflow show {} --rows\n", args.address)));
    }
    out.print(&text);
    Ok(())
}

/// What lineage and the store know of a stage. What the store no longer has is left out.
async fn gather(history: &History, run: &RunId, row: StageRow, setting: &Setting<'_>) -> Result<ShownStage, Failure> {
    let (lineage, store) = (&history.lineage, &history.store);
    let components = lineage.components_of(run, &row.stage).await?.unwrap_or_default();
    let mut series = Vec::new();
    for name in lineage.series_names(run, &row.stage).await? {
        let points = lineage.series(run, &row.stage, &name).await?;
        series.push((name, points.into_iter().map(|(_, value)| value).collect()));
    }
    let mut artifacts = BTreeMap::new();
    let digests = row.outputs.iter().map(|output| output.digest).chain(row.inputs.iter().map(|input| input.digest));
    for digest in digests.flatten() {
        if let Ok(manifest) = store.manifest(&digest).await {
            let (size_bytes, files) = (manifest.size_bytes(), manifest.files.len());
            artifacts.insert(digest, ShownArtifact { size_bytes, files, facts: manifest.facts });
        }
    }
    let record = match &row.key {
        Some(key) => store.key_record(key).await?,
        None => None,
    };
    let report = match &record {
        Some(record) => store.report(record).await.unwrap_or_default(),
        None => None,
    };
    Ok(ShownStage {
        run: run.to_string(),
        origins: origins(&lineage.pipeline_of(run).await?, &row, setting),
        defaults: defaults(&row, &components, setting),
        used_by: lineage.readers_of(run, &row.stage).await?.iter().map(ToString::to_string).collect(),
        machine: record.map(|record| record.machine),
        row,
        components,
        series,
        artifacts,
        report,
    })
}

/// Where the values of params come from, of those that come from `params` or `--set`.
fn origins(
    recorded: &llmflow_runtime::lineage::PipelineRow,
    row: &StageRow,
    setting: &Setting,
) -> BTreeMap<String, String> {
    let loaded = reload(recorded, setting);
    let Some(def) = loaded.stages.iter().find(|def| def.id == row.stage) else { return BTreeMap::new() };
    let names = setting.registry.find(&row.operator).map(|entry| entry.params.as_slice()).unwrap_or_default();
    names
        .iter()
        .filter_map(|param| {
            let origin = def.origin_of(&param.name)?.describe(&loaded.pipeline.source);
            Some((param.name.clone(), origin))
        })
        .collect()
}

/// Params that are in the key only when they differ from their default, and are not in it.
fn defaults(
    row: &StageRow,
    components: &[llmflow_runtime::plan::Component],
    setting: &Setting,
) -> Vec<(String, String)> {
    use llmflow_contract::Role;
    let Some(entry) = setting.registry.find(&row.operator) else { return Vec::new() };
    let is_given = |name: &str| components.iter().any(|part| part.part.strip_prefix("with.") == Some(name));
    let params = entry.params.iter().filter(|param| matches!(param.role, Role::Key | Role::Horizon));
    params
        .filter(|param| !is_given(&param.name))
        .filter_map(|param| Some((param.name.clone(), param.default.as_ref()?.to_string())))
        .collect()
}
