//! Whole runs on a store that fails as networks and disks do, by seed: run again until done, what comes of it is what an
//! undisturbed run gives, and every failure on the way is the environment's.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use llmflow_contract::{Class, Digest};

use super::{ended, jumping_clock, operators, run_here};
use crate::{
    run::Error,
    store::{
        Store, put_memory,
        tests::faults::{FaultStore, seeds},
    },
};

/// Of a hundred calls so many go wrong; a run makes about a hundred.
const FAULTS_PERCENT: u32 = 4;
/// A run of many is done sooner.
const MOST_RUNS: usize = 60;

/// What came of one seed.
#[derive(Default)]
struct Tale {
    outputs: BTreeMap<String, Vec<Digest>>,
    /// Runs that did not end well.
    broken: u64,
    faults: u64,
}

async fn tell(seed: u64, percent: u32) -> Tale {
    let name = format!("broken-{seed}-{percent}");
    let faults = Arc::new(FaultStore::new(seed, percent));
    put_memory(&name, faults.clone());
    let folder = tempfile::tempdir().unwrap();
    let text = format!("store: \"memory://{name}\"\n{}", operators::PIPELINE);
    std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
    let mut tale = Tale::default();
    for _ in 0..MOST_RUNS {
        let (outcome, events) = run_here(folder.path()).await;
        tale.outputs.extend(ended(&events));
        match outcome {
            Ok(outcome) if outcome.exit_code == 0 => {
                tale.faults = faults.struck();
                return tale;
            }
            Ok(outcome) => {
                for failure in outcome.stages.iter().filter_map(|stage| stage.failure.as_ref()) {
                    assert_eq!(failure.class, Class::Environment, "seed {seed}: {failure:?}");
                }
            }
            Err(Error::Failure(failure)) => {
                assert_eq!(failure.class, Class::Environment, "seed {seed}: {failure:?}");
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
        tale.broken += 1;
    }
    panic!("seed {seed} is not done after {MOST_RUNS} runs");
}

/// The text of the last stage, as a home that has nothing yet reads it.
async fn read(name: &str, digest: &Digest) -> String {
    let work = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("memory://{name}")).unwrap().in_home(work.path());
    let artifact = store.artifact(digest, work.path()).await.unwrap();
    std::fs::read_to_string(Path::new(&artifact.file("text").unwrap())).unwrap()
}

#[tokio::test]
async fn whatever_a_store_does_a_run_ends_as_an_undisturbed_one_or_says_why_not() {
    let _clock = jumping_clock();
    let undisturbed = tell(0, 0).await;
    assert_eq!((undisturbed.outputs.len(), undisturbed.broken), (operators::STAGES, 0));
    let text = read("broken-0-0", &undisturbed.outputs["most"][0]).await;
    assert_eq!(text, "one and two or one but one and two");
    let (mut faults, mut broken) = (0, 0);
    for seed in 0..seeds() / 50 {
        let tale = tell(seed, FAULTS_PERCENT).await;
        assert_eq!(tale.outputs, undisturbed.outputs, "seed {seed}");
        faults += tale.faults;
        broken += tale.broken;
    }
    assert!(faults > 10 && broken > 1, "{faults} faults and {broken} broken runs are too few to mean anything");
    println!("{faults} faults, {broken} runs that did not end well");
}
