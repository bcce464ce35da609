//! Gathers what OpenLineage events are made of.

use std::collections::{BTreeMap, BTreeSet};

use llmflow_contract::{Digest, Failure};
use llmflow_runtime::event::RunId;

use crate::{command::history::History, render::open_lineage::Told};

/// A run with its stages, and what the store knows of their artifacts. What it no longer has is left out.
pub(super) async fn told(history: &History, run: &RunId) -> Result<Told, Failure> {
    let stages = history.lineage.stages_of_run(run).await?;
    let digests: BTreeSet<Digest> =
        stages.iter().flat_map(|stage| stage.outputs.iter().filter_map(|output| output.digest)).collect();
    let mut manifests = BTreeMap::new();
    for digest in digests {
        if let Ok(manifest) = history.store.manifest(&digest).await {
            manifests.insert(digest, manifest);
        }
    }
    Ok(Told {
        run: history.lineage.run(run).await?,
        file: history.lineage.pipeline_of(run).await?,
        events: history.lineage.events(run).await?,
        store: history.store.url(),
        stages,
        manifests,
    })
}
