use llmflow_contract::{AnyArtifact, Artifact, Class, Facts, Made, Operator as _, kinds};
use llmflow_dataset::{Content, Dataset, Meta, Row, RowKind};

use super::{Generate, Params, spec::In};
use crate::{
    model::toy,
    testing::{TestHost, artifact},
};

const DOCUMENT: &str = "# The store\n\nThe store keeps every result by its content. A damaged file in the store counts \
                        as missing and is made again. Published files lie outside the store, where the user asked for them.\n";

fn documents(host: &TestHost) -> AnyArtifact {
    host.dataset(RowKind::Text, [Row::new(Content::Text(DOCUMENT.into()), Meta::new())])
}

fn run(host: &TestHost, params: Params, model: &AnyArtifact) -> AnyArtifact {
    let inputs = In { model: Artifact::new(model.clone()), documents: Artifact::new(documents(host)) };
    artifact(Generate::run(params, inputs, &host.context()).unwrap().data.into_any())
}

#[test]
fn sentences_that_do_not_fit_the_context_are_counted_and_a_second_run_asks_nothing() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let made = run(&host, Params::default(), &model);
    assert_eq!(host.metric("written"), Some(3.0));
    assert_eq!(host.stage_report().summary, "3 written, 0 kept (3 too_long)");
    assert_eq!(host.progress_seen().last().unwrap().done, 3);
    let seen = host.progress_seen().len();
    assert_eq!(run(&host, Params::default(), &model).digest, made.digest);
    assert_eq!(host.progress_seen().len(), seen);
}

#[test]
fn a_cancelled_stage_stops() {
    let host = TestHost::new();
    let inputs = In { model: Artifact::new(toy::model(&host)), documents: Artifact::new(documents(&host)) };
    host.cancel();
    assert_eq!(Generate::run(Params::default(), inputs, &host.context()).unwrap_err().class, Class::Cancelled);
}

#[test]
fn a_real_model_asks_and_the_document_answers() {
    let Some(gguf) = crate::testing::smollm2() else { return };
    let host = TestHost::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(gguf, folder.path().join("model.gguf")).unwrap();
    let model = artifact(Made::<kinds::Gguf>::new(folder.path().to_owned(), Facts::default()).into_any());
    let rows = Dataset::open(&run(&host, Params::default(), &model)).unwrap().read_all().unwrap();
    eprintln!("{}", host.stage_report().summary);
    assert!(!rows.is_empty());
    for row in rows {
        let messages = &row.as_chat().unwrap().messages;
        eprintln!("{} → {}", messages[0].content, messages[1].content);
        assert!(messages[0].content.ends_with('?') && DOCUMENT.contains(&messages[1].content));
    }
}
