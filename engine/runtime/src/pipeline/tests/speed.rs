//! Figures of large files. Run alone:
//! `cargo test --release -p llmflow-runtime -- --ignored --nocapture --test-threads 1 speed`

use std::time::{Duration, Instant};

use super::load;
use crate::pipeline::{Node, SourceFile};

/// 10,000 stages, 1.87 MB: each reads the one before, with params, retries and a comment.
fn ten_thousand() -> String {
    let mut text = "# ten thousand stages\nname: big\nstages:\n  s0: {op: data.load, with: {path: x}}\n".to_owned();
    for at in 1..10_000 {
        text.push_str(&format!(
            "  s{at}:\n    op: data.dedup\n    in: [s{}]\n    with:\n      threshold: 0.{:02}\n      num_perm: {}\n      keep: {{ min_overlap: 0.3 }}\n    retry: {{ attempts: 2, on: [lost, transient] }}\n    timeout: 2h # {:>20}\n",
            at - 1, 10 + at % 80, 1 + at % 4096, at
        ));
    }
    text
}

fn best_of(times: usize, mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..times).map(once).min().unwrap_or_default()
}

/// Peak of this process, in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[test]
#[ignore = "prints figures"]
fn speed_of_ten_thousand_stages() {
    let text = ten_thousand();
    let source = SourceFile::new("p.yaml", text.as_str());
    let parse = best_of(5, || drop(Node::parse(&source)));
    let all = best_of(5, || {
        let loaded = load(&text, &[]);
        assert_eq!((loaded.stages.len(), loaded.diagnostics.len()), (10_000, 0));
    });
    println!("{} bytes: parsed in {parse:?}, parsed and checked in {all:?}, peak {} MB", text.len(), peak_mb());
}

/// One stage of side × side combinations.
fn sweep(name: &str, side: u32, wiring: &str) -> String {
    let values = (1..=side).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    format!(
        "  {name}:\n    op: train.sft\n    {wiring}\n    matrix: {{a: [{values}], b: [{values}]}}\n    with: {{lora_r: \"${{matrix.a}}\", lr: \"${{matrix.b}}\"}}\n"
    )
}

#[test]
#[ignore = "prints figures"]
fn speed_of_a_million_combinations() {
    let head = "stages:\n  rows: {op: data.load, with: {path: x}}\n";
    let text = format!("{head}{}", sweep("sft", 1000, "in: rows"));
    let before = peak_mb();
    let took = best_of(3, || assert_eq!(load(&text, &[]).stages.len(), 1_000_001));
    println!("1,000,000 combinations in {took:?}, peak {} MB, {before} before", peak_mb());
    let paired = sweep("more", 700, "in: {data: rows, eval: sft}\n    when: sft.loss < 2");
    let text = format!("{head}{}{paired}", sweep("sft", 700, "in: rows"));
    let start = Instant::now();
    let loaded = load(&text, &[]);
    println!("{} stages, half of them in pairs, in {:?} {}", loaded.stages.len(), start.elapsed(), loaded.diagnostics);
}
