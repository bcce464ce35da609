//! A plan as people and programs read it.

use llmflow_contract::{Digest, StageId};
use serde::{Deserialize, Serialize};

use super::{Forecast, Plan, Standing, finished};
use crate::event::{Finished, refusal};

/// What a plan says of each stage, in an order that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlanView {
    pub stages: Vec<StageView>,
}

/// What will happen to one stage, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageView {
    pub stage: StageId,
    pub operator: String,
    pub version: u32,
    /// Stages it needs: data, `when` and `after`.
    pub needs: Vec<StageId>,
    pub will: Will,
    /// Expected, by its last run or those of its operator.
    pub seconds: Option<f64>,
    pub memory_bytes: u64,
    /// GPUs that it does not run without.
    #[serde(default, skip_serializing_if = "is_none")]
    pub gpus: u32,
    /// It runs a program of the user's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_foreign: bool,
    /// Size of what it will leave in the store.
    pub disk_bytes: u64,
}

fn is_none(gpus: &u32) -> bool {
    *gpus == 0
}

/// What will happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "will", rename_all = "snake_case")]
pub enum Will {
    /// Its key has no record, or it runs although there is one: `asked` says by what.
    Run {
        /// None while an input's digest is not known: it runs whatever that will be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
        because: Vec<Change>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
    Cached {
        key: Digest,
        finished: Finished,
        /// The device that it was computed on, where this run would take another: `cuda`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Whether it stays, whatever became of what it was made from.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        frozen: bool,
        /// The `require` that it does not meet, and why: what depends on it is skipped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// Runs only if these give other bytes than before.
    Waits {
        on: Vec<StageId>,
        /// What of its key is another already.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        because: Vec<Change>,
    },
    /// Runs only if its `when` holds, which these decide.
    Gate {
        on: Vec<StageId>,
        /// Why it then runs although its result may be there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
    Skipped {
        because: String,
    },
}

/// One part of a key that differs from the stage's last success. No parts: it never ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `with.lora_r`, `in.data`, `operator`.
    pub part: String,
    pub before: Option<String>,
    pub now: Option<String>,
    /// Where the new value comes from: `params.rank, assistant.yaml:10, set by --set`.
    pub origin: Option<String>,
}

impl PlanView {
    /// Stages that run, or may.
    pub fn to_run(&self) -> usize {
        self.stages.len() - self.cached() - self.skipped()
    }
    pub fn cached(&self) -> usize {
        self.stages.iter().filter(|stage| matches!(stage.will, Will::Cached { .. })).count()
    }
    pub fn skipped(&self) -> usize {
        self.stages.iter().filter(|stage| matches!(stage.will, Will::Skipped { .. })).count()
    }
}

impl Plan {
    /// The plan for readers.
    pub fn view(&self) -> PlanView {
        let mut stages: Vec<StageView> = self.order.iter().map(|index| self.stage_view(*index as usize)).collect();
        self.skip_after_refusals(&mut stages);
        PlanView { stages }
    }

    /// What depends on a result that is there and does not meet its `require` will not run.
    fn skip_after_refusals(&self, stages: &mut [StageView]) {
        let refused = |view: &StageView| matches!(&view.will, Will::Cached { refused: Some(_), .. });
        if !stages.iter().any(refused) {
            return;
        }
        let mut broken: Vec<Option<&'static str>> = vec![None; stages.len()];
        for (view, index) in stages.iter_mut().zip(&self.order) {
            let needs = &self.stages[*index as usize].needs;
            let because = needs.iter().find_map(|need| Some((*need as usize, broken[*need as usize]?)));
            if refused(view) {
                broken[*index as usize] = Some("is refused");
            } else if let Some((need, what)) = because {
                view.will = Will::Skipped { because: format!("`{}` {what}", self.stages[need].def.id) };
                broken[*index as usize] = Some("is skipped");
            }
        }
    }

    fn stage_view(&self, index: usize) -> StageView {
        let stage = &self.stages[index];
        let Forecast { seconds, disk_bytes } = self.forecast(index);
        StageView {
            stage: stage.def.id.clone(),
            operator: stage.entry.name.to_owned(),
            version: stage.entry.version,
            needs: stage.needs.iter().map(|need| self.stages[*need as usize].def.id.clone()).collect(),
            will: self.will(index),
            seconds,
            memory_bytes: stage.memory_bytes(),
            gpus: stage.gpus().min,
            is_foreign: stage.entry.is_foreign,
            disk_bytes,
        }
    }

    fn will(&self, index: usize) -> Will {
        let stage = &self.stages[index];
        match (&stage.standing, stage.settled.key) {
            (Standing::Cached(record), _) => {
                let refused = self.refusal(stage, record).map(|(expression, why)| refusal(&expression, &why));
                let (finished, device, frozen) =
                    (finished(record), self.other_device(index), stage.def.shared.is_frozen);
                Will::Cached { key: record.key, finished, device, frozen, refused }
            }
            (Standing::Skipped { because }, _) => Will::Skipped { because: because.clone() },
            (Standing::Gate, _) => {
                let reads = stage.def.when.iter().flat_map(|when| &when.reads);
                let why = if stage.forced { "--force" } else { "cache: false" };
                let asked = stage.is_forced().then(|| why.to_owned());
                Will::Gate { on: reads.map(|read| read.stage.clone()).collect(), asked }
            }
            (Standing::Run(asked), key) => {
                let parts = stage.last.is_some().then(|| self.components(index)).flatten();
                let is_same = parts.is_some();
                let because = parts.map(|parts| self.reasons(stage, &parts)).unwrap_or_default();
                let gone = (is_same && because.is_empty()).then(|| "its result is gone from the store".to_owned());
                let tried = || stage.tried.map(|how| format!("{} before", how.name()));
                let asked = asked.as_deref().map(str::to_owned).or(gone).or_else(tried);
                Will::Run { key, because, asked }
            }
            (Standing::Waits, _) => {
                let open = stage.needs.iter().map(|need| &self.stages[*need as usize]);
                let on = open.filter(|need| !need.is_settled()).map(|need| need.def.id.clone()).collect();
                Will::Waits { on, because: self.known_changes(stage) }
            }
        }
    }
}
