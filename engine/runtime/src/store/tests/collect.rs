//! What gc deletes and keeps, and what `verify` finds.

use std::{collections::BTreeMap, fs, path::Path};

use llmflow_contract::Digest;
use serde_json::json;

use super::{made, publish, record};
use crate::{
    event::{RunId, now_ms},
    store::{Collected, Keep, Object, Store, Wrong, blob_path, gc::Marked},
};

const KEEP_ONE: Keep = Keep { runs: 1, days: 0, answer_days: None };

/// A run of one stage named `run`, the newer the greater `number`. Gives its key.
async fn run(store: &Store, run: &str, number: u64) -> Digest {
    let key = Digest::of(run.as_bytes());
    let (output, _) = publish(store, &made(store, run, BTreeMap::new())).await.unwrap();
    store.commit(&record(&key, output, run)).await.unwrap();
    let stages = json!({ "sft": { "key": key } });
    let json = json!({ "run": run, "pipeline": "assistant", "at_ms": now_ms() + number, "stages": stages });
    store.put_run(&RunId(run.into()), &json).await.unwrap();
    key
}

fn count(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        files += if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 1 };
    }
    files
}

#[tokio::test]
async fn what_no_kept_run_needs_goes_and_what_it_needs_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let old = run(&store, "old", 1).await;
    let tagged = run(&store, "tagged", 2).await;
    let new = run(&store, "new", 3).await;
    assert_eq!(store.tag(&RunId("tagged".into()), "release").await.unwrap(), None);
    let young = store.collect(KEEP_ONE, false).await.unwrap();
    assert_eq!((young.records, young.blobs, young.runs_let_go), (0, 0, 1), "what is young stays");
    let dry = store.collect_older(KEEP_ONE, true, u64::MAX).await.unwrap();
    assert_eq!((dry.records, dry.artifacts, dry.blobs), (1, 1, 1), "the file that all of them have stays");
    assert_eq!(dry.lost_seconds, 1.0);
    assert!(store.key_record(&old).await.unwrap().is_some(), "a rehearsal deletes nothing");
    let done = store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    assert_eq!(done, dry);
    assert!(store.key_record(&old).await.unwrap().is_none());
    assert!(store.key_record(&tagged).await.unwrap().is_some() && store.key_record(&new).await.unwrap().is_some());
    assert_eq!(["keys", "artifacts", "blobs"].map(|name| count(&folder.path().join(name))), [2, 2, 3]);
    let again = store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    assert_eq!((again.records, again.freed_bytes), (0, 0));
    store.untag("release").await.unwrap();
    store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    assert!(store.key_record(&tagged).await.unwrap().is_none());
    assert_eq!(store.untag("release").await.err().unwrap().code, "tag/none");
}

#[tokio::test]
async fn a_remembered_answer_goes_only_when_asked_and_only_if_nothing_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let questions = ["a", "b"].map(|text| Digest::of(text.as_bytes()));
    for question in &questions {
        store.remember(question, b"paid").await.unwrap();
    }
    let a_moment_later = || std::thread::sleep(std::time::Duration::from_millis(20)); // the clock of files is coarse
    a_moment_later();
    let since = |days| Keep { answer_days: days, ..KEEP_ONE };
    for (days, deleted) in [(None, 0), (Some(30), 0), (Some(0), 2)] {
        let told = store.collect_older(since(days), true, u64::MAX).await.unwrap();
        assert_eq!((told.answers, told.answers_kept), (deleted, 2 - deleted), "{days:?}");
    }
    assert_eq!(store.collect(since(Some(0)), false).await.unwrap().answers, 0, "what is young stays");
    let asked_ms = async || -> Vec<u64> {
        store.backend.list("memo").await.unwrap().iter().map(|answer| answer.changed_ms).collect()
    };
    let before = asked_ms().await;
    a_moment_later();
    for question in &questions {
        assert!(store.recall(question).await.unwrap().is_some());
    }
    assert!(asked_ms().await.iter().min() > before.iter().max(), "asking keeps it");
    a_moment_later();
    assert_eq!(store.collect_older(since(Some(0)), false, u64::MAX).await.unwrap().answers, 2);
    assert_eq!(store.recall(&questions[0]).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_live_run_or_claim_may_need_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let attended = store.attend(&RunId("running".into()), std::iter::empty()).unwrap().unwrap();
    let key = Digest::of(b"of a run without a record");
    let (output, _) = publish(&store, &made(&store, "x", BTreeMap::new())).await.unwrap();
    store.commit(&record(&key, output, "x")).await.unwrap();
    store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_some());
    drop(attended);
    let claim = store.claim(&key).unwrap().unwrap();
    store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_some());
    drop(claim);
    std::thread::sleep(std::time::Duration::from_millis(20)); // the clock of files is coarse
    let attended = store.attend(&RunId("later".into()), [key].into_iter()).unwrap().unwrap();
    let found = Digest::of(b"found on the way");
    let (output, _) = publish(&store, &made(&store, "y", BTreeMap::new())).await.unwrap();
    store.commit(&record(&found, output, "y")).await.unwrap();
    attended.stand_on([found].into_iter()).unwrap();
    store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    for stood_on in [key, found] {
        assert!(store.key_record(&stood_on).await.unwrap().is_some(), "a run began that stands on it");
    }
    drop(attended);
    store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_none(), "nothing else kept it");
}

#[tokio::test]
async fn a_name_is_checked_and_moves_when_it_is_given_again() {
    let store = Store::open("memory://tags").unwrap();
    run(&store, "first", 1).await;
    run(&store, "second", 2).await;
    let (first, second) = (RunId("first".into()), RunId("second".into()));
    for bad in ["", "../x", "a/b", ".hidden", "a b", "-f"] {
        assert_eq!(store.tag(&first, bad).await.err().unwrap().code, "tag/name", "{bad}");
    }
    assert_eq!(store.tag(&RunId("none".into()), "best").await.err().unwrap().code, "tag/run");
    assert_eq!(store.tag(&first, "best").await.unwrap(), None);
    assert_eq!(store.tag(&second, "best").await.unwrap(), Some(first));
    assert_eq!(
        super::super::Names::of(std::slice::from_ref(&store)).await.of_runs(),
        BTreeMap::from([("second".to_owned(), vec!["best".to_owned()])])
    );
}

#[tokio::test]
async fn verify_finds_all_damage_says_whose_it_is_and_sets_it_aside() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let keys = [run(&store, "one", 1).await, run(&store, "two", 2).await, run(&store, "three", 3).await];
    let clean = store.verify(1.0, false).await.unwrap();
    assert_eq!((clean.records, clean.artifacts, clean.blobs, clean.damage.len()), (3, 3, 4, 0));
    let blob = |text: &str| folder.path().join(blob_path(&Digest::of(text.as_bytes())));
    let overwrite = |path: &Path, text: &str| {
        fs::remove_file(path).unwrap();
        fs::write(path, text).unwrap();
    };
    overwrite(&blob("one"), "eno");
    fs::remove_file(blob("two")).unwrap();
    overwrite(&folder.path().join("keys").join(keys[2].hex()), "{}");
    let found = store.verify(1.0, true).await.unwrap();
    let mut seen: Vec<_> =
        found.damage.iter().map(|damage| (damage.object, damage.wrong, damage.of.join(" "))).collect();
    seen.sort_by_key(|(_, _, of)| of.clone());
    assert_eq!(
        seen,
        [
            (Object::Blob, Wrong::Damaged, "one/sft".to_owned()),
            (Object::Record, Wrong::Damaged, "three/sft".to_owned()),
            (Object::Blob, Wrong::Missing, "two/sft".to_owned()),
        ]
    );
    assert_eq!(found.repaired, 2);
    for name in ["one", "two", "three"] {
        run(&store, name, 1).await;
    }
    assert!(store.verify(1.0, false).await.unwrap().damage.is_empty(), "made anew");
    assert_eq!(store.verify(0.0, false).await.unwrap().blobs, 0);
}

#[tokio::test]
async fn downloads_go_once_they_are_old_unless_a_run_is_in_progress() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let store = Store::open_local(&folder.path().join("store")).unwrap().in_home(&work);
    fs::create_dir_all(work.join("download")).unwrap();
    fs::write(work.join("download/file"), "bytes").unwrap();
    let sweep = |abandoned_ms| {
        let mut report = Collected::default();
        store.sweep_home(&work, &Marked::default(), [0, abandoned_ms], false, &mut report).unwrap();
        report.freed_bytes
    };
    assert_eq!(sweep(now_ms() - 60_000), 0, "it is young");
    let running = store.attend(&RunId("quiet-otter".into()), std::iter::empty()).unwrap();
    assert_eq!(sweep(u64::MAX), 0, "a run may be about to read it");
    drop(running);
    assert_eq!(sweep(u64::MAX), 5);
    assert!(!work.join("download/file").exists());
}

#[tokio::test]
async fn what_is_taken_away_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let key = run(&store, "old", 1).await;
    let before = store.removals().unwrap();
    run(&store, "new", 2).await;
    assert_eq!(store.removals(), Some(before), "what came is no removal");
    store.collect_older(KEEP_ONE, true, u64::MAX).await.unwrap();
    assert_eq!(store.removals(), Some(before), "nor is a rehearsal");
    store.collect_older(KEEP_ONE, false, u64::MAX).await.unwrap();
    let collected = store.removals().unwrap();
    assert!(collected > before && store.key_record(&key).await.unwrap().is_none());
    store.backend.quarantine("keys/whatever").await.unwrap();
    assert!(store.removals().unwrap() > collected);
}
