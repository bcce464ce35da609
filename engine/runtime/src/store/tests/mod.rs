//! What every store promises, then what each kind of damage and fault does to it.

mod collect;
mod conformance;
mod crash;
mod damage;
pub(crate) mod faults;
mod figures;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use llmflow_contract::{AnyMade, Digest, Facts, Failure, Kind, Manifest, Port};

use super::{Checkpoints, KeyRecord, Store};

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
        effort: None,
        attempt: 1,
        machine: machine.into(),
        at_ms: 1,
        version: "0".into(),
    }
}

fn save(checkpoints: &Checkpoints, step: &str) {
    let write = &mut |path: &Path| {
        fs::write(path.join("step"), step).unwrap();
        Ok(())
    };
    checkpoints.save(write).unwrap();
}

/// The step that a checkpoint holds.
fn furthest(checkpoints: &Checkpoints, most: u64) -> Option<String> {
    let step = |folder: &Path| fs::read_to_string(folder.join("step")).unwrap();
    let reach = |folder: &Path| step(folder).parse().ok().filter(|step| *step <= most);
    checkpoints.furthest(&reach).unwrap().map(|found| step(&found.folder))
}

#[tokio::test]
async fn what_may_be_executed_when_it_is_stored_may_be_when_it_is_read() {
    let is_executable = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o111 != 0;
    for url in ["", "memory://executable"] {
        let work = tempfile::tempdir().unwrap();
        let local = || Store::open_local(&work.path().join("store"));
        let store = if url.is_empty() { local() } else { Store::open(url) }.unwrap();
        let mut digests = Vec::new();
        for (kind, mode, expected) in [("files", 0o755, true), ("files", 0o644, false), ("model", 0o755, false)] {
            let made = AnyMade { kind: Kind::of(kind), ..made(&store, "true", BTreeMap::new()) };
            fs::set_permissions(made.folder.join("b.txt"), fs::Permissions::from_mode(mode)).unwrap();
            let (digest, manifest) = publish(&store, &made).await.unwrap();
            assert_eq!(manifest.files[0].executable, expected);
            let first = store.artifact(&digest, work.path()).await.unwrap().file("b.txt").unwrap();
            let inode = fs::metadata(&first).unwrap().ino();
            assert_eq!(is_executable(&first), expected, "{kind} {mode:o}");
            let again = store.artifact(&digest, work.path()).await.unwrap().file("b.txt").unwrap();
            assert_eq!(fs::metadata(again).unwrap().ino(), inode, "a copy is vouched for");
            digests.push(digest);
        }
        assert_ne!(digests[0], digests[1]);
    }
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_a_program_added_to_an_input_is_gone_when_it_is_read_again_and_what_it_took_is_back() {
    let (work, mine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_local(&work.path().join("store")).unwrap();
    let (digest, _) = publish(&store, &made(&store, "text", BTreeMap::new())).await.unwrap();
    let root = store.artifact(&digest, work.path()).await.unwrap().root;
    let is_as_made = || {
        assert_eq!(names(&root), ["b.txt", "inner"]);
        assert_eq!(names(&root.join("inner")), ["a.txt"]);
    };
    is_as_made();
    let inode = fs::metadata(&root).unwrap().ino();
    fs::create_dir_all(root.join("inner/deep/__pycache__")).unwrap();
    fs::write(mine.path().join("kept"), "mine").unwrap();
    symlink(mine.path(), root.join("link")).unwrap();
    for added in ["extra.txt", ".hidden", "inner/extra.txt", "inner/deep/__pycache__/a.pyc"] {
        fs::write(root.join(added), "hi").unwrap();
    }
    store.artifact(&digest, work.path()).await.unwrap();
    is_as_made();
    assert_eq!(fs::metadata(&root).unwrap().ino(), inode, "who is in the folder stays in it");

    fs::remove_dir_all(root.join("inner")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    store.artifact(&digest, work.path()).await.unwrap();
    is_as_made();

    fs::remove_dir_all(&root).unwrap();
    symlink(mine.path(), &root).unwrap();
    store.artifact(&digest, work.path()).await.unwrap();
    is_as_made();
    assert_eq!(names(mine.path()), ["kept"], "where a link leads, nothing is removed");
}

#[test]
fn a_torn_checkpoint_gives_way_to_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let checkpoints = store.checkpoints(&Digest::of(b"x"), None, folder.path());
    assert_eq!(furthest(&checkpoints, 9), None);
    ["1", "2", "3"].iter().for_each(|step| save(&checkpoints, step));
    let newest = checkpoints.furthest(&|_| Some(0)).unwrap().unwrap().folder.join("step");
    assert_eq!(fs::read_to_string(&newest).unwrap(), "3");
    fs::write(&newest, "4").unwrap();
    assert_eq!(furthest(&checkpoints, 9).unwrap(), "2");
    checkpoints.committed();
    assert_eq!(furthest(&checkpoints, 9), None);
}

#[test]
fn work_that_goes_further_takes_over_what_its_kin_saved_and_leaves_it_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_local(folder.path()).unwrap();
    let kin = Digest::of(b"kin");
    let of = |name: &[u8]| store.checkpoints(&Digest::of(name), Some(&kin), folder.path());
    let (short, long) = (of(b"short"), of(b"long"));
    ["2", "3"].iter().for_each(|step| save(&short, step));
    short.committed();
    assert_eq!(furthest(&long, 9).unwrap(), "3");
    assert_eq!(furthest(&long, 2), None, "what it has come past is of no use, and gone");
    ["4", "5", "6"].iter().for_each(|step| save(&long, step));
    assert_eq!(furthest(&short, 3).unwrap(), "3", "each writes into a folder of its own");
    assert_eq!(furthest(&of(b"longer"), 9).unwrap(), "6");

    let stranger = store.checkpoints(&Digest::of(b"long"), Some(&Digest::of(b"others")), folder.path());
    assert_eq!(furthest(&stranger, 9), None);
    assert_eq!(furthest(&store.checkpoints(&Digest::of(b"long"), None, folder.path()), 9), None);
}

#[test]
fn a_store_that_went_away_is_told_as_the_environments_doing_wherever_it_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Store::open_local(&root).unwrap();
    fs::rename(&root, folder.path().join("away")).unwrap();
    let missed = [store.try_share().err(), store.share().err(), store.claim(&Digest::of(b"key")).err()];
    for failure in missed {
        let failure = failure.unwrap();
        assert_eq!((failure.class.name(), failure.code.as_str()), ("environment", "store/gone"), "{failure}");
    }
}
