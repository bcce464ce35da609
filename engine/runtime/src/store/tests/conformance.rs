//! One suite for every backend. One elsewhere is asked where `LLMFLOW_TEST_STORE` names a bucket, such as
//! `s3://llmflow-test`.

use std::{collections::BTreeMap, fs, sync::Arc};

use llmflow_contract::{Digest, Port};

use super::{made, publish, record};
use crate::{
    event::RunId,
    store::{Store, blob_path, is_damage},
};

/// A store's URL, new for each test.
struct Place {
    url: String,
    _folder: tempfile::TempDir,
}

impl Place {
    fn open(&self, home: &std::path::Path) -> Store {
        Store::open(&self.url).unwrap().in_home(home)
    }
}

/// `races`: whether of many that create one object at once only one may win. One server that tests are run on checks whether
/// there is something before it writes, not while it does.
async fn conforms(place: Place, races: bool) {
    artifacts_come_back(&place).await;
    the_first_commit_wins(&place).await;
    a_figure_that_is_no_number_is_no_damage(&place).await;
    what_is_lost_is_a_miss(&place).await;
    large_files_go_in_and_out(&place).await;
    if races {
        sixteen_race_and_one_wins(&place).await;
    }
    objects_are_listed(&place).await;
}

async fn artifacts_come_back(place: &Place) {
    let home = tempfile::tempdir().unwrap();
    let store = place.open(home.path());
    let outputs = ["one", "two"].map(|text| (Port::from(text), made(&store, text, BTreeMap::new())));
    let published = store.publish_all(&outputs).await.unwrap();
    let (base, manifest) = &published[0];
    let again = publish(&store, &made(&store, "one", BTreeMap::new())).await.unwrap();
    assert_eq!(*base, again.0, "equal bytes are one artifact");
    let names: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["b.txt", "inner/a.txt"]);
    let references = BTreeMap::from([("base".into(), *base)]);
    let (tuned, _) = publish(&store, &made(&store, "tuned", references)).await.unwrap();
    // In the home that made it, in the same once more, and in another.
    let other = tempfile::tempdir().unwrap();
    for work in [home.path(), home.path(), other.path()] {
        let artifact = place.open(work).artifact(&tuned, work).await.unwrap();
        assert_eq!(fs::read_to_string(artifact.file("b.txt").unwrap()).unwrap(), "tuned");
        let referred = artifact.reference("base").unwrap();
        assert_eq!(fs::read_to_string(referred.file("b.txt").unwrap()).unwrap(), "one");
        assert_eq!(fs::read_to_string(referred.file("inner/a.txt").unwrap()).unwrap(), "same");
    }
}

async fn the_first_commit_wins(place: &Place) {
    let home = tempfile::tempdir().unwrap();
    let store = place.open(home.path());
    let (first, _) = publish(&store, &made(&store, "first", BTreeMap::new())).await.unwrap();
    let (second, _) = publish(&store, &made(&store, "second", BTreeMap::new())).await.unwrap();
    let key = Digest::of(b"the first wins");
    assert!(store.key_record(&key).await.unwrap().is_none());
    store.commit(&record(&key, first, "first")).await.unwrap();
    let winner = store.commit(&record(&key, second, "second")).await.unwrap();
    assert_eq!(winner.machine, "first", "the loser takes the winner's record");
    assert_eq!(store.key_record(&key).await.unwrap().unwrap().outputs.values().next(), Some(&first));
}

async fn a_figure_that_is_no_number_is_no_damage(place: &Place) {
    let home = tempfile::tempdir().unwrap();
    let store = place.open(home.path());
    let (output, _) = publish(&store, &made(&store, "diverged", BTreeMap::new())).await.unwrap();
    let key = Digest::of(b"diverged");
    let mut diverged = record(&key, output, "here");
    diverged.metrics.insert("loss".into(), f64::INFINITY);
    store.commit(&diverged).await.unwrap();
    let found = store.key_record(&key).await.unwrap().unwrap();
    assert!(found.metrics["loss"].is_nan());
}

async fn what_is_lost_is_a_miss(place: &Place) {
    let home = tempfile::tempdir().unwrap();
    let store = place.open(home.path());
    let (base, manifest) = publish(&store, &made(&store, "lost", BTreeMap::new())).await.unwrap();
    let references = BTreeMap::from([("base".into(), base)]);
    let (tuned, _) = publish(&store, &made(&store, "kept", references)).await.unwrap();
    let key = Digest::of(b"lost");
    store.commit(&record(&key, tuned, "first")).await.unwrap();
    let lost = blob_path(&manifest.files[0].digest);
    store.backend.delete(&lost).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_none(), "a record with a missing blob is a miss");
    let elsewhere = tempfile::tempdir().unwrap();
    let failure = place.open(elsewhere.path()).artifact(&tuned, elsewhere.path()).await.unwrap_err();
    assert!(is_damage(&failure), "{failure:?}");
    publish(&store, &made(&store, "lost", BTreeMap::new())).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_some(), "what is made anew heals the record");
    store.backend.put(&lost, b"longer than before".to_vec()).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_none(), "a blob of the wrong size is a miss");
    assert_eq!(store.backend.size(&lost).await.unwrap(), None, "and out of the way");
}

async fn large_files_go_in_and_out(place: &Place) {
    let home = tempfile::tempdir().unwrap();
    let store = place.open(home.path());
    let text = "0123456789abcdef".repeat(20 << 16); // 20 MiB: three parts
    let (digest, _) = publish(&store, &made(&store, &text, BTreeMap::new())).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let artifact = place.open(other.path()).artifact(&digest, other.path()).await.unwrap();
    assert_eq!(fs::read_to_string(artifact.file("b.txt").unwrap()).unwrap(), text);
}

async fn sixteen_race_and_one_wins(place: &Place) {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(place.open(home.path()));
    let (output, _) = publish(&store, &made(&store, "race", BTreeMap::new())).await.unwrap();
    for round in 0..20 {
        let key = Digest::of(format!("race {round}").as_bytes());
        let barrier = Arc::new(tokio::sync::Barrier::new(16));
        let racers: Vec<_> = (0..16)
            .map(|racer| {
                let (store, barrier) = (store.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    store.commit(&record(&key, output, &racer.to_string())).await.unwrap().machine
                })
            })
            .collect();
        let winner = store.key_record(&key).await.unwrap().map(|record| record.machine);
        let mut seen: Vec<String> = winner.into_iter().collect();
        for racer in racers {
            seen.push(racer.await.unwrap());
        }
        seen.push(store.key_record(&key).await.unwrap().unwrap().machine);
        seen.dedup();
        assert_eq!(seen.len(), 1, "all of them know one winner: {seen:?}");
    }
}

async fn objects_are_listed(place: &Place) {
    let home = tempfile::tempdir().unwrap();
    let store = place.open(home.path());
    store.put_run(&RunId("quiet-otter".into()), &serde_json::json!({ "run": "quiet-otter" })).await.unwrap();
    let runs = store.backend.list("runs").await.unwrap();
    assert_eq!(runs.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["runs/quiet-otter.json"]);
    assert!(runs[0].size_bytes > 0 && runs[0].changed_ms > 0);
    store.backend.delete("runs/quiet-otter.json").await.unwrap();
    store.backend.delete("runs/quiet-otter.json").await.unwrap();
    assert!(store.backend.list("runs").await.unwrap().is_empty());
}

fn place(url: impl FnOnce(&std::path::Path) -> String) -> Place {
    let folder = tempfile::tempdir().unwrap();
    Place { url: url(folder.path()), _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_store_conforms() {
    conforms(place(|folder| format!("file://{}/store", folder.display())), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_conforms() {
    conforms(place(|_| "memory://conforms".into()), true).await;
}

/// Skipped only where none is named: `tests/peers/s3.sh` starts a server and names its bucket.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_elsewhere_conforms() {
    let Ok(bucket) = std::env::var("LLMFLOW_TEST_STORE") else { return };
    let unique = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let races = std::env::var_os("LLMFLOW_TEST_STORE_RACES").is_none_or(|races| races != "no");
    conforms(place(|_| format!("{bucket}/{unique}/store")), races).await;
}

#[test]
fn what_is_no_store_is_refused_and_credentials_do_not_belong_into_a_url() {
    for bad in ["ftp://x", "s3://", "/tmp/x", "s3"] {
        assert_eq!(Store::open(bad).err().unwrap().code, "store/url", "{bad}");
    }
    let failure = Store::open("s3://KEY:canary@bucket/x").err().unwrap();
    assert!(!format!("{failure:?}").contains("canary"));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_the_environments_fault() {
    // Port 9 of this machine: nobody listens.
    let builder = object_store::aws::AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_access_key_id("id")
        .with_secret_access_key("canary")
        .with_endpoint("http://127.0.0.1:9")
        .with_allow_http(true)
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() });
    crate::tls::use_ring();
    let objects = crate::store::objects::Objects::new(Arc::new(builder.build().unwrap()), "x", "s3://bucket/x".into());
    let store = Store::new(crate::store::backend::Backend::Objects(objects));
    let failure = store.key_record(&Digest::of(b"key")).await.unwrap_err();
    assert_eq!(failure.class, llmflow_contract::Class::Environment);
    assert!(failure.message.contains("s3://bucket/x") && !format!("{failure:?}").contains("canary"), "{failure:?}");
}

#[tokio::test]
async fn the_epoch_changes_with_everything_that_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let mut epochs = vec![store.epoch().unwrap()];
    assert_eq!(store.epoch().unwrap(), epochs[0]);
    let (output, manifest) = publish(&store, &made(&store, "one", BTreeMap::new())).await.unwrap();
    epochs.push(store.epoch().unwrap());
    store.commit(&record(&Digest::of(b"key"), output, "a")).await.unwrap();
    epochs.push(store.epoch().unwrap());
    store.backend.delete(&blob_path(&manifest.files[0].digest)).await.unwrap();
    epochs.push(store.epoch().unwrap());
    let count = epochs.len();
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), count);
    assert!(Store::open("memory://epoch").unwrap().epoch().is_none());
}
