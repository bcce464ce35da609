//! A stage whose names are all looked up: what the planner reads.
//!
//! Owns: the lean form of a million stages from one matrix, what each of them differs in.
//! Must not know: how any of it was read, kinds and keys.

use std::{sync::Arc, time::Duration};

use llmflow_contract::{Port, StageId};
use serde_json::Value as Json;

use super::{
    demand::{Resources, Retry},
    expression::Expr,
    matrix::Matrix,
    origin::Origin,
    places::{GivenAt, Places},
    source::{SourceFile, Span},
    stage::Require,
    varied::Varied,
};

/// The ports that are given, in the order the operator declares them, with what each takes.
pub type Wired = Arc<[(Port, Arc<[InputRef]>)]>;

/// One stage. About 70 bytes beside its id and the inputs that are its own: what all combinations of a matrix
/// have in common is held once.
#[derive(Clone, Debug)]
pub struct StageDef {
    /// `sft`; of a matrix `sft@lora_r=8,lr=0.0001`.
    pub id: StageId,
    pub shared: Arc<StageShared>,
    /// Which combination of `shared.matrix`; 0 without one.
    pub combination: u32,
    /// Whether nothing in it was refused. Else neither it nor what needs it can be planned.
    pub sound: bool,
    pub inputs: Wired,
    /// Order without data.
    pub after: Arc<[StageRef]>,
    /// Runs only if this holds.
    pub when: Option<Arc<When>>,
}

/// What does not differ between the combinations of a matrix, and the few values that do.
#[derive(Clone, Debug)]
pub struct StageShared {
    /// As the file has it: the id without a combination.
    pub name: StageId,
    /// Its key.
    pub span: Span,
    pub op: String,
    pub op_span: Span,
    pub places: Places,
    pub retry: Retry,
    /// Of one attempt.
    pub timeout: Option<Duration>,
    pub require: Vec<Require>,
    /// Never run again while its result exists.
    pub is_frozen: bool,
    /// Whether a result of an earlier run serves; `cache: false` runs it every time.
    pub is_cached: bool,
    pub matrix: Option<Arc<Matrix>>,
    /// Params under their canonical names, in the operator's order; defaults are not filled in.
    pub(super) with: Vec<(String, Varied<Json>)>,
    /// Params whose values are metrics of other stages.
    pub fills: Vec<Fill>,
    pub(super) resources: Varied<Resources>,
    pub(super) seed: Varied<Option<u64>>,
}

/// A param whose value is a metric of another stage: an edge, and in the key as its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    pub param: String,
    pub read: MetricRef,
    pub span: Span,
}

/// A stage that another one names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRef {
    pub stage: StageId,
    /// Its position in [`super::Loaded::stages`].
    pub index: u32,
    pub span: Span,
}

/// An output of a stage, named by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRef {
    pub stage: StageId,
    /// Resolved: a bare stage name means its main output, or `report` if it has none.
    pub port: Port,
    /// The stage's position in [`super::Loaded::stages`].
    pub index: u32,
    pub span: Span,
    /// The name it goes by where the file gives a port a map.
    pub label: Option<Arc<str>>,
}

/// The condition under which a stage runs.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    /// Its params have their values; the names left are those of `reads`.
    pub expr: Expr,
    pub span: Span,
    pub reads: Vec<MetricRef>,
}

/// A metric of another stage: an edge, and in no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRef {
    /// As the condition writes it: `eval.acc`.
    pub name: String,
    pub stage: StageId,
    /// The stage's position in [`super::Loaded::stages`].
    pub index: u32,
    /// `acc`
    pub metric: String,
}

impl StageDef {
    /// Params under their canonical names, defaults not filled in.
    pub fn with(&self) -> Json {
        let params = self.shared.with.iter();
        Json::Object(params.map(|(name, value)| (name.clone(), value.get(self.combination).clone())).collect())
    }
    /// What it demands of the machine.
    pub fn resources(&self) -> &Resources {
        self.shared.resources.get(self.combination)
    }
    /// Its own seed, if the file gives one; else the pipeline's holds.
    pub fn seed(&self) -> Option<u64> {
        *self.shared.seed.get(self.combination)
    }

    /// Positions of the stages it waits for, each once: data first, then `when`, then `after`.
    pub fn needs(&self) -> Vec<u32> {
        let data = self.inputs.iter().flat_map(|(_, refs)| refs.iter().map(|input| input.index));
        let when = self.when.iter().flat_map(|when| when.reads.iter().map(|read| read.index));
        let fills = self.shared.fills.iter().map(|fill| fill.read.index);
        let mut needs: Vec<u32> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for index in data.chain(fills).chain(when).chain(self.after.iter().map(|after| after.index)) {
            if seen.insert(index) {
                needs.push(index);
            }
        }
        needs
    }

    /// Where a param stands: its own place, else that of the param around it, else the stage's name.
    pub fn place_of(&self, param: Option<&str>) -> Span {
        let mut path = param.unwrap_or_default();
        loop {
            if let Some(given) = self.shared.places.get(path) {
                return given.span;
            }
            match path.rsplit_once('.') {
                Some((outer, _)) => path = outer,
                None => return self.shared.span,
            }
        }
    }

    /// Where a param's value came from, if not from its own place.
    pub fn origin_of(&self, param: &str) -> Option<&Origin> {
        self.shared.places.get(param)?.origin.as_deref()
    }

    /// The same in words, of a value with others in it those of its parts: `params.rank, a.yaml:10`, `with params.n, a.yaml:2`.
    pub fn told_origin_of(&self, param: &str, source: &SourceFile) -> Option<String> {
        told(self.shared.places.get(param)?, GivenAt::parts, source)
    }

    /// The same of a value that was another before, both as JSON text: of its parts those that changed.
    pub fn told_origin_of_change(&self, param: &str, before: &str, now: &str, source: &SourceFile) -> Option<String> {
        told(self.shared.places.get(param)?, |given| given.changed_parts(before, now), source)
    }

    /// The pipeline's params that are in a param's value.
    pub fn params_in(&self, param: &str) -> impl Iterator<Item = &str> {
        let given = self.shared.places.get(param).into_iter();
        given.flat_map(GivenAt::parts).filter_map(Origin::param)
    }
}

fn told<'a>(given: &'a GivenAt, parts: impl Fn(&'a GivenAt) -> Vec<&'a Origin>, source: &SourceFile) -> Option<String> {
    if let Some(origin) = given.whole() {
        return Some(origin.describe(source));
    }
    let parts: Vec<String> = parts(given).into_iter().map(|origin| origin.describe(source)).collect();
    (!parts.is_empty()).then(|| format!("with {}", parts.join("; ")))
}
