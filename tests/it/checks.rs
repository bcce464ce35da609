//! The pipelines that take too long to run in a test are checked and planned as they lie in the repository.

use serde_json::Value;

use crate::project::{Project, repository};

/// The files, each with how many stages it has at least.
const TEACHING: [(&str, usize); 4] =
    [("tiny", 13), ("assistant", 13), ("assistant_control", 13), ("with_your_trainer", 4)];

#[test]
fn every_teaching_pipeline_passes_check_and_can_be_planned() {
    let project = Project::teaching();
    for (name, least) in TEACHING {
        let checked = project.succeeds(&format!("check pipelines/{name}.yaml"));
        assert!(checked.err.contains("ok: "), "{}", checked.err);
        let plan: Value =
            serde_json::from_str(&project.succeeds(&format!("plan pipelines/{name}.yaml --json")).out).unwrap();
        let stages = plan["stages"].as_array().unwrap();
        assert!(stages.len() >= least, "{name} has {} stages", stages.len());
        assert!(stages.iter().all(|stage| stage["will"]["will"] != "cached"), "{name}: nothing has run yet");
    }
    assert_eq!(project.committed(), 0, "neither command runs anything");
}

#[test]
fn no_teaching_pipeline_is_left_out_of_these_tests() {
    let folder = std::fs::read_dir(repository().join("pipelines")).unwrap();
    let names = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned));
    for name in names {
        assert!(TEACHING.iter().any(|(known, _)| *known == name), "{name}.yaml is tested nowhere");
    }
}

#[test]
fn the_control_shares_every_stage_with_the_assistant_that_its_rows_do_not_reach() {
    let project = Project::teaching();
    let key_of = |pipeline: &str, stage: &str| {
        let plan: Value =
            serde_json::from_str(&project.succeeds(&format!("plan pipelines/{pipeline}.yaml --json")).out).unwrap();
        let stages = plan["stages"].as_array().unwrap().clone();
        let found = stages.into_iter().find(|found| found["stage"] == stage).unwrap();
        found["will"]["key"].as_str().expect("a source's key is known before anything runs").to_owned()
    };
    for stage in ["base", "docs", "general", "questions"] {
        assert_eq!(key_of("assistant", stage), key_of("assistant_control", stage), "{stage}");
    }
    assert_ne!(key_of("assistant", "rows"), key_of("assistant_control", "rows"));
}

#[test]
fn the_editors_schema_is_json_and_knows_the_operators() {
    let schema = Project::with("").succeeds("schema").out;
    let parsed: Value = serde_json::from_str(&schema).unwrap();
    assert!(parsed["properties"]["stages"].is_object(), "{schema}");
    assert!(schema.contains("train.sft") && schema.contains("learning_rate"));
}
