use llmflow_contract::{AnyArtifact, Artifact, Class, Context, Facts, Failure, Host as _, Made, Operator as _, kinds};
use llmflow_dataset::{Content, Meta, Row, RowKind};
use llmflow_model::tokenizer::train_bpe;

use super::{Params, Pretrain, spec::In};
use crate::{
    language_model,
    testing::{TestHost, artifact, known, stopping::Stopping},
};

const TEXT: &str = "the cat sat on the mat and the dog sat on the log ";

fn tokenizer(host: &TestHost) -> AnyArtifact {
    let folder = host.output("tokenizer").unwrap();
    train_bpe([TEXT; 3].into_iter(), 290, 1).unwrap().save_folder(&folder).unwrap();
    artifact(Made::<kinds::Tokenizer>::new(folder, Facts::default()).into_any())
}

fn params() -> Params {
    Params {
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: Some(2),
        max_length: 32,
        max_steps: Some(12),
        learning_rate: 1e-2,
        per_device_train_batch_size: 4,
        ..Params::default()
    }
}

fn run(host: &TestHost, ctx: &Context, params: Params) -> Result<AnyArtifact, Failure> {
    let text = |text: String| Row::new(Content::Text(text), Meta::new());
    let data = host.dataset(RowKind::Text, [text(TEXT.repeat(6)), text(String::new())]);
    let more = host.dataset(RowKind::Text, [text(TEXT.repeat(3))]);
    let inputs = In {
        tokenizer: Artifact::new(tokenizer(host)),
        data: vec![Artifact::new(data), Artifact::new(more)],
        eval: None,
    };
    Pretrain::run(params, inputs, ctx).map(|out| artifact(out.model.into_any()))
}

#[test]
fn the_loss_falls_on_a_repeated_text_and_the_model_opens() {
    let host = TestHost::new();
    let model = run(&host, &host.context(), Params { max_steps: Some(60), ..params() }).unwrap();
    let metric = |name: &str| host.metric(name).unwrap();
    assert!((metric("loss_before") - 290_f64.ln()).abs() < 0.5, "a new model knows nothing: {}", metric("loss_before"));
    assert!(metric("loss") < 2.0, "{}", metric("loss"));
    assert_eq!((metric("steps"), metric("rows")), (60.0, 2.0));
    let checkpoint = language_model::load(&model).unwrap().checkpoint;
    assert_eq!(checkpoint.weights.parameters() as f64, metric("parameters"));
    assert_eq!((model.facts().context, model.facts().vocab), (Some(32), Some(checkpoint.config.vocab as u64)));
    assert!(model.facts().chat_template.is_some());
}

#[test]
fn resuming_equals_never_stopping() {
    let whole = TestHost::new();
    let expected = run(&whole, &whole.context(), params()).unwrap();
    let host = TestHost::new();
    let failure = run(&host, &Stopping::after(&host, 12).context(), params()).unwrap_err();
    assert_eq!(failure.class, Class::Cancelled);
    assert!(host.restore(&|_| Some(0)).unwrap().is_some());
    let resumed = run(&host, &host.context(), params()).unwrap();
    assert_eq!((resumed.digest, host.stage_report()), (expected.digest, whole.stage_report()));
}

#[test]
fn plan_knows_the_size_where_the_vocabulary_is_known_and_refuses_heads_that_do_not_divide() {
    let host = TestHost::new();
    let plan = Pretrain::plan(&mut params(), &known(host.base(), &[])).unwrap();
    assert_eq!((plan.outputs[0].1.as_str(), plan.outputs[0].2.parameters), ("model", None));
    let mut tokenizer = tokenizer(&host);
    tokenizer.manifest.facts.vocab = Some(290);
    let known = known(host.base(), &[("tokenizer", &tokenizer)]);
    let model = run(&host, &host.context(), Params { max_steps: Some(1), ..params() }).unwrap();
    let planned = Pretrain::plan(&mut params(), &known).unwrap().outputs[0].2.parameters;
    let vocab = model.facts().vocab.unwrap();
    assert_eq!(planned.unwrap() + 32 * vocab, model.facts().parameters.unwrap() + 32 * 290);
    let odd = Pretrain::plan(&mut Params { num_attention_heads: 5, ..params() }, &known).unwrap_err();
    assert_eq!(odd.param.as_deref(), Some("num_attention_heads"));
    let odd = Pretrain::plan(&mut Params { num_key_value_heads: Some(3), ..params() }, &known).unwrap_err();
    assert_eq!(odd.param.as_deref(), Some("num_key_value_heads"));
}
