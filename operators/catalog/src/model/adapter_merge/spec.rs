//! Params, ports and plan of `model.adapter_merge`.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Kind, Known, Made, Needs, Operator, StagePlan, Work, inputs, kinds, outputs,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

use crate::synth::speaker;

/// Nothing to set.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "llmflow_contract::schemars")]
pub struct Params {}

inputs! {
    pub struct In {
        /// The model the adapter was trained on.
        pub model: Artifact<kinds::Model>,
        /// The adapter to add.
        pub adapter: Artifact<kinds::Adapter>,
    }
}

outputs! {
    pub struct Out {
        /// The model with the adapter inside.
        pub model: Made<kinds::Model>,
    }
}

/// `model.adapter_merge`
pub struct AdapterMerge;

impl Operator for AdapterMerge {
    const NAME: &'static str = "model.adapter_merge";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = Out;

    fn plan(_: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        let (facts, base) = (known.facts("model"), known.facts("adapter").base);
        let digest = known.input("model").and_then(|input| input.digest);
        if let (Some(base), Some(digest)) = (base, digest)
            && base != digest
        {
            let message = format!("the adapter was trained on {}, not on {}", base.short(), digest.short());
            return Err(Failure::input("adapter/other-base", message)
                .help("give `model:` the stage that `train` or `align` took"));
        }
        let size_bytes = 4 * facts.parameters.unwrap_or(135_000_000);
        let needs = Needs {
            cores: known.machine.cores.clamp(1, 4),
            memory_bytes: (256 << 20) + 2 * size_bytes,
            disk_bytes: size_bytes,
            work: Work::Bytes(size_bytes),
            ..Needs::default()
        };
        Ok(StagePlan::derived::<Self>()
            .output("model", Kind::of("model"), Facts { base: None, ..facts })
            .metric("modules", "matrices changed")
            .numerics(speaker::numerics())
            .needs(needs))
    }

    fn run(_: Params, inputs: In, ctx: &Context) -> Result<Out, Failure> {
        super::run::run(&inputs, ctx)
    }
}
