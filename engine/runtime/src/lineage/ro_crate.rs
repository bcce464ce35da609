//! A run as an RO-Crate: a folder that says in JSON-LD which file was made from what, by which program, when.
//!
//! Owns: `ro-crate-metadata.json` after the Process and Workflow Run Crate profiles. The crate holds the pipeline file and
//! the artifacts that no stage reads on; the others are named by digest, size and kind.
//! Source: <https://www.researchobject.org/ro-crate/specification/1.1/>, <https://www.researchobject.org/workflow-run-crate/>.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use llmflow_contract::{Digest, Failure, Manifest};
use serde_json::{Value, json};

use super::{Lineage, OutputRow, PipelineRow, RunRow, StageRow};
use crate::{
    event::{RunId, RunStatus},
    home::Home,
    store::{Store, is_damage},
};

const METADATA: &str = "ro-crate-metadata.json";
const PIPELINE: &str = "pipeline.yaml";

/// What a crate came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Crate {
    pub path: PathBuf,
    pub files: usize,
    pub bytes: u64,
}

/// Writes a run into a new folder, whole or not at all.
///
/// # Errors
/// `export/exists` if there is something at `to`; `store/no-artifact` for a result that is gone; of the disk.
pub async fn ro_crate(lineage: &Lineage, store: &Store, home: &Home, run: &RunId, to: &Path) -> Result<Crate, Failure> {
    if to.exists() {
        let message = format!("`{}` exists; a crate is a new folder", to.display());
        return Err(Failure::input("export/exists", message).help("name a folder that does not exist yet"));
    }
    let mut description = Description {
        run: lineage.run(run).await?,
        file: lineage.pipeline_of(run).await?,
        stages: lineage.stages_of_run(run).await?,
        manifests: BTreeMap::new(),
        folders: BTreeMap::new(),
    };
    for (stage, output, digest) in description.results() {
        let manifest = store.manifest(&digest).await.map_err(|failure| named(failure, run, &stage, &output))?;
        description.manifests.insert(digest, manifest);
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
    let aside = tempfile::Builder::new()
        .prefix(".llmflow-crate-")
        .tempdir_in(parent)
        .map_err(|error| Failure::io("making", parent, &error))?;
    let root = aside.path().join("crate");
    fs::create_dir(&root).map_err(|error| Failure::io("making", &root, &error))?;
    let mut made = Crate { path: to.to_owned(), files: 2, bytes: 0 };
    let read: BTreeSet<Digest> =
        description.stages.iter().flat_map(|stage| stage.inputs.iter().filter_map(|input| input.digest)).collect();
    for (stage, output, digest) in description.results() {
        if read.contains(&digest) || description.folders.contains_key(&digest) {
            continue;
        }
        let folder = format!("artifacts/{}", safe(&format!("{stage}.{}", output.port)));
        let artifact = store.artifact(&digest, &home.work()).await;
        let artifact = artifact.map_err(|failure| named(failure, run, &stage, &output))?;
        let manifest = &description.manifests[&digest];
        copy_files(&artifact.root, manifest, &root.join(&folder))?;
        made.files += manifest.files.len();
        made.bytes += manifest.size_bytes();
        description.folders.insert(digest, folder);
    }
    let graph = serde_json::to_vec_pretty(&description.metadata())
        .map_err(|error| Failure::bug(format!("crate metadata: {error}")))?;
    for (name, bytes) in [(METADATA, graph.as_slice()), (PIPELINE, description.file.text.as_bytes())] {
        let path = root.join(name);
        fs::write(&path, bytes).map_err(|error| Failure::io("writing", &path, &error))?;
    }
    fs::rename(&root, to).map_err(|error| Failure::io("placing", to, &error))?;
    Ok(made)
}

/// A result that is gone goes by the name it has in its run.
fn named(failure: Failure, run: &RunId, stage: &str, output: &OutputRow) -> Failure {
    if !is_damage(&failure) {
        return failure;
    }
    let message = format!("`{stage}.{}` of run `{run}` is no longer whole in the store", output.port);
    Failure { message, ..failure }
}

fn copy_files(root: &Path, manifest: &Manifest, to: &Path) -> Result<(), Failure> {
    for file in &manifest.files {
        let target = to.join(&file.path);
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
        fs::copy(root.join(&file.path), &target).map_err(|error| Failure::io("copying", &target, &error))?;
    }
    Ok(())
}

/// A name that is one part of a path, everywhere.
fn safe(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '=' | '@');
    name.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

/// What a crate describes.
struct Description {
    run: RunRow,
    file: PipelineRow,
    stages: Vec<StageRow>,
    manifests: BTreeMap<Digest, Manifest>,
    /// Where in the crate the files of an artifact lie.
    folders: BTreeMap<Digest, String>,
}

impl Description {
    /// What the stages gave, traces apart.
    fn results(&self) -> Vec<(String, OutputRow, Digest)> {
        let outputs = self.stages.iter().flat_map(|stage| stage.outputs.iter().map(move |output| (stage, output)));
        outputs
            .filter(|(_, output)| output.port.as_str() != "trace")
            .filter_map(|(stage, output)| Some((stage.stage.to_string(), output.clone(), output.digest?)))
            .collect()
    }

    fn metadata(&self) -> Value {
        let mut graph = vec![self.descriptor(), self.root(), self.workflow()];
        graph.push(json!({
            "@id": "#llmflow", "@type": "SoftwareApplication", "name": "LLMflow", "softwareVersion": self.run.version,
        }));
        graph.push(json!({ "@id": "#yaml", "@type": "ComputerLanguage", "name": "LLMflow pipeline (YAML)" }));
        graph.push(self.whole_run());
        graph.extend(self.file.params.iter().map(|(name, value)| {
            json!({ "@id": format!("#param-{}", safe(name)), "@type": "PropertyValue", "name": name, "value": value.to_string() })
        }));
        let operators: BTreeSet<(&str, u32)> =
            self.stages.iter().map(|stage| (stage.operator.as_str(), stage.version)).collect();
        graph.extend(operators.into_iter().map(|(name, version)| {
            json!({ "@id": format!("#{name}"), "@type": "SoftwareApplication", "name": name,
                    "softwareVersion": version.to_string(), "isPartOf": { "@id": "#llmflow" } })
        }));
        graph.extend(self.stages.iter().filter(|stage| stage.key.is_some()).map(|stage| self.action(stage)));
        for (digest, manifest) in &self.manifests {
            graph.extend(self.artifact(digest, manifest));
        }
        json!({ "@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph })
    }

    fn descriptor(&self) -> Value {
        json!({
            "@id": METADATA, "@type": "CreativeWork", "about": { "@id": "./" },
            "conformsTo": { "@id": "https://w3id.org/ro/crate/1.1" },
        })
    }

    fn root(&self) -> Value {
        let mut parts = vec![json!({ "@id": PIPELINE })];
        parts.extend(self.folders.values().map(|folder| json!({ "@id": format!("{folder}/") })));
        let licences: BTreeSet<&String> =
            self.manifests.values().flat_map(|manifest| &manifest.facts.licences).collect();
        let licence = licences.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        json!({
            "@id": "./", "@type": "Dataset",
            "name": format!("{} · run {}", self.run.pipeline, self.run.run),
            "description": format!("What run {} of the pipeline {} made, from what, and how.", self.run.run, self.run.pipeline),
            "datePublished": self.ended(),
            "license": if licence.is_empty() { "not stated".to_owned() } else { licence },
            "hasPart": parts, "mainEntity": { "@id": PIPELINE }, "mentions": [{ "@id": "#run" }],
            "conformsTo": [
                { "@id": "https://w3id.org/ro/wfrun/process/0.5" }, { "@id": "https://w3id.org/ro/wfrun/workflow/0.5" },
            ],
        })
    }

    fn workflow(&self) -> Value {
        json!({
            "@id": PIPELINE, "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": self.run.pipeline, "programmingLanguage": { "@id": "#yaml" },
            "contentSize": self.file.text.len().to_string(), "encodingFormat": "application/yaml",
        })
    }

    fn whole_run(&self) -> Value {
        let results: Vec<Value> = self.folders.keys().map(|digest| json!({ "@id": self.id(digest) })).collect();
        let set: Vec<Value> =
            self.file.params.keys().map(|name| json!({ "@id": format!("#param-{}", safe(name)) })).collect();
        json!({
            "@id": "#run", "@type": "CreateAction", "name": format!("run {}", self.run.run),
            "instrument": { "@id": PIPELINE }, "agent": { "@id": "#llmflow" },
            "startTime": moment(self.run.started_ms), "endTime": self.ended(),
            "actionStatus": status(self.run.status == RunStatus::Done), "object": set, "result": results,
        })
    }

    fn action(&self, stage: &StageRow) -> Value {
        let read: Vec<Value> =
            stage.inputs.iter().filter_map(|input| Some(json!({ "@id": self.id(&input.digest?) }))).collect();
        let gave = stage.outputs.iter().filter(|output| output.port.as_str() != "trace");
        let gave: Vec<Value> = gave.filter_map(|output| Some(json!({ "@id": self.id(&output.digest?) }))).collect();
        json!({
            "@id": format!("#stage-{}", safe(stage.stage.as_str())), "@type": "CreateAction",
            "name": stage.stage, "instrument": { "@id": format!("#{}", stage.operator) },
            "isPartOf": { "@id": "#run" }, "object": read, "result": gave, "description": stage.summary,
            "actionStatus": status(matches!(stage.status.as_str(), "ran" | "cached" | "refused")),
            "identifier": stage.key.map(|key| format!("blake3:{key}")),
        })
    }

    /// An artifact, and its files where the crate holds them.
    fn artifact(&self, digest: &Digest, manifest: &Manifest) -> Vec<Value> {
        let folder = self.folders.get(digest);
        let files = manifest.files.iter().filter_map(|file| {
            Some(json!({
                "@id": format!("{}/{}", folder?, file.path), "@type": "File", "name": file.path,
                "contentSize": file.size_bytes.to_string(), "identifier": format!("blake3:{}", file.digest),
            }))
        });
        let files: Vec<Value> = files.collect();
        let parts: Vec<Value> = files.iter().map(|file| json!({ "@id": file["@id"] })).collect();
        let artifact = json!({
            "@id": self.id(digest), "@type": "Dataset", "name": manifest.kind.as_str(),
            "additionalType": manifest.kind.as_str(), "identifier": format!("blake3:{digest}"),
            "contentSize": manifest.size_bytes().to_string(), "hasPart": parts,
        });
        std::iter::once(artifact).chain(files).collect()
    }

    fn id(&self, digest: &Digest) -> String {
        match self.folders.get(digest) {
            Some(folder) => format!("{folder}/"),
            None => format!("#artifact-{digest}"),
        }
    }

    fn ended(&self) -> String {
        let millis = self.run.seconds.unwrap_or_default() * 1000.0;
        moment(self.run.started_ms + millis.max(0.0) as u64)
    }
}

fn status(is_done: bool) -> Value {
    let name = if is_done { "CompletedActionStatus" } else { "FailedActionStatus" };
    json!({ "@id": format!("http://schema.org/{name}") })
}

/// ISO 8601, UTC.
fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}
