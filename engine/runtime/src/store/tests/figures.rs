//! What the store costs, printed: `cargo test --release -p llmflow-runtime store::tests::figures -- --ignored --nocapture`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use llmflow_contract::{AnyMade, Digest, Facts, Kind, Port};

use super::record;
use crate::store::Store;

const STAGES: u64 = 1000;

/// A file of 2 KB and a report, as a small stage gives them.
fn outputs(store: &Store, stage: u64) -> Vec<(Port, AnyMade)> {
    let made = |port: &str, kind: &str, bytes: usize| {
        let folder = store.temporary(port).unwrap();
        fs::write(folder.join(format!("{port}.bin")), format!("{stage:0bytes$}")).unwrap();
        let (kind, facts, references) = (Kind::new(kind), Facts::default(), BTreeMap::new());
        (Port::from(port), AnyMade { kind, folder, facts, references })
    };
    vec![made("out", "model", 2000), made("report", "report", 300)]
}

/// Seconds a stage to publish and commit, without what the operator does itself.
async fn publishing(store: &Store) -> f64 {
    let mut spent = Duration::ZERO;
    for stage in 0..STAGES {
        let outputs = outputs(store, stage);
        let began = Instant::now();
        let published = store.publish_all(&outputs).await.unwrap();
        let mut record = record(&Digest::of(&stage.to_le_bytes()), published[0].0, "figures");
        record.side.insert(Port::from("report"), published[1].0);
        store.commit(&record).await.unwrap();
        spent += began.elapsed();
        for (_, made) in outputs {
            fs::remove_dir_all(made.folder).unwrap();
        }
    }
    spent.as_secs_f64() / STAGES as f64
}

fn milliseconds(label: &str, times: u64, call: impl FnOnce()) {
    let began = Instant::now();
    call();
    println!("{label}: {:.2} ms for {times}", began.elapsed().as_secs_f64() * 1e3);
}

async fn figures(place: &Path) {
    let (folder, home) = (tempfile::tempdir_in(place).unwrap(), tempfile::tempdir_in(place).unwrap());
    let store = Store::open_local(folder.path()).unwrap().in_home(home.path());
    println!("{}", place.display());
    println!("publish and commit: {:.3} ms a stage", publishing(&store).await * 1e3);
    let keys: Vec<Digest> = (0..STAGES).map(|stage| Digest::of(&stage.to_le_bytes())).collect();
    let began = Instant::now();
    assert!(store.key_records(&keys).await.unwrap().iter().all(Option::is_some));
    println!("records with what they name: {:.2} ms for {STAGES}", began.elapsed().as_secs_f64() * 1e3);
    let again = Store::open_local(folder.path()).unwrap().in_home(home.path());
    let blobs: Vec<_> = again.disk().unwrap().list("blobs").unwrap();
    let known: Vec<_> =
        blobs.iter().map(|blob| (folder.path().join(&blob.key), blob.key[9..].parse().unwrap())).collect();
    milliseconds("vouched, with reading what is known", known.len() as u64, || {
        assert!(known.iter().all(|(path, digest)| again.vouched().vouches(path, digest)));
    });
    std::thread::sleep(Duration::from_millis(30));
    milliseconds("epoch", 1, || assert!(store.epoch().is_some()));
}

#[tokio::test]
#[ignore = "prints figures, for a quiet machine"]
async fn on_this_disk_and_without_one() {
    figures(Path::new("/dev/shm")).await;
    figures(Path::new(".")).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    fs::write(&path, vec![7; 1 << 30]).unwrap();
    let began = Instant::now();
    Digest::of_file(&path).unwrap();
    println!("hashing: {:.2} GB/s", 1.0737 / began.elapsed().as_secs_f64());
}
