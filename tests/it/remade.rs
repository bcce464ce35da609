//! Results that turn out damaged in a run: made again, and what a run leaves fits together all the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::project::{Project, files_below, stages_with};

/// Writes another text into every blob that has one: the same length, so that its bytes alone tell.
fn damage(project: &Project, from: &str, to: &str) {
    let blobs: Vec<PathBuf> = files_below(&project.path(".llmflow/store/blobs"));
    let hit = blobs.into_iter().filter(|blob| fs::read_to_string(blob).is_ok_and(|text| text.contains(from)));
    let hit: Vec<PathBuf> = hit.collect();
    assert!(!hit.is_empty(), "no blob holds `{from}`");
    for blob in hit {
        let text = fs::read_to_string(&blob).unwrap().replace(from, to);
        let mut permissions = fs::metadata(&blob).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "a file of this test")]
        permissions.set_readonly(false);
        fs::set_permissions(&blob, permissions).unwrap();
        fs::write(&blob, text).unwrap();
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

const TWO: &str = r#"
stages:
  i: {op: run.command, with: {command: [sh, -c, "echo hello $(date +%N) > $0/x", "{out.f}"], outputs: {f: files}}}
  d: {op: run.command, in: i, with: {command: [cp, "{in.i}/x", "{out.f}/x"], outputs: {f: files}}}
  other: {op: run.command, with: {command: [sh, -c, "echo beside > $0/x", "{out.f}"], outputs: {f: files}}}
publish: {i: out/i, d: out/d, other: out/other}
"#;

#[test]
fn what_was_made_of_a_damaged_result_follows_where_that_comes_out_otherwise() {
    let project = Project::with(TWO);
    project.succeeds("run");
    damage(&project, "hello", "HELLO");
    fs::remove_dir_all(project.path("out")).unwrap();
    project.succeeds("run");
    assert_eq!(text(&project.path("out/i/x")), text(&project.path("out/d/x")));
    assert!(project.succeeds("plan").out.contains("nothing to do"), "{}", project.succeeds("plan").out);
}

/// Such a run is none until the damage is found: what ended before that is told all the same.
#[test]
fn a_run_that_begins_with_damage_tells_of_all_its_stages() {
    let project = Project::with(TWO);
    project.succeeds("run");
    damage(&project, "beside", "BESIDE");
    fs::remove_dir_all(project.path("out")).unwrap();
    let done = project.succeeds("run");
    assert!(done.out.contains("1 to run") || done.err.contains("1 to run"), "{}{}", done.out, done.err);
    let shown = project.succeeds("show @").out;
    assert!(!shown.contains("waiting") && shown.contains("cached"), "{shown}");
    assert!(project.succeeds("lineage @/d").out.contains("i.f"), "its results are in the history");
}

/// `x` damages what `i` gave, `e` finds it; meanwhile `d`, which read it before, asks to be started again.
#[test]
fn a_stage_that_is_to_try_again_waits_for_an_input_that_is_made_again() {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return; // the two run side by side
    }
    let marks = tempfile::tempdir().unwrap();
    let stages = r#"
stages:
  i: {op: run.command, with: {command: [sh, i.sh, "{out.f}", MARKS], files: [i.sh], outputs: {f: files}}}
  d:
    op: run.command
    in: i
    retry: {attempts: 2, on: [transient], backoff: 1ms}
    with: {command: [sh, d.sh, "{in.i}", MARKS, "{out.f}"], files: [d.sh], outputs: {f: files}}
  x: {op: run.command, after: [i], with: {command: [sh, x.sh, "{out.f}", MARKS], files: [x.sh], outputs: {f: files}}}
  e: {op: run.command, in: i, after: [x], with: {command: [cp, "{in.i}/x", "{out.f}/x"], outputs: {f: files}}}
"#;
    let project = Project::with(&stages.replace("MARKS", &marks.path().display().to_string()));
    let wait = |name: &str| format!("until [ -e \"$2/{name}\" ]; do sleep 0.02; done\n");
    // Made for the second time, it ends once `d` has asked.
    let again = format!(
        "if [ -e $2/made ]; then touch $2/again; {}sleep 1; fi\ntouch $2/made\necho hello from i > $1/x\n",
        wait("asked")
    );
    project.write("i.sh", again);
    project.write(
        "d.sh",
        format!("if [ -e $2/asked ]; then cp $1/x $3/x; exit 0; fi\n{}touch $2/asked\nexit 75\n", wait("again")),
    );
    let blobs = project.path(".llmflow/store/blobs").display().to_string();
    let spoil =
        "for b in $(grep -rl 'hello from i' BLOBS); do chmod u+w $b; echo HELLO from i > $b; done\necho x > $1/x\n";
    project.write("x.sh", spoil.replace("BLOBS", &blobs));
    let done = project.succeeds("run --json --jobs 3");
    let finished = stages_with(&done.events(), "finished");
    assert!(["i", "d", "x", "e"].iter().all(|name| finished.contains(&(*name).to_owned())), "{finished:?}");
}

#[test]
fn who_gives_up_waits_for_no_pause_to_end() {
    let project = Project::with(
        r#"
stages:
  slow:
    op: run.command
    retry: {attempts: 2, on: [transient], backoff: 1h}
    with: {command: [sh, -c, "exit 75", "{out.f}"], outputs: {f: files}}
  bad:
    op: run.command
    with: {command: [sh, -c, "sleep 0.5; exit 1", "{out.f}"], outputs: {f: files}}
"#,
    );
    let done = project.llmflow("run --json --fail-fast --jobs 2");
    let failed = stages_with(&done.events(), "failed");
    assert_eq!((done.code, failed.iter().filter(|name| *name == "slow").count()), (Some(1), 2), "{}", done.err);
}
