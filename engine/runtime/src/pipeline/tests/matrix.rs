//! Sweeps: which stages a matrix stands for, what each of them is given, who reads whom.

use std::time::{Duration, Instant};

use serde_json::json;

use super::load;
use crate::pipeline::{Demand, Loaded, StageDef};

const SWEEP: &str = r#"
params: {ranks: [8, 16], use_dpo: true}
stages:
  rows: {op: data.load, with: {path: x.jsonl}}
  sft:
    op: train.sft
    in: rows
    matrix:
      lora_r: "${params.ranks}"
      lr: [1e-4, 2e-4]
      exclude: [{lora_r: 16, lr: 1e-4}]
      include: [{lora_r: 32, lr: 5e-5}]
      max_parallel: 2
    with: {lora_r: "${matrix.lora_r}", lr: "${matrix.lr}", system: "rank ${matrix.lora_r} of ${params.ranks2}"}
    seed: "${matrix.lora_r}"
    resources: {cores: "${matrix.lora_r}"}
"#;

fn sweep(rest: &str) -> Loaded {
    load(&format!("{}{rest}", SWEEP.replace(" of ${params.ranks2}", "")), &[])
}

fn ids(loaded: &Loaded) -> Vec<&str> {
    loaded.stages.iter().map(|stage| stage.id.as_str()).collect()
}

fn stage<'a>(loaded: &'a Loaded, id: &str) -> &'a StageDef {
    loaded.stages.iter().find(|stage| stage.id.as_str() == id).unwrap_or_else(|| panic!("{id} in {:?}", ids(loaded)))
}

fn read_by(stage: &StageDef) -> Vec<String> {
    stage
        .inputs
        .iter()
        .flat_map(|(_, refs)| refs.iter().map(|input| format!("{}.{}", input.stage, input.port)))
        .collect()
}

#[test]
fn a_matrix_is_one_stage_for_each_combination() {
    let loaded = sweep("");
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!(
        ids(&loaded),
        [
            "rows",
            "sft@lora_r=8,lr=0.0001",
            "sft@lora_r=8,lr=0.0002",
            "sft@lora_r=16,lr=0.0002",
            "sft@lora_r=32,lr=0.00005"
        ]
    );
    let last = stage(&loaded, "sft@lora_r=32,lr=0.00005");
    assert_eq!(last.with(), json!({"lora_r": 32, "learning_rate": 5e-5, "system": "rank 32"}));
    assert_eq!((last.seed(), last.resources().cores), (Some(32), Demand::Exactly(32)));
    assert_eq!(last.combination, 3);
    let matrix = last.shared.matrix.as_ref().unwrap();
    assert_eq!((matrix.len(), matrix.max_parallel), (4, Some(2)));
    assert_eq!(matrix.values_of(3).collect::<Vec<_>>(), [("lora_r", json!(32)), ("lr", json!(5e-5))]);
    assert_eq!(last.origin_of("lora_r").unwrap().describe(&loaded.pipeline.source), "matrix.lora_r, p.yaml:9");
    assert_eq!(read_by(last), ["rows.rows"]);
}

#[test]
fn a_port_that_takes_many_gathers_a_matrix_and_one_that_takes_one_names_a_combination() {
    let loaded = sweep(
        r#"  all: {op: data.dedup, in: [rows, loads]}
  loads: {op: data.load, matrix: {part: [a, b]}, with: {path: "${matrix.part}.jsonl"}}
  one: {op: eval.compare, in: {baseline: "sft@lora_r=8,lr=0.0001.report", candidate: "sft@lora_r=32,lr=0.00005.report"}}
  late: {op: data.load, with: {path: y}, after: sft}
"#,
    );
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!(read_by(stage(&loaded, "all")), ["rows.rows", "loads@part=a.rows", "loads@part=b.rows"]);
    assert_eq!(read_by(stage(&loaded, "one")), ["sft@lora_r=8,lr=0.0001.report", "sft@lora_r=32,lr=0.00005.report"]);
    let all = stage(&loaded, "all");
    for (_, refs) in all.inputs.iter() {
        refs.iter().for_each(|input| assert_eq!(loaded.stages[input.index as usize].id, input.stage));
    }
    assert_eq!(stage(&loaded, "late").after.len(), 4);
    assert_eq!(stage(&loaded, "late").needs(), [1, 2, 3, 4]);
}

#[test]
fn a_stage_with_the_same_axes_reads_its_counterpart() {
    let loaded = sweep(
        r#"  eval:
    op: eval.compare
    matrix: {lr: [2e-4, 1e-4], lora_r: [8], k: [1, 5]}
    in: {baseline: rows.report, candidate: sft.report}
    when: "params.use_dpo and sft.loss < 2"
  named:
    op: eval.compare
    matrix: {lora_r: [8, 32]}
    in: {baseline: "sft@lora_r=${matrix.lora_r},lr=${matrix.none}.report", candidate: rows.report}
"#
        .replace("lr=${matrix.none}", "lr=0.0002")
        .replace("lora_r: [8, 32]", "lora_r: [8, 16]")
        .as_str(),
    );
    assert_eq!(loaded.diagnostics.to_string(), "");
    let eval = stage(&loaded, "eval@lr=0.0002,lora_r=8,k=5");
    assert_eq!(read_by(eval), ["rows.report", "sft@lora_r=8,lr=0.0002.report"]);
    let when = eval.when.as_ref().unwrap();
    assert_eq!((when.reads[0].stage.as_str(), when.reads[0].metric.as_str()), ("sft@lora_r=8,lr=0.0002", "loss"));
    assert_eq!(when.expr.names(), ["sft.loss"], "the param has its value");
    assert_eq!(when.expr.evaluate(&|_| Some(1.5)), Ok(true));
    assert_eq!(read_by(stage(&loaded, "named@lora_r=16"))[0], "sft@lora_r=16,lr=0.0002.report");
}

#[test]
fn values_of_every_type_have_a_readable_name_of_their_own() {
    let text = r#"
stages:
  load:
    op: data.load
    matrix:
      path: ["Data/A.jsonl", "data/a.jsonl", "8"]
      n: [8, -1, 1.0, 1, true, ~, [q, v], [], {a: 1}]
    with: {path: "${matrix.path}"}
"#;
    let loaded = load(text, &[]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    let unique: std::collections::HashSet<&str> = ids(&loaded).into_iter().collect();
    assert_eq!((unique.len(), loaded.stages.len()), (27, 27));
    assert_eq!(
        ids(&loaded)[9..18],
        ["8", "-1", "1.0", "1", "true", "null", "q+v", "+8", "+9"].map(|n| format!("load@path=data-a.jsonl+2,n={n}"))
    );
    assert!(
        ids(&loaded)
            .iter()
            .all(|id| id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-@=,.+".contains(c)))
    );
}

#[test]
fn a_million_combinations_are_one_short_line() {
    let values = |count: usize| (1..=count).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        "stages:\n  rows: {{op: data.load, with: {{path: x}}}}\n  sft: {{op: train.sft, in: rows, matrix: {{lora_r: [{}], lr: [{}]}}, with: {{lora_r: \"${{matrix.lora_r}}\", lr: \"${{matrix.lr}}\"}}}}\n",
        values(1000),
        values(1000)
    );
    let start = Instant::now();
    let loaded = load(&text, &[]);
    let took = start.elapsed();
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!(loaded.stages.len(), 1_000_001);
    assert_eq!(loaded.stages[1_000_000].with(), json!({"lora_r": 1000, "learning_rate": 1000}));
    println!("{took:?}; a stage has {} bytes of its own", size_of::<StageDef>());
    assert!(took < Duration::from_secs(20), "{took:?}");
}
