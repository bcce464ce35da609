//! What decides which stages run: `when`, `matrix`, `frozen`, `cache: false`, `--only`, `--from`, `--force`, `--limit`.

use std::collections::BTreeMap;

use crate::project::{Done, Project, stages_with};

const PIPELINE: &str = r#"
params: { least: 4, clean_it: true }
stages:
  rows: { op: data.load, with: { path: rows.jsonl, format: text } }
  clean:
    op: data.filter
    in: rows
    when: "params.clean_it and rows.rows > 1"
    with: { min_words: "${params.least}" }
  swept:
    op: data.filter
    in: rows
    matrix: { words: [1, 2, 3] }
    with: { min_words: "${matrix.words}" }
  all: { op: data.dedup, in: [clean, swept] }
publish: { all: out/all/ }
"#;

fn project() -> Project {
    let project = Project::with(PIPELINE);
    let rows: String = (0..9).map(|row| format!("{{\"text\": \"row {row} says hello\"}}\n")).collect();
    project.write("rows.jsonl", rows);
    project
}

/// Stages that started, and those that were skipped with why.
fn went(done: &Done) -> (Vec<String>, BTreeMap<String, String>) {
    let events = done.events();
    let mut started = stages_with(&events, "started");
    started.sort();
    let skipped = events.iter().filter(|event| event["event"] == "skipped");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (started, skipped.map(|event| (text(&event["stage"]), text(&event["because"]))).collect())
}

const SWEPT: [&str; 3] = ["swept@words=1", "swept@words=2", "swept@words=3"];

#[test]
fn a_stage_whose_when_is_false_is_skipped_and_what_gathers_goes_on_without_it() {
    let project = project();
    let (started, skipped) = went(&project.succeeds("run pipeline.yaml --json --set clean_it=false"));
    assert_eq!(started, ["all", "rows", SWEPT[0], SWEPT[1], SWEPT[2]]);
    assert!(skipped["clean"].contains("is false"), "{skipped:?}");
    let (started, skipped) = went(&project.succeeds("run pipeline.yaml --json"));
    assert_eq!((started, skipped.len()), (vec!["all".to_owned(), "clean".to_owned()], 0), "its when reads a metric");
    let nothing = project.succeeds("run pipeline.yaml");
    assert!(nothing.err.contains("nothing to do: 6 of 6 cached"), "{}", nothing.err);
    let without = project.succeeds("run pipeline.yaml --set clean_it=false").err;
    assert!(without.contains("nothing left to run"), "the history tells of a stage that is skipped now: {without}");
    assert!(project.succeeds("run pipeline.yaml --set clean_it=false").err.contains("nothing to do"));
}

#[test]
fn only_from_and_force_choose_what_runs() {
    let project = project();
    let (started, skipped) = went(&project.succeeds("run pipeline.yaml --json --only swept"));
    assert_eq!(started, ["rows", SWEPT[0], SWEPT[1], SWEPT[2]]);
    assert_eq!(skipped["all"], "not asked for");
    project.succeeds("run pipeline.yaml");
    let (started, _) = went(&project.succeeds("run pipeline.yaml --json --only clean --force"));
    assert_eq!(started, ["clean"], "its bytes are the same, so nothing below it runs");
    let (started, _) = went(&project.succeeds("run pipeline.yaml --json --from clean --force"));
    assert_eq!(started, ["all", "clean"]);
    let refused = project.llmflow("run pipeline.yaml --only swep");
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("there is no stage `swep`") && refused.err.contains("swept"), "{}", refused.err);
}

#[test]
fn a_rehearsal_has_keys_of_its_own_and_publishes_nothing() {
    let project = project();
    let done = project.succeeds("run pipeline.yaml --limit 2 --json");
    assert!(stages_with(&done.events(), "finished").contains(&"all".to_owned()));
    assert!(!project.path("out").exists());
    assert!(project.succeeds("runs").out.contains("limited to 2"));
    let (started, _) = went(&project.succeeds("run pipeline.yaml --json"));
    assert!(started.contains(&"rows".to_owned()), "all of the rows are other work than two of them");
    assert!(project.path("out/all").exists());
}

#[test]
fn what_is_frozen_stays_and_what_is_never_cached_runs_each_time() {
    let project = project();
    project.succeeds("run pipeline.yaml");
    let frozen = PIPELINE.replace("    in: rows\n    when", "    frozen: true\n    in: rows\n    when");
    project.write("pipeline.yaml", &frozen);
    let (started, _) = went(&project.succeeds("run pipeline.yaml --json --set least=5"));
    assert!(started.is_empty(), "a frozen stage does not run for another param: {started:?}");
    let runs = project.succeeds("runs --json").out;
    project.write("pipeline.yaml", format!("{frozen}# a remark\n"));
    project.succeeds("run pipeline.yaml --set least=5");
    assert_eq!(project.succeeds("runs --json").out, runs, "what the history tells already is not told again");
    let never_cached = PIPELINE.replace("    in: rows\n    when", "    cache: false\n    in: rows\n    when");
    project.write("pipeline.yaml", never_cached);
    for _ in 0..2 {
        let (started, _) = went(&project.succeeds("run pipeline.yaml --json"));
        assert_eq!(started, ["clean"], "every time, and what reads the same bytes does not");
    }
}

#[test]
fn what_is_frozen_is_a_result_of_the_same_file_asked_the_same_way() {
    let project =
        Project::with("name: same\nstages:\n  rows: {op: data.load, frozen: true, with: {path: rows.jsonl}}\n");
    let rows = |name: &str, count: usize| {
        let text: String = (0..count).map(|row| format!("{{\"text\": \"{name} {row}\"}}\n")).collect();
        project.write(name, text);
    };
    rows("rows.jsonl", 9);
    rows("others.jsonl", 4);
    let given = || project.succeeds("show @/rows --rows 20").out;
    project.succeeds("run pipeline.yaml --limit 2");
    project.succeeds("run pipeline.yaml");
    assert!(given().contains("rows.jsonl 8"), "a rehearsal's rows are no result");
    let text = std::fs::read_to_string(project.path("pipeline.yaml")).unwrap();
    project.write("other.yaml", text.replace("rows.jsonl", "others.jsonl"));
    project.succeeds("run other.yaml");
    assert!(given().contains("others.jsonl 3"), "the other file of this name has a result of its own");
    std::fs::remove_file(project.path("others.jsonl")).unwrap();
    let (started, _) = went(&project.succeeds("run other.yaml --json"));
    assert!(started.is_empty(), "what it was made from may go");
    project.write(
        "other.yaml",
        text.replace("path: rows.jsonl", "path: none.jsonl").replace("frozen: true", "frozen: false"),
    );
    assert_eq!(project.llmflow("run other.yaml").code, Some(2), "where nothing is frozen it may not");
}

const GATED: &str = r#"
stages:
  first: { op: data.load, with: { path: in.jsonl, format: text } }
  last:
    op: run.command
    in: { rows: first }
    with: { command: [sh, -c, "test -e READY && cp {in.rows} {out.rows}"], outputs: { rows: dataset/text } }
  other: { op: data.load, with: { path: in.jsonl, format: text, max_rows: 1 } }
"#;

#[test]
fn resume_asks_for_the_same_stages_and_forces_none_of_them_twice() {
    let project = Project::with("");
    let ready = project.path("ready");
    project.write("pipeline.yaml", GATED.replace("READY", &ready.to_string_lossy()));
    project.write("in.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    assert_eq!(project.llmflow("run pipeline.yaml --only last --force").code, Some(1));
    std::fs::write(&ready, "").unwrap();
    let (started, skipped) = went(&project.succeeds("resume --json"));
    assert_eq!(started, ["last"], "what was forced and done is not done again");
    assert_eq!(skipped["other"], "not asked for");
    let none = project.llmflow("resume");
    assert_eq!(none.code, Some(2), "it was gone on with already: {}", none.err);
    std::fs::remove_file(&ready).unwrap();
    assert_eq!(project.llmflow("run pipeline.yaml --force").code, Some(1));
    std::fs::write(&ready, "").unwrap();
    let (started, _) = went(&project.succeeds("resume --json"));
    assert_eq!(started, ["last"], "and what was forced and not done is done");
}
