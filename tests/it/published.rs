//! What `publish` puts where the user wants it, in a form that other tools read.

use llmflow_contract::Digest;
use serde_json::Value;

use crate::project::Project;

const PIPELINE: &str = "stages:\n  rows: {op: data.load, with: {path: rows.jsonl}}\npublish:\n  rows: PATHS\n";

fn project(paths: &str) -> Project {
    let project = Project::with(&PIPELINE.replace("PATHS", paths));
    let rows: String = (0..9).map(|row| format!("{{\"text\": \"row {row}\"}}\n")).collect();
    project.write("rows.jsonl", rows);
    project
}

#[test]
fn rows_are_published_in_the_form_that_the_ending_names() {
    let project = project("[out/rows.jsonl, out/rows.parquet, out/rows/]");
    project.succeeds("run pipeline.yaml");
    let text = std::fs::read_to_string(project.path("out/rows.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() == 9 && rows[8]["text"] == "row 8", "{text}");
    project.succeeds("export @/rows exported.jsonl");
    assert_eq!(std::fs::read_to_string(project.path("exported.jsonl")).unwrap(), text);
    for parquet in ["out/rows.parquet", "out/rows/part-00000.parquet"] {
        assert!(std::fs::read(project.path(parquet)).unwrap().starts_with(b"PAR1"), "{parquet}");
    }
    let stamp = || std::fs::metadata(project.path("out/rows.jsonl")).unwrap().modified().unwrap();
    let before = stamp();
    project.write("pipeline.yaml", format!("# a remark\n{}", PIPELINE.replace("PATHS", "out/rows.jsonl")));
    project.succeeds("run pipeline.yaml");
    assert_eq!(stamp(), before, "what lies there already is not written again");
    project.write("out/rows.jsonl", "edited\n");
    project.succeeds("run pipeline.yaml");
    assert_eq!(Digest::of(&std::fs::read(project.path("out/rows.jsonl")).unwrap()), Digest::of(text.as_bytes()));
}

#[test]
fn a_form_that_does_not_exist_is_refused_before_anything_runs() {
    for (item, code) in [
        ("rows: out/rows.csv", "publish/rows"),
        ("report: out/report.pdf", "publish/report"),
        ("report: \"s3://bucket/report.html\"", "publish/report"),
    ] {
        let project = project("out/rows/");
        project.write("pipeline.yaml", PIPELINE.replace("rows: PATHS", item));
        let done = project.llmflow("check pipeline.yaml");
        assert_eq!(done.code, Some(2), "{item}");
        assert!(done.err.contains(code) && done.err.contains("pipeline.yaml:4"), "{item}: {}", done.err);
    }
}
