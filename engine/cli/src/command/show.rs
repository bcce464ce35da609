//! `show`: a run, a stage, or rows.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use llmflow_contract::{Failure, Report};
use llmflow_runtime::{
    address::Address,
    event::{RunId, What},
    lineage::StageRow,
    pipeline::Loaded,
    plan::Component,
    run::Error,
    store::Names,
};
use tempfile::TempDir;

use super::{
    DONE, Setting, block_on,
    explain::{origin_of, reload},
    history::{History, note_silent},
    rows,
};
use crate::{
    args::ShowArgs,
    render::{
        format,
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
        let address = history.address(&args.address).await?;
        let run = history.lineage.find_run(&address.run).await?;
        let wants_rows = args.rows.is_some() || args.grep.is_some();
        let history = match wants_rows || args.dropped || args.example.is_some() {
            true => history.of_run(&run).await?,
            false => history.of_run_at_least(&run).await?,
        };
        if args.open {
            open_report(&history, &run, setting).await?;
            return Ok(DONE);
        }
        if address.stage.is_none() {
            if wants_rows || args.dropped || args.example.is_some() {
                let (what, flag) =
                    if args.example.is_some() { ("examples", "--example 1") } else { ("rows", "--rows") };
                let message = format!("{what} belong to a stage, and the address names a run");
                let help = history.typed(&format!("llmflow show {}/STAGE {flag}", address.run));
                return Err(Failure::input("lineage/address", message).help(help).into());
            }
            show_run(&history, &run, args.all, setting).await?;
        } else if args.dropped {
            rows::dropped(&history, &args, setting).await?;
        } else if wants_rows {
            rows::rows(&history, &args, setting).await?;
        } else if let Some(number) = args.example {
            show_example(&history, &address, number, setting).await?;
        } else {
            show_stage(&history, &args, setting).await?;
        }
        Ok(DONE)
    })
}

/// Writes the run's report into the home, where that may be written, prints where, and opens it where there is a desktop.
async fn open_report(history: &History, run: &RunId, setting: &Setting<'_>) -> Result<(), Failure> {
    let data = report::collect(&history.lineage, &history.store, &history.home, run).await?;
    let folder = match history.home.aside() {
        None => history.home.work().join("reports"),
        Some(_) => kept_folder()?, // the work folder of a home that may only be read goes when this ends
    };
    let path = folder.join(format!("{run}.html"));
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

/// A temporary folder that stays.
fn kept_folder() -> Result<PathBuf, Failure> {
    let made = tempfile::Builder::new().prefix("llmflow-report-").tempdir();
    made.map(TempDir::keep).map_err(|error| Failure::io("making", std::env::temp_dir(), &error))
}

async fn show_run(history: &History, run: &RunId, all: bool, setting: &Setting<'_>) -> Result<(), Failure> {
    let lineage = &history.lineage;
    let counts = lineage.stage_counts(run).await?;
    let total: u32 = counts.iter().map(|count| count.stages).sum();
    let recorded = lineage.pipeline_of(run).await?;
    let names = Names::of(std::slice::from_ref(&history.store)).await;
    note_silent(&names, setting.screen);
    let stages = match total > run_screen::MANY && !all {
        true => Stages::Counted {
            counts,
            broken: lineage.broken_stages(run, run_screen::LISTED).await?,
            slowest: lineage.slowest_stages(run, run_screen::LISTED).await?,
        },
        false => Stages::All { stages: lineage.stages_of_run(run).await? },
    };
    let shown = ShownRun {
        row: lineage.run(run).await?,
        file: history.home.here(&recorded.path)?,
        tags: names.of_runs().remove(&run.0).unwrap_or_default(),
        published: lineage.published_by(run).await?,
        reasons: lineage.reasons_of(run).await?,
        not_started: lineage.not_started(run).await?,
        with_home: history.with_home(),
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
    let (run, stage) = history.lineage.find_stage(&history.address(&args.address).await?).await?;
    let shown = gather(history, &run, stage, setting).await?;
    let out = setting.screen;
    if out.json {
        out.print_json(&shown);
        return Ok(());
    }
    let mut text = stage_screen::stage(&shown, args.all, out.width, out.paint);
    let first = shown.row.outputs.first();
    if first.is_some_and(|output| output.kind.is_dataset() && output.digest.is_some()) {
        let rows = history.typed(&format!("llmflow show {} --rows", args.address));
        text.push_str(&out.paint.dim(&format!("rows: {rows}\n")));
    }
    out.print(&text);
    Ok(())
}

/// Prints one sample of a stage's report.
async fn show_example(history: &History, address: &Address, number: u32, setting: &Setting<'_>) -> Result<(), Failure> {
    let (run, row) = history.lineage.find_stage(address).await?;
    let samples = report_of(history, &row).await?.map(|(_, report)| report.samples).unwrap_or_default();
    let name = format!("{run}/{}", row.stage);
    let Some(sample) = samples.get(number as usize - 1) else {
        let (message, words) = match samples.len() {
            0 => (format!("the report of `{name}` has no example"), format!("llmflow show {name}")),
            count => (
                format!("the report of `{name}` has {}", format::counted(count as u64, "example")),
                format!("llmflow show {name} --example {count}"),
            ),
        };
        return Err(Failure::input("show/example", message).help(history.typed(&words)));
    };
    let out = setting.screen;
    if out.json {
        out.print_json(
            &serde_json::json!({ "stage": row.stage, "example": number, "of": samples.len(), "sample": sample }),
        );
    } else {
        let head = format!("{} · example {number} of {}", row.stage, samples.len());
        out.print(&stage_screen::example(&head, sample, out.width, out.paint));
    }
    Ok(())
}

/// Where a stage's result was made, and what it told. What the store no longer has is left out.
async fn report_of(history: &History, row: &StageRow) -> Result<Option<(String, Report)>, Failure> {
    let Some(key) = &row.key else { return Ok(None) };
    let Some(record) = history.store.key_record(key).await? else { return Ok(None) };
    let report = history.store.report(&record).await.unwrap_or_default();
    Ok(Some((record.machine, report.unwrap_or_default())))
}

/// What lineage and the store know of a stage. What the store no longer has is left out.
async fn gather(history: &History, run: &RunId, row: StageRow, setting: &Setting<'_>) -> Result<ShownStage, Failure> {
    let (lineage, store) = (&history.lineage, &history.store);
    let components = lineage.components_of(run, &row.stage).await?.unwrap_or_default();
    let curves = lineage.curves(run, &row).await?;
    let series = curves.into_iter().map(|curve| (curve.name, curve.points.into_values().collect())).collect();
    let mut artifacts = BTreeMap::new();
    let digests = row.outputs.iter().map(|output| output.digest).chain(row.inputs.iter().map(|input| input.digest));
    for digest in digests.flatten() {
        if let Ok(manifest) = store.manifest(&digest).await {
            let (size_bytes, files) = (manifest.size_bytes(), manifest.files.len());
            artifacts.insert(digest, ShownArtifact { size_bytes, files, facts: manifest.facts });
        }
    }
    let (machine, report) = report_of(history, &row).await?.unzip();
    let each_attempt = match row.attempts {
        0 | 1 => Vec::new(),
        _ => lineage.attempts_of(run, &row.stage).await?,
    };
    let loaded = reload(&lineage.pipeline_of(run).await?, setting);
    Ok(ShownStage {
        reason: match row.status.as_str() {
            "skipped" | "refused" => lineage.reason_of(run, &row.stage).await?.and_then(What::reason),
            _ => None,
        },
        run: run.to_string(),
        limit: lineage.limit_of(run).await?,
        is_not_started: lineage.not_started(run).await?.contains(&row.stage),
        each_attempt,
        with_home: history.with_home(),
        origins: origins(&loaded, &row, &components, setting),
        sources: sources(&loaded, &row, &components),
        defaults: defaults(&row, &components, setting),
        used_by: lineage.readers_of(run, &row.stage).await?.iter().map(ToString::to_string).collect(),
        machine,
        row,
        components,
        series,
        artifacts,
        report,
    })
}

/// Where the values of params come from, of those that come from `params` or `--set`.
fn origins(loaded: &Loaded, row: &StageRow, components: &[Component], setting: &Setting) -> BTreeMap<String, String> {
    let given = components.iter().filter_map(|component| {
        let param = component.part.strip_prefix("with.")?;
        Some((param.to_owned(), origin_of(loaded, &row.stage, param, Some(&component.value), setting)?))
    });
    given.collect()
}

/// Params whose content is in the key, by their own values.
fn sources(loaded: &Loaded, row: &StageRow, components: &[Component]) -> Vec<(String, String)> {
    let with = loaded.stages.iter().find(|def| def.id == row.stage).map(|def| def.with()).unwrap_or_default();
    let names = components.iter().filter_map(|component| component.part.strip_prefix("source."));
    names.filter_map(|name| Some((name.to_owned(), with.get(name)?.to_string()))).collect()
}

/// Params that are in the key only when they differ from their default, and are not in it.
fn defaults(row: &StageRow, components: &[Component], setting: &Setting) -> Vec<(String, String)> {
    use llmflow_contract::Role;
    let Some(entry) = setting.registry.find(&row.operator) else { return Vec::new() };
    let is_given = |name: &str| components.iter().any(|part| part.part.strip_prefix("with.") == Some(name));
    let params = entry.params.iter().filter(|param| matches!(param.role, Role::Key | Role::Horizon));
    params
        .filter(|param| !is_given(&param.name))
        .filter_map(|param| Some((param.name.clone(), param.default.as_ref()?.to_string())))
        .collect()
}
