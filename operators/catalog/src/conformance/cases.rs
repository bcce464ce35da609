//! A piece of work for each operator, small enough to be done many times.

use std::fs;

use llmflow_contract::{AnyArtifact, Facts, Host as _, Made, kinds, write_report};
use llmflow_dataset::{Chat, Choice, Content, Message, Meta, Preference, Prompt, Row, RowKind};
use llmflow_model::tokenizer::train_bpe;
use serde_json::{Value, json};

use crate::{
    model::toy,
    testing::{TestHost, artifact},
};

/// Params and inputs of one stage.
pub(super) struct Case {
    pub params: Value,
    pub inputs: Vec<(&'static str, AnyArtifact)>,
}

/// The case of an operator.
///
/// # Panics
/// If there is none: a new operator brings its own.
pub(super) fn of(operator: &str, host: &TestHost) -> Case {
    let lora = json!({"lora_r": 2, "num_train_epochs": 2, "per_device_train_batch_size": 2, "max_length": 64, "save_steps": 1});
    let (params, inputs) = match operator {
        "data.load" => {
            host.write("rows.jsonl", "{\"text\": \"one\"}\n{\"text\": \"\"}\n{\"text\": \"two\"}\n");
            (json!({"path": "rows.jsonl", "on_bad_row": "set_aside"}), vec![])
        }
        "data.map" => {
            let command = json!(["sed", "-e", "/three/d", "-e", "s/one/four/", "-e", "/two/p"]);
            (json!({"command": command, "batch": 2, "deterministic": true}), vec![("data", texts(host))])
        }
        "data.filter" => (json!({"min_words": 2}), vec![("data", texts_in_parts(host))]),
        "data.dedup" => (json!({"method": "minhash"}), vec![("data", texts(host)), ("data", texts(host))]),
        "data.split" => (json!({"test_size": 0.3}), vec![("data", texts(host))]),
        "synth.generate" => (json!({}), vec![("model", toy::model(host)), ("documents", documents(host))]),
        "synth.answer" => {
            let params = json!({"system": null, "max_new_tokens": 3, "keep": "all", "batch_size": 2});
            (params, vec![("model", toy::model(host)), ("prompts", prompts(host))])
        }
        "model.load" => {
            let model = toy::model(host);
            for file in &model.manifest.files {
                host.write(&format!("toy/{}", file.path), fs::read(model.file(&file.path).unwrap()).unwrap());
            }
            (json!({"source": "toy"}), vec![])
        }
        "model.adapter_merge" => {
            let model = toy::model(host);
            let adapter = toy::adapter(host, &model);
            (json!({}), vec![("model", model), ("adapter", adapter)])
        }
        "tokenizer.train" => (json!({"vocab_size": 270}), vec![("data", texts(host))]),
        "train.pretrain" => {
            let shape = json!({"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_length": 32,
                "max_steps": 4, "save_steps": 1, "per_device_train_batch_size": 2});
            (shape, vec![("tokenizer", tokenizer(host)), ("data", documents(host))])
        }
        "train.sft" => (lora, vec![("model", toy::model(host)), ("data", chats(host))]),
        "align.preference" => (lora, vec![("model", toy::model(host)), ("data", pairs(host))]),
        "eval.benchmark" => {
            let params = json!({"template": "none", "max_new_tokens": 3, "answers": 1});
            (params, vec![("model", toy::model(host)), ("data", questions(host))])
        }
        "eval.perplexity" => (json!({"window": 8}), vec![("model", toy::model(host)), ("data", texts(host))]),
        "eval.compare" => {
            (json!({"samples": 200}), vec![("baseline", results(host, 3)), ("candidate", results(host, 7))])
        }
        "quantize.gguf" => (json!({"type": "q8_0"}), vec![("model", toy::model(host))]),
        "deploy.serve" => {
            let params = json!({"port": "auto", "smoke_test": {"prompt": "one", "matches": ""}});
            (params, vec![("model", toy::model(host))])
        }
        "run.command" => {
            let script = "sed s/one/four/ \"$1\" > \"$2\"; echo 'LLMFLOW {\"metric\": [\"loss\", 0.5]}'";
            let params = json!({
                "command": ["sh", "-c", script, "sh", "{in.data}", "{out.rows}"],
                "outputs": {"rows": "dataset/text"}, "metrics": ["loss"], "deterministic": true,
            });
            (params, vec![("data", texts(host))])
        }
        other => panic!("`{other}` has no case here: give it a piece of work that takes a moment"),
    };
    Case { params, inputs }
}

fn row(content: Content) -> Row {
    Row::new(content, Meta::new())
}

const TEXTS: [&str; 6] =
    ["one two three", "one", "two two", "three one two", "two three one two", "one two three four"];

fn texts(host: &TestHost) -> AnyArtifact {
    host.dataset(RowKind::Text, TEXTS.map(|text| row(Content::Text(text.into()))))
}

fn texts_in_parts(host: &TestHost) -> AnyArtifact {
    let part = |texts: &[&str]| texts.iter().map(|text| row(Content::Text((*text).into()))).collect();
    host.dataset_in_parts(RowKind::Text, TEXTS.chunks(2).map(part))
}

fn documents(host: &TestHost) -> AnyArtifact {
    let text = "# One\n\nThe first sentence of two is this one. The second sentence is the last one of them.\n";
    host.dataset(RowKind::Text, [row(Content::Text(text.repeat(4)))])
}

fn prompts(host: &TestHost) -> AnyArtifact {
    let prompt = |text: &str| Prompt { prompt: vec![Message::user(text)], answer: Some("two".into()) };
    host.dataset(RowKind::Prompt, ["one", "two", "three"].map(|text| row(Content::Prompt(prompt(text)))))
}

fn chats(host: &TestHost) -> AnyArtifact {
    let chat =
        |(question, answer)| Chat { messages: vec![Message::user(question), Message::assistant(answer)], tools: None };
    let turns = [("one", "two"), ("two", "three one"), ("three", "one two"), ("one two", "three")];
    host.dataset(RowKind::Chat, turns.map(|turns| row(Content::Chat(chat(turns)))))
}

fn pairs(host: &TestHost) -> AnyArtifact {
    let pair = |(question, chosen, rejected)| Preference {
        prompt: vec![Message::user(question)],
        chosen: vec![Message::assistant(chosen)],
        rejected: vec![Message::assistant(rejected)],
        margin: None,
    };
    let turns = [("one", "two three", "one"), ("two", "three one", "two"), ("three", "one two", "three")];
    host.dataset(RowKind::Preference, turns.map(|turns| row(Content::Preference(pair(turns)))))
}

fn questions(host: &TestHost) -> AnyArtifact {
    let question =
        |query: &str, gold| Choice { query: query.into(), choices: vec!["two".into(), "three one".into()], gold };
    host.dataset(RowKind::Choice, [question("one", 0), question("two", 1)].map(|one| row(Content::Choice(one))))
}

fn tokenizer(host: &TestHost) -> AnyArtifact {
    let folder = host.output("tokenizer-input").expect("a folder");
    let tokenizer = train_bpe(["one two three"; 3].into_iter(), 270, 1).expect("a tokenizer");
    tokenizer.save_folder(&folder).expect("a written tokenizer");
    let facts = Facts { vocab: Some(tokenizer.vocab_size() as u64), ..Facts::default() };
    artifact(Made::<kinds::Tokenizer>::new(folder, facts).into_any())
}

/// What a model that is right in the first questions would have got.
fn results(host: &TestHost, right: usize) -> AnyArtifact {
    let sample = |at: usize| {
        let mark = f64::from(u8::from(at < right));
        let texts = [("question", "q"), ("gold", "a"), ("predicted", "a")];
        llmflow_contract::Sample {
            row: Some(format!("row-{at}")),
            title: String::new(),
            texts: texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            metrics: [("acc", mark), ("acc_norm", mark), ("gold_logprob", mark - 2.0)]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        }
    };
    let folder = host.output("results-input").expect("a folder");
    let report = llmflow_contract::Report { samples: (0..10).map(sample).collect(), ..Default::default() };
    write_report(&folder, &report).expect("a written report");
    artifact(Made::<kinds::ReportFile>::new(folder, Facts::default()).into_any())
}
