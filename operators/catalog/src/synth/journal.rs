//! What a model has already written, saved batch by batch, so that a killed stage goes on where it stood.
//!
//! Owns: the journal's file in a checkpoint. Must not know: what an entry means.

use llmflow_contract::{Context, Failure};
use serde::{Serialize, de::DeserializeOwned};

/// Prompts between two saves; part of how seeds are drawn, so no tuning.
pub(super) const BATCH: usize = 32;
const FILE: &str = "journal.json";

/// Entries in the order of what was asked.
pub(super) struct Journal<T> {
    entries: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// What an earlier attempt saved, or nothing. At most `limit` entries are believed.
    pub fn restore(ctx: &Context, limit: usize) -> Result<Self, Failure> {
        let mut entries: Vec<T> = Vec::new();
        if let Some(checkpoint) = ctx.restore()? {
            let path = checkpoint.folder.join(FILE);
            let bytes = std::fs::read(&path).map_err(|error| Failure::io("reading", &path, &error))?;
            entries = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::bug(format!("the saved journal does not read back: {error}")))?;
        }
        entries.truncate(limit);
        Ok(Self { entries })
    }
    pub fn entries(&self) -> &[T] {
        &self.entries
    }
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Adds a batch; it is durable on return.
    pub fn extend(&mut self, ctx: &Context, batch: Vec<T>) -> Result<(), Failure> {
        self.entries.extend(batch);
        let bytes = serde_json::to_vec(&self.entries).map_err(|error| Failure::bug(format!("journal: {error}")))?;
        ctx.save(|folder| {
            let path = folder.join(FILE);
            std::fs::write(&path, &bytes).map_err(|error| Failure::io("writing", &path, &error))
        })
    }
}

/// The seed of the batch that begins at `start`: a function of the stage's seed and the place alone.
pub(super) fn seed_of(ctx: &Context, purpose: &str, start: usize) -> u64 {
    use rand::Rng;
    ctx.rng(&format!("{purpose}/{start}")).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHost;

    #[test]
    fn a_journal_goes_on_where_it_was_saved() {
        let host = TestHost::new();
        let ctx = host.context();
        let mut journal = Journal::<String>::restore(&ctx, 9).unwrap();
        assert_eq!(journal.len(), 0);
        journal.extend(&ctx, vec!["a".into(), "b".into()]).unwrap();
        journal.extend(&ctx, vec!["c".into()]).unwrap();
        assert_eq!(Journal::<String>::restore(&ctx, 9).unwrap().entries(), ["a", "b", "c"]);
        assert_eq!(Journal::<String>::restore(&ctx, 2).unwrap().len(), 2);
    }
}
