//! The laws every operator keeps, tried on the whole registry with a toy piece of work for each.
//!
//! Owns: the laws, the golden digests. Must not know: how any operator works; [`cases`] has what each is given.

mod cases;
mod golden;

use std::collections::BTreeMap;

use llmflow_contract::{AnyArtifact, Bound, Class, Context, Entry, Failure, Host as _, Kind, Port, StagePlan};
use serde_json::Value;

use self::cases::Case;
use crate::testing::{TestHost, artifact, known};

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
