//! The end of a run: a table, then one sentence that says what to type next.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use llmflow_contract::StageId;
use llmflow_runtime::{
    event::{RunStatus, refusal},
    plan::StageView,
    run::{Outcome, StageOutcome, StageStatus},
};

use super::{
    asked::Asked,
    causes::{Causes, has_started},
    error, format,
    style::Paint,
    table::Table,
    typed::Place,
};

/// Rows of the table, of a pipeline with more stages than this.
const MOST_ROWS: usize = 9;
/// Published paths that one line names.
const PATHS: usize = 3;
/// Names of stages in one line.
const NAMES: usize = 12;

/// What the end of a run is drawn with.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The pipeline file, as typed or as recorded.
    pub pipeline: PathBuf,
    /// Paths and commands are shown from here.
    pub place: Place,
    /// What a command that goes on must say again.
    pub asked: Asked,
    /// The stage whose result can be talked to.
    pub talks: Option<StageId>,
    pub width: usize,
    pub paint: Paint,
}

/// The whole end of a run.
pub fn end(outcome: &Outcome, scene: &Scene) -> String {
    let Some(run) = &outcome.run else { return nothing_to_do(outcome, scene) };
    let causes = Causes::of(outcome);
    let mut lines = table(outcome, scene, &causes);
    for stage in outcome.stages.iter().filter(|stage| stage.status == StageStatus::Failed) {
        lines.extend(failed(stage, outcome, scene));
    }
    lines.extend(refusals(outcome, scene, &causes));
    let time = format!("{}{}", format::duration(outcome.seconds), limited(scene));
    let word = scene.paint.status(outcome.status.name());
    match outcome.status {
        RunStatus::Done => {
            lines.push(format!("{word} in {time}{}", paths(outcome, scene)));
            if !outcome.left.is_empty() {
                let left: Vec<String> = outcome.left.iter().map(|path| shown_path(path, &scene.place.here)).collect();
                let names = format::listed(left.iter().map(String::as_str), NAMES);
                lines.push(format!("left as it was:  {names}   (of an earlier run: what makes it was skipped)"));
            }
            if let Some(stage) = &scene.talks {
                lines.push(format!("talk to it:      {}", command(&format!("llmflow chat @/{stage}"), outcome, scene)));
            }
        }
        RunStatus::Interrupted => {
            lines.push(format!("{word} after {time}: {} and every checkpoint are kept", finished_stages(outcome)));
            let resume = command(&format!("llmflow resume {run}"), outcome, scene);
            lines.extend(either(&resume, &run_again(outcome, scene), scene.width));
        }
        _ => {
            let at = names_with(outcome, |status| matches!(status, StageStatus::Failed | StageStatus::Refused));
            let exit = outcome.exit_code;
            let what = if at.is_empty() { "could not publish all of it".to_owned() } else { format!("{word} at {at}") };
            lines.push(format!("run {run} {what} after {time}{} · exit {exit}", paths(outcome, scene)));
            if at.is_empty() {
                let again = run_again(outcome, scene);
                lines.push(format!("go on:           {again}   (nothing is computed again)"));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn nothing_to_do(outcome: &Outcome, scene: &Scene) -> String {
    let total = outcome.stages.len().max(outcome.cached + outcome.skipped);
    let mut lines = refusals(outcome, scene, &Causes::of(outcome));
    let place = match (outcome.unpublished.is_empty(), places(&outcome.published, &scene.place.here).as_slice()) {
        (false, _) => " · not all could be published".to_owned(),
        (true, []) => String::new(),
        (true, [one]) => format!(" · {one} is up to date"),
        (true, several) => format!(" · {} are up to date", several.join(" ")),
    };
    let skipped = if outcome.skipped > 0 { format!(", {} skipped", outcome.skipped) } else { String::new() };
    lines.push(format!(
        "nothing to do: {} of {total} cached{skipped} ({}){}{place}",
        outcome.cached,
        format::duration(outcome.seconds),
        limited(scene)
    ));
    lines.join("\n") + "\n"
}

/// The figures of a rehearsal are never taken for those of a run.
fn limited(scene: &Scene) -> String {
    scene.asked.limit.map(|limit| format!(" · {}", format::limited(limit))).unwrap_or_default()
}

/// A command that looks back, as it finds the home of this run.
fn command(words: &str, outcome: &Outcome, scene: &Scene) -> String {
    scene.place.typed(&format::clean(words), &outcome.home)
}

/// The same run of the file as it is now.
fn run_again(outcome: &Outcome, scene: &Scene) -> String {
    scene.place.run(&scene.pipeline, &scene.asked, &outcome.home)
}

/// Both ways to go on, beside each other where there is room.
fn either(resume: &str, run: &str, width: usize) -> Vec<String> {
    let (first, second) = (format!("go on:           {resume}"), format!("or, with the file as it is now: {run}"));
    let both = format!("{first}      {second}");
    if console::measure_text_width(&both) <= width { vec![both] } else { vec![first, second] }
}

fn table(outcome: &Outcome, scene: &Scene, causes: &Causes) -> Vec<String> {
    let mut table = Table::new(["stage", "status", "time", "result"]).right(&[2]);
    let shown = telling(&outcome.stages);
    for index in &shown {
        let stage = &outcome.stages[*index];
        let time = match stage.status {
            StageStatus::Cached | StageStatus::Skipped => "–".to_owned(),
            _ if !has_started(stage) => "–".to_owned(),
            _ => format::clock(stage.seconds),
        };
        let status = scene.paint.status(causes.word(stage));
        table.row([format::clean(stage.stage.as_str()), status, time, result(stage)]);
    }
    let more = outcome.stages.len() - shown.len();
    if more > 0 {
        table.line(format!(" … {more} more: {}", command("llmflow show @", outcome, scene)));
    }
    table.lines(scene.width)
}

fn result(stage: &StageOutcome) -> String {
    if let Some(because) = &stage.skipped_because {
        return format::clean(because);
    }
    if let Some(failure) = &stage.failure {
        return format::clean(&failure.message);
    }
    stage.finished.as_ref().map(|finished| format::clean(&finished.summary)).unwrap_or_default()
}

/// Which stages the table shows, in order: what went wrong, the last results, then what took longest.
fn telling(stages: &[StageOutcome]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..stages.len()).collect();
    if stages.len() <= MOST_ROWS {
        return order;
    }
    let last = stages.len() - 4;
    order.sort_by(|a, b| {
        let weight = |index: usize| match stages[index].status {
            StageStatus::Failed | StageStatus::Refused => 3,
            StageStatus::Interrupted => 2,
            StageStatus::Ran | StageStatus::Cached if index >= last => 1,
            _ => 0,
        };
        weight(*b).cmp(&weight(*a)).then(stages[*b].seconds.total_cmp(&stages[*a].seconds)).then(a.cmp(b))
    });
    order.truncate(MOST_ROWS - 1);
    order.sort_unstable();
    order
}

fn failed(stage: &StageOutcome, outcome: &Outcome, scene: &Scene) -> Vec<String> {
    let Some(failure) = &stage.failure else { return Vec::new() };
    let failure = error::cleaned(failure);
    let name = format::clean(stage.stage.as_str());
    let started = has_started(stage);
    let after = if started { format!(" after {}", format::clock(stage.seconds)) } else { String::new() };
    let mut lines = vec![format!("{} {name} failed{after}: {}", scene.paint.red("✗"), failure.message)];
    for cause in &failure.causes {
        lines.push(format!("  because  {}", cause.replace('\n', "\n           ")));
    }
    if let Some(help) = &failure.help {
        lines.push(format!("  help  {}", help.replace('\n', "\n        ")));
    }
    let is_foreign = |view: &StageView| view.stage == stage.stage && view.is_foreign;
    // A program of the user's has no way to save one.
    let checkpoint = match started && !outcome.plan.stages.iter().any(is_foreign) {
        true => format!(", and the last checkpoint of {name} if it saved one"),
        false => String::new(),
    };
    lines.push(format!("  kept  {}{checkpoint}", finished_stages(outcome)));
    if let Some(run) = &outcome.run {
        let resume = command(&format!("llmflow resume {run}"), outcome, scene);
        let logs = command(&format!("llmflow logs @/{name}"), outcome, scene);
        lines.push(match started {
            true => format!("  log   {logs}           same settings again: {resume}"),
            false => format!("  again {resume}      with the same settings"),
        });
    }
    let run = run_again(outcome, scene);
    lines.push(format!("  next  edit the file, then {run}      (starts at {name})"));
    lines
}

/// What was refused, each with what it stopped; then what was skipped for a reason of its own.
fn refusals(outcome: &Outcome, scene: &Scene, causes: &Causes) -> Vec<String> {
    let mut stopped: HashMap<&StageId, Vec<&str>> = HashMap::new();
    let mut others: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for stage in outcome.stages.iter().filter(|stage| stage.status == StageStatus::Skipped) {
        match (causes.of_stage(stage), &stage.skipped_because) {
            (Some(cause), _) => stopped.entry(&cause.stage).or_default().push(stage.stage.as_str()),
            (None, Some(because)) => others.entry(because).or_default().push(stage.stage.as_str()),
            (None, None) => {}
        }
    }
    let gates = outcome.stages.iter().filter(|stage| stage.status == StageStatus::Refused);
    let stopped = |stage: &StageOutcome| stopped.get(&stage.stage).map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = gates.flat_map(|stage| refused(stage, stopped(stage), outcome, scene)).collect();
    if !lines.is_empty() {
        lines.extend(others.into_iter().map(|(because, stages)| {
            let names = format::clean(&format::listed(stages, NAMES));
            format!("○ {names} skipped: {}", format::clean(because))
        }));
    }
    lines
}

fn refused(stage: &StageOutcome, stopped: &[&str], outcome: &Outcome, scene: &Scene) -> Vec<String> {
    let Some((expression, why)) = &stage.refused else { return Vec::new() };
    let name = format::clean(stage.stage.as_str());
    let mut lines =
        vec![format!("{} {name} refused: {}", scene.paint.red("✗"), format::clean(&refusal(expression, why)))];
    let skipped = format::clean(&format::listed(stopped.iter().copied(), NAMES));
    let skipped = if skipped.is_empty() { String::new() } else { format!("{skipped} skipped · ") };
    let chat = |stage: &StageId| command(&format!("llmflow chat @/{stage}"), outcome, scene);
    let kept = scene.talks.as_ref().map(|stage| format!(" · the model is kept: {}", chat(stage)));
    let exit = outcome.exit_code;
    let published = if scene.asked.limit.is_some() { "nothing" } else { "nothing but the report" };
    let kept = kept.unwrap_or_default();
    lines.push(format!("  {skipped}{published} is published{kept} · exit {exit}"));
    lines
}

fn names_with(outcome: &Outcome, test: impl Fn(StageStatus) -> bool) -> String {
    let stages = outcome.stages.iter().filter(|stage| test(stage.status));
    format::clean(&format::listed(stages.map(|stage| stage.stage.as_str()), NAMES))
}

/// `1 finished stage`.
fn finished_stages(outcome: &Outcome) -> String {
    let is_finished = |stage: &&StageOutcome| matches!(stage.status, StageStatus::Ran | StageStatus::Cached);
    format::counted(outcome.stages.iter().filter(is_finished).count() as u64, "finished stage")
}

/// What was published and reported, three spaces before, two between.
fn paths(outcome: &Outcome, scene: &Scene) -> String {
    let all = outcome.published.iter().chain(&outcome.report_to);
    let shown: Vec<String> = all.map(|path| shown_path(path, &scene.place.here)).collect();
    if shown.is_empty() { String::new() } else { format!("   {}", shown.join("  ")) }
}

/// A path from here if it lies below; folders end with `/`.
pub fn shown_path(path: &Path, here: &Path) -> String {
    let is_folder = path.is_dir();
    let path = path.strip_prefix(here).unwrap_or(path);
    let text = format::clean(&path.display().to_string());
    if is_folder && !text.ends_with('/') { format!("{text}/") } else { text }
}

/// A few paths; of more the folders that hold them, each once.
fn places(paths: &[PathBuf], here: &Path) -> Vec<String> {
    if paths.len() <= PATHS {
        return paths.iter().map(|path| shown_path(path, here)).collect();
    }
    let mut names: Vec<String> = Vec::new();
    for folder in paths.iter().filter_map(|path| path.parent()) {
        let name = folder.strip_prefix(here).unwrap_or(folder).display().to_string();
        let name = if name.is_empty() { "./".to_owned() } else { format!("{}/", format::clean(&name)) };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{Class, Failure};
    use llmflow_runtime::{
        event::{Finished, RunId},
        plan::PlanView,
    };

    use super::*;
    use crate::render::fixture::view;

    fn stage(name: &str, status: StageStatus, seconds: f64, summary: &str) -> StageOutcome {
        let finished = Finished { summary: summary.into(), seconds, ..Finished::default() };
        StageOutcome {
            stage: StageId::from(name),
            operator: "a.b".into(),
            status,
            finished: (!summary.is_empty()).then_some(finished),
            failure: None,
            refused: None,
            skipped_because: None,
            seconds,
        }
    }

    fn outcome(status: RunStatus, exit_code: u8, stages: Vec<StageOutcome>) -> Outcome {
        Outcome {
            pipeline: "assistant".into(),
            home: "/home/a/.llmflow".into(),
            run: Some(RunId("brave-newt".into())),
            status,
            exit_code,
            plan: PlanView::default(),
            skipped: 0,
            cached: stages.iter().filter(|stage| stage.status == StageStatus::Cached).count(),
            stages,
            published: Vec::new(),
            unpublished: Vec::new(),
            left: Vec::new(),
            report_to: Vec::new(),
            seconds: 832.0,
        }
    }

    fn skipped(name: &str, because: &str) -> StageOutcome {
        let skipped_because = Some(because.into());
        StageOutcome { skipped_because, ..stage(name, StageStatus::Skipped, 0.0, "") }
    }

    fn scene() -> Scene {
        let talks = Some(StageId::from("gguf"));
        let place = Place { here: "/home/a".into(), variable: None };
        Scene {
            pipeline: "assistant.yaml".into(),
            place,
            asked: Asked::default(),
            talks,
            width: 80,
            paint: Paint(false),
        }
    }

    #[test]
    fn a_run_that_is_done_says_where_its_results_lie_and_how_to_talk_to_them() {
        let stages = vec![
            stage("rows", StageStatus::Cached, 0.0, "298 rows"),
            stage("sft", StageStatus::Ran, 131.0, "eval loss 2.48 → 1.47"),
            stage("gguf", StageStatus::Ran, 3.0, "Q4_0, 92 MB"),
        ];
        let mut done = outcome(RunStatus::Done, 0, stages);
        done.published = vec!["/home/a/out/assistant.gguf".into()];
        done.report_to = vec!["/home/a/out/report.html".into()];
        insta::assert_snapshot!(end(&done, &scene()), @r"
         stage  status  time  result
         rows   cached     –  298 rows
         sft    ran     2:11  eval loss 2.48 → 1.47
         gguf   ran     0:03  Q4_0, 92 MB
        done in 13m52s   out/assistant.gguf  out/report.html
        talk to it:      llmflow chat @/gguf
        ");
        (done.run, done.cached) = (None, 3);
        done.seconds = 0.03;
        assert_eq!(end(&done, &scene()), "nothing to do: 3 of 3 cached (0.03 s) · out/assistant.gguf is up to date\n");
        let end_of = |published: &[&str]| {
            let published = published.iter().map(|path| format!("/home/a/out/{path}").into()).collect();
            end(&Outcome { published, ..done.clone() }, &scene())
        };
        assert!(end_of(&["a", "b"]).ends_with(" · out/a out/b are up to date\n"));
        assert!(end_of(&["a", "b", "c", "d"]).ends_with(" · out/ is up to date\n"));
    }

    #[test]
    fn a_failure_says_what_is_kept_and_what_to_type_next() {
        let mut sft = stage("sft", StageStatus::Failed, 41.0, "");
        let failure = Failure::new(Class::Memory, "memory", "out of memory at step 12").help("lower the batch size");
        sft.failure = Some(failure.cause("asked for 9.8 GiB"));
        let mut gguf = stage("gguf", StageStatus::Skipped, 0.0, "");
        gguf.skipped_because = Some("`sft` failed".into());
        let stages = vec![stage("rows", StageStatus::Ran, 0.4, "314 rows"), sft, gguf];
        insta::assert_snapshot!(end(&outcome(RunStatus::Failed, 1, stages), &scene()), @r"
         stage  status   time  result
         rows   ran      0:00  314 rows
         sft    failed   0:41  out of memory at step 12
         gguf   skipped     –  `sft` failed
        ✗ sft failed after 0:41: out of memory at step 12
          because  asked for 9.8 GiB
          help  lower the batch size
          kept  1 finished stage, and the last checkpoint of sft if it saved one
          log   llmflow logs @/sft           same settings again: llmflow resume brave-newt
          next  edit the file, then llmflow run assistant.yaml      (starts at sft)
        run brave-newt failed at sft after 13m52s · exit 1
        ");
    }

    #[test]
    fn every_way_to_go_on_says_again_what_was_asked() {
        let mut scene = scene();
        scene.asked = Asked { set: vec!["m=3 1".into()], only: vec!["sft".into()], ..Asked::default() };
        let again = "llmflow run assistant.yaml --set 'm=3 1' --only sft";
        let mut rows = stage("sft", StageStatus::Failed, 0.0, "");
        rows.failure = Some(Failure::input("x", "no such column"));
        let failed = end(&outcome(RunStatus::Failed, 1, vec![rows]), &scene);
        assert!(failed.contains(&format!("then {again}      (starts at sft)")), "{failed}");
        let unpublished = end(&outcome(RunStatus::Failed, 1, vec![stage("sft", StageStatus::Ran, 1.0, "")]), &scene);
        assert!(
            unpublished.ends_with(&format!("go on:           {again}   (nothing is computed again)\n")),
            "{unpublished}"
        );
        let stopped = outcome(RunStatus::Interrupted, 130, vec![stage("sft", StageStatus::Interrupted, 1.0, "")]);
        let stopped = end(&stopped, &scene);
        assert!(stopped.ends_with(&format!("as it is now: {again}\n")), "{stopped}");
    }

    #[test]
    fn a_program_of_the_user_saves_no_checkpoint() {
        let mut it = stage("it", StageStatus::Failed, 41.0, "");
        it.failure = Some(Failure::input("x", "it ended with 1"));
        let mut failed = outcome(RunStatus::Failed, 1, vec![it]);
        failed.plan.stages = vec![StageView { is_foreign: true, ..view("it", &[]) }];
        let text = end(&failed, &scene());
        assert!(text.contains("  kept  0 finished stages\n"), "{text}");
    }

    #[test]
    fn a_refusal_names_the_gate_and_what_is_skipped() {
        let mut verdict = stage("verdict", StageStatus::Refused, 1.0, "acc 0.42 → 0.45");
        verdict.refused = Some(("d.lower95 > 0".into(), "`d.lower95 > 0` is false (lower95 = -0.06)".into()));
        let stages = vec![
            verdict,
            skipped("gguf", "`verdict` was refused"),
            skipped("served", "`gguf` was skipped"),
            skipped("card", "`params.card` is false"),
        ];
        let mut refused = outcome(RunStatus::Refused, 1, stages);
        refused.plan.stages = vec![view("gguf", &["verdict"]), view("served", &["gguf"]), view("card", &[])];
        let mut scene = scene();
        scene.talks = Some(StageId::from("assistant"));
        insta::assert_snapshot!(end(&refused, &scene), @r"
         stage    status   time  result
         verdict  refused  0:01  acc 0.42 → 0.45
         gguf     skipped     –  `verdict` was refused
         served   skipped     –  `gguf` was skipped
         card     skipped     –  `params.card` is false
        ✗ verdict refused: `d.lower95 > 0` is false (lower95 = -0.06)
          gguf, served skipped · nothing but the report is published · the model is kept: llmflow chat @/assistant · exit 1
        ○ card skipped: `params.card` is false
        run brave-newt refused at verdict after 13m52s · exit 1
        ");
    }

    #[test]
    fn of_a_stage_that_never_started_there_is_neither_a_checkpoint_nor_a_log() {
        let mut rows = stage("rows", StageStatus::Failed, 0.0, "");
        rows.failure = Some(Failure::input("x", "no such column"));
        insta::assert_snapshot!(end(&outcome(RunStatus::Failed, 1, vec![rows]), &scene()), @r"
         stage  status  time  result
         rows   failed     –  no such column
        ✗ rows failed: no such column
          kept  0 finished stages
          again llmflow resume brave-newt      with the same settings
          next  edit the file, then llmflow run assistant.yaml      (starts at rows)
        run brave-newt failed at rows after 13m52s · exit 1
        ");
    }

    #[test]
    fn from_above_the_home_every_command_names_it_and_a_rehearsal_says_so() {
        let mut scene = scene();
        (scene.place.here, scene.asked.limit) = ("/home".into(), Some(4));
        scene.pipeline = "a/assistant.yaml".into();
        let done = outcome(RunStatus::Done, 0, vec![stage("gguf", StageStatus::Ran, 3.0, "Q4_0, 92 MB")]);
        insta::assert_snapshot!(end(&done, &scene), @r"
         stage  status  time  result
         gguf   ran     0:03  Q4_0, 92 MB
        done in 13m52s · limited to 4 rows or steps a stage
        talk to it:      llmflow chat @/gguf --home a/.llmflow
        ");
        let stopped = outcome(RunStatus::Interrupted, 130, vec![stage("gguf", StageStatus::Interrupted, 3.0, "")]);
        let text = end(&stopped, &scene);
        assert!(
            text.ends_with(
                "go on:           llmflow resume brave-newt --home a/.llmflow\nor, with the file as it is now: llmflow run a/assistant.yaml --limit 4\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_interruption_prints_both_ways_to_go_on() {
        let stages = vec![
            stage("rows", StageStatus::Ran, 0.4, "314 rows"),
            stage("sft", StageStatus::Interrupted, 9.0, ""),
            skipped("gguf", "`sft` was interrupted"),
            stage("other", StageStatus::Interrupted, 0.0, ""),
        ];
        let mut stopped = outcome(RunStatus::Interrupted, 130, stages);
        stopped.plan.stages = vec![view("gguf", &["sft"])];
        insta::assert_snapshot!(end(&stopped, &scene()), @r"
         stage  status       time  result
         rows   ran          0:00  314 rows
         sft    interrupted  0:09
         gguf   not started     –  `sft` was interrupted
         other  not started     –
        interrupted after 13m52s: 1 finished stage and every checkpoint are kept
        go on:           llmflow resume brave-newt
        or, with the file as it is now: llmflow run assistant.yaml
        ");
    }

    #[test]
    fn of_many_stages_those_that_went_wrong_took_long_or_came_last_are_shown() {
        let mut stages: Vec<StageOutcome> =
            (0..18).map(|n| stage(&format!("s{n}"), StageStatus::Ran, f64::from(n % 7), "ok")).collect();
        stages[1].status = StageStatus::Failed;
        let shown = telling(&stages);
        assert_eq!(shown.len(), MOST_ROWS - 1);
        assert!(shown.contains(&1) && shown.contains(&17) && shown.contains(&6) && shown.is_sorted());
    }
}
