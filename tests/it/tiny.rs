//! `tiny.yaml`, the first pipeline anybody runs, from nothing to a served model.

use std::{collections::BTreeMap, fs, path::PathBuf, time::SystemTime};

use crate::project::{Project, files_below, stages_with};

/// Size and time of every file below a folder: what a run that changes nothing leaves as it was.
fn stamps(project: &Project, inner: &str) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let stamp = |path: PathBuf| {
        let meta = fs::metadata(&path).unwrap();
        (path, (meta.len(), meta.modified().unwrap()))
    };
    files_below(&project.path(inner)).into_iter().map(stamp).collect()
}

#[test]
fn the_first_pipeline_runs_from_a_fresh_clone_and_a_second_run_has_nothing_to_do() {
    let project = Project::teaching();
    let first = project.succeeds("run pipelines/tiny.yaml --json");
    let events = first.events();
    let planned = events[0]["plan"]["stages"].as_array().expect("the first event holds the plan");
    let mut finished = stages_with(&events, "finished");
    finished.sort();
    let mut all: Vec<_> = planned.iter().map(|stage| stage["stage"].as_str().unwrap().to_owned()).collect();
    all.sort();
    assert_eq!(finished, all, "every stage ran");
    let gguf = fs::read(project.path("pipelines/out/tiny.gguf")).unwrap();
    assert_eq!(&gguf[..4], b"GGUF");
    for report in ["pipelines/out/tiny.html", "pipelines/out/tiny.md"] {
        assert!(fs::read_to_string(project.path(report)).unwrap().contains("verdict"), "{report}");
    }

    let (store, out) = (stamps(&project, ".llmflow/store"), stamps(&project, "pipelines/out"));
    let second = project.succeeds("run pipelines/tiny.yaml");
    assert!(second.err.contains("nothing to do"), "{}", second.err);
    let second = project.succeeds("run pipelines/tiny.yaml --json");
    assert_eq!(stages_with(&second.events(), "started"), [""; 0], "no worker starts");
    assert_eq!(stamps(&project, ".llmflow/store"), store, "the store is as it was");
    assert_eq!(stamps(&project, "pipelines/out"), out, "what is published is as it was");

    lineage_answers(&project);
}

/// Everything behind the shipped file is named, and the newest run is in the list.
fn lineage_answers(project: &Project) {
    let lineage = project.succeeds("lineage @/gguf").out;
    for stage in ["gguf", "assistant", "dpo", "sft", "base", "tokenizer", "docs", "rows"] {
        assert!(lineage.contains(stage), "`{stage}` is behind the gguf:\n{lineage}");
    }
    assert!(project.succeeds("runs").out.contains("done"));
    assert!(project.succeeds("show @/sft").out.contains("train.sft"));
}
