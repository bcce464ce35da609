//! Whole files against a few operators that do nothing.

mod invalid;
mod matrix;
mod mutation;
mod named;
pub(crate) mod operators;
mod refused;
mod speed;
mod valid;

use super::{Loaded, Overrides, SourceFile, load_in};

/// Loads a text with these `--set`, in an environment where `REGION` is `eu`.
fn load(text: &str, set: &[&str]) -> Loaded {
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    load_over(text, &Overrides { set, ..Overrides::default() })
}

/// As [`load`], with all that can be asked in place of what the file says.
fn load_over(text: &str, overrides: &Overrides) -> Loaded {
    let environment = |name: &str| (name == "REGION").then(|| "eu".to_owned());
    load_in(SourceFile::new("p.yaml", text), overrides, &operators::registry(), &environment)
}

const VALID: &str = r#"
name: small
seed: 7
x-notes: {any: thing}
params:
  rank: 16
  lr: 2e-4
  share: { default: 0.1, range: [0, 0.5], doc: held out }
stages:
  rows:
    op: data.load
    with: { path: "data/${env.REGION}.jsonl", format: alpaca }
  more:
    op: data.load
    with: &more { path: more.jsonl }
  again:
    op: data.load
    with: { <<: *more, format: chat }
  unique:
    op: data.dedup
    in: [rows, more, again]
    with: { threshold: 0.8, keep: { min_overlap: 0.3 } }
  split:
    op: data.split
    in: unique
    with: { test_size: "${params.share}" }
  sft:
    op: train.sft
    in: { data: split.train, eval: split.test }
    with:
      rank: "${params.rank}"
      lr: "${params.lr}"
      system: ""
    resources: { cores: 2, memory: 8G, gpus: auto }
    retry: { attempts: 3, on: [lost, memory], backoff: 10s }
    timeout: 2h
  verdict:
    op: eval.compare
    in: { baseline: split.report, candidate: sft.report }
    require: ["acc_delta.lower95 > 0"]
    after: more
publish:
  sft: out/model
  report: [out/report.html, out/report.md]
"#;
