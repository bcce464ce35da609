//! Golden digests: equal inputs give the bytes they gave before, or VERSION was raised.
//!
//! `golden.json` holds, by operator, the VERSION and the digest of what the case gives. Where a result may differ between
//! processors (`numerics: seeded`) it is of kinds, file names and sizes alone.

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
    let outputs = done.outputs.iter().map(|(port, made)| {
        let files = made.manifest.files.iter().map(|file| json!([file.path, file.size_bytes]));
        match done.plan.numerics {
            Numerics::Exact => json!([port, made.digest]),
            _ if made.kind().is_dataset() || made.kind().as_str() == "report" => json!([port, made.kind()]),
            _ => json!([port, made.kind(), files.collect::<Vec<_>>()]),
        }
    });
    Digest::of_json(&outputs.collect())
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
