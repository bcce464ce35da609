use llmflow_contract::{Artifact, Class, Operator as _};

use super::{GgufType, Params, QuantizeGguf, spec::In};
use crate::{
    language_model,
    model::toy,
    testing::{TestHost, artifact},
};

#[test]
fn each_type_opens_again_and_fewer_bits_mean_a_smaller_file_and_a_larger_error() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let mut last = (f64::MAX, -1.0);
    for block_type in [GgufType::F16, GgufType::Q8_0, GgufType::Q4_0] {
        let inputs = In { model: Artifact::new(model.clone()) };
        let out = QuantizeGguf::run(Params { block_type }, inputs, &host.context()).unwrap();
        let made = artifact(out.gguf.into_any());
        assert_eq!(language_model::load(&made).unwrap().checkpoint.config.layers, 1);
        let now = (host.metric("bits_per_weight").unwrap(), host.metric("relative_error").unwrap());
        assert!(now.0 < last.0 && now.1 > last.1, "{block_type:?}: {now:?} after {last:?}");
        last = now;
    }
    let report = host.stage_report();
    assert_eq!((report.tables[0].rows.len(), report.charts.len()), (11, 1));
}

#[test]
fn an_adapter_is_merged_first_and_equal_inputs_give_equal_bytes() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let adapter = toy::adapter(&host, &model);
    let digest = |input: &llmflow_contract::AnyArtifact| {
        let inputs = In { model: Artifact::new(input.clone()) };
        let out = QuantizeGguf::run(Params::default(), inputs, &host.context()).unwrap();
        artifact(out.gguf.into_any()).manifest.files[0].digest
    };
    assert_eq!(digest(&adapter), digest(&adapter));
    assert_ne!(digest(&adapter), digest(&model));
}

#[test]
fn a_cancelled_stage_stops() {
    let host = TestHost::new();
    let inputs = In { model: Artifact::new(toy::model(&host)) };
    host.cancel();
    assert_eq!(QuantizeGguf::run(Params::default(), inputs, &host.context()).unwrap_err().class, Class::Cancelled);
}
