use llmflow_contract::{AnyArtifact, Artifact, Class, Operator as _};
use llmflow_dataset::{Chat, Content, Message, Meta, Row, RowKind};

use super::{Params, Perplexity, spec::In};
use crate::{
    model::toy,
    testing::{TestHost, artifact, shared_data},
};

fn text(text: &str) -> Row {
    Row::new(Content::Text(text.into()), Meta::new())
}

fn run(host: &TestHost, params: Params, model: &AnyArtifact, data: AnyArtifact) -> (f64, f64) {
    let inputs = In { model: Artifact::new(model.clone()), data: Artifact::new(data) };
    Perplexity::run(params, inputs, &host.context()).unwrap();
    (host.metric("nll").unwrap(), host.metric("tokens").unwrap())
}

#[test]
fn the_batch_changes_nothing_and_the_limit_on_windows_holds() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let params = |batch_size, max_windows| Params { window: 4, batch_size, max_windows, ..Params::default() };
    let data = || host.dataset(RowKind::Text, [text("one two three one two three one"), text("two three")]);
    let all = run(&host, params(1, None), &model, data());
    assert_eq!(all, run(&host, params(3, None), &model, data()));
    assert_eq!(run(&host, params(1, Some(1)), &model, data()).1, 3.0);
    assert!(all.0 > 0.0 && all.1 > 3.0);
    assert!((host.metric("perplexity").unwrap().ln() - host.metric("nll").unwrap()).abs() < 1e-9);
}

#[test]
fn of_chats_only_the_answers_count() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let chat = Chat { messages: vec![Message::user("one two three"), Message::assistant("two")], tools: None };
    let rows = [Row::new(Content::Chat(chat), Meta::new())];
    let params = |assistant_only| Params { window: 32, assistant_only, ..Params::default() };
    let answers = run(&host, params(true), &model, host.dataset(RowKind::Chat, rows.clone())).1;
    let whole = run(&host, params(false), &model, host.dataset(RowKind::Chat, rows)).1;
    assert!(0.0 < answers && answers < whole, "{answers} of {whole}");
}

#[test]
fn data_without_a_token_is_refused_and_a_cancelled_stage_stops() {
    let host = TestHost::new();
    let model = toy::model(&host);
    let inputs = |data| In { model: Artifact::new(model.clone()), data: Artifact::new(data) };
    let params = || Params { window: 4, ..Params::default() };
    let empty = host.dataset(RowKind::Text, [text("")]);
    assert_eq!(Perplexity::run(params(), inputs(empty), &host.context()).unwrap_err().code, "eval/no-text");
    let data = host.dataset(RowKind::Text, [text("one two")]);
    host.cancel();
    assert_eq!(Perplexity::run(params(), inputs(data), &host.context()).unwrap_err().class, Class::Cancelled);
}

/// Reference: an independent float32 forward pass, 8 windows of 1,024 tokens: 2.78771 over 8,184 predictions.
#[test]
fn smollm2_predicts_wikitext_as_the_reference_does() {
    let Some(archive) = shared_data("perplexity/wikitext-2-valid.txt.gz") else { return };
    let Some(gguf) = crate::testing::smollm2() else { return };
    let mut all = String::new();
    let mut reader = flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap());
    std::io::Read::read_to_string(&mut reader, &mut all).unwrap();
    let start: String = all.chars().take(60_000).collect();
    let host = TestHost::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(gguf, folder.path().join("model.gguf")).unwrap();
    let made: llmflow_contract::Made<llmflow_contract::kinds::Gguf> =
        llmflow_contract::Made::new(folder.path().to_owned(), Default::default());
    let model = artifact(made.into_any());
    let params = Params { max_windows: Some(8), batch_size: 2, ..Params::default() };
    let (nll, tokens) = run(&host, params, &model, host.dataset(RowKind::Text, [text(&start)]));
    assert_eq!(tokens, 8184.0);
    assert!((nll - 2.78771).abs() < 1e-3, "nll {nll}");
}
