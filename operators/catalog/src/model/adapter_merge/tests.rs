use llmflow_contract::{Artifact, Operator as _};

use super::{AdapterMerge, Params, spec::In};
use crate::{
    language_model,
    model::toy,
    testing::{TestHost, artifact, known},
};

#[test]
fn an_adapter_changes_its_matrix_and_nothing_else_and_loading_it_gives_the_same_model() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let adapter = toy::adapter(&host, &model);
    let inputs = In { model: Artifact::new(model.clone()), adapter: Artifact::new(adapter.clone()) };
    let out = AdapterMerge::run(Params {}, inputs, &host.context()).unwrap();
    let weights = |artifact| language_model::load(artifact).unwrap().checkpoint.weights;
    let (before, merged, loaded) = (weights(&model), weights(&artifact(out.model.into_any())), weights(&adapter));
    for ((name, old), (_, new)) in before.iter().zip(merged.iter()) {
        let (old, new) = (old.flatten_all().unwrap().to_vec1::<f32>(), new.flatten_all().unwrap().to_vec1::<f32>());
        assert_eq!(old.unwrap() != new.unwrap(), name == "model.layers.0.mlp.up_proj.weight", "{name}");
    }
    for ((name, a), (_, b)) in merged.iter().zip(loaded.iter()) {
        let (a, b) = (a.flatten_all().unwrap().to_vec1::<f32>(), b.flatten_all().unwrap().to_vec1::<f32>());
        assert_eq!(a.unwrap(), b.unwrap(), "{name}");
    }
    assert_eq!(host.metric("modules"), Some(1.0));
}

#[test]
fn an_adapter_of_another_base_is_refused_before_anything_runs() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let mut adapter = toy::adapter(&host, &model);
    adapter.manifest.facts.base = Some(toy::other());
    let known = known(host.base(), &[("model", &model), ("adapter", &adapter)]);
    assert_eq!(AdapterMerge::plan(&mut Params {}, &known).unwrap_err().code, "adapter/other-base");
}
