//! What somebody changed between two runs: the causes, not what follows from them.

use std::collections::{BTreeSet, HashMap};

use llmflow_contract::{Failure, StageId};
use llmflow_runtime::{
    lineage::{Lineage, NOT_STARTED, StageRow},
    pipeline::{Loaded, StageDef},
    plan::{Change, key},
};

use super::{Pair, Side};
use crate::{
    command::{
        Setting,
        explain::{culprits, reason, reload, status_of},
    },
    render::{
        diff::{Cause, NotRun},
        explain::Culprit,
    },
};

/// Everything that can differ, as the screen names it.
const AREAS: [&str; 6] = ["params", "data", "program", "machine", "seed", "stages"];

/// The causes, those of the file's params first.
///
/// # Errors
/// Those of the history.
pub(super) async fn causes(
    lineage: &Lineage,
    before: &Side,
    now: &Side,
    pairs: &[Pair<'_>],
    setting: &Setting<'_>,
) -> Result<Vec<Cause>, Failure> {
    let mut causes = changed(before, now, pairs, setting);
    if let (Some(_), [pair]) = (&now.only, pairs) {
        causes.extend(inputs(lineage, before, now, pair, setting).await?);
    }
    Ok(causes)
}

/// What the two sides themselves tell.
fn changed(before: &Side, now: &Side, pairs: &[Pair<'_>], setting: &Setting<'_>) -> Vec<Cause> {
    let mut causes = Causes::default();
    if before.only.is_none() {
        params(before, now, &mut causes);
        stages(before, now, &mut causes);
    } else if before.stages.is_empty() {
        stages(before, now, &mut causes); // the one that is compared is new
    }
    causes.add("program", "LLMflow".into(), Some(before.row.version.clone()), Some(now.row.version.clone()));
    causes.add("machine", "machine".into(), Some(before.row.machine.clone()), Some(now.row.machine.clone()));
    let changed: BTreeSet<String> = causes.list.iter().map(|cause| cause.what.clone()).collect();
    let mut loaded = None;
    if before.file.text != now.file.text && [before, now].iter().any(|side| is_conditional(&side.file.text)) {
        let old = reload(&before.file, setting);
        conditions(&old, loaded.insert(reload(&now.file, setting)), pairs, &mut causes);
    }
    for pair in pairs {
        let (Some(old), Some(new)) = (before.components.get(&pair.before.stage), now.components.get(&pair.now.stage))
        else {
            causes.operator(pair);
            continue;
        };
        for change in key::valued_changes(old, new, setting.registry) {
            let is_explained = change.part.starts_with("with.") && !changed.is_empty() && {
                let loaded = loaded.get_or_insert_with(|| reload(&now.file, setting));
                params_of(loaded, pair.now, &change).iter().any(|param| changed.contains(&format!("params.{param}")))
            };
            if !is_explained {
                causes.part(pair, change);
            }
        }
    }
    causes.list
}

/// Of two stages: the inputs with other bytes, and what changed in the stages above that gave them.
async fn inputs(
    lineage: &Lineage,
    before: &Side,
    now: &Side,
    pair: &Pair<'_>,
    setting: &Setting<'_>,
) -> Result<Vec<Cause>, Failure> {
    let (Some(old), Some(new)) = (before.components.get(&pair.before.stage), now.components.get(&pair.now.stage))
    else {
        return Ok(Vec::new()); // what a side read is not known
    };
    let is_same_wire = |slot: &str| read_at(pair.before, slot) == read_at(pair.now, slot);
    let mut changes = key::valued_changes(old, new, setting.registry);
    changes.retain(|change| change.part.strip_prefix("in.").is_some_and(is_same_wire));
    let mut causes: Vec<Cause> = Vec::new();
    for slot in changes.iter().filter_map(|change| change.part.strip_prefix("in.")) {
        let inputs = pair.now.inputs.iter().filter(|input| input.slot() == slot);
        let given_by: BTreeSet<StageId> = inputs.map(|input| input.from_stage.clone()).collect();
        let what = format!("{}.in.{slot}", pair.name());
        causes.push(Cause {
            area: "data",
            what,
            given_by: given_by.into_iter().collect(),
            stages: 1,
            ..Cause::default()
        });
    }
    let above = culprits(lineage, &before.row.run, &now.row.run, pair.now, &changes, setting).await?;
    causes.extend(above.into_iter().map(|Culprit { stage, change }| of_part(stage.as_str(), change, true)));
    Ok(causes)
}

/// Of two stages: those that were skipped or never had a key, each with the reason.
///
/// # Errors
/// Those of the history.
pub(super) async fn not_run(lineage: &Lineage, before: &Side, now: &Side) -> Result<Vec<NotRun>, Failure> {
    let mut found = Vec::new();
    for side in [before, now] {
        let (Some(name), [stage]) = (&side.only, side.stages.as_slice()) else { continue };
        let run = side.row.run.clone();
        let status = status_of(lineage, &run, stage).await?;
        if side.components.contains_key(name) && stage.status != "skipped" && status != NOT_STARTED {
            continue;
        }
        let reason = reason(lineage, &run, stage).await?;
        let it = NotRun { stage: name.clone(), run, status, reason, was_tried: stage.attempts > 0 };
        if !found.contains(&it) {
            found.push(it);
        }
    }
    Ok(found)
}

/// A part of the key of a stage that changed.
fn of_part(stage: &str, change: Change, is_above: bool) -> Cause {
    let (area, short) = area(&change.part);
    let what = format!("{stage}.{short}");
    // The content of a source is a digest: that it changed says enough.
    let (before, now) = if area == "data" { (None, None) } else { (change.before, change.now) };
    Cause { area, what, before, now, stages: 1, given_by: Vec::new(), is_above }
}

/// Where a part belongs, and how it is called there.
fn area(part: &str) -> (&'static str, &str) {
    match part.split_once('.') {
        Some(("with", param)) => ("params", param),
        Some(("source", _)) => ("data", part),
        _ => match part {
            "operator" => ("program", part),
            "numerics" => ("machine", part),
            "seed" => ("seed", part),
            other => ("stages", other),
        },
    }
}

/// The areas in which nothing changed.
pub(super) fn same(causes: &[Cause]) -> Vec<&'static str> {
    AREAS.into_iter().filter(|area| causes.iter().all(|cause| cause.area != *area)).collect()
}

#[derive(Default)]
struct Causes {
    list: Vec<Cause>,
    /// Where a change that may concern many stages stands in the list.
    shared: HashMap<(String, Option<String>, Option<String>), usize>,
}

impl Causes {
    fn add(&mut self, area: &'static str, what: String, before: Option<String>, now: Option<String>) {
        if before != now {
            self.list.push(Cause { area, what, before, now, stages: 1, ..Cause::default() });
        }
    }

    /// One part of a stage's key. The same change in many stages is one cause.
    fn part(&mut self, pair: &Pair<'_>, change: Change) {
        if let Some(slot) = change.part.strip_prefix("in.") {
            return self.wiring(pair, slot);
        }
        let key = (change.part.clone(), change.before.clone(), change.now.clone());
        if let Some(index) = self.shared.get(&key) {
            let cause = &mut self.list[*index];
            cause.stages += 1;
            cause.what = area(&change.part).1.to_owned();
            return;
        }
        self.shared.insert(key, self.list.len());
        self.list.push(of_part(pair.name(), change, false));
    }

    /// Of a stage whose keys are not both known.
    fn operator(&mut self, pair: &Pair<'_>) {
        let (before, now) = (&pair.before.operator, &pair.now.operator);
        if before != now {
            let (before, now) = (Some(before.clone()), Some(now.clone()));
            self.part(pair, Change { part: "operator".into(), before, now, origin: None });
        }
    }

    /// An input: other bytes follow from another cause, another stage is one.
    fn wiring(&mut self, pair: &Pair<'_>, slot: &str) {
        let (before, now) = (read_at(pair.before, slot), read_at(pair.now, slot));
        self.add("stages", format!("{}.in.{slot}", pair.name()), before, now);
    }
}

/// What a port, or a label of one, reads, if anything: `clean.data, replay.data`.
fn read_at(stage: &StageRow, slot: &str) -> Option<String> {
    let inputs = stage.inputs.iter().filter(|input| input.slot() == slot);
    let names: Vec<String> = inputs.map(|input| format!("{}.{}", input.from_stage, input.from_port)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The file's params that are in the value of a stage's param.
fn params_of(loaded: &Loaded, stage: &StageRow, change: &Change) -> Vec<String> {
    let def = loaded.stages.iter().find(|def| def.id == stage.stage);
    let found = def.zip(change.part.strip_prefix("with.")).map(|(def, param)| def.params_in(param));
    found.into_iter().flatten().map(ToString::to_string).collect()
}

fn params(before: &Side, now: &Side, causes: &mut Causes) {
    let names: BTreeSet<&String> = before.file.params.keys().chain(now.file.params.keys()).collect();
    for name in names {
        let of = |side: &Side| side.file.params.get(name).map(ToString::to_string);
        causes.add("params", format!("params.{name}"), of(before), of(now));
    }
}

/// Does a file say `require` or `when` at all? Only then is it read again for them.
fn is_conditional(text: &str) -> bool {
    ["require", "when"].iter().any(|key| text.contains(key))
}

/// What had to hold of a stage, or for it to run. No key knows it; as the files write it, so that a param in it is no second cause.
fn conditions(before: &Loaded, now: &Loaded, pairs: &[Pair<'_>], causes: &mut Causes) {
    let (old, new) = (written(before), written(now));
    let mut told = BTreeSet::new();
    for pair in pairs {
        let (Some(old), Some(new)) = (old.get(&pair.before.stage), new.get(&pair.now.stage)) else { continue };
        if told.insert(&new.name) {
            causes.add("stages", format!("{}.require", new.name), old.require.clone(), new.require.clone());
            causes.add("stages", format!("{}.when", new.name), old.when.clone(), new.when.clone());
        }
    }
}

/// The conditions of one stage.
struct Conditions {
    /// As the file has it: the combinations of a matrix have one.
    name: StageId,
    require: Option<String>,
    when: Option<String>,
}

fn written(loaded: &Loaded) -> HashMap<&StageId, Conditions> {
    let text = |span| bare(loaded.pipeline.source.slice(span)).split_whitespace().collect::<Vec<_>>().join(" ");
    let of = |def: &StageDef| {
        let all: Vec<String> = def.shared.require.iter().map(|require| text(require.span)).collect();
        Conditions {
            name: def.shared.name.clone(),
            require: (!all.is_empty()).then(|| all.join(", ")),
            when: def.when.as_ref().map(|when| text(when.span)),
        }
    };
    loaded.stages.iter().map(|def| (&def.id, of(def))).collect()
}

/// An expression without the quotes and brackets that YAML lets it stand in.
fn bare(text: &str) -> String {
    let text = text.trim();
    let within = |open: char, close: char| text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(item) = within('[', ']') {
        return bare(item.trim_end().trim_end_matches(','));
    }
    match (within('"', '"'), within('\'', '\'')) {
        (Some(quoted), _) => quoted.replace("\\\"", "\""),
        (_, Some(quoted)) => quoted.replace("''", "'"),
        (None, None) => text.to_owned(),
    }
}

fn stages(before: &Side, now: &Side, causes: &mut Causes) {
    let names = |side: &Side| side.stages.iter().map(|stage| stage.stage.clone()).collect::<BTreeSet<_>>();
    let (old, new) = (names(before), names(now));
    let operator =
        |side: &Side, name: &StageId| side.stages.iter().find(|row| row.stage == *name).map(|row| row.operator.clone());
    for name in new.difference(&old) {
        causes.add("stages", format!("stage {name}"), None, operator(now, name));
    }
    for name in old.difference(&new) {
        causes.add("stages", format!("stage {name}"), operator(before, name), None);
    }
}

#[cfg(test)]
mod tests {
    use llmflow_contract::Port;
    use llmflow_runtime::lineage::InputRow;

    use super::*;

    fn stage(name: &str, from: &str) -> StageRow {
        StageRow {
            stage: StageId::from(name),
            operator: "a.b".into(),
            version: 1,
            status: "ran".into(),
            key: None,
            seconds: None,
            summary: String::new(),
            attempts: 1,
            failure: None,
            needs: Vec::new(),
            outputs: Vec::new(),
            inputs: vec![InputRow {
                label: None,
                noted: None,
                port: Port::from("data"),
                from_stage: StageId::from(from),
                from_port: Port::from("rows"),
                digest: None,
            }],
            metrics: Default::default(),
        }
    }

    fn change(part: &str, before: &str, now: &str) -> Change {
        Change { part: part.into(), before: Some(before.into()), now: Some(now.into()), origin: None }
    }

    #[test]
    fn other_bytes_on_an_input_are_no_cause_and_another_stage_on_it_is_one() {
        let (old, new, rewired) = (stage("sft", "clean"), stage("sft", "clean"), stage("sft", "unique"));
        let mut causes = Causes::default();
        causes.part(&Pair { before: &old, now: &new }, change("in.data", "aa", "bb"));
        assert_eq!(causes.list, []);
        causes.part(&Pair { before: &old, now: &rewired }, change("in.data", "aa", "bb"));
        assert_eq!(causes.list[0].what, "sft.in.data");
        assert_eq!(causes.list[0].now.as_deref(), Some("unique.rows"));
        assert_eq!(same(&causes.list), ["params", "data", "program", "machine", "seed"]);
    }

    #[test]
    fn another_operator_is_a_cause_though_no_key_is_known() {
        let (old, new) = (stage("g", "d"), StageRow { operator: "a.c".into(), ..stage("g", "d") });
        let mut causes = Causes::default();
        causes.operator(&Pair { before: &old, now: &old });
        assert_eq!(causes.list, []);
        causes.operator(&Pair { before: &old, now: &new });
        let cause = &causes.list[0];
        assert_eq!((cause.what.as_str(), cause.area), ("g.operator", "program"));
        assert_eq!((cause.before.as_deref(), cause.now.as_deref()), (Some("a.b"), Some("a.c")));
    }

    #[test]
    fn a_condition_is_what_it_says_however_it_is_quoted() {
        for text in ["q < 3", "\"q < 3\"", "'q < 3'", "[q < 3]", "[ \"q < 3\", ]"] {
            assert_eq!(bare(text), "q < 3", "{text}");
        }
        assert_eq!(bare(r#""q == \"a\"""#), bare(r#"'q == "a"'"#));
        assert_eq!(bare("params.least > 2"), "params.least > 2");
    }

    #[test]
    fn one_change_in_many_stages_is_one_cause() {
        let rows: Vec<StageRow> = ["a", "b", "c"].map(|name| stage(name, "x")).into();
        let mut causes = Causes::default();
        for row in &rows {
            causes.part(&Pair { before: row, now: row }, change("seed", "42", "43"));
        }
        let cause = &causes.list[0];
        assert_eq!((causes.list.len(), cause.what.as_str(), cause.area, cause.stages), (1, "seed", "seed", 3));
    }
}
