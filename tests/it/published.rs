//! What `publish` puts where the user wants it, in a form that other tools read.

use std::{os::unix::fs::PermissionsExt, process::Command};

use llmflow_contract::Digest;
use serde_json::Value;

use crate::project::{Done, Project};

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
    let csv = project.llmflow("export @/rows exported.csv");
    assert!(csv.code == Some(2) && csv.err.contains("llmflow export @/rows exported.jsonl"), "{}", csv.err);
    assert!(!project.path("exported.csv").exists());
    let mode = |path: &str| std::fs::metadata(project.path(path)).unwrap().permissions().mode();
    project.succeeds("export @/rows exported.parquet");
    assert_eq!(
        [mode("exported.jsonl"), mode("exported.parquet")],
        [mode("rows.jsonl"); 2],
        "as any file of the user's"
    );
    let trace = project.llmflow("export @/rows.trace trace.jsonl");
    assert!(trace.code == Some(2) && trace.err.contains("llmflow export @/rows.trace trace.parquet"), "{}", trace.err);
    for parquet in ["out/rows.parquet", "out/rows/part-00000.parquet"] {
        assert!(std::fs::read(project.path(parquet)).unwrap().starts_with(b"PAR1"), "{parquet}");
    }
    let stamp = || std::fs::metadata(project.path("out/rows.jsonl")).unwrap().modified().unwrap();
    let before = stamp();
    project.write("pipeline.yaml", format!("# a remark\n{}", PIPELINE.replace("PATHS", "out/rows.jsonl")));
    project.succeeds("run pipeline.yaml");
    assert_eq!(stamp(), before, "what lies there already is not written again");
    project.write("out/rows.jsonl", "edited\n");
    let done = project.llmflow("run pipeline.yaml");
    assert!(done.code == Some(1) && done.err.contains("publish/occupied"), "{:?} {}", done.code, done.err);
    assert_eq!(std::fs::read_to_string(project.path("out/rows.jsonl")).unwrap(), "edited\n");
    std::fs::remove_file(project.path("out/rows.jsonl")).unwrap();
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

#[test]
fn what_others_put_there_stays() {
    let project = project("[out/rows.jsonl, out/rows/, out/whole]");
    std::fs::create_dir(project.path("out")).unwrap();
    project.write("out/rows.jsonl", "mine\n");
    let done = project.llmflow("run pipeline.yaml");
    assert!(done.code == Some(1) && done.err.contains("publish/occupied"), "{:?} {}", done.code, done.err);
    assert_eq!(std::fs::read_to_string(project.path("out/rows.jsonl")).unwrap(), "mine\n");
    assert!(!project.llmflow("run pipeline.yaml").err.contains("up to date"));
    std::fs::remove_file(project.path("out/rows.jsonl")).unwrap();
    project.succeeds("run pipeline.yaml");
    assert!(project.path("out/whole/part-00000.parquet").is_file(), "rows without an ending are a folder");

    // A folder is replaced when its rows are; what somebody added is not of it.
    project.write("out/rows/NOTES.md", "mine");
    std::fs::rename(project.path("out/whole"), project.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(project.path("elsewhere"), project.path("out/whole")).unwrap();
    std::fs::rename(project.path("out/rows"), project.path("rows")).unwrap();
    std::os::unix::fs::symlink("../rows", project.path("out/rows")).unwrap(); // written with a `/` at its end
    project.write("rows.jsonl", "{\"text\": \"another\"}\n");
    project.succeeds("run pipeline.yaml");
    assert_eq!(std::fs::read_to_string(project.path("out/rows/NOTES.md")).unwrap(), "mine");
    for link in ["out/whole", "out/rows"] {
        assert!(std::fs::symlink_metadata(project.path(link)).unwrap().is_symlink(), "{link}: a link is followed");
    }
    let bytes = |path: &str| std::fs::read(project.path(path)).unwrap();
    assert_eq!(bytes("elsewhere/part-00000.parquet"), bytes("out/rows/part-00000.parquet"));
    // Nor is what LLMflow put there a stranger's once its history, or its whole home, is gone.
    for (lost, text) in [("lineage.db", "and another"), ("", "a third")] {
        for end in ["", "-wal", "-shm"].iter().filter(|_| !lost.is_empty()) {
            let _ = std::fs::remove_file(project.path(&format!(".llmflow/{lost}{end}")));
        }
        match lost {
            "" => std::fs::remove_dir_all(project.path(".llmflow")).unwrap(),
            _ => drop(project.succeeds("doctor --rebuild")),
        }
        project.write("rows.jsonl", format!("{{\"text\": \"{text}\"}}\n"));
        project.succeeds("run pipeline.yaml");
        assert!(std::fs::read_to_string(project.path("out/rows.jsonl")).unwrap().contains(text));
    }
}

/// A report is written over a report, through a link, and over nothing else.
#[test]
fn a_report_takes_no_file_of_somebody_elses() {
    for name in ["r.md", "r.html"] {
        let project = project("out/rows/");
        let text = PIPELINE.replace("PATHS", &format!("out/rows/\n  report: {name}"));
        project.write("pipeline.yaml", &text);
        project.write(name, "weeks of notes");
        let done = project.llmflow("run pipeline.yaml");
        assert!(done.code == Some(1) && done.err.contains("publish/occupied"), "{:?} {}", done.code, done.err);
        assert!(done.err.contains("1 stage"), "the run is told all the same: {}", done.err);
        assert_eq!(std::fs::read(project.path(name)).unwrap(), b"weeks of notes");
        std::fs::remove_file(project.path(name)).unwrap();
        std::fs::create_dir(project.path("shared")).unwrap();
        std::os::unix::fs::symlink(format!("shared/{name}"), project.path(name)).unwrap();
        project.succeeds("run pipeline.yaml");
        let first = std::fs::read(project.path(&format!("shared/{name}"))).unwrap();
        project.write("rows.jsonl", "{\"text\": \"another\"}\n");
        project.succeeds("run pipeline.yaml");
        assert_ne!(std::fs::read(project.path(&format!("shared/{name}"))).unwrap(), first);
    }
}

#[test]
fn what_an_earlier_run_published_is_named_where_this_one_skips_what_makes_it() {
    let text = PIPELINE.replace("PATHS", "out/rows.jsonl\n  kept: out/kept.jsonl");
    let kept = "  kept: {op: data.filter, in: rows, when: \"rows.rows > LEAST\"}\n";
    let project = project("");
    let text = text.replace("publish:", &format!("{kept}publish:"));
    project.write("pipeline.yaml", text.replace("LEAST", "2"));
    assert!(!project.succeeds("run").err.contains("left as it was"));
    project.write("pipeline.yaml", text.replace("LEAST", "20"));
    let done = project.succeeds("run").err;
    assert!(done.contains("left as it was:  out/kept.jsonl") && project.path("out/kept.jsonl").is_file(), "{done}");
}

#[test]
fn paths_that_lie_one_inside_the_other_are_refused_before_anything_runs() {
    for paths in ["[out/, out/rows.jsonl]", "[out/rows.jsonl, out]"] {
        let done = project(paths).llmflow("check pipeline.yaml");
        assert!(done.code == Some(2) && done.err.contains("publish/same-path"), "{paths}: {}", done.err);
    }
}

/// A file of the user's own that took the place of one that was published, whether its inode is that one's or not.
#[test]
fn what_took_the_place_of_a_published_file_stays() {
    for is_moved in [true, false] {
        let project = project("out/rows.jsonl");
        project.succeeds("run pipeline.yaml");
        let text = std::fs::read(project.path("out/rows.jsonl")).unwrap();
        std::fs::remove_file(project.path("out/rows.jsonl")).unwrap();
        project.write(if is_moved { "notes" } else { "out/rows.jsonl" }, "my own notes");
        if is_moved {
            std::fs::rename(project.path("notes"), project.path("out/rows.jsonl")).unwrap();
        }
        for rows in [None, Some("{\"text\": \"another\"}\n")] {
            rows.iter().for_each(|rows| project.write("rows.jsonl", rows));
            let done = project.llmflow("run pipeline.yaml");
            assert!(done.code == Some(1) && done.err.contains("publish/occupied"), "{:?} {}", done.code, done.err);
            assert_eq!(std::fs::read(project.path("out/rows.jsonl")).unwrap(), b"my own notes");
        }
        // The bytes of what was published last are ours, whatever carries them.
        std::fs::remove_file(project.path("out/rows.jsonl")).unwrap();
        project.write("out/rows.jsonl", text);
        project.succeeds("run pipeline.yaml");
        assert!(std::fs::read_to_string(project.path("out/rows.jsonl")).unwrap().contains("another"));
    }
}

const NOTES: &str = r#"
params: { n: 1, who: anna }
stages:
  notes:
    op: run.command
    with:
      command: [sh, -c, "echo $1 > $0/only$1.txt; echo $2 > $0/who.txt", "{out.d}", "${params.n}", "${params.who}"]
      outputs: { d: files }
publish: { notes: out/notes }
"#;

/// A file of the user's own with the name of one that was published in a folder.
#[test]
fn what_took_the_place_of_a_file_in_a_published_folder_stays() {
    let project = Project::with(NOTES);
    let own =
        |name: &str| std::fs::read(project.path(&format!("out/notes/{name}"))).is_ok_and(|text| text == b"my own");
    project.succeeds("run pipeline.yaml");
    project.write("out/notes/who.txt", "my own");
    for asked in ["", " --set who=berta", " --set n=2"] {
        let done = project.llmflow(&format!("run pipeline.yaml{asked}"));
        assert!(done.code == Some(1) && done.err.contains("publish/occupied"), "{asked}: {}", done.err);
        assert!(done.err.contains("who.txt` was changed since") && done.err.contains("delete it"), "{}", done.err);
        assert!(own("who.txt") && project.path("out/notes/only1.txt").is_file(), "{asked}");
    }
    std::fs::remove_file(project.path("out/notes/who.txt")).unwrap();
    project.succeeds("run pipeline.yaml");
    // Renamed into place, and no name of what is published next.
    project.write("mine", "my own");
    std::fs::rename(project.path("mine"), project.path("out/notes/only1.txt")).unwrap();
    for who in ["anna", "berta"] {
        project.succeeds(&format!("run pipeline.yaml --set n=2 --set who={who}"));
        assert!(own("only1.txt") && project.path("out/notes/only2.txt").is_file(), "{who}");
    }
    project.succeeds("run pipeline.yaml --set n=3");
    assert!(own("only1.txt") && !project.path("out/notes/only2.txt").exists(), "what is LLMflow's goes as it came");
}

/// The file is the one that was published, attribute and all.
#[test]
fn what_was_written_into_a_published_file_stays() {
    for is_appended in [true, false] {
        let project = project("[out/rows.jsonl, out/rows.parquet]");
        project.succeeds("run pipeline.yaml");
        for name in ["out/rows.jsonl", "out/rows.parquet"] {
            let published = std::fs::read(project.path(name)).unwrap();
            let own = if is_appended { [&*published, b"\n"].concat() } else { b"my own notes".to_vec() };
            project.write(name, &own);
            for rows in [None, Some(format!("{{\"text\": \"without {name}\"}}\n"))] {
                rows.iter().for_each(|rows| project.write("rows.jsonl", rows));
                let done = project.llmflow("run pipeline.yaml");
                assert!(done.code == Some(1) && done.err.contains("publish/occupied"), "{:?} {}", done.code, done.err);
                assert_eq!(std::fs::read(project.path(name)).unwrap(), own);
            }
            std::fs::remove_file(project.path(name)).unwrap();
            project.succeeds("run pipeline.yaml");
        }
    }
}

/// A copy keeps neither inodes nor attributes.
#[test]
fn a_project_that_was_copied_publishes_over_what_it_published() {
    let project = project("[out/rows.jsonl, out/rows.parquet, out/rows/]");
    project.succeeds("run pipeline.yaml");
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(project.path(".")).arg(copy.path().join("copy")).status().unwrap();
    assert!(copied.success());
    let at = |inner: &str| copy.path().join("copy").join(inner);
    std::fs::write(at("rows.jsonl"), "{\"text\": \"another\"}\n").unwrap();
    let run = || Done::of(&project.command("run pipeline.yaml").current_dir(at("")).output().unwrap());
    let done = run();
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(std::fs::read_to_string(at("out/rows.jsonl")).unwrap().contains("another"));
    assert!(!std::fs::read_to_string(project.path("out/rows.jsonl")).unwrap().contains("another"));
    std::fs::remove_file(at("out/rows.jsonl")).unwrap();
    std::fs::write(at("out/rows.jsonl"), "my own notes").unwrap();
    let done = run();
    assert!(done.code == Some(1) && done.err.contains("publish/occupied"), "{:?} {}", done.code, done.err);
}
