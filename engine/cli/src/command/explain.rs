//! `explain`: why a stage ran, or why it did not. Asks for what concerns that stage, never for the whole run.

use std::collections::BTreeSet;

use indexmap::IndexSet;
use llmflow_contract::{Entry, Failure, StageId};
use llmflow_runtime::{
    event::{RunId, What},
    lineage::{Follower, Lineage, NOT_STARTED, PipelineRow, StageRow},
    pipeline::{self, Loaded, SourceFile},
    plan::{Change, key},
    run::Error,
};

use super::{DONE, Setting, block_on, history::History};
use crate::{
    args::ExplainArgs,
    render::{
        explain::{self as screen, Culprit, Explained},
        format,
        siblings::folded,
        typed::quoted,
        when,
    },
};

/// Longest pipeline file that is read again for the places of its values, in bytes: a longer one takes too long.
const LONGEST_FILE: usize = 256 << 10;
/// Stages that are asked on the way up to a culprit.
const MOST_ASKED: usize = 200;
/// Stages that are named as those that gave an input.
const MOST_NAMED: usize = 8;

/// Says why a stage ran, or why it did not.
pub fn explain(args: ExplainArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let (run, stage) = history.lineage.find_stage(&history.address(&args.address).await?).await?;
        let it = explained(&history.lineage, run, stage, setting).await?;
        let out = setting.screen;
        if out.json {
            out.print_json(&it);
        } else {
            out.print(&screen::explain(&it, &when::now(), out.width, out.paint));
        }
        Ok(DONE)
    })
}

async fn explained(
    lineage: &Lineage,
    run: RunId,
    stage: StageRow,
    setting: &Setting<'_>,
) -> Result<Explained, Failure> {
    let components = lineage.components_of(&run, &stage.stage).await?;
    let before = lineage.success_before(&run, &stage.stage).await?;
    let limit = lineage.limit_of(&run).await?;
    let mut origins =
        Origins { lineage, run: &run, setting, is_limited: limit.is_some(), recorded: None, loaded: None };
    let is_frozen = stage.status == "cached" && origins.is_frozen(&stage.stage).await?;
    let (compared, mut culprits) = match (&components, &before) {
        _ if is_frozen => (lineage.because_of(&run, &stage.stage).await?, Vec::new()),
        (Some(now), Some(before)) => {
            let changes = key::valued_changes(&before.components, now, setting.registry);
            let culprits = culprits(lineage, &before.run, &run, &stage, &changes, setting).await?;
            (Some(changes), culprits)
        }
        _ => (None, Vec::new()),
    };
    let is_compared = compared.is_some();
    let mut changes = compared.unwrap_or_default();
    for change in &mut changes {
        change.origin = match change.part.strip_prefix("in.") {
            Some(slot) => makers(lineage, &run, &stage, slot).await?,
            None => origins.of(&stage.stage, change).await?,
        };
    }
    for culprit in &mut culprits {
        culprit.change.origin = origins.of(&culprit.stage, &culprit.change).await?;
    }
    let own = changes.iter().filter(|change| !change.part.starts_with("in.")).map(|change| (&stage.stage, change));
    let all: Vec<(&StageId, &Change)> =
        own.chain(culprits.iter().map(|culprit| (&culprit.stage, &culprit.change))).collect();
    let back = if is_frozen { Vec::new() } else { way_back(&all) };
    let (then, same) = following(lineage.following(&run, &stage.stage).await?);
    Ok(Explained {
        is_frozen,
        is_compared,
        asked: lineage.asked_of(&run, &stage.stage).await?,
        was_tried: stage.attempts > 0,
        reason: reason(lineage, &run, &stage).await?,
        then_seconds: then.iter().filter_map(|stage| stage.seconds).fold(0.0, |all, seconds| all + seconds), // a sum of none is -0
        then: then.into_iter().map(|stage| stage.stage).collect(),
        same: same.into_iter().map(|stage| stage.stage).collect(),
        before: before.map(|before| (before.run.to_string(), before.started_ms)),
        status: status_of(lineage, &run, &stage).await?,
        run: run.to_string(),
        stage: stage.stage,
        components,
        changes,
        culprits,
        back,
    })
}

/// Of inputs whose bytes changed: what changed in the stages that gave them, or above those.
pub async fn culprits(
    lineage: &Lineage,
    before: &RunId,
    run: &RunId,
    stage: &StageRow,
    changes: &[Change],
    setting: &Setting<'_>,
) -> Result<Vec<Culprit>, Failure> {
    let mut found = Vec::new();
    let mut asked: BTreeSet<StageId> = BTreeSet::new();
    let reads = stage.inputs.iter().map(|input| (input.slot(), input.from_stage.clone()));
    let mut queue = makers_of(&reads.collect::<Vec<_>>(), changes);
    while let Some(maker) = queue.pop() {
        if asked.len() == MOST_ASKED || !asked.insert(maker.clone()) {
            continue;
        }
        let Some((then, now)) = lineage.components_then_and_now(before, run, &maker).await? else { continue };
        let changes = key::valued_changes(&then, &now, setting.registry);
        if changes.iter().any(|change| change.part.starts_with("in.")) {
            queue.extend(makers_of(&lineage.reads_of(run, &maker).await?, &changes));
        }
        let own = changes.into_iter().filter(|change| !change.part.starts_with("in."));
        found.extend(own.map(|change| Culprit { stage: maker.clone(), change }));
    }
    Ok(found)
}

/// The stages behind those inputs that changed.
fn makers_of(reads: &[(String, StageId)], changes: &[Change]) -> Vec<StageId> {
    let slots: BTreeSet<&str> = changes.iter().filter_map(|change| change.part.strip_prefix("in.")).collect();
    reads.iter().filter(|(slot, _)| slots.contains(slot.as_str())).map(|(_, stage)| stage.clone()).collect()
}

/// Where the values of params come from: as the run's plan noted it, else as its file says.
struct Origins<'a> {
    lineage: &'a Lineage,
    run: &'a RunId,
    setting: &'a Setting<'a>,
    /// A rehearsal lowers params after the file is read: no plan notes that.
    is_limited: bool,
    recorded: Option<PipelineRow>,
    loaded: Option<Box<Loaded>>,
}

impl Origins<'_> {
    async fn of(&mut self, stage: &StageId, change: &Change) -> Result<Option<String>, Failure> {
        let Some(param) = change.part.strip_prefix("with.") else { return Ok(None) };
        let noted = self.lineage.because_of(self.run, stage).await?;
        let noted = noted.into_iter().flatten().find(|noted| noted.part == change.part && noted.now == change.now);
        if let Some(noted) = noted.filter(|_| !self.is_limited) {
            return Ok(noted.origin);
        }
        let setting = self.setting;
        let loaded = self.file(|_| true).await?;
        Ok(loaded.and_then(|loaded| origin_of(loaded, stage, param, change.now.as_deref(), setting)))
    }

    /// Was the stage frozen in the run?
    async fn is_frozen(&mut self, stage: &StageId) -> Result<bool, Failure> {
        let loaded = self.file(|text| text.contains("frozen")).await?;
        let def = loaded.and_then(|loaded| loaded.stages.iter().find(|def| def.id == *stage));
        Ok(def.is_some_and(|def| def.shared.is_frozen))
    }

    /// The run's file, read again if it is short and of interest.
    async fn file(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<Option<&Loaded>, Failure> {
        if self.recorded.is_none() {
            self.recorded = Some(self.lineage.pipeline_of(self.run).await?);
        }
        let recorded = self.recorded.iter().find(|file| file.text.len() <= LONGEST_FILE && is_wanted(&file.text));
        if let (Some(recorded), None) = (recorded, &self.loaded) {
            self.loaded = Some(Box::new(reload(recorded, self.setting)));
        }
        Ok(self.loaded.as_deref())
    }
}

/// Where the value of a param comes from: a param of the pipeline, what was asked in its place, the limit of a rehearsal.
pub fn origin_of(
    loaded: &Loaded,
    stage: &StageId,
    param: &str,
    value: Option<&str>,
    setting: &Setting,
) -> Option<String> {
    let def = loaded.stages.iter().find(|def| def.id == *stage)?;
    let own = def.told_origin_of(param, &loaded.pipeline.source);
    let is_bound = |entry: &Entry| entry.params.iter().any(|known| known.name == param && known.limits);
    let limit = loaded.pipeline.overrides.limit.filter(|limit| {
        let is_lowered = value == Some(limit.to_string().as_str()) && def.with()[param].as_u64() != Some(*limit);
        is_lowered && setting.registry.find(&def.shared.op).is_some_and(is_bound)
    });
    let limit = limit.map(|_| "set by --limit".to_owned());
    let parts: Vec<String> = own.into_iter().chain(limit).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The run's own file, read again: it knows where each value comes from.
pub fn reload(recorded: &PipelineRow, setting: &Setting) -> Loaded {
    let source = SourceFile::new(&recorded.path, &recorded.text);
    pipeline::load(source, &recorded.overrides, setting.registry)
}

/// The `--set` that bring back the old values, if all can be brought back so.
fn way_back(changes: &[(&StageId, &Change)]) -> Vec<String> {
    let mut back = Vec::new();
    for (stage, change) in changes {
        let (Some(param), Some(before)) = (change.part.strip_prefix("with."), &change.before) else {
            return Vec::new();
        };
        let origin = change.origin.as_deref().unwrap_or_default();
        if origin.starts_with("with ") {
            return Vec::new(); // what one part of it was is not known
        }
        let origin = origin.split(',').next().unwrap_or_default();
        let set = match origin.split_once('.') {
            Some(("params", name)) => format!("--set {}", quoted(&format!("{name}={before}"))),
            Some(("matrix", _)) => return Vec::new(), // another value is another stage
            _ if stage.as_str().contains('@') => return Vec::new(), // nor can one of many be set alone
            _ => format!("--set {}", quoted(&format!("{stage}.{param}={before}"))),
        };
        if !back.contains(&set) {
            back.push(set);
        }
    }
    back
}

/// The stages that gave an input: explaining one of them goes on from here. Those that gave nothing say why.
async fn makers(lineage: &Lineage, run: &RunId, stage: &StageRow, slot: &str) -> Result<Option<String>, Failure> {
    let inputs = stage.inputs.iter().filter(|input| input.slot() == slot);
    let (gave, silent): (Vec<_>, Vec<_>) = inputs.partition(|input| input.digest.is_some());
    let mut parts = Vec::new();
    if !gave.is_empty() {
        let names: IndexSet<&str> = gave.iter().map(|input| input.from_stage.as_str()).collect();
        let names = format::listed(folded(names).iter().map(String::as_str), MOST_NAMED);
        parts.push(format!("given by {names}"));
    }
    let mut told = Vec::with_capacity(silent.len());
    for input in &silent {
        let because = match told.len() < MOST_NAMED {
            true => lineage.reason_of(run, &input.from_stage).await?.and_then(What::reason),
            false => None,
        };
        told.push(match because {
            Some(because) => format!("{} ({because})", input.from_stage),
            None => input.from_stage.to_string(),
        });
    }
    if !told.is_empty() {
        parts.push(format!("nothing by {}", format::listed(told.iter().map(String::as_str), MOST_NAMED)));
    }
    Ok((!parts.is_empty()).then(|| parts.join(", ")))
}

/// Every stage that reads, directly or not, what this one gives: those that ran, and those that did not have to.
fn following(all: Vec<Follower>) -> (Vec<Follower>, Vec<Follower>) {
    all.into_iter()
        .filter(|stage| matches!(stage.status.as_str(), "ran" | "cached" | "refused" | "failed"))
        .partition(|stage| stage.status != "cached")
}

/// As in lineage; of a stage that its run did not come to, that.
pub async fn status_of(lineage: &Lineage, run: &RunId, stage: &StageRow) -> Result<String, Failure> {
    Ok(match lineage.not_started(run).await?.contains(&stage.stage) {
        true => NOT_STARTED.to_owned(),
        false => stage.status.clone(),
    })
}

/// What the run said of a stage that gave nothing.
pub async fn reason(lineage: &Lineage, run: &RunId, stage: &StageRow) -> Result<Option<String>, Failure> {
    if let Some(failure) = &stage.failure {
        return Ok(Some(failure.to_string()));
    }
    Ok(match lineage.reason_of(run, &stage.stage).await? {
        Some(What::Skipped { because }) => Some(because),
        Some(What::Refused { why, .. }) => Some(format!("refused: {why}")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_names_the_shared_param_or_that_of_the_stage() {
        let change = |part: &str, before: Option<&str>, origin: Option<&str>| Change {
            part: part.into(),
            before: before.map(str::to_owned),
            now: Some("32".into()),
            origin: origin.map(str::to_owned),
        };
        let sft = StageId::from("sft");
        let shared = change("with.lora_r", Some("16"), Some("params.rank, a.yaml:10"));
        let own = change("with.lora_alpha", Some("8"), None);
        assert_eq!(way_back(&[(&sft, &shared), (&sft, &shared)]), ["--set rank=16"]);
        assert_eq!(way_back(&[(&sft, &own)]), ["--set sft.lora_alpha=8"]);
        assert!(way_back(&[(&sft, &own), (&sft, &change("source.path", Some("aa"), None))]).is_empty());
        assert!(way_back(&[(&sft, &change("with.x", None, None))]).is_empty(), "a default has no value to set");
        let word = change("with.command", Some("[\"a\",\"2\"]"), Some("with params.n, a.yaml:1"));
        assert!(way_back(&[(&sft, &word)]).is_empty());
    }
}
