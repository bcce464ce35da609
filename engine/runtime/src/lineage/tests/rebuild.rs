//! A history that was lost is made again of what the store remembers.

use llmflow_contract::Work;
use serde_json::{Value, json};

use super::*;
use crate::{
    event::Effort,
    store::{KeyRecord, Store},
};

const EFFORT: Effort = Effort { work: Work::Rows(3), disk_bytes: 5 };

/// What a test compares: every run, its stages, and its record.
async fn told(lineage: &Lineage) -> Vec<Value> {
    let mut all = Vec::new();
    for row in lineage.runs(&RunFilter::default()).await.unwrap() {
        let (stages, record) =
            (lineage.stages_of_run(&row.run).await.unwrap(), lineage.record_of(&row.run).await.unwrap());
        let file = lineage.pipeline_of(&row.run).await.unwrap();
        let mut parts: Vec<_> = lineage.components_of_run(&row.run).await.unwrap().into_iter().collect();
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        let efforts: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT stage, effort FROM stages WHERE run = ? ORDER BY position")
                .bind(&row.run.0)
                .fetch_all(&lineage.pool)
                .await
                .unwrap();
        all.push(json!({
            "run": row, "stages": stages, "record": record, "overrides": file.overrides, "parts": parts, "efforts": efforts,
        }));
    }
    all
}

async fn keep(lineage: &Lineage, store: &Store, run: &RunId) {
    let record = serde_json::to_value(lineage.record_of(run).await.unwrap()).unwrap();
    store.put_run(run, &record).await.unwrap();
}

/// A stage's key, and the record that says what it is made of.
async fn commit(lineage: &Lineage, store: &Store, run: &RunId, stage: &str) {
    let components = vec![Component { part: "with.lora_r".into(), value: stage.into() }];
    let key = Digest::of(stage.as_bytes());
    note_key(lineage, run, &stage.into(), stage.as_bytes(), &components).await;
    let record = KeyRecord {
        key,
        components,
        outputs: Default::default(),
        side: Default::default(),
        metrics: Default::default(),
        facts: Default::default(),
        summary: String::new(),
        seconds: 1.0,
        effort: Some(EFFORT),
        attempt: 1,
        machine: "here".into(),
        at_ms: 1,
        version: "1".into(),
    };
    store.commit(&record).await.unwrap();
}

/// Two runs: one that went well and published, one in which a stage failed, and the other was refused.
async fn two_runs(lineage: &Lineage, store: &Store) -> [RunId; 2] {
    let good = start(lineage, "good-otter").await;
    tell(lineage, &good, None, started(vec![view("sft", Vec::new())])).await;
    for (stage, port) in [("load", "data"), ("sft", "adapter")] {
        commit(lineage, store, &good, stage).await;
        tell(lineage, &good, Some(stage), What::Started { attempt: 1 }).await;
        let finished = Finished { effort: Some(EFFORT), ..gave(port, stage.as_bytes()) };
        tell(lineage, &good, Some(stage), What::Finished(finished)).await;
    }
    tell(lineage, &good, None, What::Published { path: "/out/a".into(), bytes: 7, unchanged: false }).await;
    tell(lineage, &good, None, What::RunFinished { status: RunStatus::Done, seconds: 4.0 }).await;
    let bad = start(lineage, "bad-otter").await;
    let change = Change { part: "seed".into(), before: Some("1".into()), now: Some("2".into()), origin: None };
    tell(lineage, &bad, None, started(vec![view("sft", vec![change])])).await;
    tell(lineage, &bad, Some("load"), What::Cached(gave("data", b"load"))).await;
    let (expression, why) = ("acc > 1".to_owned(), "acc 0".to_owned());
    tell(lineage, &bad, Some("load"), What::Refused { expression, why }).await;
    note_key(lineage, &bad, &"sft".into(), b"lost", &[Component { part: "seed".into(), value: "2".into() }]).await;
    tell(lineage, &bad, Some("sft"), What::Started { attempt: 2 }).await;
    let failure = Failure::input("x/y", "no rows").help("some rows");
    tell(lineage, &bad, Some("sft"), What::Failed { failure, retry_in_ms: None }).await;
    tell(lineage, &bad, None, What::RunFinished { status: RunStatus::Failed, seconds: 1.0 }).await;
    keep(lineage, store, &good).await;
    keep(lineage, store, &bad).await;
    [good, bad]
}

fn started(stages: Vec<StageView>) -> What {
    What::RunStarted {
        pipeline: "p".into(),
        plan: PlanView { stages },
        compute: crate::event::Compute { cores: 3, ..Default::default() },
        home: "/h".into(),
        disk_free_bytes: None,
    }
}

#[tokio::test]
async fn who_has_the_history_open_that_is_replaced_can_tell() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(&folder.path().join("home")), folder.path()).unwrap();
    let before = Lineage::open(&home).await.unwrap();
    assert!(before.is_in_place(&home));
    rebuild(&home, &Store::open_local(&home.store()).unwrap()).await.unwrap();
    assert!(!before.is_in_place(&home) && Lineage::open(&home).await.unwrap().is_in_place(&home));
}

#[tokio::test]
async fn a_history_that_is_made_again_says_the_same() {
    let (_folder, home) = home();
    let store = Store::open_local(&home.store()).unwrap();
    let lineage = Lineage::open(&home).await.unwrap();
    two_runs(&lineage, &store).await;
    lineage.set_published(Path::new("/out/a"), &Digest::of(b"a"), 7, 1, 2).await.unwrap();
    let before = told(&lineage).await;
    drop(lineage);
    let rebuilt = rebuild(&home, &store).await.unwrap();
    assert_eq!((rebuilt.runs, rebuilt.stages, rebuilt.unreadable.len()), (2, 4, 0));
    assert!(rebuilt.old.unwrap().is_file(), "the old one is kept");
    let lineage = Lineage::open(&home).await.unwrap();
    assert_eq!(told(&lineage).await, before);
    let published = lineage.published(Path::new("/out/a")).await.unwrap();
    assert_eq!(published, Some((Digest::of(b"a"), 7, 1, 2)), "what vouches for published files is taken over");
    // And again, from what it says now.
    drop(lineage);
    rebuild(&home, &store).await.unwrap();
    assert_eq!(told(&Lineage::open(&home).await.unwrap()).await, before);
}

#[tokio::test]
async fn a_history_that_is_gone_comes_back_without_what_the_store_does_not_know() {
    let (_folder, home) = home();
    let store = Store::open_local(&home.store()).unwrap();
    let lineage = Lineage::open(&home).await.unwrap();
    two_runs(&lineage, &store).await;
    let before = told(&lineage).await;
    start(&lineage, "unkept-otter").await;
    lineage.pool.close().await;
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", home.database().display()));
    }
    std::fs::write(home.store().join("runs/odd-otter.json"), "{").unwrap();
    let lineage = Lineage::open(&home).await.unwrap();
    assert!(told(&lineage).await.is_empty(), "the negative control: it is gone");
    drop(lineage);
    let rebuilt = rebuild(&home, &store).await.unwrap();
    assert_eq!((rebuilt.runs, rebuilt.unreadable), (2, vec!["odd-otter".to_owned()]));
    assert_eq!(told(&Lineage::open(&home).await.unwrap()).await, before);
}

#[tokio::test]
async fn a_run_that_was_killed_is_interrupted_and_one_that_lives_is_waited_for() {
    let (_folder, home) = home();
    let store = Store::open_local(&home.store()).unwrap();
    let lineage = Lineage::open(&home).await.unwrap();
    let run = start(&lineage, "quiet-otter").await;
    keep(&lineage, &store, &run).await;
    let lock = home.lock(&run).unwrap();
    let failure = rebuild(&home, &store).await.unwrap_err();
    assert_eq!(failure.code, "run/busy");
    drop(lock);
    rebuild(&home, &store).await.unwrap();
    let lineage = Lineage::open(&home).await.unwrap();
    assert_eq!(lineage.run(&run).await.unwrap().status, RunStatus::Interrupted);
    assert_eq!(lineage.stages_of_run(&run).await.unwrap()[0].status, "interrupted");
}
