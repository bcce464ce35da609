//! Looks up every name of a pipeline: operators, stages, ports, params, what is published.
//!
//! Owns: how an entry of `stages` becomes one stage, or one for each combination of its matrix.
//! Must not know: kinds of what flows (the planner's), how a stage runs.

use std::sync::Arc;

use llmflow_contract::Registry;

use super::{
    def::{StageDef, StageShared, Wired},
    diagnostic::{Diagnostic, Diagnostics},
    file::Read,
    names::{Names, Target},
    places::Places,
    publish::Publish,
    source::Span,
    stage::{Stage, Wiring},
    varied::Varied,
    wiring::{PortPlan, is_fixed},
    with::check_params,
};

/// Side outputs that every stage has.
pub const SIDE_PORTS: [&str; 2] = ["report", "trace"];

/// Looks up every name. What is refused is reported; the stage is then not `sound`.
pub(super) fn check(read: &Read, registry: &Registry, diagnostics: &mut Diagnostics) -> (Vec<StageDef>, Vec<Publish>) {
    let mut found = Diagnostics::new(Arc::clone(&diagnostics.source));
    let names = Names::new(&read.stages, registry, &mut found);
    let mut checker = Checker { registry, names, shared: Vec::new(), gathered: 0, diagnostics: found };
    checker.shared = (0..read.stages.len()).map(|group| checker.shared(group)).collect();
    let mut stages = Vec::with_capacity(checker.names.ids.len());
    for group in 0..read.stages.len() {
        checker.expand(group, &mut stages);
    }
    checker.cycles(&mut stages);
    let publish = checker.publish(read);
    diagnostics.extend(checker.diagnostics);
    (stages, publish)
}

pub(super) struct Checker<'a> {
    pub registry: &'a Registry,
    pub names: Names<'a>,
    /// Of each entry of `stages`: what a reference means may depend on the params of the stage it names.
    pub shared: Vec<Shared>,
    /// Outputs of matrices that the file's references name together.
    pub gathered: usize,
    pub diagnostics: Diagnostics,
}

/// What the stages of one entry have in common.
pub(super) struct Shared {
    pub stages: Arc<StageShared>,
    /// Whether none of its params was refused.
    is_sound: bool,
}

/// What the stages of one entry wait for.
struct Edges {
    ports: Varied<Vec<PortPlan>>,
    after: Varied<Vec<(Target, Span)>>,
    when: Option<Varied<Option<Reads>>>,
}

/// The metrics of a condition: name, metric, stages.
type Reads = Vec<(String, String, Target)>;

impl Checker<'_> {
    /// Appends the stages that one entry of `stages` stands for.
    fn expand(&mut self, group: usize, stages: &mut Vec<StageDef>) {
        let before = self.diagnostics.raw_len();
        let stage = self.names.groups[group].stage;
        let (first, len) = (self.names.groups[group].first, self.names.groups[group].len);
        let shared = Arc::clone(&self.shared[group].stages);
        let edges = self.edges(group, stage);
        let is_known = self.names.groups[group].entry.is_some() && self.shared[group].is_sound;
        let sound = stage.sound && is_known && self.diagnostics.raw_len() == before;
        // What all combinations, or all with one value, have in common is made once.
        let mut wired: Vec<Option<Wired>> = vec![None; edges.ports.values().len()];
        let after = edges.after.map_ref(|targets| is_fixed(targets).then(|| self.order(targets, 0)));
        let when = self.fixed_conditions(stage, &edges);
        for combination in 0..len {
            let at = match &edges.ports {
                Varied::Same(_) => 0,
                Varied::Differs { of, .. } => of[combination as usize] as usize,
            };
            let plans = edges.ports.get(combination);
            let inputs = match &wired[at] {
                Some(inputs) => Arc::clone(inputs),
                None => {
                    let inputs = self.inputs(plans, combination);
                    if plans.iter().all(PortPlan::is_fixed) {
                        wired[at] = Some(Arc::clone(&inputs));
                    }
                    inputs
                }
            };
            let when = when.as_ref().and_then(|when| match when.get(combination) {
                Some(fixed) => Some(Arc::clone(fixed)),
                None => self.condition_of(stage, &edges, combination),
            });
            let after = match after.get(combination) {
                Some(fixed) => Arc::clone(fixed),
                None => self.order(edges.after.get(combination), combination),
            };
            let id = self.names.ids[(first + combination) as usize].clone();
            stages.push(StageDef { id, shared: Arc::clone(&shared), combination, sound, inputs, after, when });
        }
    }

    fn edges(&mut self, group: usize, stage: &Stage) -> Edges {
        let ports = match self.names.groups[group].entry {
            Some(entry) => stage.wiring.map_ref(|wiring| self.port_plans(group, wiring, entry)),
            None => {
                stage.wiring.values().iter().for_each(|wiring| self.look_up_wiring(group, wiring));
                Varied::Same(Vec::new())
            }
        };
        let after = stage.after.map_ref(|refs| self.after(group, refs));
        let when = stage.when.as_ref();
        let when = when.map(|when| when.map_ref(|when| when.as_ref().and_then(|when| self.reads(group, when))));
        Edges { ports, after, when }
    }

    /// Of each condition the form that all combinations share, if they read the same stages.
    fn fixed_conditions(&self, stage: &Stage, edges: &Edges) -> Option<Varied<Option<Arc<super::def::When>>>> {
        let (conditions, reads) = (stage.when.as_ref()?, edges.when.as_ref()?);
        let mut each = conditions.values().iter().zip(reads.values());
        Some(reads.map_ref(|_| {
            let (condition, reads) = each.next()?;
            let (condition, reads) = (condition.as_ref()?, reads.as_ref()?);
            let is_fixed = reads.iter().all(|(.., target)| !matches!(target, Target::Paired(_)));
            is_fixed.then(|| self.when(condition, reads, 0))
        }))
    }

    fn condition_of(&self, stage: &Stage, edges: &Edges, combination: u32) -> Option<Arc<super::def::When>> {
        let condition = stage.when.as_ref()?.get(combination).as_ref()?;
        let reads = edges.when.as_ref()?.get(combination).as_ref()?;
        Some(self.when(condition, reads, combination))
    }

    fn shared(&mut self, group: usize) -> Shared {
        let (stage, before) = (self.names.groups[group].stage, self.diagnostics.raw_len());
        let (mut with, mut places) = (Vec::new(), Places::default());
        match self.names.groups[group].entry {
            Some(entry) => {
                (with, places) = check_params(entry, &stage.with, stage.name.span, &mut self.diagnostics);
            }
            None => self.unknown_op(stage),
        }
        let fills = self.fills(group, stage);
        let stages = StageShared {
            fills,
            name: stage.name.value.clone(),
            span: stage.name.span,
            op: stage.op.value.clone(),
            op_span: stage.op.span,
            places,
            retry: stage.retry.clone(),
            timeout: stage.timeout,
            require: stage.require.clone(),
            is_frozen: stage.is_frozen,
            is_cached: stage.is_cached,
            matrix: self.names.groups[group].matrix().and(stage.matrix.clone()),
            with,
            resources: stage.resources.clone(),
            seed: stage.seed.clone(),
        };
        Shared { stages: Arc::new(stages), is_sound: self.diagnostics.raw_len() == before }
    }

    fn unknown_op(&mut self, stage: &Stage) {
        let op = stage.op.value.as_str();
        if !op.is_empty() {
            let diagnostic = Diagnostic::new("stage/unknown-op", format!("there is no operator `{op}`"), stage.op.span)
                .nearest(op, self.registry.entries().map(|entry| entry.name));
            self.diagnostics.push(diagnostic.help("llmflow operators"));
        }
    }

    /// Looks up the stages that one of unknown operator names.
    fn look_up_wiring(&mut self, group: usize, wiring: &Wiring) {
        match wiring {
            Wiring::None => {}
            Wiring::Main(refs) => self.look_up_all(group, refs),
            Wiring::Ports(ports) => ports.iter().for_each(|(_, reads)| self.look_up_all(group, reads.refs())),
        }
    }
}
