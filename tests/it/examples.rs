//! The example of every operator's page, checked and run as its readers would: pasted into a pipeline.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{project::Project, with_your_trainer::has_python};

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

/// What stands around an example that is run: the same, learned by a model of a few thousand weights.
const AROUND_SMALL: [(&str, &str); 3] = [
    ("rows", "op: data.load\n    with: {path: data/tiny/instructions.jsonl, format: alpaca, on_bad_row: set_aside}"),
    ("questions", "op: data.load\n    with: {path: data/tiny/questions.jsonl, format: choice, role: eval}"),
    (
        "base",
        "op: train.pretrain\n    in: {tokenizer: tokenizer, data: docs}\n    with: {hidden_size: 32, num_hidden_layers: 1, \
         num_attention_heads: 2, max_length: 1024, max_steps: 2, per_device_train_batch_size: 1}",
    ),
];

/// Examples that are checked and not run, and why.
const NOT_RUN: [(&str, &str); 4] = [
    ("model.load", "downloads 100 MB"),
    ("train.pretrain", "`tiny.yaml` runs the same at this size"),
    ("deploy.serve", "asks what only a model that has learned it knows"),
    ("run.command", "is a trainer of the user's own: `with_your_trainer.yaml` has one"),
];

/// A script for the example of `data.map`: the first words of every answer.
const SHORTEN: &str = "import json, sys
for line in sys.stdin:
    row = json.loads(line)
    row['answer'] = ' '.join((row.get('answer') or '').split()[: int(sys.argv[2])])
    print(json.dumps(row))
";

/// The YAML of a page, stages by name.
fn example(doc: &str) -> String {
    let (_, from) = doc.split_once("```yaml\n").expect("a page has an example");
    from.split("```").next().unwrap().lines().map(|line| format!("  {line}\n")).collect()
}

/// The example with every stage around it that it may read.
fn pasted(own: &str, around: &BTreeMap<&str, &str>) -> String {
    let is_own = |stage: &str| own.contains(&format!("  {stage}:\n"));
    let others = around.iter().filter(|(stage, _)| !is_own(stage));
    let others: String = others.map(|(stage, text)| format!("  {stage}:\n    {text}\n")).collect();
    format!("stages:\n{others}{own}")
}

/// Each operator with its example.
fn examples(project: &Project) -> Vec<(String, String)> {
    let operators: Value = serde_json::from_str(&project.succeeds("operators --json").out).unwrap();
    let operators = operators.as_array().unwrap().iter();
    let text = |operator: &Value, field: &str| operator[field].as_str().unwrap().to_owned();
    operators.map(|operator| (text(operator, "name"), example(&text(operator, "doc")))).collect()
}

#[test]
fn the_example_of_every_page_passes_check_where_it_is_pasted() {
    let project = Project::teaching();
    for script in ["train.py", "shorten.py"] {
        project.write(&format!("pipelines/{script}"), "print()\n");
    }
    let around: BTreeMap<&str, &str> = AROUND.into();
    let mut wrong = Vec::new();
    for (name, own) in examples(&project) {
        project.write("pipelines/example.yaml", pasted(&own, &around));
        let done = project.llmflow("check pipelines/example.yaml");
        if done.code != Some(0) {
            wrong.push(format!("the example of `{name}`:\n{}", done.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the stages give is nothing to look at: the model has learned two steps. A gate of an example is left out.
#[test]
fn the_example_of_every_page_runs_to_its_end_at_toy_size() {
    let project = Project::teaching();
    project.write("pipelines/shorten.py", SHORTEN);
    let around: BTreeMap<&str, &str> = AROUND.into_iter().chain(AROUND_SMALL).collect();
    let mut wrong = Vec::new();
    for (name, own) in examples(&project) {
        if NOT_RUN.iter().any(|(other, _)| *other == name) || name == "data.map" && !has_python() {
            continue;
        }
        let stage = own.trim_start().split(':').next().unwrap().to_owned();
        let ungated: String =
            own.lines().filter(|line| !line.starts_with("    require:")).map(|line| format!("{line}\n")).collect();
        project.write("pipelines/example.yaml", pasted(&ungated, &around));
        let done = project.llmflow(&format!("run pipelines/example.yaml --only {stage}"));
        if done.code != Some(0) {
            wrong.push(format!("the example of `{name}`:\n{}", done.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
