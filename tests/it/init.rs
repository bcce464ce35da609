//! `init`: a folder with nothing in it becomes a project that works.

use std::fs;

use crate::project::{Project, files_below, repository};

/// Every template, as a wrong name lists them.
fn templates() -> Vec<String> {
    let done = Project::with("").llmflow("init --template no-such");
    assert_eq!(done.code, Some(2), "{}", done.err);
    let listed = done.err.lines().skip_while(|line| !line.contains("the templates are")).skip(1);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let first = listed.clone().next().map(indent);
    let named = listed.filter(|line| Some(indent(line)) == first); // the others go on with what the line above says
    named.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn every_template_passes_check_in_a_folder_of_its_own() {
    let templates = templates();
    assert!(templates.len() >= 2 && templates[0] == "tiny", "{templates:?}");
    for name in templates {
        let project = Project::with("");
        let written = project.succeeds(&format!("init new --template {name}"));
        assert!(written.err.contains(&format!("llmflow run new/{name}.yaml")), "{}", written.err);
        let checked = project.succeeds(&format!("check new/{name}.yaml"));
        assert!(checked.err.starts_with("ok: "), "{}", checked.err);
        let text = fs::read_to_string(project.path(&format!("new/{name}.yaml"))).unwrap();
        assert!(!text.contains("pipelines/"), "the comments of {name} name a folder that is not there");
        assert!(text.contains("$schema=./llmflow.schema.json") && project.path("new/llmflow.schema.json").exists());
        for file in files_below(&project.path("new/data")) {
            let inner = file.strip_prefix(project.path("new")).unwrap().to_owned();
            assert_eq!(fs::read(&file).unwrap(), fs::read(repository().join("pipelines").join(&inner)).unwrap());
        }
        // A pattern takes what it finds, so a missing document would not be noticed by `check`.
        let count = |folder: &std::path::Path| files_below(&folder.join("data/docs")).len();
        let of_all = if text.contains("data/docs/*.md") { count(&repository().join("pipelines")) } else { 0 };
        assert_eq!(count(&project.path("new")), of_all, "{name}");
    }
}

#[test]
fn init_writes_over_nothing() {
    let project = Project::with("");
    project.write("tiny.yaml", "mine");
    let done = project.llmflow("init");
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("`./tiny.yaml` exists already; nothing was written"), "{}", done.err);
    assert!(!project.path("data").exists(), "it looks before it writes");
    assert_eq!(fs::read_to_string(project.path("tiny.yaml")).unwrap(), "mine");
    fs::remove_file(project.path("tiny.yaml")).unwrap();
    project.succeeds("init");
    project.succeeds("init");
}
