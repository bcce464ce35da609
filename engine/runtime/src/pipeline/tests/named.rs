//! Stages whose params name their outputs: every reference to one is an edge.

use super::load;
use crate::pipeline::{Loaded, StageDef};

fn stage<'a>(loaded: &'a Loaded, id: &str) -> &'a StageDef {
    loaded.stages.iter().find(|stage| stage.id.as_str() == id).unwrap()
}

fn read_by(stage: &StageDef) -> Vec<String> {
    let refs = stage.inputs.iter().flat_map(|(_, refs)| refs.iter());
    refs.map(|input| format!("{}.{}", input.stage, input.port)).collect()
}

#[test]
fn words_that_are_numbers_and_truths_elsewhere_leave_the_outputs_their_names() {
    let text = r#"
params: {n: 2, share: 0.5, fast: true}
stages:
  rows: {op: data.load, with: {path: x}}
  a: {op: run.command, in: rows, with: {command: [sh, "${params.n}", "${params.share}", "${params.fast}"], outputs: {w: model}}}
  b: {op: run.command, in: rows, with: {command: [sh], env: {N: "${params.n}", S: "${params.share}", F: "${params.fast}"}, outputs: {w: model}}}
  c: {op: run.command, in: rows, matrix: {x: [1, 0.5, true]}, with: {command: [sh, "${matrix.x}"], env: {X: "${matrix.x}"}, outputs: {w: model}}}
  d: {op: run.command, in: rows, with: {command: [sh], max_output_bytes: "${rows.kept}", outputs: {w: model}}}
  all: {op: run.command, in: {a: a, b: b.w, one: c@x=1, half: c@x=0.5.w, yes: c@x=true, d: d.w}, with: {command: [sh], outputs: {w: model}}}
publish: {a: out/a, b.w: out/b, c@x=0.5: out/c, d: out/d}
"#;
    let loaded = load(text, &[]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!(read_by(stage(&loaded, "all")), ["a.w", "b.w", "c@x=1.w", "c@x=0.5.w", "c@x=true.w", "d.w"]);
    assert_eq!(loaded.pipeline.publish.len(), 4);
    assert_eq!(stage(&loaded, "c@x=0.5").with()["command"], serde_json::json!(["sh", "0.5"]));
}

#[test]
fn each_combination_of_a_matrix_may_name_outputs_of_its_own() {
    let text = r#"
stages:
  a: {op: run.command, matrix: {out: [{v: model}, {w: model}]}, with: {command: [sh], outputs: "${matrix.out}"}}
  b: {op: run.command, in: {v: a@out=+1.v, w: a@out=+2.w}, with: {command: [sh], outputs: {w: model}}}
  c: {op: run.command, in: {v: a@out=+1.w}, with: {command: [sh], outputs: {w: model}}}
"#;
    let loaded = load(text, &[]);
    assert_eq!(read_by(stage(&loaded, "b")), ["a@out=+1.v", "a@out=+2.w"]);
    let messages: Vec<&str> = loaded.diagnostics.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(messages, ["`a` (run.command) has no output `w`"]);
}

#[test]
fn what_a_refused_stage_gives_is_not_refused_at_its_readers() {
    let text = r#"
stages:
  a: {op: run.command, with: {command: sh, outputs: {w: model}}}
  b: {op: run.command, in: a, with: {command: [sh], outputs: {w: model}}}
  c: {op: run.command, in: {w: a.w}, with: {command: [sh], outputs: {w: model}}}
publish: {a: out/a, a.w: out/w}
"#;
    let loaded = load(text, &[]);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|found| found.code.as_str()).collect();
    assert_eq!(codes, ["param/type"]);
    assert!(!stage(&loaded, "a").sound);
    assert_eq!(
        (stage(&loaded, "b").needs(), stage(&loaded, "c").needs()),
        (vec![0], vec![0]),
        "they wait for it still"
    );
    assert_eq!(loaded.pipeline.publish.len(), 2);
}
