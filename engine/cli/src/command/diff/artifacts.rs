//! What both gave, byte for byte.

use std::collections::HashMap;

use llmflow_contract::{Digest, Port};
use llmflow_runtime::pipeline::SIDE_PORTS;

use super::Pair;
use crate::render::diff::Artifact;

/// The outputs whose bytes differ; those with rows are told as datasets, and what the engine notes of every stage only where
/// nothing else of it differs.
pub(super) fn artifacts(pairs: &[Pair<'_>]) -> Vec<Artifact> {
    let mut all = Vec::new();
    for pair in pairs {
        let is_side = |port: &Port| SIDE_PORTS.contains(&port.as_str());
        let differing: Vec<_> = compared(pair).filter(|(_, _, before, now)| before != now).collect();
        let is_told = differing.iter().any(|(port, ..)| !is_side(port));
        let shown = differing.into_iter().filter(|(port, is_dataset, ..)| !(*is_dataset || is_told && is_side(port)));
        all.extend(shown.map(|(port, _, before, now)| Artifact {
            name: format!("{}.{port}", pair.name()),
            before,
            now,
        }));
    }
    all
}

/// Are the bytes of every output that both gave the same? Not where nothing was given.
pub(super) fn are_identical(pairs: &[Pair<'_>]) -> bool {
    let mut given = pairs.iter().flat_map(compared).peekable();
    given.peek().is_some() && given.all(|(_, _, before, now)| before == now)
}

/// The outputs of a pair: port, whether it has rows, digests.
fn compared<'a>(pair: &Pair<'a>) -> impl Iterator<Item = (&'a Port, bool, Digest, Digest)> + use<'a> {
    let old: HashMap<&Port, Digest> =
        pair.before.outputs.iter().filter_map(|output| Some((&output.port, output.digest?))).collect();
    pair.now.outputs.iter().filter_map(move |output| {
        Some((&output.port, output.kind.is_dataset(), *old.get(&output.port)?, output.digest?))
    })
}
