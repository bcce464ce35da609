//! Remote sources through the program, against a hub on loopback: the lock, `fetch`, `--offline`, what a refusal says.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    hub::{Fault, Repo, TestHub},
    project::{Done, Project},
};

const PIPELINE: &str = "\
stages:
  train:
    op: data.load
    with: { source: 'hf:someone/rows', path: 'data/train-*.jsonl', format: text }
  test:
    op: data.load
    with: { source: 'hf:someone/rows', path: data/test.jsonl, format: text, role: eval }
";
const TOKEN: &str = "hf_not-a-real-one";

fn rows(words: &[&str]) -> String {
    words.iter().map(|word| format!("{{\"text\": \"{word}\"}}\n")).collect()
}

fn repo() -> Repo {
    Repo::default()
        .with("data/train-0.jsonl", rows(&["a", "b"]))
        .with("data/train-1.jsonl", rows(&["c"]))
        .with("data/test.jsonl", rows(&["d"]))
        .with("README.md", "# rows")
}

struct Setting {
    hub: TestHub,
    project: Project,
}

impl Setting {
    fn new() -> Self {
        let hub = TestHub::start();
        hub.put("datasets/someone/rows", repo());
        Self { hub, project: Project::with(PIPELINE) }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = self.project.command(words);
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.hub.url).env("HF_HOME", self.project.path("hf"));
        command
    }

    fn llmflow(&self, words: &str, code: i32) -> Done {
        let done = Done::of(&self.command(words).output().unwrap());
        assert_eq!(done.code, Some(code), "llmflow {words}\n{}\n{}", done.out, done.err);
        done
    }

    fn lock(&self) -> Option<String> {
        fs::read_to_string(self.project.path("llmflow.lock")).ok()
    }

    /// How often the hub was asked for anything since this was last asked.
    fn asked(&self) -> usize {
        let count = self.hub.log().len();
        self.hub.forget();
        count
    }
}

#[test]
fn the_first_run_writes_the_lock_and_the_next_asks_nobody() {
    let setting = Setting::new();
    setting.llmflow("check pipeline.yaml", 0);
    assert_eq!((setting.asked(), setting.lock()), (0, None), "check asks nobody");
    setting.llmflow("plan pipeline.yaml", 0);
    assert_eq!(setting.lock(), None, "a look changes nothing");
    setting.llmflow("run pipeline.yaml --locked", 2);
    let ran = setting.llmflow("run pipeline.yaml", 0);
    assert!(ran.err.contains("3 rows"), "{}", ran.err);
    let lock = setting.lock().unwrap();
    let body: String = lock.lines().filter(|line| !line.starts_with('#')).collect();
    let locked: Value = serde_json::from_str(&body).unwrap();
    let source = &locked["sources"]["hf:datasets/someone/rows@main"];
    assert_eq!(source["revision"], repo().commit());
    assert_eq!(source["files"].as_object().unwrap().len(), 3, "what no stage reads is not listed");
    setting.asked();
    let again = setting.llmflow("run pipeline.yaml", 0);
    assert!(again.err.contains("nothing to do: 2 of 2 cached"), "{}", again.err);
    assert_eq!((setting.asked(), setting.lock().unwrap()), (0, lock));
}

#[test]
fn a_branch_that_moves_changes_nothing_until_it_is_asked_anew() {
    let setting = Setting::new();
    setting.llmflow("run pipeline.yaml", 0);
    let before = setting.lock().unwrap();
    setting.hub.put("datasets/someone/rows", repo().with("data/train-1.jsonl", rows(&["c", "e"])));
    let still = setting.llmflow("run pipeline.yaml --locked", 0);
    assert!(still.err.contains("2 of 2 cached"), "{}", still.err);
    let plan: Value = serde_json::from_str(&setting.llmflow("plan pipeline.yaml --refresh --json", 0).out).unwrap();
    let will: Vec<&Value> = plan["stages"].as_array().unwrap().iter().map(|stage| &stage["will"]["will"]).collect();
    assert_eq!(will, ["run", "cached"], "only the files that changed count, not the commit");
    assert_eq!(setting.lock().unwrap(), before);
    let fresh = setting.llmflow("run pipeline.yaml --refresh", 0);
    assert!(fresh.err.contains("4 rows"), "{}", fresh.err);
    assert_ne!(setting.lock().unwrap(), before);
}

#[test]
fn a_run_is_resumed_with_the_state_it_read_whatever_the_lock_says_now() {
    let setting = Setting::new();
    setting.llmflow("run pipeline.yaml", 0);
    let json = |words: &str| -> Value { serde_json::from_str(&setting.llmflow(words, 0).out).unwrap() };
    let first = json("runs --json")[0]["run"].as_str().unwrap().to_owned();
    setting.hub.put("datasets/someone/rows", repo().with("data/train-1.jsonl", rows(&["c", "e"])));
    setting.llmflow("run pipeline.yaml --refresh", 0);
    let moved = setting.lock();
    // From the store too, where the history is lost.
    setting.llmflow("doctor --rebuild", 0);
    setting.llmflow(&format!("resume {first}"), 0);
    assert_eq!(setting.lock(), moved, "the file is that of the next run");
    let given = |run: &str| json(&format!("show {run}/train --json"))["outputs"].clone();
    assert!(given("@") == given(&first) && given("@") != given("@-1"), "{} {}", given("@"), given("@-1"));
}

#[test]
fn a_stage_added_later_reads_the_state_that_is_locked() {
    let setting = Setting::new();
    setting.project.write("pipeline.yaml", PIPELINE.split("  test:").next().unwrap());
    setting.llmflow("run pipeline.yaml", 0);
    setting.hub.put("datasets/someone/rows", repo().with("data/test.jsonl", "moved on"));
    setting.project.write("pipeline.yaml", PIPELINE);
    // The old commit is gone from this small hub: asking for another would have worked.
    let done = setting.llmflow("run pipeline.yaml", 2);
    assert!(done.err.contains(&format!("no revision `{}`", repo().commit())), "{}", done.err);
}

#[test]
fn fetch_makes_a_run_possible_without_a_network() {
    let setting = Setting::new();
    let refused = setting.llmflow("run pipeline.yaml --offline", 3);
    assert!(refused.err.contains("llmflow fetch"), "{}", refused.err);
    assert_eq!(setting.asked(), 0);
    let fetched = setting.llmflow("fetch pipeline.yaml", 0);
    assert!(fetched.err.contains("llmflow run pipeline.yaml --offline"), "{}", fetched.err);
    assert!(setting.asked() > 0 && setting.project.committed() == 0, "nothing has run");
    setting.llmflow("run pipeline.yaml --offline --locked", 0);
    assert_eq!(setting.asked(), 0);
    // A file that is lost is missed before anything starts.
    let path = setting.project.path(".llmflow");
    let downloads = fs::read_dir(path.join("work/download")).unwrap().map(|entry| entry.unwrap().path());
    downloads.for_each(|file| fs::remove_file(file).unwrap());
    fs::remove_dir_all(path.join("store")).unwrap();
    let missed = setting.llmflow("run pipeline.yaml --offline", 3);
    assert!(missed.err.contains("`data/train-0.jsonl` of `hf:datasets/someone/rows@main` is not on this machine"));
    assert_eq!(setting.project.committed(), 0);
}

#[test]
fn mistakes_stand_at_their_place_and_nothing_runs() {
    let setting = Setting::new();
    setting.project.write("pipeline.yaml", PIPELINE.replace("someone/rows", "someone/rowz"));
    let wrong = setting.llmflow("run pipeline.yaml", 2);
    assert!(
        wrong.err.contains("pipeline.yaml:4:21") && wrong.err.contains("did you mean `someone/rows`?"),
        "{}",
        wrong.err
    );
    setting.project.write("pipeline.yaml", PIPELINE.replace(", format: text", ""));
    let shapeless = setting.llmflow("check pipeline.yaml", 2);
    assert!(shapeless.err.contains("format: messages"), "{}", shapeless.err);
    setting.project.write("pipeline.yaml", PIPELINE.replace("data/test.jsonl", "data/test.bin"));
    assert!(setting.llmflow("check pipeline.yaml", 2).err.contains("pickle"));
    setting.project.write("pipeline.yaml", PIPELINE);
    setting.project.write("llmflow.lock", "<<<<<<< mine\n");
    let broken = setting.llmflow("run pipeline.yaml", 2);
    assert!(broken.err.contains("llmflow.lock:1"), "{}", broken.err);
}

#[test]
fn the_token_opens_a_gated_repository_and_is_written_nowhere() {
    let setting = Setting::new();
    setting.hub.put("datasets/someone/rows", Repo { gated: Some(TOKEN), ..repo() });
    let closed = setting.llmflow("fetch pipeline.yaml", 3);
    assert!(closed.err.contains(&format!("{}/datasets/someone/rows", setting.hub.url)), "{}", closed.err);
    let opened = setting.command("run pipeline.yaml --json -v").env("HF_TOKEN", TOKEN).output().unwrap();
    let opened = Done::of(&opened);
    assert_eq!(opened.code, Some(0), "{}", opened.err);
    assert!(!format!("{}{}", opened.out, opened.err).contains(TOKEN));
    for file in crate::project::files_below(&setting.project.path(".")) {
        let bytes = fs::read(&file).unwrap();
        let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!found, "the token is in {}", file.display());
    }
}

#[test]
fn a_download_that_breaks_off_fails_the_stage_as_transient_and_the_next_run_goes_on() {
    let setting = Setting::new();
    setting.llmflow("plan pipeline.yaml", 0);
    setting.hub.fail("train-0", [Fault::Cut(8), Fault::Status(503, "Retry-After: 3600")]);
    let failed = setting.llmflow("run pipeline.yaml", 1);
    assert!(failed.err.contains("answers 503"), "{}", failed.err);
    let (hub, project) = (TestHub::start(), &setting.project);
    hub.put("datasets/someone/rows", repo());
    let mut command = project.command("run pipeline.yaml");
    let done = Done::of(&command.env("HF_ENDPOINT", &hub.url).env("HF_HOME", project.path("hf")).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.err);
    let resumed = hub.log().into_iter().find(|asked| asked.path.contains("train-0")).unwrap();
    assert_eq!(resumed.range.as_deref(), Some("bytes=8-"));
}
