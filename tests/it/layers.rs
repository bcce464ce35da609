//! The picture of DESIGN.md in the readme, read from the manifests: which crate may know which, and where heavy dependencies live.

use std::{collections::BTreeMap, fs};

use crate::project::{files_below, repository};

/// A crate, its folder, the crates of ours it may use, and the heavy ones at home in it.
struct Layer {
    name: &'static str,
    folder: &'static str,
    ours: &'static [&'static str],
    heavy: &'static [&'static str],
}

const LAYERS: [Layer; 7] = [
    Layer { name: "llmflow-contract", folder: "engine/contract", ours: &[], heavy: &[] },
    Layer {
        name: "llmflow-dataset",
        folder: "engine/dataset",
        ours: &["llmflow-contract"],
        heavy: &["arrow-array", "arrow-schema", "parquet"],
    },
    // The maths knows tensors and files, not pipelines.
    Layer {
        name: "llmflow-model",
        folder: "operators/model",
        ours: &[],
        heavy: &["candle-core", "candle-nn", "cudarc", "tokenizers"],
    },
    // The engine names no operator and links no maths.
    Layer {
        name: "llmflow-runtime",
        folder: "engine/runtime",
        ours: &["llmflow-contract", "llmflow-dataset"],
        heavy: &["serde_yaml", "petgraph", "object_store", "sqlx", "cudarc", "tokio"],
    },
    Layer {
        name: "llmflow-catalog",
        folder: "operators/catalog",
        ours: &["llmflow-contract", "llmflow-dataset", "llmflow-model"],
        heavy: &["tokio"], // the server inside `deploy.serve` owns its runtime
    },
    Layer {
        name: "llmflow-cli",
        folder: "engine/cli",
        ours: &["llmflow-contract", "llmflow-dataset", "llmflow-runtime"],
        heavy: &["clap", "tokio"],
    },
    Layer { name: "llmflow", folder: ".", ours: &["llmflow-catalog", "llmflow-cli"], heavy: &[] },
];

/// Dependencies that have a home.
const HEAVY: [&str; 13] = [
    "arrow-array",
    "arrow-schema",
    "candle-core",
    "candle-nn",
    "clap",
    "cudarc",
    "object_store",
    "parquet",
    "petgraph",
    "serde_yaml",
    "sqlx",
    "tokenizers",
    "tokio",
];

/// Within the runtime a heavy dependency belongs to one module.
const MODULES: [(&str, &str); 5] = [
    ("serde_yaml", "pipeline/"),
    ("petgraph", "plan/"),
    ("object_store", "store/"),
    ("sqlx", "lineage/"),
    ("cudarc", "device/"),
];

/// The names under `[dependencies]` of a manifest.
fn dependencies(folder: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(folder).join("Cargo.toml")).unwrap();
    let (mut names, mut inside) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && line != "[dev-dependencies]" && !line.starts_with("[workspace");
            continue;
        }
        let name = line.split_once(['.', '=', ' ']).map_or("", |(name, _)| name);
        if inside && !name.is_empty() && !name.starts_with('#') {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn every_crate_uses_only_the_crates_below_it() {
    for layer in &LAYERS {
        let found = dependencies(layer.folder);
        assert!(!found.is_empty(), "{} has no dependencies: is its manifest read?", layer.name);
        for name in found.iter().filter(|name| name.starts_with("llmflow")) {
            assert!(
                layer.ours.contains(&name.as_str()),
                "{} may not use {name}: DESIGN's picture has no such arrow",
                layer.name
            );
        }
    }
}

#[test]
fn every_heavy_dependency_stays_at_home() {
    for layer in &LAYERS {
        for name in dependencies(layer.folder).iter().filter(|name| HEAVY.contains(&name.as_str())) {
            assert!(layer.heavy.contains(&name.as_str()), "{name} has no home in {}", layer.name);
        }
    }
}

#[test]
fn within_the_runtime_a_heavy_dependency_belongs_to_one_module() {
    let source = repository().join("engine/runtime/src");
    let mut strays = BTreeMap::new();
    for file in files_below(&source) {
        let inner = file.strip_prefix(&source).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        for (name, home) in MODULES {
            let uses = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("{name}::"))
            });
            if uses && !inner.starts_with(home) {
                strays.insert(inner.clone(), name);
            }
        }
    }
    assert!(strays.is_empty(), "outside their home: {strays:?}");
}

#[test]
fn every_member_of_the_workspace_is_in_the_picture() {
    let text = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let members = text.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    for member in members.split(',').map(|member| member.trim().trim_matches('"')).filter(|member| !member.is_empty()) {
        assert!(LAYERS.iter().any(|layer| layer.folder == member), "{member} is new: say here what it may use");
    }
}
