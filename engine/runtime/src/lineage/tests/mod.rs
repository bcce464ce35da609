//! What is written down is found again.

mod descendants;
mod health;
mod queries;
mod rebuild;
mod recall;
mod stores;
mod versions;

use std::collections::BTreeMap;

use llmflow_contract::{Digest, Kind, Port, StageId};

use super::*;
use crate::pipeline::Overrides;
use crate::{
    address::Address,
    event::{Event, Finished, RunStatus, What},
    plan::{Change, Component, PlanView, StageView, Will},
};

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(&folder.path().join(".llmflow")), folder.path()).unwrap();
    (folder, home)
}

fn view(stage: &str, because: Vec<Change>) -> StageView {
    StageView {
        stage: StageId::from(stage),
        operator: "train.sft".into(),
        version: 1,
        needs: Vec::new(),
        will: Will::Run { key: Some(Digest::of(b"key")), because, asked: None },
        seconds: None,
        memory_bytes: 0,
        gpus: 0,
        is_foreign: false,
        disk_bytes: 0,
    }
}

fn file() -> PipelineRow {
    PipelineRow {
        path: "/tmp/p.yaml".into(),
        name: "p".into(),
        text: "name: p".into(),
        overrides: Overrides { set: vec!["rank=8".into()], ..Overrides::default() },
        params: [("rank".to_owned(), 8.into())].into(),
        resumes: None,
        locks: Default::default(),
        selection: Default::default(),
        store: None,
    }
}

async fn tell(lineage: &Lineage, run: &RunId, stage: Option<&str>, what: What) {
    let event = Event { at_ms: 1, run: run.clone(), stage: stage.map(StageId::from), what };
    lineage.write(&[Note::Event(event)]).await.unwrap();
}

async fn note_key(lineage: &Lineage, run: &RunId, stage: &StageId, key: &[u8], parts: &[Component]) {
    let (run, stage, key, components) = (run.clone(), stage.clone(), Digest::of(key), parts.to_vec());
    lineage.write(&[Note::Key { run, stage, key, components }]).await.unwrap();
}

/// A run of `load` → `sft`, started.
async fn start(lineage: &Lineage, name: &str) -> RunId {
    start_of(lineage, name, &file()).await
}

async fn start_of(lineage: &Lineage, name: &str, file: &PipelineRow) -> RunId {
    let run = RunId(name.to_owned());
    let (load, sft) = (view("load", Vec::new()), view("sft", Vec::new()));
    let stages = [
        PlannedRow {
            view: &load,
            components: None,
            outgrown: None,
            inputs: Vec::new(),
            outputs: vec![(Port::from("data"), Kind::new("dataset/chat"))],
        },
        PlannedRow {
            view: &sft,
            components: None,
            outgrown: None,
            inputs: vec![InputRecord(
                "data".into(),
                "load".into(),
                "data".into(),
                InputAside { label: Some("talk".into()), digest: None },
            )],
            outputs: vec![(Port::from("adapter"), Kind::new("adapter")), (Port::from("aaa"), Kind::new("model"))],
        },
    ];
    lineage.start_run(&run, file, &stages).await.unwrap();
    run
}

fn gave(port: &str, content: &[u8]) -> Finished {
    Finished {
        outputs: [(Port::from(port), Digest::of(content)), (Port::from("report"), Digest::of(b"report"))].into(),
        metrics: BTreeMap::from([("loss".to_owned(), 0.5)]),
        summary: "done".into(),
        seconds: 2.0,
        ..Finished::default()
    }
}

#[tokio::test]
async fn a_stage_is_found_by_address_and_its_artifact_by_who_made_and_who_read_it() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    tell(&lineage, &run, Some("load"), What::Started { attempt: 1 }).await;
    tell(&lineage, &run, Some("load"), What::Finished(gave("data", b"rows"))).await;
    tell(&lineage, &run, Some("sft"), What::Cached(gave("adapter", b"weights"))).await;

    let (_, stage, port, digest) = lineage.resolve(&Address::parse("@/sft").unwrap()).await.unwrap();
    assert_eq!((stage.as_str(), port.as_str(), digest), ("sft", "adapter", Digest::of(b"weights")), "the main output");
    let stages = lineage.stages_of_run(&run).await.unwrap();
    assert_eq!((stages[0].status.as_str(), stages[1].status.as_str()), ("ran", "cached"));
    assert_eq!(stages[1].inputs[0].digest, Some(Digest::of(b"rows")));
    assert_eq!(stages[1].inputs[0].slot(), "data.talk");
    assert_eq!(lineage.reads_of(&run, &"sft".into()).await.unwrap(), [("data.talk".to_owned(), "load".into())]);
    assert_eq!(stages[0].metrics["loss"], 0.5);
    assert_eq!(stages[0].outputs.last().unwrap().port.as_str(), "report");
    let place = |stage: &str, port: &str| Whereabouts { run: run.clone(), stage: stage.into(), port: port.into() };
    assert_eq!(lineage.producers(&Digest::of(b"rows")).await.unwrap(), [place("load", "data")]);
    assert_eq!(lineage.consumers(&Digest::of(b"rows")).await.unwrap(), [place("sft", "data")]);
    for bad in ["@/nothing", "@/sft.nothing", "@/sft.aaa", "@", "@-1/sft", "loud/sft"] {
        let failure = lineage.resolve(&Address::parse(bad).unwrap()).await.unwrap_err();
        assert!(failure.help.is_some(), "{bad}: {failure}");
    }
}

#[tokio::test]
async fn a_run_whose_process_is_gone_is_interrupted_and_one_that_lives_is_not() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let (dead, alive) = (start(&lineage, "dead-otter").await, start(&lineage, "live-otter").await);
    tell(&lineage, &dead, Some("load"), What::Started { attempt: 1 }).await;
    let _lock = home.lock(&alive).unwrap();
    let lineage = Lineage::open(&home).await.unwrap();
    assert_eq!(lineage.run(&dead).await.unwrap().status, RunStatus::Interrupted);
    assert_eq!(lineage.run(&alive).await.unwrap().status, RunStatus::Running);
    assert_eq!(lineage.stages_of_run(&dead).await.unwrap()[0].status, "interrupted");
    assert_eq!(lineage.newest_unfinished().await.unwrap(), Some(dead));
    assert_eq!(lineage.pipeline_of(&alive).await.unwrap(), file());
}

#[tokio::test]
async fn the_last_success_explains_and_a_failure_in_between_does_not_hide_it() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let parts = [Component { part: "with.lora_r".into(), value: "16".into() }];
    let (first, second) = (start(&lineage, "first-otter").await, start(&lineage, "second-otter").await);
    let sft = StageId::from("sft");
    note_key(&lineage, &first, &sft, b"1", &parts).await;
    tell(&lineage, &first, Some("sft"), What::Finished(gave("adapter", b"a"))).await;
    note_key(&lineage, &second, &sft, b"2", &[]).await;
    let failure = Failure::input("x", "bad").help("good");
    tell(&lineage, &second, Some("sft"), What::Failed { failure: failure.clone(), retry_in_ms: None }).await;
    let last = &lineage.last_successes("p", None, &[&sft, &StageId::from("load")]).await.unwrap()[&sft];
    assert_eq!((last.components.as_slice(), last.seconds), (&parts[..], 2.0));
    assert!(lineage.last_successes("q", None, &[&sft]).await.unwrap().is_empty());
    assert_eq!(lineage.stages_of_run(&second).await.unwrap()[1].failure, Some(failure));
}

#[tokio::test]
async fn names_are_found_by_position_and_by_unique_prefix() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    assert!(lineage.find_run("@").await.is_err());
    for name in ["calm-otter", "calm-owl", "calm"] {
        start(&lineage, name).await;
    }
    let find = async |text: &str| lineage.find_run(text).await.map(|run| run.0).map_err(|failure| failure.message);
    assert_eq!(find("@").await.unwrap(), "calm");
    assert_eq!(find("@-2").await.unwrap(), "calm-otter");
    assert_eq!(find("calm-ow").await.unwrap(), "calm-owl");
    assert_eq!(find("calm").await.unwrap(), "calm", "an exact name wins");
    assert!(find("calm-o").await.unwrap_err().contains("calm-otter"));
    assert!(find("%").await.is_err());
    assert!(find("clam-owl").await.unwrap_err().ends_with("the nearest is `calm-owl`"));
}

#[tokio::test]
async fn a_series_keeps_the_last_value_of_a_step_that_was_done_twice() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    for (step, value) in [(1, 3.0), (2, 2.0), (2, 1.5), (3, f64::NAN)] {
        let what = What::Metric { name: "loss".into(), value, step: Some(step), reproducible: false };
        tell(&lineage, &run, Some("sft"), what).await;
    }
    let row = lineage.stage_of_run(&run, &"sft".into()).await.unwrap().unwrap();
    let curves = lineage.curves(&run, &row).await.unwrap();
    assert_eq!(curves.len(), 1);
    let told: Vec<_> = curves[0].points.iter().map(|(step, value)| (*step, value.to_string())).collect();
    assert_eq!(told, [(1, "3".into()), (2, "1.5".into()), (3, "NaN".into())], "where it diverged is part of it");
    assert!(lineage.events(&run).await.unwrap().is_empty(), "points are not events twice");
}

#[tokio::test]
async fn a_curve_is_whole_though_runs_that_were_stopped_drew_parts_of_it() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let runs = [start(&lineage, "a-otter").await, start(&lineage, "b-otter").await, start(&lineage, "c-otter").await];
    let other = start(&lineage, "d-otter").await;
    let again = start(&lineage, "e-otter").await;
    let sft = StageId::from("sft");
    let draw = async |run: &RunId, key: &[u8], steps: std::ops::Range<u64>, value: f64| {
        note_key(&lineage, run, &sft, key, &[]).await;
        for step in steps {
            let (name, reproducible) = ("loss".to_owned(), false);
            tell(&lineage, run, Some("sft"), What::Metric { name, value, step: Some(step), reproducible }).await;
        }
    };
    draw(&runs[0], b"key", 1..5, 9.0).await;
    tell(&lineage, &runs[0], Some("sft"), What::Interrupted).await;
    draw(&runs[1], b"other key", 1..9, 7.0).await;
    tell(&lineage, &runs[1], Some("sft"), What::Interrupted).await;
    draw(&runs[2], b"key", 3..6, 2.0).await;
    tell(&lineage, &runs[2], Some("sft"), What::Finished(gave("adapter", b"weights"))).await;
    draw(&other, b"new key", 1..3, 1.0).await;
    tell(&lineage, &other, Some("sft"), What::Finished(gave("adapter", b"other weights"))).await;
    note_key(&lineage, &again, &sft, b"key", &[]).await;
    tell(&lineage, &again, Some("sft"), What::Cached(gave("adapter", b"weights"))).await;

    let whole = BTreeMap::from([(1, 9.0), (2, 9.0), (3, 2.0), (4, 2.0), (5, 2.0)]);
    for run in [&runs[2], &again] {
        let row = lineage.stage_of_run(run, &sft).await.unwrap().unwrap();
        let curves = lineage.curves(run, &row).await.unwrap();
        assert_eq!(curves.iter().map(|curve| &curve.points).collect::<Vec<_>>(), [&whole], "{run}");
    }
    let row = lineage.stage_of_run(&other, &sft).await.unwrap().unwrap();
    let curves = lineage.curves(&other, &row).await.unwrap();
    assert_eq!(curves[0].points.len(), 2, "another key, another curve");
}

#[tokio::test]
async fn what_changed_is_said_in_one_line() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    let change = |part: &str, now: &str| Change {
        part: part.into(),
        before: Some("16".into()),
        now: Some(now.into()),
        origin: None,
    };
    let plan =
        PlanView { stages: vec![view("sft", vec![change("with.lora_r", "32"), change("in.data", &"x".repeat(64))])] };
    let started = What::RunStarted {
        pipeline: "p".into(),
        plan,
        compute: Default::default(),
        home: "/h".into(),
        disk_free_bytes: None,
    };
    tell(&lineage, &run, None, started).await;
    tell(&lineage, &run, None, What::RunFinished { status: RunStatus::Done, seconds: 4.0 }).await;
    let row = lineage.run(&run).await.unwrap();
    assert_eq!((row.changed.as_str(), row.seconds), ("sft.lora_r 16 → 32, sft.in.data", Some(4.0)));
    assert_eq!(lineage.events(&run).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_input_that_reads_another_stage_is_a_change_and_other_bytes_of_a_stage_that_runs_only_follow() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let (first, second) = (start(&lineage, "first-otter").await, start(&lineage, "second-otter").await);
    note_key(&lineage, &first, &"sft".into(), b"1", &[]).await;
    tell(&lineage, &first, Some("sft"), What::Finished(gave("adapter", b"a"))).await;
    let change = |part: &str, before: &str, now: &str| Change {
        part: part.into(),
        before: Some(before.into()),
        now: Some(now.into()),
        origin: None,
    };
    let changes = vec![change("with.lora_r", "16", "32"), change("in.data.talk", "aa", "bb")];
    let changed = async |stages: Vec<StageView>| {
        let plan = PlanView { stages };
        let (pipeline, home) = ("p".to_owned(), "/h".into());
        let started = What::RunStarted { pipeline, plan, compute: Default::default(), home, disk_free_bytes: None };
        tell(&lineage, &second, None, started).await;
        lineage.run(&second).await.unwrap().changed
    };
    assert_eq!(changed(vec![view("load", Vec::new()), view("sft", changes.clone())]).await, "sft.lora_r 16 → 32");
    sqlx::query("UPDATE inputs SET from_stage = 'kept' WHERE run = ?")
        .bind(&second.0)
        .execute(&lineage.pool)
        .await
        .unwrap();
    let rewired = changed(vec![view("load", Vec::new()), view("sft", changes)]).await;
    assert_eq!(rewired, "sft.lora_r 16 → 32, sft.in.data.talk load.data → kept.data");
}

#[tokio::test]
async fn a_key_is_compared_with_the_success_before_it_not_with_its_own() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let parts = |rank: &str| [Component { part: "with.lora_r".into(), value: rank.into() }];
    let (first, second) = (start(&lineage, "first-otter").await, start(&lineage, "second-otter").await);
    let sft = StageId::from("sft");
    for (run, rank) in [(&first, "16"), (&second, "32")] {
        note_key(&lineage, run, &sft, rank.as_bytes(), &parts(rank)).await;
        for step in [2, 1] {
            let (name, reproducible) = ("loss".to_owned(), false);
            tell(&lineage, run, Some("sft"), What::Metric { name, value: 1.0, step: Some(step), reproducible }).await;
        }
        tell(&lineage, run, Some("sft"), What::Finished(gave("adapter", rank.as_bytes()))).await;
    }
    assert_eq!(lineage.components_of(&second, &sft).await.unwrap().unwrap(), parts("32"));
    let before = lineage.success_before(&second, &sft).await.unwrap().unwrap();
    assert_eq!((before.run, before.components), (first.clone(), parts("16").to_vec()));
    assert_eq!(lineage.success_before(&first, &sft).await.unwrap(), None);
    assert_eq!(lineage.components_of(&first, &StageId::from("load")).await.unwrap(), None);
    let row = lineage.stage_of_run(&second, &sft).await.unwrap().unwrap();
    assert_eq!(lineage.curves(&second, &row).await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_stage_is_found_with_what_stands_around_it() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    tell(&lineage, &run, Some("load"), What::Finished(gave("data", b"rows"))).await;
    tell(&lineage, &run, Some("sft"), What::Skipped { because: "`load` was late".into() }).await;
    let all = lineage.stages_of_run(&run).await.unwrap();
    for expected in &all {
        let one = lineage.stage_of_run(&run, &expected.stage).await.unwrap().unwrap();
        assert_eq!(serde_json::to_value(one).unwrap(), serde_json::to_value(expected).unwrap());
    }
    let (load, sft) = (StageId::from("load"), StageId::from("sft"));
    assert_eq!(lineage.readers_of(&run, &load).await.unwrap(), std::slice::from_ref(&sft));
    assert_eq!(lineage.following(&run, &load).await.unwrap()[0].stage, sft);
    assert!(lineage.following(&run, &sft).await.unwrap().is_empty());
    let reason = lineage.reason_of(&run, &sft).await.unwrap();
    assert!(matches!(reason, Some(What::Skipped { because }) if because == "`load` was late"));
    let failure = lineage.find_stage(&Address::parse("@/sfT").unwrap()).await.unwrap_err();
    assert!(failure.message.ends_with("the nearest is `sft`"), "{failure}");
}

#[tokio::test]
async fn what_was_made_of_an_artifact_is_followed_through_every_run() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let (first, second) = (start(&lineage, "first-otter").await, start(&lineage, "second-otter").await);
    for (run, weights) in [(&first, b"one"), (&second, b"two")] {
        tell(&lineage, run, Some("load"), What::Finished(gave("data", b"rows"))).await;
        tell(&lineage, run, Some("sft"), What::Finished(gave("adapter", weights))).await;
    }
    let found = lineage.descendants(&Digest::of(b"rows"), &"load".into()).await.unwrap();
    let named: Vec<_> = found.all.iter().map(|made| (made.digest, made.runs[0].clone())).collect();
    assert_eq!(named, [(Digest::of(b"two"), second), (Digest::of(b"one"), first)], "newest run first");
    assert_eq!((found.first.as_slice(), found.is_cut), (&[0, 1][..], false));
    assert!(lineage.descendants(&Digest::of(b"one"), &"sft".into()).await.unwrap().all.is_empty());
    let third = start(&lineage, "third-otter").await;
    tell(&lineage, &third, Some("load"), What::Finished(gave("data", b"same"))).await;
    tell(&lineage, &third, Some("sft"), What::Finished(gave("adapter", b"same"))).await;
    let found = lineage.descendants(&Digest::of(b"same"), &"load".into()).await.unwrap();
    assert_eq!(
        (found.first.len(), found.all.len(), found.all[0].into.len()),
        (1, 1, 0),
        "it is not its own descendant"
    );
    let below = lineage.descendants(&Digest::of(b"same"), &"sft".into()).await.unwrap();
    assert!(below.all.is_empty(), "nor is what stands above a stage that changed nothing: {below:?}");
}

#[tokio::test]
async fn every_attempt_is_told_with_its_time_and_why_it_failed() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    let tell_at = async |at_ms: u64, what: What| {
        let event = Event { at_ms, run: run.clone(), stage: Some("sft".into()), what };
        lineage.write(&[Note::Event(event)]).await.unwrap();
    };
    let lost = Failure::environment("worker/lost", "the worker was killed");
    tell_at(1_000, What::Started { attempt: 1 }).await;
    tell_at(3_500, What::Failed { failure: lost.clone(), retry_in_ms: Some(10) }).await;
    tell_at(4_000, What::Started { attempt: 2 }).await;
    let attempts = lineage.attempts_of(&run, &"sft".into()).await.unwrap();
    let row = |attempt, seconds, failure| AttemptRow { attempt, seconds, failure };
    assert_eq!(attempts, [row(1, Some(2.5), Some(lost)), row(2, None, None)]);
    tell_at(5_000, What::Finished(gave("adapter", b"weights"))).await;
    assert_eq!(lineage.attempts_of(&run, &"sft".into()).await.unwrap()[1], row(2, Some(1.0), None));
    assert!(lineage.attempts_of(&run, &"load".into()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_an_interruption_kept_from_starting_was_not_skipped() {
    let (_folder, home) = home();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = RunId("quiet-otter".to_owned());
    let needs = [("load", &[][..]), ("sft", &["load"]), ("gguf", &["sft"]), ("card", &[]), ("other", &[])];
    let views = needs.map(|(name, needs)| StageView {
        needs: needs.iter().map(|need| StageId::from(*need)).collect(),
        ..view(name, Vec::new())
    });
    let planned =
        views.iter().map(|view| PlannedRow { view, components: None, outgrown: None, inputs: vec![], outputs: vec![] });
    lineage.start_run(&run, &file(), &planned.collect::<Vec<_>>()).await.unwrap();
    let skipped = |because: &str| What::Skipped { because: because.into() };
    tell(&lineage, &run, Some("load"), What::Started { attempt: 1 }).await;
    tell(&lineage, &run, Some("load"), What::Interrupted).await;
    tell(&lineage, &run, Some("sft"), skipped("`load` was interrupted")).await;
    tell(&lineage, &run, Some("gguf"), skipped("`sft` was skipped")).await;
    tell(&lineage, &run, Some("card"), skipped("`params.card` is false")).await;
    tell(&lineage, &run, Some("other"), What::Interrupted).await;
    tell(&lineage, &run, None, What::RunFinished { status: RunStatus::Failed, seconds: 1.0 }).await;
    assert!(lineage.not_started(&run).await.unwrap().is_empty(), "of a run that was not interrupted nothing is said");
    tell(&lineage, &run, None, What::RunFinished { status: RunStatus::Interrupted, seconds: 1.0 }).await;
    let found = lineage.not_started(&run).await.unwrap();
    assert_eq!(found, ["gguf", "other", "sft"].map(StageId::from).into());
    let counts = lineage.stage_counts(&run).await.unwrap();
    let counts: Vec<(&str, u32)> = counts.iter().map(|count| (count.status.as_str(), count.stages)).collect();
    assert_eq!(counts, [("interrupted", 1), ("skipped", 1), ("not started", 3)]);
}
