use llmflow_contract::{AnyArtifact, Artifact, Class, Context, Failure, Operator as _};
use llmflow_dataset::{Content, Message, Meta, Preference, Row, RowKind};

use super::{AlignPreference, Params, spec::In};
use crate::{
    model::toy,
    testing::{TestHost, artifact, known, stopping::Stopping},
};

fn pair(question: &str, chosen: &str, rejected: &str) -> Row {
    let pair = Preference {
        prompt: vec![Message::user(question)],
        chosen: vec![Message::assistant(chosen)],
        rejected: vec![Message::assistant(rejected)],
        margin: None,
    };
    Row::new(Content::Preference(pair), Meta::new())
}

fn rows() -> Vec<Row> {
    vec![
        pair("one", "two three", "one one one"),
        pair("two", "three one", "two"),
        pair("three", "one two", "two three"),
        pair("one two", "three", "three"),
    ]
}

fn params() -> Params {
    Params {
        lora_r: 4,
        learning_rate: 1e-3,
        num_train_epochs: 3.0,
        per_device_train_batch_size: 2,
        max_length: Some(64),
        ..Params::default()
    }
}

fn run(host: &TestHost, ctx: &Context, params: Params) -> Result<AnyArtifact, Failure> {
    let data = vec![Artifact::new(host.dataset(RowKind::Preference, rows()))];
    let inputs = In { model: Artifact::new(toy::model(host)), data };
    AlignPreference::run(params, inputs, ctx).map(|out| artifact(out.adapter.into_any()))
}

#[test]
fn the_loss_starts_at_ln_2_the_margin_grows_and_equal_answers_are_left_out() {
    let host = TestHost::new();
    let adapter = run(&host, &host.context(), Params { num_train_epochs: 10.0, ..params() }).unwrap();
    let metric = |name: &str| host.metric(name).unwrap();
    assert!((metric("loss_before") - 2_f64.ln()).abs() < 1e-6, "{}", metric("loss_before"));
    assert!(metric("loss") < metric("loss_before") && metric("margin") > 0.0);
    assert!(metric("chosen_reward") > metric("rejected_reward"));
    assert_eq!((metric("rows"), metric("dropped"), metric("steps")), (3.0, 1.0, 20.0));
    let report = host.stage_report();
    assert_eq!(report.funnel.unwrap().dropped["same_answer"], 1);
    let names: Vec<&str> = report.samples[0].texts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["read", "chosen", "read", "rejected"]);
    assert_eq!(adapter.facts().base, Some(toy::model(&host).digest));
}

#[test]
fn the_chosen_answers_own_loss_counts_where_it_is_asked_for() {
    let loss = |rpo_alpha| {
        let host = TestHost::new();
        run(&host, &host.context(), Params { rpo_alpha, max_steps: Some(1), ..params() }).unwrap();
        (host.metric("loss").unwrap(), host.metric("chosen_nll").unwrap())
    };
    let ((plain, nll), (anchored, _)) = (loss(0.0), loss(0.5));
    assert!((anchored - plain - 0.5 * nll).abs() < 1e-6 * nll, "{anchored} {plain} {nll}");
}

#[test]
fn resuming_equals_never_stopping() {
    let whole = TestHost::new();
    let expected = run(&whole, &whole.context(), params()).unwrap();
    for asked in [2, 8, 11] {
        let host = TestHost::new();
        let failure = run(&host, &Stopping::after(&host, asked).context(), params()).unwrap_err();
        assert_eq!(failure.class, Class::Cancelled);
        let resumed = run(&host, &host.context(), params()).unwrap();
        assert_eq!(resumed.digest, expected.digest, "stopped when asked {asked} times");
        assert_eq!(host.stage_report(), whole.stage_report());
    }
}

#[test]
fn plan_works_when_nothing_is_known_yet_and_chats_are_sent_to_make_pairs() {
    let host = TestHost::new();
    let plan = AlignPreference::plan(&mut Params::default(), &known(host.base(), &[])).unwrap();
    assert!(plan.seeded && plan.metrics.iter().any(|metric| metric.name == "margin"));
    let chats = host.dataset(RowKind::Chat, []);
    let failure = AlignPreference::plan(&mut params(), &known(host.base(), &[("data", &chats)])).unwrap_err();
    assert!(failure.help.unwrap().contains("synth.answer"));
}
