//! Which stages of a pipeline are asked for: `--only`, `--from`, `--force`.

use std::collections::BTreeSet;

use llmflow_contract::StageId;
use serde::{Deserialize, Serialize};

use crate::pipeline::{Diagnostic, StageDef};

/// What is asked for, by names of stages; a name means every combination of its matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// These, and what they need.
    pub only: Vec<String>,
    /// These, what depends on them, and what all of them need.
    pub from: Vec<String>,
    /// What is named runs although its result is there; everything, where nothing is named.
    pub force: bool,
    /// Results computed on other devices do not serve.
    pub exact: bool,
    /// What the run that is gone on with had done already: `force` leaves it alone.
    #[serde(skip)]
    pub done: BTreeSet<StageId>,
}

/// What a selection comes to, by position.
pub struct Chosen {
    /// Takes part in the run.
    pub wanted: Vec<bool>,
    /// Runs although its result is there.
    pub forced: Vec<bool>,
    /// Results computed on other devices do not serve.
    pub is_exact: bool,
}

impl Selection {
    /// Is everything asked for, as it stands?
    pub fn is_plain(&self) -> bool {
        self.only.is_empty() && self.from.is_empty() && !self.force && !self.exact
    }

    /// # Errors
    /// Every name that no stage has.
    pub fn choose(
        &self,
        defs: &[StageDef],
        needs: &[Box<[u32]>],
        topological: &[u32],
    ) -> Result<Chosen, Vec<Diagnostic>> {
        let mut unknown = Vec::new();
        let mut named = vec![false; defs.len()];
        let mut from = vec![false; defs.len()];
        for (option, names, marks) in [("--only", &self.only, &mut named), ("--from", &self.from, &mut from)] {
            for name in names {
                if !mark(name, defs, marks) {
                    let message = format!("`{option} {name}`: there is no stage `{name}`");
                    let diagnostic = Diagnostic::new("select/unknown", message, None);
                    unknown.push(diagnostic.nearest(name, defs.iter().map(|def| def.shared.name.as_str())));
                }
            }
        }
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let selects = !(self.only.is_empty() && self.from.is_empty());
        for stage in topological {
            let stage = *stage as usize;
            from[stage] |= needs[stage].iter().any(|need| from[*need as usize]);
            named[stage] |= from[stage];
        }
        let asked = named.iter().zip(defs).map(|(named, def)| (*named || !selects) && !self.done.contains(&def.id));
        let forced = asked.map(|asked| self.force && asked).collect();
        let mut wanted = if selects { named } else { vec![true; defs.len()] };
        for stage in topological.iter().rev().map(|stage| *stage as usize) {
            if wanted[stage] {
                needs[stage].iter().for_each(|need| wanted[*need as usize] = true);
            }
        }
        Ok(Chosen { wanted, forced, is_exact: self.exact })
    }
}

fn mark(name: &str, defs: &[StageDef], marks: &mut [bool]) -> bool {
    let is_meant = |id: &StageId| id.as_str() == name;
    let mut found = false;
    for (def, mark) in defs.iter().zip(marks) {
        if is_meant(&def.id) || is_meant(&def.shared.name) {
            (*mark, found) = (true, true);
        }
    }
    found
}
