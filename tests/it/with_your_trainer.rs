//! `with_your_trainer.yaml`: programs of the user's own as stages, and what an edit of one runs again.

use std::{fs, process::Command};

use crate::project::{Project, stages_with};

pub fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|done| done.status.success());
    if !found {
        eprintln!("skipped: there is no python3");
    }
    found
}

#[test]
fn a_trainer_of_the_users_own_is_a_stage_like_any_other() {
    if !has_python() {
        return;
    }
    let project = Project::teaching();
    let first = project.succeeds("run pipelines/with_your_trainer.yaml --json");
    let mut finished = stages_with(&first.events(), "finished");
    finished.sort();
    assert_eq!(finished, ["model", "rows", "split", "tidy"]);
    let config = fs::read_to_string(project.path("pipelines/out/bigram/config.json")).unwrap();
    assert!(config.contains("ByteBigram"), "{config}");
    let shown = project.succeeds("show @/model").out;
    assert!(shown.contains("bits_per_byte"), "{shown}");

    let again = project.succeeds("run pipelines/with_your_trainer.yaml --json");
    assert_eq!(stages_with(&again.events(), "started"), [""; 0], "nothing is run twice");

    // The script is part of the key: an edit runs its stage again, and its stage alone.
    let script = project.path("pipelines/data/trainer/bigram.py");
    let edited = fs::read_to_string(&script).unwrap().replace("for _ in range(5)", "for _ in range(6)");
    fs::write(&script, edited).unwrap();
    let edited = project.succeeds("run pipelines/with_your_trainer.yaml --json");
    assert_eq!(stages_with(&edited.events(), "started"), ["model"]);
}

#[test]
fn a_trainer_that_fails_says_what_it_said_last() {
    if !has_python() {
        return;
    }
    let project = Project::teaching();
    fs::write(project.path("pipelines/data/trainer/bigram.py"), "raise SystemExit('no more ideas')\n").unwrap();
    let done = project.llmflow("run pipelines/with_your_trainer.yaml");
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("no more ideas"), "{}", done.err);
    assert!(!project.path("pipelines/out/bigram").exists());
}
