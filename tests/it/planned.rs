//! What `plan` says before anything runs, and what is refused then rather than an hour later.

use crate::project::Project;

fn text(stages: &str) -> String {
    format!("stages:\n  rows: {{op: data.load, with: {{path: rows.jsonl}}}}\n{stages}")
}

fn project(stages: &str) -> Project {
    let project = Project::with(&text(stages));
    let rows: String = (0..9).map(|row| format!("{{\"text\": \"row {row}\"}}\n")).collect();
    project.write("rows.jsonl", rows);
    project
}

#[test]
fn a_result_that_misses_its_require_is_said_and_what_depends_on_it_is_skipped() {
    let project =
        project("  few: {op: data.filter, in: rows, require: [\"kept > 100\"]}\n  after: {op: data.dedup, in: few}\n");
    let first = project.succeeds("plan").out;
    assert!(first.contains("waits"), "{first}");
    assert_eq!(project.llmflow("run").code, Some(1));
    let plan = project.succeeds("plan --exit-code").out;
    assert!(
        plan.contains("refused (`kept > 100` is false (kept = 9))") && plan.contains("skipped (`few` is refused)"),
        "{plan}"
    );
}

/// A metric may be called as it likes; what is none is told as what it stands for.
#[test]
fn a_condition_names_a_metric_with_a_dot_and_a_param_only_by_its_sign() {
    let told = "LLMFLOW {\\\"metric\\\": [\\\"env.reward\\\", 2]}";
    let it = format!(
        "  it: {{op: run.command, require: \"NAME > 1\", with: {{command: [sh, -c, \"mkdir -p $0; echo x > $0/x; echo '{told}'\", \"{{out.f}}\"], outputs: {{f: files}}, metrics: [env.reward]}}}}\n"
    );
    let project = project(&it.replace("NAME", "env.reward"));
    project.succeeds("run --only it");
    project.write("pipeline.yaml", format!("params: {{least: 1}}\nstages:\n{}", it.replace("NAME", "params.least")));
    let refused = project.llmflow("check");
    assert!(refused.code == Some(2) && refused.err.contains("write `${params.least}` in its place"), "{}", refused.err);
}

fn plan_of(done: &crate::project::Done) -> Vec<serde_json::Value> {
    let plan: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    plan["stages"].as_array().unwrap().clone()
}

#[test]
fn a_reason_names_the_reference_whose_value_changed() {
    let project = Project::with(
        "stages:\n  t: {op: run.command, with: {command: [sh, -c, \"mkdir -p $0; echo $1 > $0/x\", \"{out.f}\", \"${env.S1}-${env.S2}\"], outputs: {f: files}}}\n",
    );
    let done = |words: &str, second: &str| {
        let output = project.command(words).env("S1", "0.1").env("S2", second).output().unwrap();
        crate::project::Done::of(&output)
    };
    assert_eq!(done("run", "b").code, Some(0));
    let because = &plan_of(&done("plan --json", "c"))[0]["will"]["because"];
    assert_eq!(because[0]["origin"], "with env.S2", "{because}");
}

#[test]
fn a_stage_that_waits_says_what_of_its_own_has_changed() {
    let stages = text(
        "  a: {op: data.filter, in: rows, with: {min_words: \"${params.a}\"}}\n  b: {op: data.filter, in: a, with: {min_words: \"${params.b}\"}}\n  g: {op: data.filter, in: rows, when: \"a.kept > 0\"}\n  h: {op: data.filter, in: g, with: {min_words: \"${params.b}\"}}\n",
    );
    let project = project("");
    project.write("pipeline.yaml", format!("params: {{a: 1, b: 1}}\n{stages}"));
    project.succeeds("run");
    let will = |set: &str| {
        let stages = plan_of(&project.succeeds(&format!("plan --json {set}")));
        let one = |name: &str| stages.iter().find(|stage| stage["stage"] == name).unwrap()["will"].clone();
        ["a", "b", "h"].map(one)
    };
    let said = |set: &str| will(set).map(|will| will["will"].as_str().unwrap().to_owned());
    for set in ["--set a=2", "--set a=2 --set b=2"] {
        assert_eq!(said(set), ["run", "waits", "waits"], "{set}");
    }
    let [_, b, _] = will("--set a=2");
    assert!(b.get("because").is_none(), "nothing of its own changed: {b}");
    let [_, b, h] = will("--set a=2 --set b=2");
    for stage in [&b, &h] {
        let because = stage["because"].as_array().unwrap();
        assert!(because.len() == 1 && because[0]["part"] == "with.min_words" && because[0]["now"] == "2", "{stage}");
    }
    let plan = project.succeeds("plan --set a=2 --set b=2").out;
    assert!(plan.contains("for a, with.min_words 1 → 2"), "{plan}");
}

#[test]
fn a_result_that_is_gone_is_not_called_a_first_run() {
    let project = project("");
    assert!(project.succeeds("plan").out.contains("first run"));
    project.succeeds("run");
    std::fs::remove_dir_all(project.path(".llmflow/store/keys")).unwrap();
    std::fs::create_dir(project.path(".llmflow/store/keys")).unwrap();
    let plan = project.succeeds("plan").out;
    assert!(plan.contains("its result is gone from the store"), "{plan}");
}

#[test]
fn what_this_machine_can_never_give_is_refused_before_the_first_stage() {
    for (stage, said) in [
        ("resources: {gpus: 1}", "demands 1 GPU;"),
        ("resources: {cores: 4000}", "demands 4000 cores"),
        ("resources: {memory: 900T}", "of memory"),
    ] {
        let project = project(&format!("  last: {{op: data.dedup, in: rows, {stage}}}\n"));
        for command in ["plan", "run"] {
            let done = project.llmflow(command);
            assert_eq!(done.code, Some(3), "{command} {stage}: {}", done.err);
            assert!(done.err.contains(said), "{}", done.err);
        }
        assert!(project.results().is_empty(), "nothing ran");
    }
}

#[test]
fn a_gate_may_skip_what_this_machine_could_not_give() {
    let project = project(
        "  maybe: {op: data.filter, in: rows, when: \"rows.rows > 100\"}\n  last: {op: data.dedup, in: maybe, resources: {gpus: 8}}\n",
    );
    project.succeeds("plan");
    project.succeeds("run");
}

#[test]
fn a_variable_of_the_environment_is_read_as_what_it_stands_for() {
    let project = project("  long: {op: data.filter, in: rows, with: {min_words: \"${env.LEAST}\"}}\n");
    let plan = |value: &str| project.command("plan").env("LEAST", value).output().unwrap().status.code();
    assert_eq!((plan("2"), plan("many")), (Some(0), Some(2)));
    let through = "  long: {op: data.filter, in: rows, with: {min_words: \"${params.least}\"}}\n";
    project.write("pipeline.yaml", format!("params: {{least: \"${{env.LEAST}}\"}}\n{}", text(through)));
    assert_eq!((plan("2"), plan("many")), (Some(0), Some(2)));
}

#[test]
fn a_store_in_memory_serves_a_whole_run_and_is_gone_after_it() {
    let project = project(
        "  a: {op: data.filter, in: rows}\n  b: {op: data.filter, in: rows, with: {min_words: 2}}\n  both: {op: data.dedup, in: [a, b]}\nstore: memory://once\npublish: {both: out/both.jsonl}\n",
    );
    for _ in 0..2 {
        project.succeeds("run");
        assert!(project.path("out/both.jsonl").is_file());
    }
}

#[test]
fn a_metric_of_another_stage_can_be_the_value_of_a_param() {
    let stages = "  some: {op: data.filter, in: rows, with: {min_words: \"${rows.rows}\"}}\n";
    let project = project(&format!("{stages}  last: {{op: data.dedup, in: some}}\n"));
    let plan = project.succeeds("plan").out;
    assert!(plan.contains("some") && plan.contains("waits") && plan.contains("for rows"), "{plan}");
    project.succeeds("run --only rows");
    assert_eq!(project.llmflow("run").code, Some(0));
    assert!(project.succeeds("plan").out.contains("nothing to do"));
    project.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    project.succeeds("run");
    let why = project.succeeds("explain @/some").out;
    assert!(why.contains("with.min_words") && why.contains("9 → 2"), "{why}");
    let listed = "  call: {op: run.command, with: {command: [echo, \"${rows.rows}\"], outputs: {out: report}}}\n";
    project.write("pipeline.yaml", text(listed));
    let done = project.llmflow("check");
    assert!(done.code == Some(2) && done.err.contains("a metric cannot stand within"), "{}", done.err);
    let score = "  score: {op: data.filter, in: rows}\n  some: {op: data.filter, in: rows, with: {min_words: \"${score.kept}\"}}\n";
    project.write("pipeline.yaml", text(score));
    project.succeeds("check");
    for (value, said) in [("${rows.row}", "reports no metric `row`"), ("${row.rows}", "names nothing")] {
        project.write("pipeline.yaml", text(&stages.replace("${rows.rows}", value)));
        let done = project.llmflow("check");
        assert!(done.code == Some(2) && done.err.contains(said), "{}", done.err);
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_although_the_first_of_them_spoils_what_reads_it() {
    let project = project(
        "  some: {op: data.filter, in: rows, require: [\"kpt > 1\"]}\n  file: {op: quantize.gguf, in: some}\n  twice: {op: data.dedup, in: some}\n",
    );
    std::fs::remove_file(project.path("rows.jsonl")).unwrap();
    let done = project.llmflow("check");
    assert_eq!(done.code, Some(2));
    for said in ["no metric `kpt`", "`file.model` takes", "rows.jsonl"] {
        assert!(done.err.contains(said), "{said}: {}", done.err);
    }
    assert!(!done.err.contains("`twice"), "what may be right is not told: {}", done.err);
}

#[test]
fn time_and_disk_are_forecast_by_what_there_is_to_do() {
    let project = project("");
    let rows = std::fs::read_to_string(project.path("rows.jsonl")).unwrap();
    let forecast = |stage: usize| {
        let plan: serde_json::Value = serde_json::from_str(&project.succeeds("plan --json").out).unwrap();
        let stage = &plan["stages"][stage];
        stage["seconds"].as_f64().map(|seconds| (seconds, stage["disk_bytes"].as_f64().unwrap()))
    };
    assert_eq!(forecast(0), None, "nothing ran yet");
    project.succeeds("run");
    let same_size = rows.replace("row 1", "row 9");
    project.write("rows.jsonl", same_size);
    let (seconds, bytes) = forecast(0).unwrap();
    project.write("rows.jsonl", rows.repeat(3));
    let (longer, more) = forecast(0).unwrap();
    assert!(
        (longer / seconds - 3.0).abs() < 1e-9 && (more / bytes - 3.0).abs() < 0.01,
        "{longer} {seconds} {more} {bytes}"
    );

    // A stage that never ran goes as fast as its operator did.
    project.write("more.jsonl", rows.repeat(2));
    project.write("pipeline.yaml", text("  more: {op: data.load, with: {path: more.jsonl}}\n"));
    let (second, _) = forecast(1).unwrap();
    assert!((second / seconds - 2.0).abs() < 1e-9, "{second} {seconds}");
}

#[test]
fn siblings_of_a_matrix_that_changed_from_other_values_are_not_told_as_one_that_did() {
    let some =
        "  some: {op: data.filter, in: rows, matrix: {most: [10, 20, 30]}, with: {max_words: \"${matrix.most}\"}}\n";
    let project = project(some);
    project.succeeds("run");
    project
        .write("pipeline.yaml", text(&some.replace("${matrix.most}\"", "${params.most}\"")) + "params: {most: 40}\n");
    let plan = project.succeeds("plan").out;
    assert!(plan.contains("some@… ×3") && plan.contains("with.max_words → 40 (params.most"), "{plan}");
}

#[test]
fn a_stage_that_gathers_a_matrix_names_it_once() {
    let some = "  some: {op: data.filter, in: rows, matrix: {most: [10, 20, 30]}, with: {max_words: \"${matrix.most}\"}}\n  all: {op: data.dedup, in: some}\n";
    let project = project(some);
    project.succeeds("run");
    project.write("pipeline.yaml", text(&some.replace("with: {max", "with: {min_words: 1, max")));
    let plan = project.succeeds("plan").out;
    assert!(plan.contains("for some@… ×3"), "{plan}");
    project.write("rows.jsonl", "{\"text\": \"another row\"}\n");
    project.succeeds("run");
    let told = project.succeeds("explain @/all").out;
    assert!(told.contains("given by some@… ×3"), "{told}");
}

#[test]
fn the_plan_of_a_rehearsal_is_marked_as_one() {
    let project = project("");
    let plan = project.succeeds("plan --limit 2").out;
    assert!(plan.lines().next().unwrap().ends_with(" · limited to 2 rows or steps a stage"), "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&project.succeeds("plan --limit 2 --json").out).unwrap();
    assert_eq!(plan["limit"], 2);
    assert!(!project.succeeds("plan").out.contains("limited"));
}

#[test]
fn fake_gpus_are_counted_by_who_asks_for_them() {
    let project = project("  last: {op: data.dedup, in: rows, resources: {gpus: 2}}\n");
    let plan = |words: &str| {
        let output = project.command(words).env("LLMFLOW_FAKE_GPUS", "4x80GiB").output().unwrap();
        crate::project::Done::of(&output).out
    };
    let asked = plan("plan");
    assert!(asked.contains("compute  2 of 4× fake GPU (last) · CPU"), "{asked}");
    let unasked = plan("plan --only rows");
    assert!(unasked.contains("compute  4× fake GPU · CPU"), "{unasked}");
}

#[test]
fn a_graph_tells_what_is_not_asked_for_refused_or_decided_later() {
    let stages = "  few: {op: data.filter, in: rows, require: [\"kept > 100\"]}\n  after: {op: data.dedup, in: few}\n  maybe: {op: data.filter, in: rows, when: \"rows.rows > 1\"}\n";
    let project = project(stages);
    let graph = project.succeeds("plan --graph text").out;
    assert!(graph.contains("data.filter · gate"), "{graph}");
    assert_eq!(project.llmflow("run").code, Some(1));
    let graph = project.succeeds("plan --graph text").out;
    assert!(graph.contains("cached, and refused (") && graph.contains("skipped (`few` is refused)"), "{graph}");
    let graph = project.succeeds("plan --graph mermaid --only rows").out;
    assert!(graph.contains("skipped (not asked for)") && graph.contains("classDef skipped"), "{graph}");
}
