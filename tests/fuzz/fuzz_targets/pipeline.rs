//! Any bytes as a pipeline file: read or refused, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llmflow_runtime::pipeline::{Overrides, SourceFile, load};

#[path = "../../../engine/runtime/src/pipeline/tests/operators.rs"]
#[allow(dead_code, reason = "some of it is read by the crate's own tests alone")]
mod operators;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let loaded = load(SourceFile::new("p.yaml", text), &Overrides::default(), &operators::registry());
    assert_eq!(loaded.diagnostics.to_string().is_empty(), loaded.diagnostics.is_empty());
    for stage in &loaded.stages {
        let _ = (stage.with(), stage.needs());
    }
});
