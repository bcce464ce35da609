//! Killed at any moment, a run can go on, and ends with the same bytes as one that nobody touched.
//!
//! Moments are drawn by seed as a number of events, so they fall anywhere in the run however fast the machine is:
//! 4 of them, or as many as `LLMFLOW_KILLS` says.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use llmflow_contract::Digest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::project::{FINISHED_TOY, Project, stages_with};

const SEED: u64 = 20_261_124;
/// How long workers may outlive their engine.
const ORPHANED: Duration = Duration::from_secs(5);

/// When and what to kill, and how to go on.
#[derive(Debug)]
struct Moment {
    /// So many events are waited for.
    events: usize,
    pause: Duration,
    /// The engine alone, or its whole process group.
    whole_group: bool,
    /// `resume RUN`, or `run` again.
    resumes: bool,
}

fn moments(total: usize) -> Vec<Moment> {
    let wanted = std::env::var("LLMFLOW_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    // One in each stretch of the run, so that few moments still cover all of it.
    let moment = |index: usize| {
        let (from, to) = (index * total / wanted, (index + 1) * total / wanted);
        Moment {
            events: (from + drawn(index, "event", to - from)).max(1),
            pause: Duration::from_millis(drawn(index, "pause", 60) as u64),
            whole_group: index % 2 == 1,
            resumes: (index / 2).is_multiple_of(2),
        }
    };
    (0..wanted).map(moment).collect()
}

/// A number below `limit`, the same for the same place and purpose.
fn drawn(index: usize, purpose: &str, limit: usize) -> usize {
    let digest = Digest::of(format!("{SEED} {purpose} {index}").as_bytes());
    let first: [u8; 8] = std::array::from_fn(|byte| digest.bytes()[byte]);
    (u64::from_le_bytes(first) % limit.max(1) as u64) as usize
}

const TINY: &str = "pipelines/tiny.yaml";

/// What a run of `tiny.yaml` put where people look, but for the report, which tells of times.
fn published(project: &Project) -> BTreeMap<PathBuf, String> {
    let is_report = |path: &Path| path.extension().is_some_and(|name| name == "html" || name == "md");
    project.digests("pipelines/out").into_iter().filter(|(path, _)| !is_report(path)).collect()
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_bytes() {
    let reference = Project::teaching();
    let done = reference.succeeds(&format!("run {TINY} --json"));
    let (results, expected) = (reference.results(), published(&reference));
    assert!(!expected.is_empty());
    for moment in moments(done.events().len()) {
        let tiny = Project::teaching();
        let run = kill_at(&tiny, &moment);
        // What is published is whole or not there.
        for (path, digest) in published(&tiny).into_iter().filter(|(path, _)| !path.to_string_lossy().starts_with('.'))
        {
            assert_eq!(expected.get(&path), Some(&digest), "{moment:?}: {} is half-written", path.display());
        }
        let again = if moment.resumes { format!("resume {run}") } else { format!("run {TINY}") };
        tiny.succeeds(&again);
        assert_eq!(tiny.results(), results, "{moment:?}: other artifacts after `{again}`");
        assert_eq!(published(&tiny), expected, "{moment:?}: other published files after `{again}`");
        let last = tiny.succeeds(&format!("run {TINY} --json"));
        assert_eq!(stages_with(&last.events(), "started"), [""; 0], "{moment:?}: something was left to do");
    }
}

#[test]
fn training_goes_on_from_its_checkpoint_and_ends_with_the_same_bytes() {
    let (reference, _) = &*FINISHED_TOY;
    let toy = Project::toy();
    let (mut child, mut events) = start(&toy, "toy.yaml");
    let saved = events.find(|event| event["event"] == "checkpoint" && event["stage"] == "sft");
    assert!(saved.is_some(), "sft made no checkpoint");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    let again = toy.succeeds("run toy.yaml --json");
    assert!(stages_with(&again.events(), "restored").contains(&"sft".to_owned()), "{}", again.out);
    assert_eq!(toy.results(), reference.results());
}

#[test]
fn a_killed_worker_costs_one_attempt() {
    let toy = Project::toy();
    let (child, mut events) = start(&toy, "toy.yaml");
    events.find(|event| event["event"] == "started" && event["stage"] == "sft").expect("sft starts");
    let workers = children_of(child.id());
    assert!(!workers.is_empty());
    for worker in workers {
        let _ = kill(Pid::from_raw(worker as i32), Signal::SIGKILL);
    }
    let rest: Vec<Value> = events.collect();
    let lost =
        rest.iter().find(|event| event["event"] == "failed" && event["stage"] == "sft").expect("the loss is told");
    assert_eq!(lost["failure"]["class"], "lost", "{lost}");
    assert!(lost["retry_in_ms"].is_u64(), "`retry: {{on: [lost]}}` asks for another attempt: {lost}");
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn an_interrupted_run_saves_and_says_how_to_go_on() {
    let (reference, _) = &*FINISHED_TOY;
    let toy = Project::toy();
    let mut child = toy.command("run toy.yaml --plain").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.contains("base") && line.contains("started")).expect("training starts");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().all(|line| !line.contains("skipped")), "what it did not come to waits: {rest:?}");
    let next = rest.iter().find_map(|line| line.split_once("llmflow resume ")).expect("it says how to go on");
    let run = next.1.split_whitespace().next().unwrap();
    toy.succeeds(&format!("resume {run}"));
    assert_eq!(toy.results(), reference.results());
}

/// Starts the run in a process group of its own; its events come as it makes them.
fn start(project: &Project, pipeline: &str) -> (Child, impl Iterator<Item = Value> + use<>) {
    let mut command = project.command(&format!("run {pipeline} --json"));
    let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()))
}

/// Kills a run at a moment and sees its workers die with it. Returns the run's name.
fn kill_at(tiny: &Project, moment: &Moment) -> String {
    let (mut child, mut events) = start(tiny, TINY);
    let first = events.next().expect("a first event");
    let run = first["run"].as_str().unwrap().to_owned();
    events.by_ref().take(moment.events - 1).for_each(drop);
    std::thread::sleep(moment.pause);
    let engine = child.id() as i32;
    let workers = children_of(child.id());
    let _ = kill(Pid::from_raw(if moment.whole_group { -engine } else { engine }), Signal::SIGKILL);
    child.wait().unwrap();
    let killed = Instant::now();
    while workers.iter().any(|worker| is_alive(*worker)) {
        assert!(killed.elapsed() < ORPHANED, "{moment:?}: a worker outlives its engine");
        std::thread::sleep(Duration::from_millis(10));
    }
    run
}

/// Processes whose parent this is.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|process| status_of(*process).is_some_and(|(_, of)| of == parent)).collect()
}

fn is_alive(process: u32) -> bool {
    status_of(process).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// State and parent of a process, from `/proc/PID/stat`: `pid (name) state parent …`.
fn status_of(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
