//! The hub's protocol against a hub of our own on loopback.

mod cached;
mod faults;
mod fetched;
mod refused;
mod resolved;
#[path = "../../../../../tests/support/hub.rs"]
#[allow(dead_code, reason = "shared with the tests of the program")]
pub(crate) mod server;

use std::{collections::BTreeMap, time::Duration};

use llmflow_contract::{Failure, Locked, LockedFile};
use server::{Repo, TestHub};

use super::{Fetched, Hub, MODEL_FILES, Repository, RepositoryKind, Select};
use crate::testing::TestHost;

const TOKEN: &str = "hf_not-a-real-one";

/// A model that no decoder would take, of a few bytes each.
fn model() -> Repo {
    Repo::default()
        .with("config.json", "{}")
        .with("tokenizer.json", "{\"a\": 1}")
        .with("model.safetensors", pseudo_random(5000))
        .with("pytorch_model.bin", "a pickle")
        .with("onnx/model.onnx", "of no use")
}

fn pseudo_random(size: u32) -> Vec<u8> {
    (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A hub without caches, patience or pauses.
pub(crate) fn hub(server: &TestHub) -> Hub {
    let mut hub = Hub::from(&|name| (name == "HF_ENDPOINT").then(|| server.url.clone())).unwrap();
    (hub.stall, hub.backoff, hub.caches) = (Duration::from_millis(300), Duration::ZERO, Vec::new());
    hub
}

fn with_token(server: &TestHub) -> Hub {
    Hub { token: Some(super::Token(TOKEN.into())), ..hub(server) }
}

fn repository(source: &str) -> Repository {
    Repository::parse(source, RepositoryKind::Model).unwrap()
}

fn resolve(hub: &Hub, source: &str, pattern: &str, host: &TestHost) -> Result<Locked, Failure> {
    hub.resolve(&repository(source), &Select::new(pattern).unwrap(), None, &host.context())
}

/// Resolves a file and fetches it.
fn fetch(hub: &Hub, pattern: &str, host: &TestHost) -> Result<Fetched, Failure> {
    let locked = resolve(hub, "hf:a/m", pattern, host)?;
    hub.fetch(&repository("hf:a/m"), &locked.revision, &locked.files, &host.context())
}

fn contents(fetched: &Fetched) -> BTreeMap<String, Vec<u8>> {
    fetched.iter().map(|(name, path)| (name.clone(), std::fs::read(path).unwrap())).collect()
}

fn sizes(files: &BTreeMap<String, LockedFile>) -> Vec<(&str, u64)> {
    files.iter().map(|(path, file)| (path.as_str(), file.size_bytes)).collect()
}
