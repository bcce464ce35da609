//! The schema that editors read accepts what LLMflow accepts, and refuses what it can see is wrong.

use std::path::Path;

use jsonschema::Validator;
use llmflow_runtime::pipeline::{Node, Overrides, SourceFile};
use serde_json::Value;

use crate::project::repository;

fn validator() -> Validator {
    let schema = llmflow_runtime::pipeline::schema(&llmflow_catalog::registry());
    jsonschema::draft7::new(&schema).unwrap()
}

fn yaml(path: &Path) -> Value {
    let (node, _) = Node::parse(&SourceFile::read(path).unwrap()).unwrap();
    node.to_json()
}

fn files_in(folder: &str) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_pipeline_of_the_repository_passes_the_schema() {
    let validator = validator();
    let mut files = files_in("pipelines");
    files.extend(files_in("tests/pipelines/valid"));
    files.push(repository().join("tests/it/toy.yaml"));
    assert!(files.len() >= 5);
    for file in files {
        let pipeline = yaml(&file);
        let wrong: Vec<String> =
            validator.iter_errors(&pipeline).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", file.display());
    }
}

/// Files of `tests/pipelines/invalid` whose mistake an editor can show, and where it shows it.
const SEEN: [(&str, &str); 16] = [
    ("unknown_top_key", ""),
    ("unknown_operator", "/stages/rows/op"),
    ("unknown_param", "/stages/sft/with"),
    ("param_missing", "/stages/rows"),
    ("param_not_a_choice", "/stages/rows/with/format"),
    ("param_out_of_range", "/stages/unique/with/threshold"),
    ("stage_name_reserved", "/stages"),
    ("stage_name_with_capitals", "/stages"),
    ("stage_with_unknown_key", "/stages/rows"),
    ("stage_without_operator", "/stages/rows"),
    ("retry_of_bad_input", "/stages/rows/retry"),
    ("resources_of_wrong_size", "/stages/rows/resources"),
    ("frozen_not_a_truth", "/stages/rows/frozen"),
    ("matrix_without_values", "/stages/rows/matrix"),
    ("matrix_of_no_lists", "/stages/rows/matrix"),
    ("profile_of_unknown_names", "/profiles/gpu"),
];

#[test]
fn what_a_schema_can_see_is_refused_where_it_stands() {
    let validator = validator();
    for (name, place) in SEEN {
        let pipeline = yaml(&repository().join(format!("tests/pipelines/invalid/{name}.yaml")));
        let places: Vec<String> =
            validator.iter_errors(&pipeline).map(|error| error.instance_path().to_string()).collect();
        assert!(places.iter().any(|found| found.starts_with(place)), "{name}: {places:?}");
    }
}

/// Whole files, and whether they are right: LLMflow and the schema say the same.
const AGREED: [(bool, &str); 37] = [
    (true, "params: {a: data.load}\nstages: {rows: {op: \"${params.a}\", with: {path: x}}}"),
    (true, "params: {l: [lost]}\nstages: {rows: {ROWS, retry: {on: \"${params.l}\"}}}"),
    (true, "params: {l: lost}\nstages: {rows: {ROWS, retry: {on: [\"${params.l}\"]}}}"),
    (
        true,
        "params: {p: [{n: y}]}\nstages: {rows: {op: data.load, matrix: {n: [x], include: \"${params.p}\"}, with: {path: \"${matrix.n}\"}}}",
    ),
    (
        true,
        "profiles: {a: {params: , stages: }, b: {stages: {rows: }}, c: {stages: {rows: {with: , resources: }}}}\nstages: {rows: {ROWS}}",
    ),
    (true, "store: 5\nstages: {rows: {ROWS}}"),
    (true, "store: a/b\nstages: {rows: {ROWS}}"),
    (true, "store: file:///tmp/x\nstages: {rows: {ROWS}}"),
    (true, "stages: {rows: {ROWS, resources: {memory: \" 2GiB \"}}}"),
    (true, "stages: {rows: {ROWS, resources: {memory: .5G, cores: 1, gpus: auto}}}"),
    (true, "stages: {rows: {ROWS, timeout: 1h 30m, retry: {backoff: 1.5s}}}"),
    (true, "stages: {rows: {ROWS, seed: 18446744073709551615}}"),
    (true, "seed: 18446744073709551615\nstages: {rows: {ROWS}}"),
    (true, "params: {s: 7}\nseed: \"${params.s}\"\nstages: {rows: {ROWS}}"),
    (false, "seed: \"7\"\nstages: {rows: {ROWS}}"),
    (false, "seed: -1\nstages: {rows: {ROWS}}"),
    (false, "name: \"\"\nstages: {rows: {ROWS}}"),
    (false, "store: s3//x\nstages: {rows: {ROWS}}"),
    (false, "store: s3:/x\nstages: {rows: {ROWS}}"),
    (false, "store: ftp://x/y\nstages: {rows: {ROWS}}"),
    (false, "store: ~/x\nstages: {rows: {ROWS}}"),
    (false, "store: file://x\nstages: {rows: {ROWS}}"),
    (false, "store: s3://key:secret@b/x\nstages: {rows: {ROWS}}"),
    (false, "stages: {rows: {ROWS, when: \"\"}}"),
    (false, "stages: {rows: {ROWS, require: [1]}}"),
    (false, "stages: {rows: {ROWS, require: \"\"}}"),
    (false, "stages: {rows: {ROWS, timeout: 0s}}"),
    (false, "stages: {rows: {ROWS, timeout: -5m}}"),
    (false, "stages: {rows: {ROWS, timeout: 1:30:00}}"),
    (false, "stages: {rows: {ROWS, retry: {backoff: 5}}}"),
    (false, "stages: {rows: {ROWS, resources: {memory: .G}}}"),
    (false, "stages: {rows: {ROWS, resources: {memory: 0G}}}"),
    (false, "stages: {rows: {ROWS, resources: {gpus: 99999999999999999999}}}"),
    (false, "stages: {rows: {ROWS, resources: {cores: 0}}}"),
    (false, "stages: {rows: {ROWS, resources: {cores: 1, gpus: 4097}}}"),
    (false, "stages: {rows: {ROWS, seed: 99999999999999999999}}"),
    (false, "seed: 99999999999999999999\nstages: {rows: {ROWS}}"),
];

#[test]
fn the_schema_and_the_check_say_the_same() {
    let (validator, registry) = (validator(), llmflow_catalog::registry());
    for (is_right, text) in AGREED {
        let source = SourceFile::new("p.yaml", text.replace("ROWS", "op: data.load, with: {path: x}"));
        let (node, _) = Node::parse(&source).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&node.to_json()).map(|error| error.to_string()).collect();
        assert_eq!(wrong.is_empty(), is_right, "the schema: {text}: {wrong:?}");
        let loaded = llmflow_runtime::pipeline::load(source, &Overrides::default(), &registry);
        assert_eq!(loaded.diagnostics.is_empty(), is_right, "the check: {text}: {}", loaded.diagnostics);
    }
}

#[test]
fn the_line_that_names_the_schema_stands_where_editors_look() {
    for file in files_in("pipelines") {
        let text = std::fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| line.contains("yaml-language-server"));
        assert_eq!(line, Some("# yaml-language-server: $schema=./llmflow.schema.json"), "{}", file.display());
    }
}
