//! Looking back where things do not lie where they lay: several stores, a copied or moved project, results that are gone.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::project::{Done, Project};

const PIPELINE: &str = "name: small
stages:
  rows: {op: data.load, with: {path: rows.jsonl, format: text}}
  clean: {op: data.filter, in: rows, with: {min_words: 2}}
publish: {clean: out/clean.jsonl}
";

fn project(pipeline: &str) -> Project {
    let project = Project::with(pipeline);
    project.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two words\"}\n{\"text\": \"two words\"}\n");
    project
}

#[test]
fn results_of_a_run_are_looked_for_in_the_store_that_it_used() {
    let project = project(PIPELINE);
    project.succeeds("run");
    project.succeeds("tag @ first");
    project.write("pipeline.yaml", format!("store: elsewhere\n{}", PIPELINE.replace("min_words: 2", "min_words: 1")));
    project.succeeds("run");
    project.succeeds("tag @ second");
    for (tag, rows) in [("first", 2), ("second", 3)] {
        assert_eq!(project.succeeds(&format!("show {tag}/clean --rows 9 --json")).out.lines().count(), rows);
        project.succeeds(&format!("export {tag}/clean {tag}.jsonl"));
        assert!(project.succeeds(&format!("show {tag}")).out.contains(tag), "a run is shown with its tags");
    }
    let tags = project.succeeds("tag").out;
    assert!(tags.contains("first") && tags.contains("second"), "{tags}");
    assert!(project.succeeds("diff --rows").out.contains("clean.data 2 → 3 rows (+1 −0)"));
    project.succeeds("tag @-1 again");
    let moved = project.succeeds("tag @ again").err;
    assert!(moved.contains("it named"), "in whichever store it was: {moved}");
    assert_eq!(project.succeeds("tag").out.matches("again").count(), 1, "one name, one run");
    project.succeeds("tag @-1 again");
    project.succeeds("tag --remove first");
    assert!(project.succeeds("show again/clean --rows").out.contains("two words"));
}

/// Its server takes connections and says nothing.
#[test]
fn a_store_that_does_not_answer_delays_a_look_by_seconds_at_most_and_refuses_nothing() {
    let project = project(PIPELINE);
    project.succeeds("run");
    project.succeeds("tag @ mine");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    project.write(".llmflow/stores", "s3://silent/place\n");
    let told = |words: &str| {
        let mut command = project.command(words);
        let endpoint = format!("http://{}", server.local_addr().unwrap());
        command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "eu-central-1");
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "key");
        let began = Instant::now();
        let done = Done::of(&command.output().unwrap());
        (done, began.elapsed())
    };
    let run = project.succeeds("runs --json").out;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    let prefix = &run[0]["run"].as_str().unwrap()[..6];
    for words in [format!("show {prefix}"), "show mine".to_owned()] {
        let (shown, took) = told(&words);
        assert_eq!(shown.code, Some(0), "{words}: {}", shown.err);
        assert!(took < Duration::from_millis(2500), "{words} asked a store that knows nothing of it: {took:?}");
    }
    for (words, code) in [("tag", 0), ("runs", 0), ("show nosuch", 2), ("tag --remove nosuch", 2)] {
        let (said, took) = told(words);
        assert_eq!(said.code, Some(code), "{words}: {}", said.err);
        assert!(said.err.contains("s3://silent/place does not answer"), "{words}: {}", said.err);
        assert!(took < Duration::from_secs(15), "{words}: {took:?}");
    }
}

/// What lineage tells is told, whatever became of the disk with the results.
#[test]
fn a_store_that_is_not_there_hides_results_alone_and_is_not_made_by_looking() {
    let project = project(&format!("store: elsewhere\n{PIPELINE}"));
    project.succeeds("run");
    fs::rename(project.path("elsewhere"), project.path("unmounted")).unwrap();
    for words in ["show @", "show @/clean", "runs", "tag", "lineage @", "explain @/clean", "logs @", "show @ --open"] {
        project.succeeds(words);
    }
    for words in ["show @/clean --rows", "export @/clean out.jsonl", "gc --dry-run", "verify"] {
        let refused = project.llmflow(words);
        assert_eq!(refused.code, Some(3), "{words}: {}", refused.err);
        assert!(refused.err.contains("store/gone"), "{words}: {}", refused.err);
    }
    assert!(!project.path("elsewhere").exists());
}

#[test]
fn a_crate_is_refused_whole_where_a_result_is_gone() {
    let project = project(PIPELINE);
    project.succeeds("run");
    fs::remove_dir_all(project.path(".llmflow/store/artifacts")).unwrap();
    let refused = project.llmflow("export @ --format ro-crate crate");
    assert_eq!(refused.code, Some(3), "{}", refused.err);
    assert!(refused.err.contains("store/no-artifact") && refused.err.contains("`rows.data`"), "{}", refused.err);
    assert!(!project.path("crate").exists());
    let verified = project.llmflow("verify");
    assert_eq!(verified.code, Some(3), "{}", verified.out);
    assert!(verified.out.contains("missing") && !verified.out.contains("is set aside"), "{}", verified.out);
}

#[test]
fn a_repeated_row_is_followed_by_the_id_that_the_screens_show() {
    let project = project(PIPELINE);
    project.succeeds("run");
    let rows = project.succeeds("show @/clean --rows 9 --json").out;
    let id = rows.lines().find_map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["id"].as_str().filter(|id| id.contains('#')).map(str::to_owned)
    });
    let id = id.unwrap();
    let (hash, number) = id.split_once('#').unwrap();
    let told = project.succeeds(&format!("lineage @/clean --row {}#{number}", &hash[..8])).out;
    assert!(told.contains("rows.jsonl:3"), "{told}");
}

/// What a copy does stays in the copy, and a project that was moved goes on where it lies now.
#[test]
fn resume_goes_on_where_the_project_lies_now() {
    let project = project(&PIPELINE.replace("out/clean.jsonl", "out.jsonl"));
    fs::create_dir(project.path("a")).unwrap();
    project.write("a/pipeline.yaml", fs::read(project.path("pipeline.yaml")).unwrap());
    project.write("a/rows.jsonl", "no JSON");
    assert_eq!(project.llmflow("run a/pipeline.yaml --home a/.llmflow").code, Some(1));
    let copied = std::process::Command::new("cp").args(["-r", "a", "b"]).current_dir(project.path(".")).status();
    assert!(copied.unwrap().success());
    project.write("b/rows.jsonl", "{\"text\": \"two words\"}\n");
    let resumed = project.succeeds("resume @ --home b/.llmflow");
    assert!(!resumed.err.contains("has changed"), "{}", resumed.err);
    assert!(project.path("b/out.jsonl").exists() && !project.path("a/out.jsonl").exists());

    project.write("b/rows.jsonl", "no JSON");
    assert_eq!(project.llmflow("run b/pipeline.yaml --home b/.llmflow").code, Some(1));
    fs::rename(project.path("b"), project.path("c")).unwrap();
    fs::remove_file(project.path("c/pipeline.yaml")).unwrap();
    let gone = project.llmflow("resume @ --home c/.llmflow");
    assert_eq!(gone.code, Some(2), "{}", gone.err);
    assert!(gone.err.contains("`b/pipeline.yaml` is gone") && gone.err.contains("resume/gone"), "{}", gone.err);
    assert!(!project.path("b").exists(), "nothing is made where it lay");
}

#[test]
fn a_frozen_result_is_explained_by_what_it_is_no_longer_made_of() {
    let of = |kept: u32, other: u32| {
        format!(
            "stages:\n  rows: {{op: data.load, with: {{path: rows.jsonl}}}}\n  kept: {{op: data.filter, in: rows, frozen: true, with: {{min_words: {kept}}}}}\n  other: {{op: data.filter, in: rows, with: {{min_words: {other}}}}}\n"
        )
    };
    let project = project(&of(2, 2));
    project.succeeds("run");
    project.write("pipeline.yaml", of(3, 3));
    project.succeeds("run");
    let told = project.succeeds("explain @/kept").out;
    assert!(
        told.contains("keeps the result it has, though 1 part") && told.contains("with.min_words  2 → 3"),
        "{told}"
    );
    assert!(told.contains("same: ") && !told.contains("back: "), "{told}");
    project.write("rows.jsonl", "{\"text\": \"now there are five words\"}\n");
    project.succeeds("run");
    let told = project.succeeds("explain @/kept").out;
    assert!(told.contains("keeps the result it has") && !told.contains("same: "), "its key is not known: {told}");
}

#[test]
fn a_stage_that_failed_before_is_no_new_one_and_one_not_asked_for_says_so() {
    let project = project(PIPELINE);
    project.write("rows.jsonl", "no JSON");
    assert_eq!(project.llmflow("run").code, Some(1));
    let plan = project.succeeds("plan").out;
    assert!(plan.contains("failed before"), "{plan}");
    project.write("rows.jsonl", "{\"text\": \"two words\"}\n");
    project.succeeds("run --only rows");
    let told = project.succeeds("explain @/clean").out;
    assert!(told.contains("not asked for") && !told.contains("never known"), "{told}");
    let near = project.llmflow("operators data.loat");
    assert!(near.err.contains("llmflow operators data.load"), "{}", near.err);
}

#[test]
fn what_is_typed_to_go_on_asks_the_same_again() {
    let project = project(
        &PIPELINE
            .replace("name: small", "name: small\nparams: {least: 2}")
            .replace("min_words: 2", "min_words: \"${params.least}\""),
    );
    project.write("out", "a file where a folder must be");
    let failed = project.llmflow("run --set least=1");
    assert_eq!(failed.code, Some(3), "{}", failed.err);
    let again = "llmflow run pipeline.yaml --set least=1";
    assert!(failed.err.contains(&format!("go on:           {again}   (nothing is computed again)")), "{}", failed.err);
    fs::remove_file(project.path("out")).unwrap();
    project.succeeds(again.strip_prefix("llmflow ").unwrap());
    assert_eq!(fs::read_to_string(project.path("out/clean.jsonl")).unwrap().lines().count(), 3);
}

#[test]
fn a_failed_or_finished_run_is_repeated_with_its_params_file_stages_and_variables() {
    let stages = PIPELINE.replace("min_words: 2", "min_words: \"${env.LEAST}\"");
    let project = project(
        &stages
            .replace("path: rows.jsonl", "path: \"${params.path}\"")
            .replace("stages:", "params: {path: none.jsonl}\nstages:"),
    );
    project.write("more.yaml", "path: rows.jsonl");
    let good = fs::read(project.path("rows.jsonl")).unwrap();
    let run = |words: &str| Done::of(&project.command(words).env("LEAST", "2").output().unwrap());
    let words = "run pipeline.yaml --params-file more.yaml --only clean";
    project.write("rows.jsonl", "no JSON");
    let failed = run(words);
    assert_eq!(failed.code, Some(1), "{}", failed.err);
    let next = format!("then LEAST=2 llmflow {words}      (starts at rows)");
    assert!(failed.err.contains(&next), "{}", failed.err);
    let resumed = project.llmflow("resume");
    assert!(resumed.err.contains(&format!("then LEAST=2 llmflow {words}      (starts at rows)")), "{}", resumed.err);
    project.write("rows.jsonl", good);
    assert_eq!(run(words).code, Some(0));
    let page = project.succeeds("show @ --open").out;
    let page = fs::read_to_string(page.trim()).unwrap();
    assert!(page.contains(&format!("LEAST=2 llmflow {words}")), "{page}");
}

#[test]
fn a_params_file_is_named_from_where_the_user_stands() {
    let stages = PIPELINE.replace("path: rows.jsonl", "path: \"${params.path}\"");
    let project = project(&stages.replace("stages:", "params: {path: none.jsonl}\nstages:"));
    fs::create_dir(project.path("inner")).unwrap();
    project.write("inner/more.yaml", "path: rows.jsonl");
    project.write("rows.jsonl", "no JSON");
    let failed = project.llmflow("run --params-file inner/more.yaml");
    let next = "llmflow run pipeline.yaml --params-file inner/more.yaml ";
    assert!(failed.err.contains(next), "{}", failed.err);
    let inside = |words: &str| {
        let mut command = project.command(words);
        Done::of(&command.current_dir(project.path("inner")).output().unwrap())
    };
    let resumed = inside("resume");
    assert!(resumed.err.contains("llmflow run ../pipeline.yaml --params-file more.yaml "), "{}", resumed.err);
    assert!(inside("show @").out.contains("--params-file more.yaml"));
    project.write("rows.jsonl", "{\"text\": \"two words\"}\n");
    let run = inside("run ../pipeline.yaml --params-file more.yaml");
    assert_eq!(run.code, Some(0), "{}", run.err);
    let again = project.succeeds("run --params-file inner/more.yaml");
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    let page = project.succeeds("show @ --open").out;
    assert!(fs::read_to_string(page.trim()).unwrap().contains(next.trim_end()));
}

#[test]
fn a_secret_stands_in_no_command_and_the_report_names_it() {
    let stages = PIPELINE.replace("path: rows.jsonl", "path: \"${env.EOS_TOKEN}.jsonl\"");
    let project = project(&stages);
    let set = |words: &str| Done::of(&project.command(words).env("EOS_TOKEN", "rows").output().unwrap());
    project.write("rows.jsonl", "no JSON");
    let failed = set("run");
    assert!(failed.err.contains("then llmflow run pipeline.yaml      (starts"), "{}", failed.err);
    let resumed = project.llmflow("resume");
    let next = "then llmflow run pipeline.yaml   (with EOS_TOKEN set as it was)      (starts";
    assert!(resumed.err.contains(next), "{}", resumed.err);
    let page = project.succeeds("show @ --open").out;
    let page = fs::read_to_string(page.trim()).unwrap();
    assert!(
        page.contains("EOS_TOKEN=&quot;$EOS_TOKEN&quot; llmflow run")
            || page.contains("EOS_TOKEN=\"$EOS_TOKEN\" llmflow run")
    );
}

#[test]
fn a_stage_that_was_skipped_is_compared_by_its_reason() {
    let stages =
        "  few: {op: data.filter, in: clean, when: \"params.few\"}\n  other: {op: data.dedup, in: clean}\npublish:";
    let project = project(&PIPELINE.replace("publish:", stages).replace("stages:", "params: {few: true}\nstages:"));
    project.succeeds("run");
    project.succeeds("run --set few=false --force");
    for words in ["diff @-1/few @/few", "diff @/few @-1/few"] {
        let told = project.succeeds(words).out;
        assert!(told.contains("cause     few was skipped in ") && told.contains("`params.few` is false"), "{told}");
        assert!(!told.contains("changed") && !told.contains("same"), "{told}");
    }
    let told = project.succeeds("diff @/few @/other").out;
    assert!(told.contains("few was skipped in ") && !told.contains("nothing that a key knows"), "{told}");
    assert!(told.contains("other.operator data.filter → data.dedup") && !told.contains("same"), "{told}");
}

/// What a key knows of its inputs is that they are others; what made them so is above.
#[test]
fn a_stage_whose_input_changed_differs_by_what_changed_above_it() {
    let project = project(&PIPELINE.replace("publish:", "  last: {op: data.dedup, in: clean}\npublish:"));
    project.succeeds("run");
    project.write("rows.jsonl", "{\"text\": \"three new words\"}\n{\"text\": \"two words\"}\n");
    project.succeeds("run");
    let told = project.succeeds("diff @-1/clean @/clean").out;
    let causes = "cause     clean.in.data changed (given by rows)\n            ↳ rows.source.path changed";
    assert!(told.contains(causes) && !told.contains("nothing that a key knows"), "{told}");
    assert!(told.contains("(params, program, machine, seed, stages: same)"), "{told}");
    let pipeline = fs::read_to_string(project.path("pipeline.yaml")).unwrap();
    project.write("pipeline.yaml", pipeline.replace("min_words: 2", "min_words: 3"));
    project.succeeds("run");
    let told = project.succeeds("diff @-1/last @/last").out;
    assert!(told.contains("last.in.data changed (given by clean)\n            ↳ clean.min_words 2 → 3"), "{told}");
}

#[test]
fn the_figures_of_a_rehearsal_are_marked_where_they_are_compared() {
    let project = project(PIPELINE);
    project.succeeds("run");
    project.succeeds("run --limit 2");
    let told = project.succeeds("diff @-1 @");
    assert!(told.err.contains("(limited to 2 rows or steps a stage)"), "{}", told.err);
    assert!(told.out.contains("(limited to 2)"), "{}", told.out);
}

#[test]
fn a_stage_is_shown_with_the_path_that_it_loaded() {
    let project = project(PIPELINE);
    project.succeeds("run");
    let shown = project.succeeds("show @/rows --all").out;
    assert!(shown.contains("with      path rows.jsonl · format text"), "{shown}");
}
