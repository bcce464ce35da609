//! The laws every operator keeps, tried on the whole registry with a toy piece of work for each.
//!
//! Owns: the laws, the golden digests. Must not know: how any operator works; [`cases`] has what each is given.

mod cases;
mod golden;

use std::collections::BTreeMap;

use llmflow_contract::{AnyArtifact, Bound, Class, Context, Entry, Failure, Host as _, Kind, Port, StagePlan};
use serde_json::Value;

use self::cases::Case;
use crate::testing::{TestHost, artifact, known, stopping::Stopping};

/// What one run of a case gave.
struct Done {
    plan: StagePlan,
    outputs: Vec<(Port, AnyArtifact)>,
    host: TestHost,
}

impl Done {
    /// Everything that equal work gives equally: outputs, the report, the trace, reproducible metrics.
    fn bytes(&self) -> BTreeMap<String, String> {
        let outputs = self.outputs.iter().map(|(port, made)| (port.to_string(), made.digest.hex()));
        let metrics =
            self.host.metrics_told().into_iter().map(|(name, value)| (format!("metric {name}"), value.to_string()));
        let side = ["report", "trace"].into_iter().filter_map(|port| {
            let made = llmflow_contract::AnyMade {
                kind: Kind::new(port),
                folder: self.host.output_folder(port)?,
                facts: Default::default(),
                references: Default::default(),
            };
            Some((port.to_owned(), artifact(made).digest.hex()))
        });
        outputs.chain(side).chain(metrics).collect()
    }
}

fn settle(entry: &Entry, case: &Case, host: &TestHost) -> (Value, StagePlan) {
    let inputs: Vec<(&str, &AnyArtifact)> = case.inputs.iter().map(|(port, one)| (*port, one)).collect();
    let planned = entry.plan(case.params.clone(), &known(host.base(), &inputs));
    planned.unwrap_or_else(|failure| panic!("`{}` refuses its case: {failure}", entry.name))
}

fn work(entry: &Entry, case: &Case, params: Value, ctx: &Context) -> Result<Vec<(Port, AnyArtifact)>, Failure> {
    let mut by_port: BTreeMap<Port, Vec<AnyArtifact>> = BTreeMap::new();
    for (port, one) in &case.inputs {
        by_port.entry(Port::from(*port)).or_default().push(one.clone());
    }
    let made = entry.run(params, Bound::new(by_port), ctx)?;
    Ok(made.into_iter().map(|(port, made)| (port, artifact(made))).collect())
}

/// Runs an operator's case to its end.
fn run(entry: &Entry) -> Done {
    let host = TestHost::new();
    let case = cases::of(entry.name, &host);
    let (params, plan) = settle(entry, &case, &host);
    let outputs = work(entry, &case, params, &host.context());
    let outputs = outputs.unwrap_or_else(|failure| panic!("`{}` fails its case: {failure}", entry.name));
    Done { plan, outputs, host }
}

#[test]
fn every_operator_port_and_param_tells_what_it_is() {
    for entry in crate::registry().entries() {
        let name = entry.name;
        assert!(entry.summary().len() > 20, "`{name}` has no summary");
        assert!(entry.doc.contains("```yaml") && entry.doc.contains(&format!("op: {name}")), "`{name}` has no example");
        for spec in entry.inputs.iter().chain(&entry.outputs) {
            assert!(!spec.doc.is_empty(), "`{name}.{}` is not documented", spec.port);
        }
        for param in entry.params.iter() {
            assert!(!param.doc.is_empty(), "`{name}` has the param `{}` without a doc", param.name);
            let names = std::iter::once(&param.name).chain(&param.aliases);
            assert!(names.clone().all(|name| *name == name.to_lowercase()), "`{name}.{}`", param.name);
        }
        let main = entry.outputs.first().map(|spec| spec.accepts.to_string());
        assert!(main.is_some() || entry.outputs_by_name || name == "deploy.serve", "`{name}` gives nothing");
    }
}

#[test]
fn equal_work_gives_equal_bytes() {
    for entry in crate::registry().entries() {
        assert_eq!(run(entry).bytes(), run(entry).bytes(), "`{}`", entry.name);
    }
}

#[test]
fn what_was_declared_is_what_comes() {
    for entry in crate::registry().entries() {
        let name = entry.name;
        let done = run(entry);
        let declared: Vec<(&Port, &Kind)> = done.plan.outputs.iter().map(|(port, kind, _)| (port, kind)).collect();
        let came: Vec<(&Port, &Kind)> = done.outputs.iter().map(|(port, made)| (port, made.kind())).collect();
        assert_eq!(declared, came, "`{name}`");
        for ((port, _, before), (_, made)) in done.plan.outputs.iter().zip(&done.outputs) {
            let (before, after) = (serde_json::to_value(before).unwrap(), serde_json::to_value(made.facts()).unwrap());
            for (fact, value) in before.as_object().unwrap() {
                assert_eq!(value, &after[fact], "`{name}.{port}` promised another `{fact}`");
            }
            if made.kind().is_dataset() {
                assert!(made.facts().rows.is_some(), "`{name}.{port}` does not say its rows");
            }
        }
        let mut declared: Vec<&str> = done.plan.metrics.iter().map(|metric| metric.name.as_str()).collect();
        declared.sort_unstable();
        let told = done.host.metrics_told();
        assert_eq!(declared, told.keys().map(String::as_str).collect::<Vec<_>>(), "`{name}`: its metrics");
        let report = done.host.stage_report();
        assert!(!report.summary.is_empty() && !report.summary.contains('\n'), "`{name}`: {:?}", report.summary);
        if done.outputs.iter().any(|(_, made)| made.kind().is_dataset()) {
            let trace = done.host.output_folder("trace").unwrap_or_else(|| panic!("`{name}` leaves no trace"));
            assert!(llmflow_dataset::TraceReader::open(&trace).unwrap().all(|record| record.is_ok()), "`{name}`");
        }
    }
}

#[test]
fn asked_to_stop_it_stops_before_its_work() {
    for entry in crate::registry().entries() {
        let host = TestHost::new();
        let case = cases::of(entry.name, &host);
        let (params, _) = settle(entry, &case, &host);
        host.cancel();
        let outcome = work(entry, &case, params, &host.context());
        let class = outcome.map(|_| ()).map_err(|failure| failure.class);
        assert_eq!(class, Err(Class::Cancelled), "`{}`", entry.name);
    }
}

/// Threads at work that may have to hear it, each for itself.
const MOST_LOOKS: usize = 8;

/// Whether an operator heard that it shall stop.
///
/// # Errors
/// What is wrong with how it took it.
fn heard(outcome: Result<(), Class>, stopping: &Stopping) -> Result<bool, String> {
    match (outcome, stopping.told()) {
        (Ok(()), 0) => Ok(false),
        (Ok(()), told) => Err(format!("was told {told} times and went on to its end")),
        (Err(Class::Cancelled), told) if told > MOST_LOOKS => Err(format!("looked {told} times before it stopped")),
        (Err(Class::Cancelled), told) => Ok(told > 0),
        (Err(class), _) => Err(format!("failed as {class:?}")),
    }
}

fn work_until(
    entry: &Entry,
    stopping: impl for<'a> Fn(&'a TestHost) -> Stopping<'a>,
) -> (usize, bool, Result<bool, String>) {
    let host = TestHost::new();
    let case = cases::of(entry.name, &host);
    let (params, _) = settle(entry, &case, &host);
    let stopping = stopping(&host);
    let outcome = work(entry, &case, params, &stopping.context());
    let outcome = outcome.map(|_| ()).map_err(|failure| failure.class);
    (stopping.looks(), stopping.has_begun(), heard(outcome, &stopping))
}

#[test]
fn asked_to_stop_in_the_middle_of_its_work_it_stops_at_its_next_look() {
    let (mut wrong, mut stopped) = (Vec::new(), 0);
    for entry in crate::registry().entries() {
        let name = entry.name;
        let (looks, _, undisturbed) = work_until(entry, |host| Stopping::after(host, usize::MAX));
        assert_eq!(undisturbed, Ok(false), "`{name}`");
        // Some look as often as time passes: one that ends before its turn comes was not told.
        for after in std::collections::BTreeSet::from([1, looks / 2, looks.saturating_sub(1)]) {
            match work_until(entry, |host| Stopping::after(host, after)).2 {
                Ok(is_heard) => stopped += usize::from(is_heard && after > 0),
                Err(what) => wrong.push(format!("`{name}`, told at look {after} of {looks}, {what}")),
            }
        }
        let (_, has_begun, outcome) = work_until(entry, |host| Stopping::at_progress(host));
        match outcome {
            Ok(true) => stopped += 1,
            Ok(false) if has_begun => wrong.push(format!("`{name}` told its progress and never looked again")),
            Ok(false) => {}
            Err(what) => wrong.push(format!("`{name}`, told at its first progress, {what}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(stopped >= 40, "{stopped} stops in the middle: the law was not tried");
}

#[test]
fn one_that_does_not_stop_when_told_is_found_out() {
    let host = TestHost::new();
    let stopping = Stopping::after(&host, 1);
    let ctx = stopping.context();
    assert!(!ctx.cancelled() && ctx.cancelled());
    assert!(heard(Ok(()), &stopping).unwrap_err().contains("went on"));
    assert_eq!(heard(Err(Class::Cancelled), &stopping), Ok(true));
    (0..MOST_LOOKS).for_each(|_| assert!(ctx.cancelled()));
    assert!(heard(Err(Class::Cancelled), &stopping).unwrap_err().contains("before it stopped"));
    assert!(heard(Err(Class::Bug), &stopping).is_err());
}

/// Each time it has made something durable it is killed; what is left goes on.
#[test]
fn killed_at_every_checkpoint_it_ends_as_if_it_had_never_stopped() {
    let mut killed = 0;
    for entry in crate::registry().entries() {
        let expected = run(entry).bytes();
        let host = TestHost::new();
        let case = cases::of(entry.name, &host);
        let (params, plan) = settle(entry, &case, &host);
        for deaths in 0.. {
            assert!(deaths < 100, "`{}` makes no progress from one checkpoint to the next", entry.name);
            host.die_at_next_save(true);
            match work(entry, &case, params.clone(), &host.context()) {
                Err(failure) if failure.class == Class::Lost => killed += 1,
                Err(failure) => panic!("`{}`: {failure}", entry.name),
                Ok(outputs) => {
                    let done = Done { plan, outputs, host };
                    assert_eq!(done.bytes(), expected, "`{}` killed {deaths} times", entry.name);
                    break;
                }
            }
        }
    }
    assert!(killed >= 5, "{killed} checkpoints: the law was not tried");
}

#[test]
fn a_run_that_loses_its_checkpoints_is_not_mistaken_for_one_that_goes_on() {
    let host = TestHost::new();
    host.die_at_next_save(true);
    assert_eq!(host.save(&mut |_| Ok(())).unwrap_err().class, Class::Lost);
    assert!(host.restore(&|_| Some(0)).unwrap().is_some(), "the save was durable before the death");
}
