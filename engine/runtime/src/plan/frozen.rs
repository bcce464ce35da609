//! Results that stay: those of frozen stages.
//!
//! Owns: which earlier result of a frozen stage holds.
//! Must not know: keys of now, which such a result outlives.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use llmflow_contract::{Digest, Failure, StageId};

use crate::{
    lineage::Lineage,
    pipeline::{Pipeline, StageDef},
    store::{KeyRecord, Store},
};

/// The last result of every frozen stage that still stands: it serves whatever its key would be now. A stage that never
/// ran in this home has what another home froze on the same store, if the file states the pipeline's name: one that is only
/// the file's is many a pipeline's.
pub(super) async fn records(
    defs: &[StageDef],
    pipeline: &Pipeline,
    store: &Store,
    lineage: Option<&Lineage>,
) -> Result<HashMap<StageId, Arc<KeyRecord>>, Failure> {
    let wanted: Vec<&StageId> = defs.iter().filter(|def| def.shared.is_frozen).map(|def| &def.id).collect();
    let (Some(lineage), false) = (lineage, wanted.is_empty()) else { return Ok(HashMap::new()) };
    let file = (pipeline.name.as_str(), &*pipeline.source.absolute_path());
    let limit = pipeline.overrides.limit;
    let mut keys: BTreeMap<StageId, Digest> = lineage.last_keys(file, limit, &wanted).await?.into_iter().collect();
    for stage in wanted.into_iter().filter(|_| pipeline.is_named) {
        if !keys.contains_key(stage)
            && let Some(frozen) = store.frozen(&pipeline.name, stage, limit).await?
            && !lineage.has_run(&frozen.run).await?
        {
            keys.insert(stage.clone(), frozen.key); // else it is of another file in this home
        }
    }
    let mut records = HashMap::new();
    for (stage, key) in keys {
        if let Some(record) = store.key_record(&key).await? {
            records.insert(stage, Arc::new(record));
        }
    }
    Ok(records)
}
