//! The schema that editors read accepts what LLMflow accepts, and refuses what it can see is wrong.

use std::path::Path;

use jsonschema::Validator;
use llmflow_runtime::pipeline::{Node, SourceFile};
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

#[test]
fn the_line_that_names_the_schema_stands_where_editors_look() {
    for file in files_in("pipelines") {
        let text = std::fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| line.contains("yaml-language-server"));
        assert_eq!(line, Some("# yaml-language-server: $schema=./llmflow.schema.json"), "{}", file.display());
    }
}
