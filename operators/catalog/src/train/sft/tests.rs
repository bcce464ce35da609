use llmflow_contract::{AnyArtifact, Artifact, Class, Context, Failure, Machine, Operator as _, Progress};
use llmflow_dataset::{Chat, Content, Message, Meta, Preference, Row, RowKind};

use super::{Params, Sft, spec::In};
use crate::{
    model::{adapter_merge, toy},
    testing::{TestHost, artifact, known, stopping::Stopping},
    train::settings::Scheduler,
};

fn chat(question: &str, answer: Option<&str>) -> Row {
    let mut messages = vec![Message::user(question)];
    messages.extend(answer.map(Message::assistant));
    Row::new(Content::Chat(Chat { messages, tools: None }), Meta::new())
}

fn rows() -> Vec<Row> {
    vec![
        chat("one", Some("two three")),
        chat("two", Some("three one")),
        chat("three", Some("one two")),
        chat("one two", Some("three")),
    ]
}

fn params() -> Params {
    Params {
        lora_r: 4,
        learning_rate: 1e-2,
        num_train_epochs: 3.0,
        per_device_train_batch_size: 2,
        max_length: Some(64),
        ..Params::default()
    }
}

fn run(host: &TestHost, ctx: &Context, params: Params, rows: Vec<Row>) -> Result<AnyArtifact, Failure> {
    let eval = host.dataset(RowKind::Chat, [chat("two one", Some("three"))]);
    let data = vec![Artifact::new(host.dataset(RowKind::Chat, rows))];
    let inputs = In { model: Artifact::new(toy::model(host)), data, eval: Some(Artifact::new(eval)) };
    Sft::run(params, inputs, ctx).map(|out| artifact(out.adapter.into_any()))
}

#[test]
fn the_loss_falls_the_report_shows_what_was_learned_and_the_adapter_merges() {
    let host = TestHost::new();
    let adapter = run(&host, &host.context(), Params { num_train_epochs: 20.0, ..params() }, rows()).unwrap();
    let metric = |name: &str| host.metric(name).unwrap();
    assert!(metric("loss") < 0.5 * metric("loss_before"), "{} {}", metric("loss_before"), metric("loss"));
    assert_eq!((metric("steps"), metric("rank"), metric("rows"), metric("dropped")), (40.0, 4.0, 4.0, 0.0));
    assert!(metric("eval_loss") > 0.0 && metric("eval_loss_before") > 0.0);
    assert_eq!(host.metric("tokens_per_second"), None, "a figure of a clock is in no record");

    let report = host.stage_report();
    assert!(report.summary.starts_with("eval loss"), "{}", report.summary);
    assert!(report.samples[0].texts.contains(&("learned".into(), "two three<|im_end|>".into())));
    let loss = report.series.iter().find(|series| series.name == "loss").unwrap();
    assert_eq!(loss.points.len(), 40);
    assert!(report.series.iter().any(|series| series.name == "learning_rate"));
    let last = host.progress_seen().pop().unwrap();
    assert_eq!((last.unit.as_str(), last.total), ("tokens", Some(last.done)));

    let model = toy::model(&host);
    assert_eq!(adapter.facts().base, Some(model.digest));
    assert_eq!(adapter.manifest.references["base"], model.digest);
    let inputs = adapter_merge_inputs(model, adapter);
    adapter_merge::AdapterMerge::run(adapter_merge::Params {}, inputs, &host.context()).unwrap();
    assert_eq!(host.metric("modules"), Some(7.0));
}

fn adapter_merge_inputs(
    model: AnyArtifact,
    adapter: AnyArtifact,
) -> <adapter_merge::AdapterMerge as llmflow_contract::Operator>::Inputs {
    use llmflow_contract::{Bound, Inputs as _, Port};
    let by_port = [(Port::from("model"), vec![model]), (Port::from("adapter"), vec![adapter])].into();
    <adapter_merge::AdapterMerge as llmflow_contract::Operator>::Inputs::bind(Bound::new(by_port)).unwrap()
}

#[test]
fn resuming_equals_never_stopping() {
    let whole = TestHost::new();
    let expected = run(&whole, &whole.context(), params(), rows()).unwrap();
    for asked in [6, 9, 14] {
        let host = TestHost::new();
        let stopping = Stopping::after(&host, asked);
        let failure = run(&host, &stopping.context(), params(), rows()).unwrap_err();
        assert_eq!(failure.class, Class::Cancelled);
        let resumed = run(&host, &host.context(), params(), rows()).unwrap();
        assert_eq!(resumed.digest, expected.digest, "stopped when asked {asked} times");
        assert_eq!(host.stage_report(), whole.stage_report());
    }
}

#[test]
fn a_longer_run_goes_on_from_a_shorter_one_where_the_rate_does_not_read_the_length() {
    let constant = |max_steps| Params {
        lr_scheduler_type: Scheduler::Constant,
        max_steps: Some(max_steps),
        save_steps: Some(2),
        ..params()
    };
    let (grown, whole) = (TestHost::new(), TestHost::new());
    run(&grown, &grown.context(), constant(3), rows()).unwrap(); // ends, and measures, in the middle of an epoch
    let before = grown.progress_seen().len();
    let longer = run(&grown, &grown.context(), constant(5), rows()).unwrap();
    assert_eq!(longer.digest, run(&whole, &whole.context(), constant(5), rows()).unwrap().digest);
    assert_eq!(grown.stage_report(), whole.stage_report());
    // Before the first step rows are counted.
    let first = |seen: &[Progress]| seen.iter().find(|progress| progress.unit == "tokens").unwrap().done;
    assert!(first(&grown.progress_seen()[before..]) > first(&whole.progress_seen()), "it went on, not began");

    let shorter = run(&grown, &grown.context(), constant(4), rows()).unwrap();
    let fresh = TestHost::new();
    let expected = run(&fresh, &fresh.context(), constant(4), rows()).unwrap();
    assert_eq!(shorter.digest, expected.digest, "what came further than asked is of no use");

    let known = known(grown.base(), &[]);
    let extends = |mut params: Params| Sft::plan(&mut params, &known).unwrap().extends;
    assert!(extends(constant(5)) && !extends(params()));
}

#[test]
fn the_seed_decides_the_bytes() {
    let digest = |seed| {
        let host = TestHost::new();
        run(&host, &host.context_with_seed(seed), Params { num_train_epochs: 1.0, ..params() }, rows()).unwrap().digest
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn rows_without_an_answer_are_left_out_by_name_and_nothing_to_learn_is_refused() {
    let host = TestHost::new();
    let mixed = vec![chat("one", None), chat("two", Some("three"))];
    run(&host, &host.context(), Params { num_train_epochs: 1.0, ..params() }, mixed).unwrap();
    assert_eq!((host.metric("rows"), host.metric("dropped")), (Some(1.0), Some(1.0)));
    assert_eq!(host.stage_report().funnel.unwrap().dropped["no_answer"], 1);
    let failure = run(&host, &host.context(), params(), vec![chat("one", None)]).unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("train/nothing-to-learn", Class::Input));
}

#[test]
fn plan_works_when_nothing_is_known_yet_and_refuses_what_cannot_work() {
    let host = TestHost::new();
    let mut nothing = known(host.base(), &[]);
    nothing.machine = Machine { cores: 8, memory_bytes: 1 << 34, usable_gpus: 0 };
    let plan = Sft::plan(&mut Params::default(), &nothing).unwrap();
    assert_eq!(plan.outputs[0].1.as_str(), "adapter");
    assert!(plan.seeded && plan.trains_on.len() == 1 && plan.needs.memory_bytes > 1 << 30);

    let mut model = toy::model(&host);
    model.manifest.facts.context = Some(64);
    let failure =
        Sft::plan(&mut Params { max_length: Some(65), ..params() }, &known(host.base(), &[("model", &model)]));
    assert_eq!(failure.unwrap_err().param.as_deref(), Some("max_length"));

    let (chosen, rejected) = (vec![Message::assistant("a")], vec![Message::assistant("b")]);
    let pair = Preference { prompt: vec![Message::user("q")], chosen, rejected, margin: None };
    let pairs = host.dataset(RowKind::Preference, [Row::new(Content::Preference(pair), Meta::new())]);
    let failure = Sft::plan(&mut params(), &known(host.base(), &[("data", &pairs)])).unwrap_err();
    assert_eq!(failure.code, "plan/kind-mismatch");
    assert!(failure.help.unwrap().contains("align.preference"));
}
