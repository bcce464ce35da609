//! Params, ports and plan of `quantize.gguf`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Kind, Known, Made, Needs, Operator, StagePlan, Work, inputs, kinds, outputs,
    schemars::JsonSchema,
};
use llmflow_model::quantization::BlockType;
use serde::{Deserialize, Serialize};

use crate::language_model;

/// How the matrices are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "llmflow_contract::schemars")]
pub enum GgufType {
    /// 16 bits a weight.
    F16,
    /// 8.5 bits a weight.
    #[default]
    Q8_0,
    /// 4.5 bits a weight.
    Q4_0,
}

impl GgufType {
    pub(super) fn block_type(self) -> BlockType {
        match self {
            Self::F16 => BlockType::F16,
            Self::Q8_0 => BlockType::Q8_0,
            Self::Q4_0 => BlockType::Q4_0,
        }
    }
}

/// How small.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(crate = "llmflow_contract::schemars")]
pub struct Params {
    /// How the matrices are stored: `f16`, `q8_0` or `q4_0`.
    #[serde(rename = "type")]
    pub block_type: GgufType,
}

inputs! {
    pub struct In {
        /// The model; an adapter is merged with its base first.
        pub model: Artifact<kinds::Model>,
    }
}

outputs! {
    pub struct Out {
        /// The file, `model.gguf`.
        pub gguf: Made<kinds::Gguf>,
    }
}

/// `quantize.gguf`
pub struct QuantizeGguf;

impl Operator for QuantizeGguf {
    const NAME: &'static str = "quantize.gguf";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        language_model::check(known)?;
        let facts = known.facts("model");
        let block_type = params.block_type.block_type();
        let parameters = facts.parameters.unwrap_or(135_000_000);
        let size_bytes = parameters * block_type.block_bytes() as u64 / block_type.block_len() as u64;
        let needs = Needs {
            cores: known.machine.cores.clamp(1, 4),
            memory_bytes: (256 << 20) + 5 * parameters,
            disk_bytes: size_bytes,
            work: Work::Bytes(4 * parameters),
            ..Needs::default()
        };
        Ok(StagePlan::derived::<Self>()
            .output("gguf", Kind::of("gguf"), Facts { base: None, dtype: Some(block_type.name().into()), ..facts })
            .metric("size_bytes", "size of the file")
            .metric("bits_per_weight", "bits of tensor data for each weight")
            .metric("relative_error", "‖packed − original‖ / ‖original‖ over all weights")
            .needs(needs))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&params, &inputs, ctx)
    }
}
