//! What every store promises, then what each kind of damage and fault does to it.

mod collect;
mod conformance;
mod crash;
mod damage;
pub(crate) mod faults;
mod figures;

use std::{collections::BTreeMap, fs, path::Path};

use llmflow_contract::{AnyMade, Digest, Facts, Failure, Kind, Manifest, Port};

use super::{KeyRecord, Store};

/// An output of two files, one of which every output has.
fn made(store: &Store, text: &str, references: BTreeMap<String, Digest>) -> AnyMade {
    let folder = store.temporary("test").unwrap();
    fs::create_dir(folder.join("inner")).unwrap();
    fs::write(folder.join("b.txt"), text).unwrap();
    fs::write(folder.join("inner/a.txt"), "same").unwrap();
    AnyMade { kind: Kind::of("model"), folder, facts: Facts::default(), references }
}

/// One output alone.
async fn publish(store: &Store, made: &AnyMade) -> Result<(Digest, Manifest), Failure> {
    Ok(store.publish_all(&[(Port::from("out"), made.clone())]).await?.remove(0))
}

pub(super) fn record(key: &Digest, output: Digest, machine: &str) -> KeyRecord {
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
