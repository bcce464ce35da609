//! A run as OpenLineage events, for the tools that gather lineage from many programs.
//!
//! The run is a job, each stage is one below it; artifacts are datasets of the store, their digest is their version.
//! Source: <https://openlineage.io/spec/2-0-2/OpenLineage.json> and the facets it names.

use std::collections::BTreeMap;

use llmflow_contract::{Digest, Kind, Manifest, Port, StageId};
use llmflow_dataset::{Dataset, RowKind};
use llmflow_runtime::{
    event::{Event, RunStatus, What},
    lineage::{PipelineRow, RunRow, StageRow},
};
use serde_json::{Value, json};

const PRODUCER: &str = concat!("https://crates.io/crates/llmflow/", env!("CARGO_PKG_VERSION"));
const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
const FACETS: &str = "https://openlineage.io/spec/facets/";

/// What events are made of.
pub struct Told {
    pub run: RunRow,
    pub file: PipelineRow,
    pub stages: Vec<StageRow>,
    pub events: Vec<Event>,
    pub manifests: BTreeMap<Digest, Manifest>,
    /// Address of the store.
    pub store: String,
}

/// The events of a run, or of one stage of it, in the order of their times.
pub fn events(told: &Told, only: Option<&StageId>) -> Vec<Value> {
    let mut events = Vec::new();
    let ended = told.run.started_ms + (told.run.seconds.unwrap_or_default() * 1000.0).max(0.0) as u64;
    if only.is_none() {
        events.push((told.run.started_ms, told.whole("START", told.run.started_ms)));
    }
    for stage in told.stages.iter().filter(|stage| only.is_none_or(|only| stage.stage == *only)) {
        let Some(end) = end_of(&stage.status) else { continue };
        let (from, to) = told.moments(stage, ended);
        events.push((from, told.of_stage(stage, "START", from)));
        events.extend((end != "RUNNING").then(|| (to, told.of_stage(stage, end, to))));
    }
    if only.is_none() {
        let end = match told.run.status {
            RunStatus::Running => None,
            RunStatus::Done => Some("COMPLETE"),
            RunStatus::Interrupted => Some("ABORT"),
            RunStatus::Failed | RunStatus::Refused => Some("FAIL"),
        };
        events.extend(end.map(|end| (ended, told.whole(end, ended))));
    }
    events.sort_by_key(|(at, _)| *at); // stable: what happened at once stays in order
    events.into_iter().map(|(_, event)| event).collect()
}

/// How a stage that came so far ended, in OpenLineage's words.
fn end_of(status: &str) -> Option<&'static str> {
    match status {
        "ran" | "cached" => Some("COMPLETE"),
        "failed" | "refused" => Some("FAIL"),
        "interrupted" => Some("ABORT"),
        "running" => Some("RUNNING"),
        _ => None,
    }
}

impl Told {
    /// When a stage began and ended: by its events, else within its run.
    fn moments(&self, stage: &StageRow, ended: u64) -> (u64, u64) {
        let own = || self.events.iter().filter(|event| event.stage.as_ref() == Some(&stage.stage));
        let began = own().find(|event| matches!(event.what, What::Started { .. })).map(|event| event.at_ms);
        let is_end = |what: &What| {
            matches!(
                what,
                What::Finished(_) | What::Cached(_) | What::Failed { .. } | What::Refused { .. } | What::Interrupted
            )
        };
        let end = own().rfind(|event| is_end(&event.what)).map(|event| event.at_ms);
        let end = end.unwrap_or(ended);
        (began.unwrap_or(end).min(end), end)
    }

    fn whole(&self, kind: &str, at: u64) -> Value {
        let source = facet("1-0-1/SourceCodeJobFacet", json!({ "language": "yaml", "sourceCode": self.file.text }));
        let facets = json!({ "jobType": job_type("JOB"), "sourceCode": source });
        let id = self.id(None);
        event(
            kind,
            at,
            json!({ "runId": id, "facets": self.run_facets(kind, None) }),
            &self.run.pipeline,
            facets,
            [vec![], vec![]],
        )
    }

    fn of_stage(&self, stage: &StageRow, kind: &str, at: u64) -> Value {
        let job = format!("{}.{}", self.run.pipeline, stage.stage);
        let facets = json!({
            "jobType": job_type("TASK"),
            "documentation": facet("1-1-0/DocumentationJobFacet", json!({ "description": format!("{} v{}", stage.operator, stage.version) })),
        });
        let inputs = stage.inputs.iter().filter_map(|input| {
            let digest = input.digest?;
            Some(self.dataset(&input.from_stage, &input.from_port, None, &digest))
        });
        let is_start = kind == "START";
        let outputs = stage.outputs.iter().filter(|output| output.port.as_str() != "trace");
        let outputs = outputs.filter(|_| !is_start).filter_map(|output| {
            let digest = output.digest?;
            Some(self.dataset(&stage.stage, &output.port, Some(&output.kind), &digest))
        });
        let run = json!({ "runId": self.id(Some(&stage.stage)), "facets": self.run_facets(kind, Some(stage)) });
        event(kind, at, run, &job, facets, [inputs.collect(), outputs.collect()])
    }

    fn run_facets(&self, kind: &str, stage: Option<&StageRow>) -> Value {
        let mut facets = serde_json::Map::new();
        let mut engine = json!({ "version": self.run.version, "name": "LLMflow", "openlineageAdapterVersion": env!("CARGO_PKG_VERSION") });
        if let Some(limit) = self.run.limit {
            engine["llmflow_limit"] = limit.into(); // a rehearsal
        }
        facets.insert("processing_engine".into(), facet("1-1-1/ProcessingEngineRunFacet", engine));
        if let Some(stage) = stage {
            let parent = json!({
                "run": { "runId": self.id(None) },
                "job": { "namespace": namespace(), "name": self.run.pipeline },
            });
            facets.insert("parent".into(), facet("1-2-0/ParentRunFacet", parent));
            if let Some(failure) = stage.failure.as_ref().filter(|_| kind == "FAIL") {
                let error = json!({ "message": failure.to_string(), "programmingLanguage": "Rust" });
                facets.insert("errorMessage".into(), facet("1-0-1/ErrorMessageRunFacet", error));
            }
        }
        Value::Object(facets)
    }

    /// An artifact: a name that stays from run to run, a version that is its content.
    fn dataset(&self, stage: &StageId, port: &Port, kind: Option<&Kind>, digest: &Digest) -> Value {
        let manifest = self.manifests.get(digest);
        let mut facets = serde_json::Map::new();
        let version = json!({ "datasetVersion": digest.hex() });
        facets.insert("version".into(), facet("1-0-1/DatasetVersionDatasetFacet", version));
        let source = json!({ "name": self.store, "uri": self.store });
        facets.insert("dataSource".into(), facet("1-0-1/DatasourceDatasetFacet", source));
        let rows = kind.or(manifest.map(|manifest| &manifest.kind)).and_then(|kind| RowKind::find(kind.as_str()));
        if let Some(rows) = rows {
            let fields = Dataset::columns(rows).into_iter().map(|(name, kind)| json!({ "name": name, "type": kind }));
            let schema = json!({ "fields": fields.collect::<Vec<_>>() });
            facets.insert("schema".into(), facet("1-2-0/SchemaDatasetFacet", schema));
        }
        let mut dataset = json!({
            "namespace": self.store, "name": format!("{}/{stage}.{port}", self.run.pipeline), "facets": facets,
        });
        if let Some(manifest) = manifest.filter(|_| kind.is_some()) {
            let mut sizes = json!({ "size": manifest.size_bytes(), "fileCount": manifest.files.len() });
            if let Some(rows) = manifest.facts.rows {
                sizes["rowCount"] = rows.into();
            }
            let statistics = facet("1-0-2/OutputStatisticsOutputDatasetFacet", sizes);
            dataset["outputFacets"] = json!({ "outputStatistics": statistics });
        }
        dataset
    }

    /// A UUID that the same run, or stage of it, always has: of the free form, version 8 (RFC 9562).
    fn id(&self, stage: Option<&StageId>) -> String {
        let name = format!("{} {} {}", self.run.run, self.run.started_ms, stage.map_or("", StageId::as_str));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Digest::of(name.as_bytes()).bytes()[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

fn namespace() -> &'static str {
    "llmflow"
}

fn job_type(kind: &str) -> Value {
    let about = json!({ "processingType": "BATCH", "integration": "LLMFLOW", "jobType": kind });
    facet("2-0-4/JobTypeJobFacet", about)
}

/// A facet of this schema, `VERSION/NAME`.
fn facet(schema: &str, mut about: Value) -> Value {
    let (version, name) = schema.split_once('/').unwrap_or_default();
    about["_producer"] = PRODUCER.into();
    about["_schemaURL"] = format!("{FACETS}{version}/{name}.json#/$defs/{name}").into();
    about
}

fn event(kind: &str, at_ms: u64, run: Value, job: &str, job_facets: Value, ports: [Vec<Value>; 2]) -> Value {
    let at = i64::try_from(at_ms).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok()).unwrap_or_default();
    let [inputs, outputs] = ports;
    json!({
        "eventType": kind, "eventTime": at.to_string(), "producer": PRODUCER, "schemaURL": SCHEMA, "run": run,
        "job": { "namespace": namespace(), "name": job, "facets": job_facets },
        "inputs": inputs, "outputs": outputs,
    })
}

#[cfg(test)]
mod tests {
    use llmflow_runtime::{
        event::RunId,
        lineage::{InputRow, OutputRow},
    };

    use super::*;

    fn told() -> Told {
        let digest = Digest::of(b"rows");
        let stage = |name: &str, status: &str| StageRow {
            stage: StageId::from(name),
            operator: "data.load".into(),
            version: 1,
            status: status.into(),
            key: None,
            seconds: Some(1.0),
            summary: String::new(),
            attempts: 1,
            failure: (status == "failed").then(|| llmflow_contract::Failure::input("x", "no rows")),
            needs: Vec::new(),
            outputs: vec![OutputRow {
                port: "data".into(),
                kind: Kind::of("dataset/text"),
                digest: (status == "ran").then_some(digest),
            }],
            inputs: Vec::new(),
            metrics: Default::default(),
        };
        let input = InputRow {
            port: "data".into(),
            label: None,
            noted: None,
            from_stage: "rows".into(),
            from_port: "data".into(),
            digest: Some(digest),
        };
        let (rows, sft) = (stage("rows", "ran"), StageRow { inputs: vec![input], ..stage("sft", "failed") });
        Told {
            run: RunRow {
                run: RunId("calm-heron".into()),
                pipeline: "assistant".into(),
                status: RunStatus::Failed,
                started_ms: 1_795_499_700_000,
                seconds: Some(2.0),
                ran: 1,
                cached: 0,
                failed: 1,
                refused: 0,
                skipped: 1,
                interrupted: 0,
                changed: String::new(),
                limit: None,
                set: Vec::new(),
                params_file: None,
                profile: None,
                resumes: None,
                machine: String::new(),
                version: "0.1.0".into(),
                is_first: true,
            },
            file: PipelineRow {
                path: "/a.yaml".into(),
                name: "assistant".into(),
                text: "name: assistant".into(),
                overrides: Default::default(),
                params: Default::default(),
                resumes: None,
                locks: Default::default(),
                selection: Default::default(),
                store: None,
            },
            stages: vec![rows, sft, stage("gguf", "skipped")],
            events: Vec::new(),
            manifests: BTreeMap::new(),
            store: "file:///s".into(),
        }
    }

    #[test]
    fn a_run_and_each_stage_that_came_so_far_start_and_end_once() {
        let events = events(&told(), None);
        let named: Vec<String> = events
            .iter()
            .map(|event| format!("{} {}", event["eventType"], event["job"]["name"]).replace('"', ""))
            .collect();
        assert_eq!(
            named,
            [
                "START assistant",
                "START assistant.rows",
                "COMPLETE assistant.rows",
                "START assistant.sft",
                "FAIL assistant.sft",
                "FAIL assistant"
            ]
        );
        let fail = &events[4];
        assert_eq!(fail["run"]["facets"]["errorMessage"]["message"], "no rows");
        assert_eq!(fail["run"]["facets"]["parent"]["run"]["runId"], events[0]["run"]["runId"]);
        assert_eq!(fail["inputs"][0]["name"], events[2]["outputs"][0]["name"]);
        assert_eq!(events[2]["outputs"][0]["facets"]["schema"]["fields"][0]["name"], "id");
    }

    #[test]
    fn every_event_of_a_rehearsal_says_its_limit() {
        let limits = |told: &Told| -> Vec<Value> {
            let of = |event: &Value| event["run"]["facets"]["processing_engine"]["llmflow_limit"].clone();
            events(told, None).iter().map(of).collect()
        };
        let mut told = told();
        assert!(limits(&told).iter().all(Value::is_null));
        told.run.limit = Some(20);
        assert!(limits(&told).iter().all(|limit| *limit == 20));
    }

    #[test]
    fn one_stage_alone_has_its_two_events() {
        assert_eq!(events(&told(), Some(&"rows".into())).len(), 2);
    }
}
