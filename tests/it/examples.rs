//! The example of every operator's page, checked as its readers would: pasted into a pipeline.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::project::Project;

/// What the examples read, each by the name they know it under.
const AROUND: [(&str, &str); 17] = [
    ("rows", "op: data.load\n    with: {path: data/instructions.jsonl, format: alpaca, on_bad_row: set_aside}"),
    ("docs", "op: data.load\n    with: {path: 'data/docs/*.md', format: text}"),
    ("corpus", "op: data.load\n    with: {path: data/tiny/corpus.jsonl, format: text}"),
    ("questions", "op: data.load\n    with: {path: data/questions.jsonl, format: choice, role: eval}"),
    ("clean", "op: data.filter\n    in: rows"),
    ("synthetic", "op: data.filter\n    in: rows"),
    ("unique", "op: data.dedup\n    in: rows"),
    ("split", "op: data.split\n    in: unique\n    with: {test_size: 0.1}"),
    ("tokenizer", "op: tokenizer.train\n    in: docs\n    with: {vocab_size: 512}"),
    ("base", "op: train.pretrain\n    in: {tokenizer: tokenizer, data: docs}\n    with: {max_length: 1024}"),
    ("sft", "op: train.sft\n    in: {model: base, data: split.train}"),
    ("merged", "op: model.adapter_merge\n    in: {model: base, adapter: sft}"),
    ("assistant", "op: model.adapter_merge\n    in: {model: base, adapter: sft}"),
    ("pairs", "op: synth.answer\n    in: {model: base, prompts: rows}\n    with: {as: preference}"),
    ("gguf", "op: quantize.gguf\n    in: merged"),
    ("eval_base", "op: eval.benchmark\n    in: {model: base, data: questions}"),
    ("eval_tuned", "op: eval.benchmark\n    in: {model: sft, data: questions}"),
];

/// The YAML of a page, stages by name.
fn example(doc: &str) -> String {
    let (_, from) = doc.split_once("```yaml\n").expect("a page has an example");
    from.split("```").next().unwrap().lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn the_example_of_every_page_passes_check_where_it_is_pasted() {
    let project = Project::teaching();
    for script in ["train.py", "shorten.py"] {
        project.write(&format!("pipelines/{script}"), "print()\n");
    }
    let around: BTreeMap<&str, &str> = AROUND.into();
    let operators: Value = serde_json::from_str(&project.succeeds("operators --json").out).unwrap();
    let mut wrong = Vec::new();
    for operator in operators.as_array().unwrap() {
        let (name, own) = (operator["name"].as_str().unwrap(), example(operator["doc"].as_str().unwrap()));
        let is_own = |stage: &str| own.contains(&format!("  {stage}:\n"));
        let others = around.iter().filter(|(stage, _)| !is_own(stage));
        let others: String = others.map(|(stage, text)| format!("  {stage}:\n    {text}\n")).collect();
        project.write("pipelines/example.yaml", format!("stages:\n{others}{own}"));
        let done = project.llmflow("check pipelines/example.yaml");
        if done.code != Some(0) {
            wrong.push(format!("the example of `{name}`:\n{}", done.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
