use llmflow_contract::{Artifact, Operator as _};
use llmflow_dataset::{Content, Meta, Row, RowKind};

use super::{Params, TrainTokenizer, spec::In};
use crate::testing::{TestHost, artifact};

fn train(text: &str) -> Result<llmflow_contract::AnyArtifact, llmflow_contract::Failure> {
    let host = TestHost::new();
    let rows = [Row::new(Content::Text(text.into()), Meta::new())];
    let inputs = In { data: vec![Artifact::new(host.dataset(RowKind::Text, rows))] };
    let out = TrainTokenizer::run(Params { vocab_size: 280, min_frequency: 1 }, inputs, &host.context())?;
    let tokenizer = artifact(out.tokenizer.into_any());
    assert!(tokenizer.has("tokenizer.json") && tokenizer.has("tokenizer_config.json"));
    Ok(tokenizer)
}

#[test]
fn the_same_rows_give_the_same_tokenizer() {
    let (a, b) = (train("the cat and the hat and the bat").unwrap(), train("the cat and the hat and the bat").unwrap());
    assert_eq!(a.digest, b.digest);
    assert!(a.facts().vocab.unwrap() > 259 && a.facts().vocab.unwrap() <= 280);
    assert!(a.facts().chat_template.is_some());
}

#[test]
fn no_text_is_refused() {
    assert_eq!(train("").unwrap_err().code, "tokenizer/no-text");
}
