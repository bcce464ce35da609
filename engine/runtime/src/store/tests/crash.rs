//! A process that publishes and commits is ended, or fails, at each durable call in turn.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use llmflow_contract::Digest;

use super::{made, publish, record};
use crate::{event::RunId, store::Store};

const FOLDER: &str = "LLMFLOW_TEST_CRASH_STORE";
/// Commits before it publishes: what the order of the two is good for.
const REVERSED: &str = "LLMFLOW_TEST_CRASH_REVERSED";

fn key() -> Digest {
    Digest::of(b"key")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Not a test of its own: what the tests below run in a process of its own.
#[test]
#[ignore = "run by the tests below, in another process"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    block_on(async {
        let store = Store::open_local(Path::new(&folder)).unwrap();
        let made = made(&store, "text", BTreeMap::new());
        if std::env::var_os(REVERSED).is_some() {
            // The digest of what is published below: the same text gives the same artifact.
            let elsewhere = Store::open("memory://reversed").unwrap();
            let (output, _) = publish(&elsewhere, &super::made(&elsewhere, "text", BTreeMap::new())).await.unwrap();
            store.commit(&record(&key(), output, "child")).await.unwrap();
            publish(&store, &made).await.unwrap();
        } else {
            let (output, _) = publish(&store, &made).await.unwrap();
            store.commit(&record(&key(), output, "child")).await.unwrap();
        }
    });
}

/// As [`child`]: names a run, whatever had that name.
#[test]
#[ignore = "run by the tests below, in another process"]
fn naming_child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open_local(Path::new(&folder)).unwrap();
    block_on(store.tag(&RunId("second".into()), "best")).unwrap();
}

fn run_child(folder: &Path, failpoint: Option<&str>, is_reversed: bool) -> ExitStatus {
    run("child", folder, failpoint, is_reversed)
}

fn run(child: &str, folder: &Path, failpoint: Option<&str>, is_reversed: bool) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("store::tests::crash::{child}"), "--ignored", "--test-threads=1"]);
    command.env(FOLDER, folder).env_remove("LLMFLOW_FAILPOINT").stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(failpoint) = failpoint {
        command.env("LLMFLOW_FAILPOINT", failpoint);
    }
    if is_reversed {
        command.env(REVERSED, "1");
    }
    command.status().unwrap()
}

/// What the store says now: nothing, or all of it. `None`: half of it.
fn is_committed(folder: &Path, trusts_records: bool) -> Option<bool> {
    block_on(async {
        let (store, work) = (Store::open_local(folder).unwrap(), tempfile::tempdir().unwrap());
        let found = match trusts_records {
            true => store.find_record(&key()).await.unwrap(),
            false => store.key_record(&key()).await.unwrap(),
        };
        let Some(record) = found else { return Some(false) };
        let artifact = store.artifact(record.outputs.values().next().unwrap(), work.path()).await.ok()?;
        (std::fs::read_to_string(artifact.file("b.txt").unwrap()).ok()? == "text").then_some(true)
    })
}

/// Breaks the child at its first, second … durable call until one run gets through. Gives what each left behind.
fn broken_at_each_call(action: &str, is_reversed: bool) -> Vec<Option<bool>> {
    let mut left = Vec::new();
    for number in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let status = run_child(&store, Some(&format!("store:{number}:{action}")), is_reversed);
        left.push(is_committed(&store, is_reversed));
        assert!(
            run_child(&store, None, false).success(),
            "after {action} at call {number} the work cannot be done again"
        );
        assert_eq!(is_committed(&store, false), Some(true), "{action} at call {number}");
        if status.success() {
            break;
        }
    }
    left
}

#[test]
fn ended_or_failed_at_any_durable_call_a_stage_is_whole_or_not_at_all() {
    for action in ["crash-before", "crash-after", "enospc", "eio"] {
        let left = broken_at_each_call(action, false);
        assert!(left.len() > 20, "only {} durable calls were broken by {action}", left.len());
        assert!(left.iter().all(Option::is_some), "{action}: half a stage after call {left:?}");
        assert_eq!(left.last(), Some(&Some(true)));
    }
}

/// What stands in the store is not lost with what was to replace it.
#[test]
fn a_name_that_cannot_be_moved_stays_where_it_was() {
    for number in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_local(folder.path()).unwrap();
        for run in ["first", "second"] {
            let record = serde_json::json!({"run": run, "pipeline": "p", "at_ms": 1, "stages": {}});
            block_on(store.put_run(&RunId(run.into()), &record)).unwrap();
        }
        block_on(store.tag(&RunId("first".into()), "best")).unwrap();
        let status = run("naming_child", folder.path(), Some(&format!("store:{number}:eio")), false);
        let best = block_on(store.find_tag("best")).unwrap().map(|tag| tag.run.0);
        if status.success() {
            assert_eq!(best.as_deref(), Some("second"));
            assert!(number > 3, "only {number} durable calls were broken");
            break;
        }
        assert!(best.is_some(), "it was lost at call {number}");
    }
}

/// The other order, read without a look at the blobs, leaves records of nothing: the test above can fail.
#[test]
fn a_record_that_is_committed_first_would_be_found_half_true() {
    assert!(broken_at_each_call("crash-after", true).contains(&None));
}
