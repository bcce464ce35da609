//! Whole runs, with workers that are threads of the test.

mod broken_store;
mod operators;

use std::{path::Path, sync::Arc, time::Duration};

use llmflow_contract::{Class, Digest, Registry};
use tokio::{sync::mpsc::unbounded_channel, task::JoinHandle};

use super::{Cancel, Error, Options, Outcome, Workers, run};
use crate::{
    event::{Event, What},
    pipeline::LONGEST_BACKOFF,
    plan::{Selection, Will},
    store::Store,
};

/// From now on the test's clock jumps to what is waited for next, by a hundredth of a second at most: for what threads do
/// meanwhile, time passes too.
fn jumping_clock() -> JoinHandle<()> {
    tokio::time::pause();
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

/// Runs `pipeline.yaml` of a folder, in a home below it; what was told of it besides.
async fn run_here(folder: &Path) -> (Result<Outcome, Error>, Vec<Event>) {
    run_asked(folder, Selection::default()).await
}

/// Writes the file, then runs it as asked.
async fn run_text(folder: &Path, stage: &str, selection: Selection) -> (Outcome, Vec<Event>) {
    std::fs::write(folder.join("pipeline.yaml"), format!("name: one\nstages:\n  it: {stage}\n")).unwrap();
    let (outcome, events) = run_asked(folder, selection).await;
    let outcome = outcome.unwrap();
    assert_eq!(outcome.exit_code, 0, "{events:?}");
    (outcome, events)
}

async fn run_asked(folder: &Path, selection: Selection) -> (Result<Outcome, Error>, Vec<Event>) {
    let registry = operators::registry();
    let (readers, mut told) = unbounded_channel();
    let outcome = run(options(folder, selection, &registry), &registry, readers, Cancel::new()).await;
    let mut events = Vec::new();
    while let Some(event) = told.recv().await {
        events.push(event);
    }
    (outcome, events)
}

fn options(folder: &Path, selection: Selection, registry: &Registry) -> Options {
    Options {
        pipeline: folder.join("pipeline.yaml"),
        home: Some(folder.join("home")),
        workers: Workers::Threads(Arc::new(registry.clone())),
        selection,
        ..Options::default()
    }
}

/// Stages that ended well, each with its outputs' digests.
fn ended(events: &[Event]) -> Vec<(String, Vec<Digest>)> {
    let ended = events.iter().filter_map(|event| match &event.what {
        What::Finished(finished) | What::Cached(finished) => {
            Some((event.stage.as_ref()?.to_string(), finished.outputs.values().copied().collect()))
        }
        _ => None,
    });
    ended.collect()
}

#[tokio::test]
async fn a_run_of_threads_is_a_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), operators::PIPELINE).unwrap();
    let (outcome, events) = run_here(folder.path()).await;
    let outcome = outcome.unwrap();
    assert_eq!(outcome.exit_code, 0, "{:?}", outcome.stages);
    assert_eq!(ended(&events).len(), operators::STAGES);
    let (again, events) = run_here(folder.path()).await;
    assert!(again.unwrap().run.is_none() && events.is_empty(), "there is nothing to do");
}

#[tokio::test]
async fn what_panics_in_a_thread_fails_its_stage_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}  bad: {{op: test.write, with: {{text: panic}}}}\n", operators::PIPELINE);
    std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    let (outcome, events) = run_here(folder.path()).await;
    let outcome = outcome.unwrap();
    let failed: Vec<_> = outcome.stages.iter().filter_map(|stage| stage.failure.as_ref()).collect();
    assert!(failed.len() == 1 && failed[0].class == Class::Bug, "{failed:?}");
    assert_eq!((outcome.exit_code, ended(&events).len()), (101, operators::STAGES));
}

/// Two find out while one of them waits for a place: all wait for what is made again.
#[tokio::test]
async fn a_damaged_input_of_many_readers_is_made_again_once_and_all_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let readers: String =
        (0..6).map(|at| format!("  r{at}: {{op: test.join, in: one, with: {{text: t{at}}}}}\n")).collect();
    let text = format!("name: many\nstages:\n  one: {{op: test.write, with: {{text: one}}}}\n{readers}");
    std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    let only = Selection { only: vec!["one".into()], ..Selection::default() };
    assert_eq!(run_asked(folder.path(), only).await.0.unwrap().exit_code, 0);
    let mut blobs = Vec::new();
    for shelf in std::fs::read_dir(folder.path().join("home/store/blobs")).unwrap() {
        blobs.extend(std::fs::read_dir(shelf.unwrap().path()).unwrap().map(|blob| blob.unwrap().path()));
    }
    for blob in blobs {
        let text = std::fs::read(&blob).unwrap();
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, vec![b'x'; text.len()]).unwrap();
    }
    let (outcome, events) = run_here(folder.path()).await;
    assert_eq!(outcome.unwrap().exit_code, 0, "{events:?}");
    let is_made = |event: &&Event| {
        matches!(event.what, What::Finished(_)) && event.stage.as_ref().is_some_and(|it| *it == "one".into())
    };
    assert_eq!(events.iter().filter(is_made).count(), 1);
    assert_eq!(ended(&events).len(), 8, "it was there, and is made; six read it");
}

/// Under the real clock: it is the engine's own that is tried.
#[tokio::test]
async fn a_stage_that_talks_all_the_time_has_its_limit_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name: talk\nstages:\n  talker: {op: test.talk, timeout: 300ms}\n";
    std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    let outcome = run_here(folder.path()).await.0.unwrap();
    let failure = outcome.stages[0].failure.as_ref().unwrap();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Timeout, "stage/timeout"));
    assert_eq!(failure.help.as_deref(), Some("raise `timeout`"));
}

#[tokio::test]
async fn no_pause_is_longer_than_the_longest_that_may_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name: busy\nstages:\n  it: {op: test.busy, retry: {attempts: 2, on: [transient]}}\n";
    std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    let (registry, cancel) = (operators::registry(), Cancel::new());
    let (readers, mut told) = unbounded_channel::<Event>();
    let mut pause_ms = None;
    let listen = async {
        while let Some(event) = told.recv().await {
            if let What::Failed { retry_in_ms, .. } = event.what {
                pause_ms = pause_ms.or(retry_in_ms);
                cancel.request();
            }
        }
    };
    let asked = options(folder.path(), Selection::default(), &registry);
    let (outcome, ()) = tokio::join!(run(asked, &registry, readers, cancel.clone()), listen);
    assert_eq!((outcome.unwrap().exit_code, pause_ms), (130, Some(LONGEST_BACKOFF.as_millis() as u64)));
}

#[tokio::test]
async fn a_result_of_another_device_serves_and_says_so_unless_exactness_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let on = |device: &str| format!("{{op: test.compute, with: {{device: {device}}}}}");
    let exact = Selection { exact: true, ..Selection::default() };
    let started = |events: &[Event]| events.iter().any(|event| matches!(event.what, What::Started { .. }));
    let told = |outcome: &Outcome| match &outcome.plan.stages.first()?.will {
        Will::Cached { device, .. } => device.clone(),
        _ => None,
    };
    let (_, made) = run_text(folder.path(), &on("cuda"), Selection::default()).await;
    assert!(started(&made));
    let (outcome, served) = run_text(folder.path(), &on("cpu"), Selection::default()).await;
    assert!(!started(&served) && told(&outcome).as_deref() == Some("cuda"), "{served:?}");
    assert_eq!(ended(&served), ended(&made));
    let (_, anew) = run_text(folder.path(), &on("cpu"), exact.clone()).await;
    assert!(started(&anew));
    assert_ne!(ended(&anew), ended(&made));
    let (outcome, own) = run_text(folder.path(), &on("cpu"), Selection::default()).await;
    assert!(!started(&own) && told(&outcome).is_none(), "its own class comes first");
}

#[tokio::test]
async fn what_goes_further_goes_on_from_what_ended_before_where_the_plan_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = async |steps: u64, is_falling: bool| {
        let stage = format!("{{op: test.count, with: {{steps: {steps}, is_falling: {is_falling}}}}}");
        let (_, events) = run_text(folder.path(), &stage, Selection::default()).await;
        events.iter().find_map(|event| match &event.what {
            What::Finished(finished) => finished.metrics.get("taken").copied(),
            _ => None,
        })
    };
    assert_eq!(taken(3, false).await, Some(3.0));
    assert_eq!(taken(5, false).await, Some(2.0), "five steps go on from three");
    assert_eq!(taken(4, false).await, Some(1.0), "what came further than asked is passed over");
    let stage = "{op: test.count, with: {steps: 5, is_falling: false}}";
    let force = Selection { force: true, ..Selection::default() };
    let (_, events) = run_text(folder.path(), stage, force).await;
    let forced = events.iter().find_map(|event| match &event.what {
        What::Finished(finished) => finished.metrics.get("taken").copied(),
        _ => None,
    });
    assert_eq!(forced, Some(5.0), "what is forced is done, not taken over");
    let uncached = stage.replace("op:", "cache: false, op:");
    let (_, events) = run_text(folder.path(), &uncached, Selection::default()).await;
    let made_anew = events.iter().find_map(|event| match &event.what {
        What::Finished(finished) => finished.metrics.get("taken").copied(),
        _ => None,
    });
    assert_eq!(made_anew, Some(5.0), "and so is what is never cached");
    assert_eq!(taken(3, true).await, Some(3.0));
    assert_eq!(taken(5, true).await, Some(5.0), "every step depends on how many there are");
}

#[tokio::test]
async fn who_waits_for_another_run_is_told_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let (outcome, events) = run_text(folder.path(), "{op: test.write, with: {text: one}}", Selection::default()).await;
    let Will::Run { key: Some(key), .. } = outcome.plan.stages[0].will else { panic!("{:?}", outcome.plan) };
    let is_note = |event: &Event| matches!(&event.what, What::Log { level, .. } if level == "note");
    assert!(!events.iter().any(is_note), "nobody else is at it");
    let store = Store::open_local(&folder.path().join("home/store")).unwrap();
    let mut claim = Some(store.claim(&key).unwrap().unwrap());
    let clock = jumping_clock();
    let registry = operators::registry();
    let (readers, mut told) = unbounded_channel();
    let asked = options(folder.path(), Selection { force: true, ..Selection::default() }, &registry);
    let (mut notes, mut has_ended) = (0, false);
    let listen = async {
        while let Some(event) = told.recv().await {
            notes += usize::from(is_note(&event));
            has_ended |= matches!(event.what, What::Finished(_));
            assert!(!has_ended || claim.is_none(), "it began while another run was at it");
            if is_note(&event) {
                tokio::time::sleep(Duration::from_secs(5)).await; // time for a second one
                claim = None;
            }
        }
    };
    let (outcome, ()) = tokio::join!(run(asked, &registry, readers, Cancel::new()), listen);
    assert_eq!((outcome.unwrap().exit_code, notes, has_ended), (0, 1, true));
    clock.abort();
}
