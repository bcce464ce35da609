//! Golden digests: equal inputs give the bytes they gave before, or VERSION was raised.
//!
//! `golden.json` holds, by operator, the VERSION and the digest of what the case gives. Where a result may differ between
//! processors (`numerics: seeded`) it is of kinds, file names, the sizes of weights, the number of rows, and metrics to three
//! digits: what a change of the arithmetic moves, and another order of the same sums does not.

use std::{collections::BTreeMap, path::Path};

use llmflow_contract::{Digest, Numerics};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Done, run};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    version: u32,
    digest: Digest,
}

fn digest_of(done: &Done) -> Digest {
    if done.plan.numerics == Numerics::Exact {
        return Digest::of_json(&done.outputs.iter().map(|(port, made)| json!([port, made.digest])).collect());
    }
    let outputs = done.outputs.iter().map(|(port, made)| {
        // Weights take the same room whatever they are; texts and figures do not.
        let is_sized = !made.kind().is_dataset() && made.kind().as_str() != "report";
        let files = made.manifest.files.iter().map(|file| json!([file.path, is_sized.then_some(file.size_bytes)]));
        json!([port, made.kind(), files.collect::<Vec<_>>(), made.facts().rows])
    });
    let metrics = done.host.metrics_told().into_iter().map(|(name, value)| json!([name, rounded(value)]));
    Digest::of_json(&outputs.chain(metrics).collect())
}

/// Two digits after the point, three in all of a larger figure: processors differ in the seventh.
fn rounded(value: f64) -> f64 {
    let step = 10_f64.powi((value.abs().max(1e-9).log10().floor() as i32 - 2).max(-2));
    (value / step).round() * step + 0.0 // no minus before nothing
}

#[test]
fn figures_that_differ_in_their_last_digits_are_the_same_figure() {
    assert_eq!((rounded(5.551_234), rounded(5.551_239)), (rounded(5.55), rounded(5.55)));
    assert_eq!((rounded(-1e-7).to_string(), rounded(0.0)), ("0".into(), 0.0));
    assert_eq!(rounded(14_251.0), rounded(14_349.0));
    assert_ne!(rounded(5.55), rounded(5.56));
}

#[test]
fn bytes_change_with_the_version_and_never_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance/golden.json");
    let golden: BTreeMap<String, Golden> =
        std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let is_blessing = std::env::var_os("LLMFLOW_BLESS").is_some();
    let (mut now, mut wrong) = (BTreeMap::new(), Vec::new());
    for entry in crate::registry().entries() {
        let found = Golden { version: entry.version, digest: digest_of(&run(entry)) };
        match golden.get(entry.name) {
            Some(before) if *before == found => {}
            Some(before) if before.version == found.version => wrong.push(format!(
                "`{}` v{} gives other bytes than it did. If that is meant, raise its VERSION (results of before are then \
                 not taken for those of now), say so in CHANGELOG.md, and write the digest with LLMFLOW_BLESS=1",
                entry.name, found.version
            )),
            _ if is_blessing => {}
            before => wrong.push(format!(
                "`{}` v{} has no golden digest{}: write it with LLMFLOW_BLESS=1",
                entry.name,
                found.version,
                before.map(|before| format!(" (v{} has)", before.version)).unwrap_or_default()
            )),
        }
        now.insert(entry.name.to_owned(), found);
    }
    wrong.extend(
        golden
            .keys()
            .filter(|name| !now.contains_key(*name) && !is_blessing)
            .map(|name| format!("`{name}` is gone: LLMFLOW_BLESS=1 forgets it")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if is_blessing {
        std::fs::write(&path, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
    }
}
