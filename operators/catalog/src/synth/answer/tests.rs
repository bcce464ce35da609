use llmflow_contract::{AnyArtifact, Artifact, Class, Operator as _};
use llmflow_dataset::{Content, Dataset, Message, Meta, Prompt, Row, RowKind};

use super::{Answer, Form, Keep, Params, spec::In};
use crate::{
    model::toy,
    testing::{TestHost, artifact, known},
};

fn prompt(text: &str, answer: Option<&str>) -> Row {
    let prompt = Prompt { prompt: vec![Message::user(text)], answer: answer.map(str::to_owned) };
    Row::new(Content::Prompt(prompt), Meta::new())
}

fn params() -> Params {
    Params { system: None, max_new_tokens: 3, keep: Some(Keep::All), ..Params::default() }
}

fn prompts(host: &TestHost) -> AnyArtifact {
    let rows = ["one", "two", "three", "one two", "two three", "one one"];
    host.dataset(RowKind::Prompt, rows.map(|text| prompt(text, (text != "two").then_some("written"))))
}

fn run(host: &TestHost, params: Params) -> AnyArtifact {
    let inputs = In { model: Artifact::new(toy::model(host)), prompts: Artifact::new(prompts(host)) };
    artifact(Answer::run(params, inputs, &host.context()).unwrap().data.into_any())
}

fn rows(artifact: &AnyArtifact) -> Vec<Row> {
    Dataset::open(artifact).unwrap().read_all().unwrap()
}

#[test]
fn a_conversation_ends_with_the_models_own_answer() {
    let host = TestHost::new();
    let rows = rows(&run(&host, params()));
    let asked = host.metric("asked").unwrap();
    assert_eq!((asked, host.metric("kept").unwrap()), (6.0, rows.len() as f64));
    for row in &rows {
        assert_eq!(row.as_chat().unwrap().messages.len(), 2);
    }
    assert_eq!(host.progress_seen().last().unwrap().done, 6);
}

#[test]
fn a_pair_has_the_written_answer_chosen_and_needs_one() {
    let host = TestHost::new();
    let made = run(&host, Params { form: Form::Preference, ..params() });
    assert_eq!(made.kind().as_str(), "dataset/preference");
    assert!(rows(&made).iter().all(|row| row.as_preference().unwrap().chosen[0].content == "written"));
    assert_eq!(host.stage_report().funnel.unwrap().dropped["no_reference"], 1);
}

#[test]
fn equal_seeds_choose_equal_rows_and_the_batch_changes_no_byte() {
    let of = |batch_size, seed| {
        let host = TestHost::new();
        let params = Params { max_rows: Some(3), batch_size, temperature: 1.0, ..params() };
        let inputs = In { model: Artifact::new(toy::model(&host)), prompts: Artifact::new(prompts(&host)) };
        let out = Answer::run(params, inputs, &host.context_with_seed(seed)).unwrap();
        artifact(out.data.into_any()).digest
    };
    assert_eq!(of(1, 42), of(5, 42));
    assert_ne!(of(1, 42), of(1, 44));
}

#[test]
fn a_stage_killed_after_a_batch_goes_on_without_asking_again() {
    let host = TestHost::new();
    let first = run(&host, params());
    let asked = host.progress_seen().len();
    let again = run(&host, params());
    assert_eq!(first.digest, again.digest);
    assert_eq!(host.progress_seen().len(), asked, "the journal held every answer");
}

#[test]
fn the_kind_follows_the_form_and_samples_need_chance() {
    let known = known("".into(), &[]);
    let mut pairs = Params { form: Form::Preference, ..Params::default() };
    assert_eq!(Answer::plan(&mut pairs, &known).unwrap().outputs[0].1.as_str(), "dataset/preference");
    let mut same = Params { n: 2, ..Params::default() };
    assert_eq!(Answer::plan(&mut same, &known).unwrap_err().param.as_deref(), Some("n"));
    let drawn = serde_json::from_value::<Params>(serde_json::json!({"as": "chat", "max_rows": 2})).unwrap();
    assert!(Answer::plan(&mut drawn.clone(), &known).unwrap().seeded);
}

#[test]
fn a_cancelled_stage_stops() {
    let host = TestHost::new();
    let inputs = In { model: Artifact::new(toy::model(&host)), prompts: Artifact::new(prompts(&host)) };
    host.cancel();
    assert_eq!(Answer::run(params(), inputs, &host.context()).unwrap_err().class, Class::Cancelled);
}
