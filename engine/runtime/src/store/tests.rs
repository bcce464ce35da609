//! One suite for every backend.

use std::{collections::BTreeMap, fs, path::Path};

use llmflow_contract::{AnyMade, Digest, Facts, Kind, Port};

use super::{KeyRecord, Store, blob_path};

fn made(store: &Store, text: &str, references: BTreeMap<String, Digest>) -> AnyMade {
    let folder = store.temporary("test").unwrap();
    fs::create_dir(folder.join("inner")).unwrap();
    fs::write(folder.join("b.txt"), text).unwrap();
    fs::write(folder.join("inner/a.txt"), "same").unwrap();
    AnyMade { kind: Kind::of("model"), folder, facts: Facts::default(), references }
}

fn record(key: &Digest, output: Digest, machine: &str) -> KeyRecord {
    KeyRecord {
        key: *key,
        components: Vec::new(),
        outputs: BTreeMap::from([(Port::from("out"), output)]),
        side: BTreeMap::new(),
        metrics: BTreeMap::from([("loss".into(), 0.1)]),
        facts: BTreeMap::new(),
        summary: "ok".into(),
        seconds: 1.0,
        attempt: 1,
        machine: machine.into(),
        at_ms: 1,
        version: "0".into(),
    }
}

async fn conforms(store: Store) {
    let work = tempfile::tempdir().unwrap();
    let (base, manifest) = store.publish(&made(&store, "one", BTreeMap::new())).await.unwrap();
    let again = store.publish(&made(&store, "one", BTreeMap::new())).await.unwrap();
    assert_eq!(base, again.0, "equal bytes are one artifact");
    let names: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["b.txt", "inner/a.txt"]);
    let (tuned, _) = store.publish(&made(&store, "two", BTreeMap::from([("base".into(), base)]))).await.unwrap();
    let artifact = store.artifact(&tuned, work.path()).await.unwrap();
    assert_eq!(fs::read_to_string(artifact.file("b.txt").unwrap()).unwrap(), "two");
    let referred = artifact.reference("base").unwrap();
    assert_eq!(fs::read_to_string(referred.file("b.txt").unwrap()).unwrap(), "one");

    let key = Digest::of(b"key");
    assert!(store.key_record(&key).await.unwrap().is_none());
    store.commit(&record(&key, tuned, "first")).await.unwrap();
    let second = store.commit(&record(&key, base, "second")).await.unwrap();
    assert_eq!(second.machine, "first", "the loser takes the winner's record");

    let lost = blob_path(&manifest.files[0].digest);
    store.backend.delete(&lost).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_none(), "a record with a missing blob is a miss");
    store.publish(&made(&store, "one", BTreeMap::new())).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_some(), "what is made anew heals the record");
    store.backend.put(&lost, b"longer than before".to_vec()).await.unwrap();
    assert!(store.key_record(&key).await.unwrap().is_none(), "a blob of the wrong size is a miss");
}

#[tokio::test]
async fn a_local_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(Store::open(&format!("file://{}/store", folder.path().display())).unwrap()).await;
}

#[tokio::test]
async fn a_store_in_memory_conforms() {
    conforms(Store::open("memory://conforms").unwrap()).await;
    assert!(Store::open("ftp://x").is_err());
}

#[test]
fn a_torn_checkpoint_gives_way_to_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let checkpoints = store.checkpoints(&Digest::of(b"x"), folder.path());
    assert!(checkpoints.newest().unwrap().is_none());
    for step in ["1", "2", "3"] {
        let write = &mut |path: &Path| {
            fs::write(path.join("step"), step).unwrap();
            Ok(())
        };
        checkpoints.save(write).unwrap();
    }
    let newest = checkpoints.newest().unwrap().unwrap().folder.join("step");
    assert_eq!(fs::read_to_string(&newest).unwrap(), "3");
    fs::write(&newest, "torn").unwrap();
    let before = checkpoints.newest().unwrap().unwrap().folder.join("step");
    assert_eq!(fs::read_to_string(before).unwrap(), "2");
    checkpoints.clear();
    assert!(checkpoints.newest().unwrap().is_none());
}
