//! What was decided of the rows of a part, remembered.
//!
//! Owns: what a part's verdicts are remembered by, and their form. Must not know: how a row is judged.
//! One mechanism both goes on after a kill and reuses parts across runs, so that neither can disagree with the other. What is
//! kept is small, some bytes for each row left out: kept rows are read from the input again, and written as they were.

use std::borrow::Cow;

use llmflow_contract::{Context, Digest, Failure, Hasher};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Dataset, Fate, Part, Verdict};

/// Raised when the form of what is remembered changes.
const FORM: &[u8] = b"verdicts/1";
/// Verdicts of a part that take more are given again rather than kept: answers are small.
const MOST_BYTES: usize = 4 << 20;

/// Verdicts of before on the parts of one dataset, and of now for later.
pub(crate) struct Memory<'a> {
    ctx: &'a Context<'a>,
    /// None: a dataset of one part is judged faster than remembered.
    about: Option<Digest>,
}

impl<'a> Memory<'a> {
    pub fn of(ctx: &'a Context<'a>, dataset: &Dataset, about: &impl Serialize) -> Result<Self, Failure> {
        let about = serde_json::to_value(about).map_err(|error| Failure::bug(format!("params: {error}")))?;
        Ok(Self { ctx, about: (dataset.parts().len() > 1).then(|| Digest::of_json(&about)) })
    }

    /// Is anything remembered at all?
    pub fn is_worth_it(&self) -> bool {
        self.about.is_some()
    }

    /// One verdict for each row of the part, if all were given before.
    pub fn recall(&self, part: &Part) -> Result<Option<Vec<Verdict>>, Failure> {
        let Some(question) = self.question(part) else { return Ok(None) };
        let answer = self.ctx.recall(question.bytes())?;
        let verdicts = answer.and_then(|answer| serde_json::from_slice::<Verdicts>(&answer).ok());
        Ok(verdicts.and_then(|verdicts| verdicts.of_each(part.rows)))
    }

    /// Keeps the verdicts on a part; durable on return.
    pub fn remember(&self, part: &Part, verdicts: &Verdicts) -> Result<(), Failure> {
        let Some(question) = self.question(part).filter(|_| !verdicts.has_changes) else { return Ok(()) };
        let answer = serde_json::to_vec(verdicts).map_err(|error| Failure::bug(format!("verdicts: {error}")))?;
        if answer.len() > MOST_BYTES {
            return Ok(());
        }
        self.ctx.remember(question.bytes(), &answer)
    }

    fn question(&self, part: &Part) -> Option<Digest> {
        let mut hasher = Hasher::new();
        hasher.part(FORM).part(self.about?.bytes()).part(part.digest?.bytes());
        Some(hasher.finish())
    }
}

/// What became of the rows of a part: those left out; all others were kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Verdicts {
    rows: u64,
    left_out: Vec<LeftOut>,
    /// A changed row is as large as the row: such a part is judged again.
    #[serde(skip)]
    has_changes: bool,
}

/// The row's place in the part, what became of it, the rule, and what the rule saw.
#[derive(Debug, Serialize, Deserialize)]
struct LeftOut(u64, Fate, Cow<'static, str>, Value);

impl Verdicts {
    /// Adds the verdict on the next row.
    pub fn note(&mut self, verdict: &Verdict) {
        let mut leave_out = |fate, rule: &Cow<'static, str>, evidence: &Value| {
            self.left_out.push(LeftOut(self.rows, fate, rule.clone(), evidence.clone()));
        };
        match verdict {
            Verdict::Keep => {}
            Verdict::Change { .. } => self.has_changes = true,
            Verdict::Drop { rule, evidence } => leave_out(Fate::Dropped, rule, evidence),
            Verdict::SetAside { rule, evidence } => leave_out(Fate::SetAside, rule, evidence),
        }
        self.rows += 1;
    }

    /// One for each row; None if they are of another number of rows, or say what no row can have met.
    fn of_each(self, rows: u64) -> Option<Vec<Verdict>> {
        if self.rows != rows {
            return None;
        }
        let mut verdicts = vec![Verdict::Keep; usize::try_from(rows).ok()?];
        for LeftOut(at, fate, rule, evidence) in self.left_out {
            *verdicts.get_mut(usize::try_from(at).ok()?)? = match fate {
                Fate::Dropped => Verdict::Drop { rule, evidence },
                Fate::SetAside => Verdict::SetAside { rule, evidence },
                Fate::Kept | Fate::Changed | Fate::Made => return None,
            };
        }
        Some(verdicts)
    }
}
