//! What decides which stages run: `when`, `matrix`, `frozen`, `cache: false`, `--only`, `--from`, `--force`, `--limit`.

use std::{collections::BTreeMap, process::Command};

use crate::project::{Done, LLMFLOW, Project, stages_with};

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

/// Whoever shares a store shares what is frozen there, as far as their pipelines have the same name.
#[test]
fn what_is_frozen_is_taken_from_another_home_on_the_same_store() {
    let shared = tempfile::tempdir().unwrap();
    let text = |name: &str, frozen: bool| {
        let store = format!("store: \"file://{}\"\n", shared.path().display());
        let rows = format!("  rows: {{op: data.load, frozen: {frozen}, with: {{path: rows.jsonl}}}}\n");
        format!("{name}{store}stages:\n{rows}  clean: {{op: data.filter, in: rows, with: {{min_words: 1}}}}\n")
    };
    let first = Project::with(&text("name: same\n", false));
    first.write("rows.jsonl", "{\"text\": \"of the first home\"}\n");
    first.succeeds("run pipeline.yaml --limit 1");
    first.succeeds("run pipeline.yaml");
    let home = |name: &str| {
        let home = Project::with(&text(name, true));
        home.write("rows.jsonl", "{\"text\": \"of another\"}\n{\"text\": \"row\"}\n");
        let plan = home.succeeds("plan pipeline.yaml").out;
        let (started, _) = went(&home.succeeds("run pipeline.yaml --json"));
        (home.succeeds("show @/rows --rows 9").out, started, plan, home.succeeds("explain @/rows").out)
    };
    let ran_its_own = |name: &str| {
        let (rows, ..) = home(name);
        assert!(rows.contains("of another"), "{name} {rows}");
    };
    let early = Project::with(&text("name: same\n", true));
    early.write("rows.jsonl", "{\"text\": \"of another\"}\n");
    let plan = early.succeeds("plan pipeline.yaml").out;
    assert!(plan.contains("2 stages, all new"), "what ran elsewhere was not frozen there: {plan}");
    first.write("pipeline.yaml", text("name: same\n", true));
    assert!(first.succeeds("run pipeline.yaml").err.contains("nothing to do"), "to freeze a result runs nothing");
    let (rows, started, plan, told) = home("name: same\n");
    assert!(rows.contains("of the first home") && started.is_empty(), "{rows} {started:?}");
    assert!(plan.contains("rows   cached (frozen)") && told.contains("it is frozen"), "{plan} {told}");
    ran_its_own("name: other\n");
    first.write("pipeline.yaml", text("", true));
    first.succeeds("run pipeline.yaml");
    ran_its_own(""); // the file's name is no name to go by
}

/// `run.command` checks its placeholders against inputs that are not there when a stage above is skipped.
#[test]
fn what_a_skipped_stage_would_have_given_refuses_nothing() {
    let step = |name: &str, from: &str, more: &str| {
        let command = format!("[cp, \"{{in.{from}}}\", \"{{out.{name}}}\"]");
        let with = format!("{{command: {command}, outputs: {{{name}: dataset/text}}}}");
        format!("  {name}: {{op: run.command, in: {from}, {more}with: {with}}}\n")
    };
    let text = "params: {use: true}\nstages:\n  rows: {op: data.load, with: {path: rows.jsonl}}\n".to_owned();
    let text = text
        + &step("a", "rows", "when: \"params.use and rows.rows > 1\", ")
        + &step("b", "a", "")
        + &step("c", "b", "");
    let project = Project::with(&text);
    project.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    let (started, skipped) = went(&project.succeeds("run --json --only rows"));
    assert_eq!((started, skipped["c"].as_str()), (vec!["rows".to_owned()], "not asked for"));
    for _ in 0..2 {
        let plan = project.succeeds("plan --set use=false").out;
        assert!(plan.contains("c   skipped (`b` is skipped)"), "{plan}");
        let (started, _) = went(&project.succeeds("run --json --set use=false"));
        assert!(started.is_empty(), "{started:?}");
    }
    let (started, _) = went(&project.succeeds("run --json"));
    assert_eq!(started, ["a", "b", "c"]);
}

#[test]
fn what_a_run_skipped_or_refused_is_told_with_why_and_a_rehearsal_goes_through() {
    let rows = "  rows: {op: data.load, with: {path: rows.jsonl}}\n";
    let gate = "  judged: {op: data.filter, in: rows, require: [\"kept > 100\"]}\n  last: {op: data.filter, in: judged}\n  apart: {op: data.filter, in: rows, when: \"rows.rows > 100\"}\n";
    let project = Project::with(&format!("stages:\n{rows}{gate}"));
    project.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    let rehearsal = project.succeeds("run --limit 1");
    assert!(rehearsal.err.contains("a rehearsal goes on"), "{}", rehearsal.err);
    assert_eq!(project.llmflow("run").code, Some(1));
    let run = project.succeeds("show @").out;
    for told in ["`kept > 100` is false", "`judged` was refused", "`rows.rows > 100` is false"] {
        assert!(run.contains(told), "{told}: {run}");
    }
    assert!(project.succeeds("show @/judged").out.contains("`kept > 100` is false"));
    let apart =
        Project::with(&format!("stages:\n{rows}  apart: {{op: data.filter, in: rows, when: \"rows.rows > 100\"}}\n"));
    apart.write("rows.jsonl", "{\"text\": \"one\"}\n");
    apart.succeeds("run");
    for _ in 0..2 {
        let nothing = apart.succeeds("run").err;
        assert!(nothing.contains("nothing to do: 1 of 2 cached, 1 skipped"), "{nothing}");
    }
    let taken = apart.llmflow("runs --home .");
    assert!(taken.code == Some(2) && taken.err.contains("home/occupied"), "{}", taken.err);
    assert!(!apart.path("CACHEDIR.TAG").exists() && !apart.path(".gitignore").exists());
}

/// What comes while a stage waits for its turn is in no key: it is read once the next run has seen it.
#[test]
fn a_file_that_appears_while_its_reader_is_queued_is_left_to_the_next_run() {
    let slow = "  slow: {op: run.command, with: {command: [sh, -c, \"cp late.jsonl FOLDER/docs/two.jsonl; cat $0 > {out.d}\", late.jsonl], files: [late.jsonl], outputs: {d: dataset/text}}}\n";
    let project = Project::with("");
    let slow = slow.replace("FOLDER", &project.path("").display().to_string());
    project.write(
        "pipeline.yaml",
        format!("stages:\n{slow}  rows: {{op: data.load, with: {{path: \"docs/*.jsonl\", format: text}}}}\n"),
    );
    std::fs::create_dir(project.path("docs")).unwrap();
    project.write("docs/one.jsonl", "{\"text\": \"one\"}\n");
    project.write("late.jsonl", "{\"text\": \"late\"}\n");
    let rows = |run: &str| project.succeeds(&format!("show {run}/rows")).out;
    project.succeeds("run --jobs 1");
    assert!(project.path("docs/two.jsonl").is_file() && rows("@").contains("1 row"), "{}", rows("@"));
    let (started, _) = went(&project.succeeds("run --json"));
    assert_eq!(started, ["rows"], "the file is there when this run begins");
    assert!(rows("@").contains("2 rows"), "{}", rows("@"));
}

/// A script is read when its stage starts: what its user does to it afterwards costs no hours of training.
#[test]
fn a_script_may_be_edited_while_it_runs() {
    let project = Project::with("");
    project.write("pipeline.yaml", "stages:\n  it: {op: run.command, with: {command: [sh, it.sh, \"{out.f}\"], files: [it.sh], outputs: {f: files}}}\n");
    project.write(
        "it.sh",
        format!("echo '# edited' >> {}\nmkdir -p $1\necho x > $1/x\n", project.path("it.sh").display()),
    );
    project.succeeds("run");
    let (started, _) = went(&project.succeeds("run --json"));
    assert_eq!(started, ["it"], "the next run sees the edit");
}

/// One that was keyed before the edit, one after it: what each reads is what its own key was made of.
#[test]
fn a_file_edited_between_two_readers_is_under_no_key_of_the_other() {
    let project = Project::with("");
    let slow = "{op: run.command, with: {command: [sh, -c, \"cp new.jsonl FOLDER/x.jsonl; cp new.jsonl {out.d}\"], files: [new.jsonl], outputs: {d: dataset/text}}}";
    let slow = slow.replace("FOLDER", &project.path("").display().to_string());
    let load = "op: data.load, with: {path: x.jsonl, format: text}";
    project.write(
        "pipeline.yaml",
        format!("stages:\n  slow: {slow}\n  a: {{{load}}}\n  b: {{{load}, after: slow, seed: 7}}\n"),
    );
    project.write("new.jsonl", "{\"text\": \"new\"}\n");
    project.write("x.jsonl", "{\"text\": \"old\"}\n");
    let first = project.llmflow("run --jobs 1");
    assert!(first.code != Some(0) && first.err.contains("was edited since its key was made"), "{}", first.err);
    project.write("x.jsonl", "{\"text\": \"old\"}\n");
    project.succeeds("run --only a");
    assert!(project.succeeds("show @/a --rows").out.contains("old"));
}

#[test]
fn more_stages_than_files_may_be_open_run_all_the_same() {
    let stages: String = (0..150)
        .map(|at| format!("  s{at}: {{op: data.load, with: {{path: rows.jsonl, max_rows: {}}}}}\n", at + 1))
        .collect();
    let project = Project::with(&format!("stages:\n{stages}"));
    project.write("rows.jsonl", "{\"text\": \"one\"}\n");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n 120; exec {LLMFLOW} run pipeline.yaml -q")]);
    project.settle(&mut command);
    let done = Done::of(&command.output().unwrap());
    assert_eq!((done.code, project.committed()), (Some(0), 150), "{}", done.err);
    // Whose result is found takes no place, and the next one comes all the same.
    let readers = |count: u32| -> String {
        let reader = |at| format!("  r{at}: {{op: data.filter, in: up, with: {{min_words: {at}, max_words: 999}}}}\n");
        (0..count).map(reader).collect()
    };
    let up = "stages:\n  up: {op: data.load, cache: false, with: {path: rows.jsonl}}\n";
    project.write("pipeline.yaml", format!("{up}{}", readers(100)));
    project.succeeds("run");
    project.write("pipeline.yaml", format!("{up}{}", readers(200)));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n 120; exec {LLMFLOW} run pipeline.yaml -q")]);
    project.settle(&mut command);
    let done = Done::of(&command.output().unwrap());
    assert_eq!((done.code, project.committed()), (Some(0), 351), "{}", done.err);
}

/// Answers of before do not serve who asks anew, whatever became of the first try; those of that try do.
#[test]
fn what_is_asked_anew_is_answered_anew_after_a_retry_and_by_whoever_goes_on() {
    let marks = tempfile::tempdir().unwrap();
    let map = "stages:
  rows: {op: data.load, with: {path: rows.jsonl, format: text}}
  told:
    op: data.map
    in: rows
    retry: {attempts: 2, on: [transient], backoff: 1ms}
    resources: {cores: 1}
    with: {command: [sh, tell.sh, MARKS], files: [tell.sh], batch: 1}
";
    let project = Project::with(&map.replace("MARKS", &marks.path().display().to_string()));
    project.write("rows.jsonl", (0..3).map(|row| format!("{{\"text\": \"WORD {row}\"}}\n")).collect::<String>());
    let tell = "read -r row; cd \"$1\"; echo >> asked
[ -e fails ] && [ $(wc -l < asked) = 2 ] && rm fails && exit $(cat status)
printf '%s\\n' \"$row\" | sed \"s/WORD/$(cat word)/\"
";
    project.write("tell.sh", tell);
    let mark = |name: &str, text: &str| std::fs::write(marks.path().join(name), text).unwrap();
    mark("word", "old");
    project.succeeds("run pipeline.yaml");
    for (word, status, then) in [("new", "75", "runs"), ("newer", "1", "resume")] {
        for (name, text) in [("word", word), ("asked", ""), ("fails", ""), ("status", status)] {
            mark(name, text);
        }
        project.llmflow("run pipeline.yaml --force --only told");
        project.succeeds(then);
        let out = project.succeeds("show @/told --rows 3").out;
        assert!((0..3).all(|row| out.contains(&format!("{word} {row}"))), "{then}: {out}");
        let asked = std::fs::read_to_string(marks.path().join("asked")).unwrap();
        assert_eq!(asked.lines().count(), 4, "the first answer of {word} serves its second try");
    }
}

/// A metric is known only when its stage has run: what it does to another stage is that one's affair.
#[test]
fn a_metric_that_fits_no_param_fails_its_own_stage_and_no_other() {
    let text = |gate: &str, least: u32| {
        let unfit =
            format!("  unfit: {{op: data.filter, in: rows, {gate}with: {{max_repeated_lines: \"${{rows.rows}}\"}}}}\n");
        let other = format!("  other: {{op: data.filter, in: rows, with: {{min_words: {least}}}}}\n");
        format!("stages:\n  rows: {{op: data.load, with: {{path: rows.jsonl}}}}\n{unfit}{other}")
    };
    let project = Project::with(&text("", 1));
    project.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    for least in [1, 2] {
        project.write("pipeline.yaml", text("", least));
        let done = project.llmflow("run --json");
        assert_eq!((done.code, stages_with(&done.events(), "failed")), (Some(1), vec!["unfit".to_owned()]));
        assert!(stages_with(&done.events(), "finished").contains(&"other".to_owned()));
    }
    assert!(project.succeeds("plan").out.contains("will fail: `unfit.max_repeated_lines` is"));
    project.write("pipeline.yaml", text("when: \"rows.rows > 5\", ", 3));
    let (started, skipped) = went(&project.succeeds("run --json"));
    assert_eq!(started, ["other"]);
    assert!(skipped["unfit"].contains("is false"), "a `when` comes first: {skipped:?}");
}

#[test]
fn a_run_is_gone_on_with_in_the_environment_it_began_in() {
    let filter = "  few: {op: data.filter, in: rows, with: {min_words: \"${env.LEAST}\"}}\n";
    let last = "  last: {op: run.command, in: few, with: {command: [sh, -c, \"test -e READY && cp {in.few} {out.o}\"], outputs: {o: dataset/text}}}\n";
    let project = Project::with("");
    let ready = project.path("ready");
    let last = last.replace("READY", &ready.to_string_lossy());
    project.write(
        "pipeline.yaml",
        format!("stages:\n  rows: {{op: data.load, with: {{path: rows.jsonl}}}}\n{filter}{last}"),
    );
    project.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two words\"}\n");
    assert_eq!(project.command("run").env("LEAST", "2").output().unwrap().status.code(), Some(1));
    std::fs::write(&ready, "").unwrap();
    let (started, _) = went(&project.succeeds("resume --json"));
    assert_eq!(started, ["last"], "nothing is filtered anew, with LEAST unset or otherwise");
    assert!(project.succeeds("show @/few --all").out.contains("min_words 2"));
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
