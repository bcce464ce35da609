//! `in`, `after` and `when` of a stage → the stages, ports and metrics they name.
//!
//! Owns: the forms of `in` resolved to ports, arity, what each combination of a matrix reads.
//! Must not know: kinds of what flows (the planner's).

use std::sync::Arc;

use llmflow_contract::{Arity, Entry, Port, StageId};

use super::{
    check::{Checker, SIDE_PORTS},
    condition::{ReadWhen, place_within, refuse_bare},
    def::{Fill, InputRef, MetricRef, StageRef, When, Wired},
    diagnostic::{Diagnostic, nearest},
    names::{Found, Target},
    source::{At, Span},
    stage::{Reads, Ref, Stage, Wiring, check_label},
    varied::Varied,
};

/// References of a whole file that gather matrices: each holds its stages.
const MAX_GATHERED: usize = 1 << 22;

/// What one port of an entry of `stages` reads.
pub(super) struct PortPlan {
    port: Port,
    pieces: Vec<Piece>,
    /// The same for every combination.
    fixed: Option<Arc<[InputRef]>>,
}

/// What one reference of a port gives.
struct Piece {
    target: Target,
    port: Port,
    span: Span,
    label: Option<Arc<str>>,
}

/// What the file gives a port.
struct Given<'a> {
    port: Port,
    span: Span,
    refs: Vec<(Option<Arc<str>>, &'a Ref)>,
}

impl<'a> Given<'a> {
    fn new(port: Port, span: Span, reads: &'a Reads) -> Self {
        match reads {
            Reads::List(refs) => Self::list(port, span, refs),
            Reads::Labelled(labels) => {
                let labelled = labels.iter().flat_map(|(label, refs)| under(&label.value, refs));
                Self { port, span, refs: labelled.collect() }
            }
        }
    }
    fn list(port: Port, span: Span, refs: &'a [Ref]) -> Self {
        Self { port, span, refs: refs.iter().map(|reference| (None, reference)).collect() }
    }
    fn is_labelled(&self) -> bool {
        self.refs.iter().any(|(label, _)| label.is_some())
    }
}

fn under<'a>(label: &str, refs: &'a [Ref]) -> impl Iterator<Item = (Option<Arc<str>>, &'a Ref)> + use<'a> {
    let label: Arc<str> = label.into();
    refs.iter().map(move |reference| (Some(Arc::clone(&label)), reference))
}

impl PortPlan {
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }
}

impl Checker<'_> {
    /// What the ports of an entry of `stages` read, in the order the operator declares them.
    pub(super) fn port_plans(&mut self, from: usize, wiring: &Wiring, entry: &Entry) -> Vec<PortPlan> {
        if entry.inputs_by_name {
            return self.named_plans(from, wiring);
        }
        let stage = self.names.groups[from].stage;
        let mut given: Vec<Given<'_>> = Vec::new();
        match wiring {
            Wiring::None => {}
            Wiring::Main(refs) => {
                let span = refs.iter().map(|reference| reference.span).reduce(Span::to).unwrap_or(stage.name.span);
                match entry.main_input() {
                    Some(spec) => given.push(Given::list(spec.port.clone(), span, refs)),
                    None => {
                        self.takes_no_inputs(entry, span);
                        self.look_up_all(from, refs);
                    }
                }
            }
            Wiring::Ports(ports) if are_labels(ports, entry) => given.extend(self.labelled(from, ports, entry)),
            Wiring::Ports(ports) => {
                for (port, reads) in ports {
                    if entry.inputs.iter().any(|spec| spec.port == port.value) {
                        self.check_labels(reads);
                        given.push(Given::new(port.value.clone(), port.span, reads));
                        continue;
                    }
                    match entry.inputs.is_empty() {
                        true => self.takes_no_inputs(entry, port.span),
                        false => self.unknown_input(entry, port),
                    }
                    self.look_up_all(from, reads.refs());
                }
            }
        }
        let mut plans = Vec::with_capacity(given.len());
        for spec in &entry.inputs {
            let Some(given) = given.iter().find(|given| given.port == spec.port) else {
                if spec.arity != Arity::Optional {
                    let message = format!("`{}` needs an input `{}`", entry.name, spec.port);
                    let doc = spec.doc.lines().next().unwrap_or_default();
                    let help = format!("in: {{{}: STAGE}}  # {}: {doc}", spec.port, spec.accepts);
                    self.diagnostics.push(Diagnostic::new("stage/missing-input", message, stage.name.span).help(help));
                }
                continue;
            };
            let (takes_many, port, name) = (spec.arity == Arity::Many, &spec.port, &stage.name.value);
            if let (false, [(_, first), _, ..]) = (takes_many, given.refs.as_slice()) {
                let message = format!("`{name}.{port}` takes one input, {} are given", given.refs.len());
                let help = format!("keep one: `{port}: {}`; or give each a stage of its own", first.value);
                self.diagnostics.push(Diagnostic::new("stage/too-many-inputs", message, given.span).help(help));
            } else if !takes_many && given.is_labelled() {
                self.takes_no_labels(name, given);
            }
            let reader = format!("`{name}.{port}`");
            let pieces = self.pieces(from, given, &reader, takes_many);
            plans.push(self.plan(port.clone(), pieces));
        }
        plans
    }

    /// `in: {code: a, talk: b}` of an operator whose only port takes many.
    fn labelled<'a>(&mut self, from: usize, ports: &'a [(At<Port>, Reads)], entry: &Entry) -> Option<Given<'a>> {
        let span = ports.iter().map(|(label, _)| label.span).reduce(Span::to)?;
        let mut refs = Vec::with_capacity(ports.len());
        for (label, reads) in ports {
            let name = label.value.as_str();
            check_label(name, label.span, &mut self.diagnostics);
            match reads {
                Reads::List(list) => refs.extend(under(name, list)),
                Reads::Labelled(_) => {
                    self.unknown_input(entry, label);
                    self.look_up_all(from, reads.refs());
                }
            }
        }
        Some(Given { port: entry.main_input()?.port.clone(), span, refs })
    }

    fn check_labels(&mut self, reads: &Reads) {
        let Reads::Labelled(labels) = reads else { return };
        labels.iter().for_each(|(label, _)| check_label(&label.value, label.span, &mut self.diagnostics));
    }

    fn takes_no_labels(&mut self, stage: &StageId, given: &Given<'_>) {
        let port = &given.port;
        let message = format!("`{stage}.{port}` takes one input, which goes by the port's name");
        let name = given.refs.first().map_or("STAGE", |(_, reference)| reference.value.as_str());
        let help = format!("{port}: {name}");
        self.diagnostics.push(Diagnostic::new("stage/label", message, given.span).help(help));
    }

    fn pieces(&mut self, from: usize, given: &Given<'_>, reader: &str, gathers: bool) -> Vec<Piece> {
        let piece = |(label, reference): &(Option<Arc<str>>, &Ref)| {
            let piece = self.piece(from, reference, reader, gathers)?;
            Some(Piece { label: label.clone(), ..piece })
        };
        given.refs.iter().filter_map(piece).collect()
    }

    /// What inputs read that the user names; one given without a name goes by that of its stage.
    fn named_plans(&mut self, from: usize, wiring: &Wiring) -> Vec<PortPlan> {
        let given: Vec<Given<'_>> = match wiring {
            Wiring::None => Vec::new(),
            Wiring::Main(refs) => {
                let named = |reference: &Ref| Port::from(reference.value.split(['.', '@']).next().unwrap_or_default());
                refs.iter().map(|one| Given::list(named(one), one.span, std::slice::from_ref(one))).collect()
            }
            Wiring::Ports(ports) => {
                ports.iter().map(|(port, reads)| Given::new(port.value.clone(), port.span, reads)).collect()
            }
        };
        let mut plans: Vec<PortPlan> = Vec::with_capacity(given.len());
        for given in given {
            let name = &self.names.groups[from].stage.name.value;
            let reader = format!("`{name}.{}`", given.port);
            if given.refs.len() > 1 || plans.iter().any(|plan| plan.port == given.port) {
                let message = format!("{reader} takes one input, more are given");
                let help = "give each input a name of its own: `in: {first: STAGE, second: STAGE}`";
                self.diagnostics.push(Diagnostic::new("stage/too-many-inputs", message, given.span).help(help));
            } else if given.is_labelled() {
                self.takes_no_labels(name, &given);
            }
            let pieces = self.pieces(from, &given, &reader, false);
            plans.push(self.plan(given.port, pieces));
        }
        plans
    }

    fn plan(&self, port: Port, pieces: Vec<Piece>) -> PortPlan {
        let is_fixed = pieces.iter().all(|piece| !matches!(piece.target, Target::Paired(_)));
        let mut plan = PortPlan { port, pieces, fixed: None };
        plan.fixed = is_fixed.then(|| self.read_by(&plan, 0));
        plan
    }

    /// The inputs of one combination.
    pub(super) fn inputs(&self, plans: &[PortPlan], combination: u32) -> Wired {
        plans.iter().map(|plan| (plan.port.clone(), self.read_by(plan, combination))).collect()
    }

    fn read_by(&self, plan: &PortPlan, combination: u32) -> Arc<[InputRef]> {
        if let Some(fixed) = &plan.fixed {
            return Arc::clone(fixed);
        }
        let made = |piece: &Piece, index: u32| InputRef {
            stage: self.names.ids[index as usize].clone(),
            port: piece.port.clone(),
            index,
            span: piece.span,
            label: piece.label.clone(),
        };
        match plan.pieces.as_slice() {
            // A list of one, made in one allocation: a matrix has a million of them.
            [piece @ Piece { target: Target::Paired(pairs), .. }] => {
                Arc::new([made(piece, pairs[combination as usize])])
            }
            pieces => pieces
                .iter()
                .flat_map(|piece| indices(&piece.target, combination).map(|index| made(piece, index)))
                .collect(),
        }
    }

    /// The output that a reference names.
    fn piece(&mut self, from: usize, reference: &Ref, reader: &str, gathers: bool) -> Option<Piece> {
        let found = self.names.find(reference, &mut self.diagnostics)?;
        let port = self.output(&found, reference)?;
        let target = self.names.target(from, &found, reader, gathers, reference.span, &mut self.diagnostics)?;
        self.count_gathered(&target, reference.span)?;
        Some(Piece { target, port, span: reference.span, label: None })
    }

    /// The port that a reference names: the main one without a name. What a stage gives that was refused is unknown: its
    /// ports are taken on trust.
    pub(super) fn output(&mut self, found: &Found<'_>, reference: &Ref) -> Option<Port> {
        let (group, port) = (&self.names.groups[found.group], found.rest);
        let name = &group.stage.name.value;
        let on_trust = || Some(Port::from(port.unwrap_or("unknown")));
        let Some(entry) = group.entry else { return on_trust() };
        let named = match entry.outputs_by_name {
            false => None,
            true => match self.named_outputs(found, entry) {
                None => return on_trust(),
                named => named,
            },
        };
        let outputs: Vec<&str> = match &named {
            Some(ports) => ports.iter().map(Port::as_str).collect(),
            None => entry.outputs.iter().map(|spec| spec.port.as_str()).collect(),
        };
        let Some(port) = port else {
            if entry.has_main_output {
                return Some(Port::from(outputs.first().copied().unwrap_or(SIDE_PORTS[0])));
            }
            let message = format!("`{name}` ({}) has several outputs, and none is the main one", entry.name);
            let named: Vec<String> = outputs.iter().map(|port| format!("`{}.{port}`", reference.value)).collect();
            let help = format!("say which: {}", named.join(" or "));
            self.diagnostics.push(Diagnostic::new("stage/which-output", message, reference.span).help(help));
            return None;
        };
        if outputs.contains(&port) || SIDE_PORTS.contains(&port) {
            return Some(Port::from(port));
        }
        let message = format!("`{name}` ({}) has no output `{port}`", entry.name);
        let diagnostic = Diagnostic::new("stage/unknown-output", message, reference.span)
            .nearest(port, outputs.iter().copied().chain(SIDE_PORTS));
        let all = outputs.iter().copied().chain(SIDE_PORTS).collect::<Vec<_>>().join(", ");
        self.diagnostics.push(diagnostic.help(format!("it gives {all}")));
        None
    }

    /// The outputs of a stage whose params name them, read from the values that it runs with; nothing where those are
    /// refused.
    fn named_outputs(&self, found: &Found<'_>, entry: &Entry) -> Option<Vec<Port>> {
        let shared = &self.shared[found.group].stages;
        let combination = found.one.map_or(0, |one| one - self.names.groups[found.group].first);
        // A metric has no value yet, and is no name of an output.
        let has_value = |name: &str| !shared.fills.iter().any(|fill| fill.param == name);
        let with = shared.with.iter().filter(|(name, _)| has_value(name));
        let with = with.map(|(name, value)| (name.clone(), value.get(combination).clone()));
        entry.named_outputs(&serde_json::Value::Object(with.collect()))
    }

    /// The stages that `after` names, for each combination.
    pub(super) fn after(&mut self, from: usize, refs: &[Ref]) -> Vec<(Target, Span)> {
        let mut targets = Vec::new();
        for reference in refs {
            let Some(found) = self.names.find(reference, &mut self.diagnostics) else { continue };
            if found.rest.is_some() {
                let name = &self.names.groups[found.group].stage.name.value;
                let message = format!("`after` names a stage, `{}` is an output", reference.value);
                let diagnostic = Diagnostic::new("stage/after", message, reference.span);
                self.diagnostics.push(diagnostic.help(format!("after: {name}")));
                continue;
            }
            let target = self.names.target(from, &found, "`after`", true, reference.span, &mut self.diagnostics);
            let Some(target) = target else { continue };
            if self.count_gathered(&target, reference.span).is_some() {
                targets.push((target, reference.span));
            }
        }
        targets
    }

    pub(super) fn order(&self, targets: &[(Target, Span)], combination: u32) -> Arc<[StageRef]> {
        let made = |index: u32, span: Span| StageRef { stage: self.names.ids[index as usize].clone(), index, span };
        let targets = targets.iter();
        targets.flat_map(|(target, span)| indices(target, combination).map(|index| made(index, *span))).collect()
    }

    /// The metrics of other stages that are values of params.
    pub(super) fn fills(&mut self, from: usize, stage: &Stage) -> Vec<Fill> {
        let mut fills = Vec::new();
        for (param, value) in &stage.with {
            let Some(Varied::Same(node)) = value else { continue };
            let Some(name) = node.origin.as_ref().and_then(|origin| origin.metric.clone()) else { continue };
            let reference = At::new(name.clone(), node.span);
            let Some(found) = self.names.find(&reference, &mut self.diagnostics) else { continue };
            let Some(metric) = found.rest.map(str::to_owned) else { continue };
            match self.names.target(from, &found, "a param", false, node.span, &mut self.diagnostics) {
                Some(Target::One(index)) => {
                    let stage = self.names.ids[index as usize].clone();
                    let read = MetricRef { name, stage, index, metric };
                    let info = self.names.groups[from].entry.and_then(|entry| entry.param(&param.value));
                    fills.extend(info.map(|info| Fill { param: info.name.clone(), read, span: node.span }));
                }
                Some(_) => {
                    let message = format!("`{name}` is a metric of many stages: which of them?");
                    let diagnostic = Diagnostic::new("matrix/many", message, node.span);
                    self.diagnostics.push(diagnostic.help("name one: `${STAGE@AXIS=VALUE.METRIC}`"));
                }
                None => {}
            }
        }
        fills
    }

    /// The metrics that `when` reads: of each its name, the metric, and the stages.
    pub(super) fn reads(&mut self, from: usize, when: &ReadWhen) -> Option<Vec<(String, String, Target)>> {
        let before = self.diagnostics.raw_len();
        let mut reads = Vec::new();
        for name in when.expr.names() {
            let at = place_within(&self.diagnostics.source, &when.text, name);
            if !name.contains('.') {
                refuse_bare(name, at, &mut self.diagnostics);
                continue;
            }
            let reference = At::new(name.to_owned(), at);
            let Some(found) = self.names.find(&reference, &mut self.diagnostics) else { continue };
            let Some(metric) = found.rest.filter(|metric| !metric.is_empty()) else {
                let message = format!("`{name}` names a stage: which of its metrics?");
                let help = format!("`{}.METRIC > 0`", name.trim_end_matches('.'));
                self.diagnostics.push(Diagnostic::new("when/unknown", message, at).help(help));
                continue;
            };
            let target = self.names.target(from, &found, "a condition", false, at, &mut self.diagnostics);
            reads.extend(target.map(|target| (name.to_owned(), metric.to_owned(), target)));
        }
        (self.diagnostics.raw_len() == before).then_some(reads)
    }

    pub(super) fn when(&self, when: &ReadWhen, reads: &[(String, String, Target)], combination: u32) -> Arc<When> {
        let reads = reads.iter().flat_map(|(name, metric, target)| {
            indices(target, combination).map(|index| MetricRef {
                name: name.clone(),
                stage: self.names.ids[index as usize].clone(),
                index,
                metric: metric.clone(),
            })
        });
        Arc::new(When { expr: when.expr.clone(), span: when.text.span, reads: reads.collect() })
    }

    /// Looks up the stages that one of unknown operator, or an input that is none, names.
    pub(super) fn look_up_all<'a>(&mut self, from: usize, refs: impl IntoIterator<Item = &'a Ref>) {
        for reference in refs {
            self.piece(from, reference, "", true);
        }
    }

    fn count_gathered(&mut self, target: &Target, span: Span) -> Option<()> {
        let Target::All(stages) = target else { return Some(()) };
        self.gathered += stages.len();
        if self.gathered <= MAX_GATHERED {
            return Some(());
        }
        let message = format!("the stages of this file read more than {MAX_GATHERED} outputs of matrices");
        let help = "gather a matrix once, and let the others read what that gives";
        self.diagnostics.push(Diagnostic::new("matrix/too-big", message, span).help(help));
        None
    }

    fn takes_no_inputs(&mut self, entry: &Entry, span: Span) {
        let message = format!("`{}` takes no inputs", entry.name);
        self.diagnostics.push(Diagnostic::new("stage/unknown-input", message, span).help("remove `in`"));
    }

    fn unknown_input(&mut self, entry: &Entry, port: &At<Port>) {
        let names: Vec<&str> = entry.inputs.iter().map(|spec| spec.port.as_str()).collect();
        let message = format!("`{}` has no input `{}`", entry.name, port.value);
        let diagnostic = Diagnostic::new("stage/unknown-input", message, port.span)
            .nearest(port.value.as_str(), names.iter().copied());
        let help = match entry.inputs.as_slice() {
            [spec] if spec.arity == Arity::Many => {
                format!("in: {{{}: STAGE}}, or with labels: {{{}: {{{}: STAGE}}}}", spec.port, spec.port, port.value)
            }
            _ => format!("it takes {}", names.join(", ")),
        };
        self.diagnostics.push(diagnostic.help(help));
    }
}

/// Whether a map's keys are labels: where the operator has one port, that takes many, and none of them is that. A single
/// key that comes close is the port mistyped.
fn are_labels(ports: &[(At<Port>, Reads)], entry: &Entry) -> bool {
    let [spec] = entry.inputs.as_slice() else { return false };
    let is_meant = match ports {
        [(name, _)] => nearest(name.value.as_str(), [spec.port.as_str()]).is_some(),
        _ => ports.iter().any(|(name, _)| name.value == spec.port),
    };
    spec.arity == Arity::Many && !is_meant
}

fn indices(target: &Target, combination: u32) -> impl Iterator<Item = u32> + use<> {
    match target {
        Target::One(index) => *index..*index + 1,
        Target::All(range) => range.clone(),
        Target::Paired(pairs) => pairs[combination as usize]..pairs[combination as usize] + 1,
    }
}

/// Whether each combination waits for the same stages.
pub(super) fn is_fixed(targets: &[(Target, Span)]) -> bool {
    targets.iter().all(|(target, _)| !matches!(target, Target::Paired(_)))
}
