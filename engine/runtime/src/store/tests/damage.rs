//! Every stored object damaged in every way: found before use, out of the way, and healed by making it anew.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use llmflow_contract::Digest;

use super::{made, publish, record};
use crate::store::{Store, is_damage};

const KEY: &[u8] = b"key";

/// Makes what a small stage makes.
async fn produce(store: &Store) -> Digest {
    let (base, _) = publish(store, &made(store, "base", BTreeMap::new())).await.unwrap();
    let references = BTreeMap::from([("base".into(), base)]);
    let (output, _) = publish(store, &made(store, "tuned", references)).await.unwrap();
    store.commit(&record(&Digest::of(KEY), output, "machine")).await.unwrap();
    output
}

/// Uses it as a run does: record first, then every file. False: something is to be made anew.
async fn is_usable(store: &Store, work: &Path) -> bool {
    let Some(record) = store.key_record(&Digest::of(KEY)).await.unwrap() else { return false };
    assert_eq!((record.machine.as_str(), record.seconds), ("machine", 1.0), "a damaged record was believed");
    let output = record.outputs.values().next().unwrap();
    let artifact = match store.artifact(output, work).await {
        Ok(artifact) => artifact,
        Err(failure) => {
            assert!(is_damage(&failure), "{failure:?}");
            return false;
        }
    };
    let base = artifact.reference("base").unwrap();
    for (artifact, text) in [(&artifact, "tuned"), (base, "base")] {
        assert_eq!(fs::read_to_string(artifact.file("b.txt").unwrap()).unwrap(), text);
        assert_eq!(fs::read_to_string(artifact.file("inner/a.txt").unwrap()).unwrap(), "same");
    }
    true
}

/// Records, manifests and blobs.
fn objects(store: &Store) -> Vec<PathBuf> {
    let listed = |prefix: &str| store.disk().unwrap().list(prefix).unwrap();
    let all = ["keys", "artifacts", "blobs"].map(listed);
    all.iter().flatten().map(|object| store.local().unwrap().join(&object.key)).collect()
}

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Damages each object by `damage` and checks that it is found and healed. Gives how many objects there were.
async fn every_object_survives(damage: impl Fn(&Path, &[u8], &[u8]) -> Vec<u8>) -> usize {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_local(folder.path()).unwrap().in_home(home.path());
    produce(&store).await;
    assert!(is_usable(&store, home.path()).await);
    let all = objects(&store);
    for (number, path) in all.iter().enumerate() {
        let good = fs::read(path).unwrap();
        let other = fs::read(&all[(number + 1) % all.len()]).unwrap();
        overwrite(path, &damage(path, &good, &other));
        assert!(!is_usable(&store, home.path()).await, "{} was used", path.display());
        produce(&store).await;
        assert!(is_usable(&store, home.path()).await, "{} was not healed", path.display());
        assert_eq!(fs::read(path).unwrap(), good);
    }
    all.len()
}

#[tokio::test]
async fn every_flipped_bit_is_found_before_use_and_healed() {
    for bit in [0, 3, 7] {
        let flip = move |_: &Path, good: &[u8], _: &[u8]| {
            let mut bad = good.to_vec();
            let at = good.len() * bit / 8;
            bad[at] ^= 1 << bit;
            bad
        };
        assert_eq!(every_object_survives(flip).await, 1 + 2 + 3);
    }
}

#[tokio::test]
async fn objects_cut_short_made_longer_emptied_or_swapped_are_found_before_use_and_healed() {
    every_object_survives(|_, good, _| good[..good.len() - 1].to_vec()).await;
    every_object_survives(|_, good, _| [good, b"\n"].concat()).await;
    every_object_survives(|_, _, _| Vec::new()).await;
    every_object_survives(|_, good, _| vec![0; good.len()]).await;
    every_object_survives(|_, _, other| other.to_vec()).await;
}

/// The same bytes come back with the stamp of the damaged file known: only the stamp decides, never the size.
#[tokio::test]
async fn without_its_stamps_the_check_would_pass_over_damage() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_local(folder.path()).unwrap().in_home(home.path());
    produce(&store).await;
    assert!(is_usable(&store, home.path()).await);
    let blob = objects(&store).into_iter().find(|path| fs::read(path).unwrap() == b"tuned").unwrap();
    overwrite(&blob, b"TUNED");
    store.vouched().note(&blob, &Digest::of(b"tuned")); // a lie: it is believed, so the check is what finds damage
    let record = store.key_record(&Digest::of(KEY)).await.unwrap().unwrap();
    let artifact = store.artifact(record.outputs.values().next().unwrap(), home.path()).await.unwrap();
    assert_eq!(fs::read_to_string(artifact.file("b.txt").unwrap()).unwrap(), "TUNED");
}

#[tokio::test]
async fn every_lost_object_is_made_anew() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_local(folder.path()).unwrap().in_home(home.path());
    produce(&store).await;
    for path in objects(&store) {
        fs::remove_file(&path).unwrap();
        assert!(!is_usable(&store, home.path()).await, "{} was not missed", path.display());
        produce(&store).await;
        assert!(is_usable(&store, home.path()).await);
    }
    fs::remove_dir_all(folder.path().join("blobs")).unwrap();
    produce(&store).await;
    assert!(is_usable(&store, home.path()).await);
}

#[tokio::test]
async fn what_cannot_be_read_is_no_damage_and_stays() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_local(folder.path()).unwrap().in_home(home.path());
    produce(&store).await;
    for path in objects(&store).into_iter().filter(|path| !path.starts_with(folder.path().join("blobs"))) {
        // A folder in its place cannot be read as a file, not even by root.
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        fs::create_dir(&path).unwrap();
        let failure = store.key_record(&Digest::of(KEY)).await.unwrap_err();
        assert!(!is_damage(&failure), "{failure:?}");
        assert!(path.is_dir(), "it stays where it is");
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    assert!(is_usable(&store, home.path()).await);
}
