//! Looking back: why two runs differ, where a row went, and a history that was lost.

use std::{fs, process::Command};

use serde_json::Value;

use crate::project::{Done, LLMFLOW, Project};

const PIPELINE: &str = r#"
name: small
params: { least: 2 }
stages:
  rows:
    op: data.load
    with: { path: rows.jsonl, format: text }
  clean:
    op: data.filter
    in: rows
    with: { min_words: "${params.least}" }
  unique:
    op: data.dedup
    in: clean
"#;

const ROWS: &str = r#"{"text": "one"}
{"text": "two words"}
{"text": "three words here"}
{"text": "and now four words"}
"#;

/// Two runs that differ in one param.
fn twice() -> Project {
    let project = Project::with(PIPELINE);
    project.write("rows.jsonl", ROWS);
    project.succeeds("run pipeline.yaml");
    project.succeeds("run pipeline.yaml --set least=3");
    project
}

fn json(project: &Project, words: &str) -> Value {
    serde_json::from_str(&project.succeeds(words).out).unwrap()
}

#[test]
fn diff_names_what_was_changed_and_the_rows_that_went() {
    let project = twice();
    let diff = project.succeeds("diff --rows").out;
    assert!(diff.contains("params.least 2 → 3    (data, program, machine, seed, stages: same)"), "{diff}");
    assert!(diff.contains("clean.data 3 → 2 rows (+0 −1)") && diff.contains("rows.data identical"), "{diff}");
    assert!(diff.contains("two words") && diff.contains("[dropped by "), "{diff}");
    let stage = json(&project, "diff @-1/clean @/clean --json");
    assert_eq!(stage["causes"][0]["what"], "clean.min_words");
    let same = project.succeeds("diff @ @").out;
    assert!(same.contains("nothing that a key knows"), "{same}");
    let first = project.llmflow("diff @-1");
    assert_eq!(first.code, Some(2), "{}", first.err);
}

#[test]
fn diff_names_outputs_without_rows_that_are_not_the_same() {
    let project = Project::with(
        r#"stages: {rnd: {op: run.command, with: {command: [sh, -c, "date +%N > {out.o}/x"], outputs: {o: files}}}}"#,
    );
    project.succeeds("run");
    project.succeeds("run --force");
    let told = project.succeeds("diff").out;
    assert!(told.contains("bytes     rnd.o ") && !told.contains("the same, to the last bit"), "{told}");
    let told = json(&project, "diff --json");
    assert_eq!((&told["artifacts"][0]["name"], &told["identical"]), (&"rnd.o".into(), &false.into()));
    assert!(project.succeeds("diff @ @").out.contains("the same, to the last bit"));
}

/// What no key knows: a condition, and how a stage ended.
#[test]
fn diff_names_a_condition_that_changed_and_the_stages_that_ended_otherwise() {
    let project =
        Project::with(&format!("{PIPELINE}    require: \"kept > 1\"\n  last: {{op: data.filter, in: unique}}\n"));
    project.write("rows.jsonl", ROWS);
    project.succeeds("run");
    let rewrite = |before: &str, now: &str| {
        let text = fs::read_to_string(project.path("pipeline.yaml")).unwrap();
        project.write("pipeline.yaml", text.replace(before, now));
    };
    rewrite("\"kept > 1\"", "['kept > 1']");
    project.succeeds("run --force");
    let quoted = project.succeeds("diff").out;
    assert!(!quoted.contains("require") && quoted.contains("last.data identical"), "{quoted}");
    rewrite("kept > 1", "kept > 100");
    assert_eq!(project.llmflow("run").code, Some(1));
    let diff = project.succeeds("diff").out;
    assert!(diff.contains("unique.require kept > 1 → kept > 100"), "{diff}");
    assert!(diff.contains("ends      unique: done → refused\n           last: done → skipped\n"), "{diff}");
    rewrite("kept > 100", "kept > 1");
    rewrite("  last:", "  added: {op: data.filter, in: unique}\n  last:");
    project.succeeds("run");
    let new = project.succeeds("diff @/added").out;
    assert!(new.contains("stage added is new: data.filter") && !new.contains("same"), "{new}");
}

/// A word of a command that a param gives is that param's, not a cause of its own.
#[test]
fn a_param_within_a_command_is_told_as_the_param_it_is() {
    let text = "params: {n: 2}\nstages:\n  it: {op: run.command, with: {command: [sh, -c, \"mkdir -p $0; echo $1 > $0/n\", \"{out.n}\", \"${params.n}\"], outputs: {n: files}}}\n";
    let project = Project::with(text);
    project.succeeds("run");
    let plan = project.succeeds("plan --set n=3").out;
    assert!(plan.contains("(with params.n,") && plan.contains("pipeline.yaml:1, set by --set)"), "{plan}");
    project.succeeds("run --set n=3");
    let diff = project.succeeds("diff").out;
    assert!(diff.contains("params.n 2 → 3") && !diff.contains("command"), "{diff}");
    let explained = project.succeeds("explain @/it").out;
    assert!(explained.contains("with params.n, pipeline.yaml:1") && !explained.contains("back:"), "{explained}");
}

/// One that somebody else owns, or that lies on a medium, is looked at and left as it is.
#[test]
fn a_home_that_may_not_be_written_can_be_looked_at() {
    let project = twice();
    project.write("late.sh", format!(
        "mount --bind .llmflow .llmflow && mount -o remount,ro,bind .llmflow || exit 77\n\
         for words in runs show 'show @/clean' 'explain @/clean' diff 'logs @/clean' 'lineage @/clean' 'export @/clean there.jsonl' verify 'gc --dry-run'\n\
         do {LLMFLOW} $words >>said 2>&1 || {{ echo $words failed >>said; exit 1; }}; done\n\
         [ -f \"$({LLMFLOW} show @ --open)\" ] || {{ echo no report stays >>said; exit 1; }}\n\
         {LLMFLOW} run pipeline.yaml >>said 2>&1; [ $? = 3 ] || exit 1\n\
         {LLMFLOW} doctor >>said 2>&1; [ $? = 3 ] || exit 1\n"
    ));
    let before = project.digests(".llmflow");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "late.sh"]);
    project.settle(&mut command);
    let done = Done::of(&command.output().unwrap());
    if done.code == Some(77) || done.err.contains("unshare") {
        eprintln!("skipped: this user may not mount a folder");
        return;
    }
    let said = fs::read_to_string(project.path("said")).unwrap();
    assert_eq!(done.code, Some(0), "{said}{}", done.err);
    assert!(said.contains("may be read, not written") && said.contains("params.least 2 → 3"), "{said}");
    assert!(project.path("there.jsonl").is_file());
    assert_eq!(project.digests(".llmflow"), before);
}

/// What the newest run has of a pipeline is what is there, whoever made it and however often the file went to and fro.
#[test]
fn a_run_with_nothing_left_to_do_is_recorded_where_the_history_says_something_else() {
    let project = twice();
    let count = || json(&project, "runs --json").as_array().unwrap().len();
    let back = project.succeeds("run pipeline.yaml");
    assert!(back.err.contains("3 stages, nothing left to run"), "{}", back.err);
    assert_eq!(count(), 3);
    let given = |run: &str| json(&project, &format!("show {run}/clean --json"))["outputs"].clone();
    assert!(given("@").is_array() && given("@") == given("@-2") && given("@") != given("@-1"));
    assert!(project.succeeds("run pipeline.yaml").err.contains("nothing to do"));
    project.write("pipeline.yaml", format!("{PIPELINE}# the same, with a remark\n"));
    assert!(project.succeeds("run pipeline.yaml").err.contains("nothing to do"), "the history says it all");
    assert_eq!(count(), 3);

    // A proof that nothing changed does not outlive a run of another version.
    project.llmflow("run pipeline.yaml --set least=-1");
    project.write("rows.jsonl", "no JSON");
    assert_eq!(project.llmflow("run pipeline.yaml").code, Some(1));
    project.write("rows.jsonl", ROWS);
    project.succeeds("run pipeline.yaml");
    assert_eq!(json(&project, "show @ --json")["status"], "done");

    for file in ["lineage.db", "lineage.db-wal", "lineage.db-shm"] {
        let _ = fs::remove_file(project.path(&format!(".llmflow/{file}")));
    }
    let lost = project.succeeds("run pipeline.yaml");
    assert!(lost.err.contains("3 stages, nothing left to run"), "{}", lost.err);
    assert_eq!(count(), 1);
}

#[test]
fn explain_follows_an_input_up_to_what_changed_and_says_the_way_back() {
    let project = twice();
    let told = project.succeeds("explain @/unique").out;
    assert!(told.contains("in.data") && told.contains("↳ clean.min_words"), "{told}");
    assert!(told.contains("back: --set least=2"), "{told}");
    project.succeeds("run pipeline.yaml --set least=2");
    let plan = project.succeeds("plan pipeline.yaml --set least=2").out;
    assert!(plan.contains("nothing to do"), "the way back leads back: {plan}");
}

/// Labels are in the key, and what is told of an input names its own.
#[test]
fn an_input_that_goes_by_a_label_is_told_of_by_it() {
    let text = |read: &str| {
        format!(
            "stages:\n  talk: {{op: data.load, with: {{path: talk.txt}}}}\n  code: {{op: data.load, with: {{path: code.txt}}}}\n  both: {{op: data.dedup, in: {read}}}\n"
        )
    };
    let project = Project::with(&text("{data: {talk: talk, code: code}}"));
    project.write("talk.txt", "well, hello");
    project.write("code.txt", "fn main() {}");
    project.succeeds("run");
    project.write("pipeline.yaml", text("{talk: talk, code: code}"));
    assert!(project.succeeds("plan").out.contains("nothing to do"), "its only port takes many: the same, said shorter");
    // Of equal rows `data.dedup` keeps the first: the order is the file's.
    assert!(project.succeeds("show @/both --rows 1").out.contains("well, hello"));

    project.write("code.txt", "fn main() { loop {} }");
    project.succeeds("run");
    let told = project.succeeds("explain @/both").out;
    assert!(told.contains("in.data.code") && told.contains("given by code"), "{told}");
    assert!(!told.split("same:").next().unwrap().contains("in.data.talk"), "{told}");
    let shown = project.succeeds("show @/both").out;
    assert!(shown.contains("code ← code.data") && shown.contains("talk ← talk.data"), "{shown}");

    project.succeeds("doctor --rebuild");
    assert_eq!(project.succeeds("show @/both").out, shown, "run records keep labels");

    project.write("pipeline.yaml", text("[talk, code]"));
    let plan = project.succeeds("plan").out;
    assert!(plan.contains("both") && plan.contains("in.data.code"), "without labels the key is another: {plan}");
    project.succeeds("run");
    let causes = project.succeeds("diff").out;
    assert!(causes.contains("both.in.data is new") && causes.contains("both.in.data.code is gone"), "{causes}");
}

#[test]
fn a_row_is_followed_from_its_line_to_where_it_was_dropped() {
    let project = twice();
    let rows = project.succeeds("show @/rows --rows 4 --json").out;
    let row: Value =
        rows.lines().map(|line| serde_json::from_str(line).unwrap()).find(|row: &Value| row["text"] == "one").unwrap();
    let id = row["id"].as_str().unwrap();
    let told = project.succeeds(&format!("lineage @/rows --row {id}")).out;
    assert!(told.contains("rows.jsonl:1") && told.contains("and then") && told.contains("dropped by"), "{told}");
    let back = project.succeeds(&format!("lineage @/clean --row {id}")).out;
    assert!(back.contains("rows.jsonl:1"), "{back}");
    let both = project.succeeds("lineage @/clean").out;
    assert!(both.contains("made of it") && both.contains("unique.data"), "{both}");
    for format in ["mermaid", "dot", "openlineage"] {
        let drawn = project.succeeds(&format!("lineage @ --format {format}")).out;
        assert!(drawn.contains("unique"), "{drawn}");
    }
    project.succeeds("lineage @ --format ro-crate --to crate");
    let crates: Value =
        serde_json::from_slice(&fs::read(project.path("crate/ro-crate-metadata.json")).unwrap()).unwrap();
    assert!(crates["@graph"].as_array().unwrap().len() > 8, "{crates}");
    assert_eq!(project.llmflow("lineage @ --format ro-crate --to crate").code, Some(2), "a crate is a new folder");
    project.succeeds("export @ --format ro-crate same");
    assert!(project.path("same/ro-crate-metadata.json").exists(), "export writes the same");
    for (typed, help) in [
        ("export @", "--format ro-crate"),
        ("export @ somewhere", "--format ro-crate"),
        ("export @/clean", "llmflow export @/clean PATH"),
        ("export @/clean --format ro-crate", "--format ro-crate"),
    ] {
        let refused = project.llmflow(typed);
        assert!(refused.code == Some(2) && refused.err.contains(help), "{typed}: {}", refused.err);
    }
}

/// `same` has the bytes of `clean`, and `told` is a report on it.
const TOLD: &str = r#"
stages:
  rows: {op: data.load, with: {path: rows.jsonl, format: text}}
  clean: {op: data.filter, in: rows, with: {min_words: 2}}
  same: {op: data.filter, in: clean}
  told:
    op: run.command
    in: {data: same}
    with: {command: [sh, -c, 'echo {\"n\":1} > $0', "{out.said}", "{in.data}"], outputs: {said: report}}
"#;

#[test]
fn a_crate_holds_what_was_published_and_what_nothing_was_made_of() {
    let crate_of = |text: &str| {
        let project = Project::with(text);
        project.write("rows.jsonl", ROWS);
        project.succeeds("run");
        let said = project.succeeds("export @ --format ro-crate crate").err;
        let folders = fs::read_dir(project.path("crate/artifacts")).unwrap();
        let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".report")).collect();
        names.sort();
        (project, names, said)
    };
    let (_, names, said) = crate_of(TOLD);
    assert_eq!(names, ["same.data", "told.said"], "a report on rows is not made of them");
    assert!(said.contains("; 1 result left out: rows (later results were made of it)\n"), "{said}");
    let (_, names, said) = crate_of(&format!("{TOLD}publish: {{clean: out/clean.jsonl, rows.data: out/rows/}}\n"));
    assert_eq!(names, ["clean.data", "rows.data", "told.said"]);
    assert!(!said.contains("left out"), "{said}");
    let stages = TOLD.replace("  same: ", "  last: {op: data.filter, in: same, with: {min_words: 4}}\n  same: ");
    let (project, names, said) = crate_of(&format!("{stages}publish: {{last: out/last.jsonl}}\n"));
    assert_eq!(names, ["last.data", "told.said"]);
    assert!(said.contains("; 3 results left out: rows, clean, same (later results were made of them)\n"), "{said}");
    let crates = fs::read_to_string(project.path("crate/ro-crate-metadata.json")).unwrap();
    let left = json(&project, "show @/clean --json")["outputs"][0]["digest"].as_str().unwrap().to_owned();
    assert!(crates.contains(&left), "what is left out is described: {crates}");
}

#[test]
fn a_rehearsal_is_told_as_one_to_other_tools_and_compared_with_another() {
    let project = Project::with(PIPELINE);
    project.write("rows.jsonl", ROWS);
    project.succeeds("run --limit 3");
    project.succeeds("run");
    project.succeeds("run --limit 3 --set least=3");
    let diff = project.succeeds("diff").out;
    assert!(diff.contains("params.least 2 → 3    (data, program, machine, seed, stages: same)"), "{diff}");
    let limits = |run: &str| {
        let events = project.succeeds(&format!("lineage {run} --format openlineage")).out;
        let limits = events.lines().map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["run"]["facets"]["processing_engine"]["llmflow_limit"].as_u64()
        });
        let crates = format!("crate-{}", run.replace('@', ""));
        project.succeeds(&format!("export {run} --format ro-crate {crates}"));
        let crates = fs::read_to_string(project.path(&format!("{crates}/ro-crate-metadata.json"))).unwrap();
        let said = [crates.contains("A rehearsal: --limit 3."), crates.contains("#limit")];
        (limits.collect::<std::collections::BTreeSet<_>>(), said)
    };
    assert_eq!(limits("@"), ([Some(3)].into(), [true; 2]));
    assert_eq!(limits("@-1"), ([None].into(), [false; 2]));
}

#[test]
fn a_history_that_was_deleted_is_missed_and_comes_back_as_it_was() {
    let project = twice();
    let before =
        (json(&project, "runs --json"), json(&project, "show @ --json"), json(&project, "explain @/unique --json"));
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(project.path(&format!(".llmflow/lineage.db{end}")));
    }
    let missed = project.llmflow("runs");
    assert_eq!(missed.code, Some(3), "{}", missed.err);
    assert!(missed.err.contains("llmflow doctor --rebuild"), "{}", missed.err);
    project.succeeds("doctor --rebuild");
    let after =
        (json(&project, "runs --json"), json(&project, "show @ --json"), json(&project, "explain @/unique --json"));
    assert_eq!(after, before);
    project.succeeds("run pipeline.yaml --set least=3");
    assert_eq!(json(&project, "runs --json"), before.0, "nothing is run again");
}

#[test]
fn a_history_of_runs_on_another_store_comes_back_too() {
    let project = Project::with(&format!("store: elsewhere{PIPELINE}"));
    project.write("rows.jsonl", ROWS);
    project.succeeds("run pipeline.yaml");
    let before = (json(&project, "runs --json"), json(&project, "show @ --json"));
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(project.path(&format!(".llmflow/lineage.db{end}")));
    }
    assert_eq!(project.llmflow("runs").code, Some(3));
    project.succeeds("doctor --rebuild");
    assert_eq!((json(&project, "runs --json"), json(&project, "show @ --json")), before);
    assert!(project.succeeds("show @/clean --rows 1").out.contains("two words"));
    assert!(project.succeeds("run pipeline.yaml").err.contains("nothing to do"), "the history tells of it already");

    project.succeeds("run pipeline.yaml --home moving --set least=3");
    fs::rename(project.path("moving"), project.path("moved")).unwrap();
    fs::remove_file(project.path("moved/lineage.db")).unwrap();
    project.succeeds("doctor --rebuild --home moved");
    assert_eq!(json(&project, "runs --json --home moved").as_array().unwrap().len(), 1, "its own, from where it lay");
}

#[test]
fn a_plan_is_drawn_before_anything_runs() {
    let project = Project::with(PIPELINE);
    project.write("rows.jsonl", ROWS);
    let drawn = project.succeeds("plan pipeline.yaml --graph text").out;
    assert_eq!(
        drawn.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect::<Vec<_>>(),
        ["rows", "clean", "unique"]
    );
    assert!(project.succeeds("plan pipeline.yaml --graph mermaid").out.starts_with("flowchart TD\n"));
}

#[test]
fn explain_says_what_was_asked_for_rather_than_guess() {
    let project = Project::with(
        "params: {least: 2}\nstages:\n  rows: {op: data.load, cache: false, with: {path: rows.jsonl}}\n  few: {op: data.filter, in: rows, require: [\"kept < 100\"], with: {min_words: 2}}\n  gated: {op: data.filter, in: rows, when: \"rows.rows > params.least\"}\n",
    );
    project.write("rows.jsonl", ROWS);
    project.succeeds("run");
    project.succeeds("run --force");
    let gated = project.succeeds("explain @/gated").out;
    assert!(gated.contains(": --force; nothing changed since"), "{gated}");
    project.succeeds("run --only few --force");
    let told = |stage: &str| project.succeeds(&format!("explain @/{stage}")).out;
    assert!(told("few").contains(": --force; nothing changed since"), "{}", told("few"));
    project.succeeds("run --set least=9");
    assert!(told("rows").contains(": cache: false; nothing changed since"), "{}", told("rows"));
    let skipped = told("gated");
    assert!(skipped.starts_with("gated was skipped in") && !skipped.contains("no longer in the store"), "{skipped}");
    let text = fs::read_to_string(project.path("pipeline.yaml")).unwrap();
    project.write("pipeline.yaml", text.replace("kept < 100", "kept > 100"));
    assert_eq!(project.llmflow("run").code, Some(1));
    assert!(told("few").starts_with("few was cached in"), "{}", told("few"));
    let plan = project.llmflow("plan --force").out;
    assert!(!plan.contains("waits"), "what is forced runs, whatever the stages above give: {plan}");
}

#[test]
fn lineage_of_a_frozen_stage_tells_what_it_was_made_from() {
    let project = Project::with(
        "stages:\n  rows: {op: data.load, with: {path: rows.jsonl}}\n  kept: {op: data.filter, in: rows, frozen: true}\n  last: {op: data.filter, matrix: {w: [1, 1.5]}, in: kept, with: {min_mean_word_length: \"${matrix.w}\"}}\n",
    );
    project.write("rows.jsonl", ROWS);
    project.succeeds("run");
    let first = json(&project, "show @/rows --json")["outputs"][0]["digest"].as_str().unwrap()[..8].to_owned();
    project.write("rows.jsonl", "{\"text\": \"quite another\"}\n");
    project.succeeds("run");
    for _ in 0..2 {
        let told = project.succeeds("lineage @/last@w=1.5").out;
        assert!(told.contains(&first) && told.contains("frozen"), "{told}");
        let below = project.succeeds("lineage @/rows").out;
        assert!(!below.contains("kept.data"), "nothing was made of the new rows: {below}");
        project.succeeds("doctor --rebuild");
    }
    assert!(project.succeeds("explain @/last@w=1.5").out.starts_with("last@w=1.5"), "a dot begins no port here");
}
