//! What a run made: copied out, named, damaged, mended, and let go.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::project::{Project, files_below, stages_with};

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn results_are_copied_out_and_what_is_there_is_never_written_over() {
    let toy = Project::toy();
    toy.succeeds("run toy.yaml");
    toy.succeeds("export @/clean rows.jsonl");
    let rows = fs::read_to_string(toy.path("rows.jsonl")).unwrap();
    assert!(rows.lines().count() > 10);
    assert!(rows.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    toy.succeeds("export @/clean rows.parquet");
    assert_eq!(&fs::read(toy.path("rows.parquet")).unwrap()[..4], b"PAR1");
    toy.succeeds("export @/sft.adapter out/adapter");
    assert!(toy.path("out/adapter/adapter_model.safetensors").is_file());
    for again in ["export @/clean rows.jsonl", "export @/sft.adapter out/adapter"] {
        assert!(toy.succeeds(again).err.contains("already"), "{again}");
    }
    toy.write("rows.jsonl", "mine");
    toy.write("out/adapter/adapter_config.json", "mine");
    for refused in ["export @/clean rows.jsonl", "export @/sft.adapter out/adapter", "export @/base out"] {
        let done = toy.llmflow(refused);
        assert_eq!(done.code, Some(2), "{refused}: {}", done.err);
        assert!(done.err.contains("export/occupied"), "{}", done.err);
    }
    assert_eq!(fs::read_to_string(toy.path("rows.jsonl")).unwrap(), "mine");
}

#[test]
fn damage_is_found_named_set_aside_and_made_anew() {
    let toy = Project::toy();
    toy.succeeds("run toy.yaml");
    let before = toy.results();
    assert!(toy.succeeds("verify").out.contains("all of it is as it was written"));
    let artifact: Value = serde_json::from_str(&toy.succeeds("export @/clean copy --json").out).unwrap();
    let manifest = toy.path(&format!(".llmflow/store/artifacts/{}", artifact["digest"].as_str().unwrap()));
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let digest = manifest["files"][0]["digest"].as_str().unwrap();
    let blob = toy.path(&format!(".llmflow/store/blobs/{}/{digest}", &digest[..2]));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(&blob, &bytes);
    let found = toy.llmflow("verify");
    assert_eq!(found.code, Some(3), "{}", found.out);
    assert!(found.out.contains("damaged") && found.out.contains("/clean"), "{}", found.out);
    toy.succeeds("verify --repair");
    let again = toy.succeeds("run toy.yaml --json");
    assert_eq!(stages_with(&again.events(), "finished"), ["clean"], "its producer alone runs again");
    assert_eq!(toy.results(), before);
    toy.succeeds("verify");
}

#[test]
fn a_named_run_stays_and_gc_says_what_it_would_cost_to_let_the_others_go() {
    let toy = Project::toy();
    toy.succeeds("run toy.yaml");
    assert!(toy.succeeds("tag @ first").err.contains("gc keeps it"));
    assert!(toy.succeeds("tag").out.contains("first"));
    for (words, named) in [("show @", "show first"), ("explain @/clean", "explain first/clean")] {
        assert_eq!(toy.succeeds(words).out, toy.succeeds(named).out, "a name stands for its run");
    }
    assert!(toy.llmflow("show second").err.contains("no run is called `second`"));
    assert_eq!(toy.llmflow("tag @ ../up").code, Some(2));
    let dry = toy.succeeds("gc --dry-run --keep 0").out;
    assert!(dry.contains("nothing to delete"), "{dry}");
    assert!(toy.succeeds("tag --remove first").err.contains("nothing any more"));
    let collected: Value = serde_json::from_str(&toy.succeeds("gc --keep 0 --json").out).unwrap();
    assert_eq!((&collected["records"], &collected["runs_let_go"]), (&0.into(), &1.into()), "all of it is young");
    let blobs: Vec<PathBuf> = files_below(&toy.path(".llmflow/store/blobs"));
    assert!(!blobs.is_empty());
}

/// What keeps things is never guessed at.
#[test]
fn a_damaged_record_of_a_run_or_name_is_told_and_stops_gc() {
    let toy = Project::toy();
    toy.succeeds("run toy.yaml");
    toy.succeeds("tag @ keep");
    for (folder, mended) in [("runs", true), ("tags", false)] {
        let object = files_below(&toy.path(&format!(".llmflow/store/{folder}"))).remove(0);
        let mut bytes = fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        overwrite(&object, &bytes);
        let found = toy.llmflow("verify");
        assert!(found.code == Some(3) && found.out.contains("damaged"), "{folder}: {}", found.out);
        let stopped = toy.llmflow("gc --keep 0");
        assert!(stopped.code == Some(3) && stopped.err.contains("store/damaged"), "{folder}: {}", stopped.err);
        let repaired = toy.llmflow("verify --repair");
        assert_eq!(repaired.out.contains("llmflow tag RUN NAME"), folder == "tags", "{}", repaired.out);
        assert_eq!(object.exists(), mended, "the history knows the run, nobody what was named");
        toy.succeeds("verify");
        toy.succeeds("gc --dry-run");
    }
}
