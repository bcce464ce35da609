use std::time::{Duration, Instant};

use llmflow_contract::Port;

use super::{VALID, load, load_over, operators::registry};
use crate::pipeline::{Demand, Node, Overrides, SourceFile, Span, Value, load_in, schema};

fn stage<'a>(loaded: &'a crate::pipeline::Loaded, id: &str) -> &'a crate::pipeline::StageDef {
    loaded.stages.iter().find(|stage| stage.id.as_str() == id).unwrap()
}

#[test]
fn a_whole_file_is_read() {
    let loaded = load(VALID, &[]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!((loaded.pipeline.name.as_str(), loaded.pipeline.seed), ("small", 7));
    let sft = stage(&loaded, "sft");
    assert_eq!(sft.with(), serde_json::json!({"lora_r": 16, "learning_rate": 2e-4, "system": ""}));
    let ports: Vec<&str> = sft.inputs.iter().map(|(port, _)| port.as_str()).collect();
    assert_eq!(ports, ["data", "eval"]);
    assert_eq!(sft.inputs[0].1[0].port, Port::from("train"));
    assert_eq!(sft.resources().memory_bytes, Demand::Exactly(8 << 30));
    assert_eq!((sft.resources().gpus, sft.shared.retry.attempts), (Demand::Auto, 3));
    assert_eq!(sft.shared.timeout, Some(Duration::from_secs(7200)));
    let unique = stage(&loaded, "unique");
    assert_eq!(unique.inputs[0].1.len(), 3);
    assert_eq!(stage(&loaded, "split").inputs[0].1[0].port, Port::from("rows"), "a bare stage means its main output");
    assert_eq!(stage(&loaded, "again").with(), serde_json::json!({"path": "more.jsonl", "format": "chat"}));
    assert_eq!(stage(&loaded, "rows").with()["path"], "data/eu.jsonl");
    assert_eq!(loaded.pipeline.publish[1].paths.len(), 2);
}

#[test]
fn every_key_of_the_grammar_is_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pipelines/valid");
    let text = std::fs::read_to_string(folder.join("everything.yaml")).unwrap();
    let loaded = load(&text, &[]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    let ids: Vec<&str> = loaded.stages.iter().map(|stage| stage.id.as_str()).collect();
    assert_eq!(ids[..3], ["rows@path=a.jsonl", "rows@path=c.jsonl", "more"]);
    assert_eq!(loaded.pipeline.store.as_ref().map(|store| store.value.as_str()), Some("s3://bucket/models"));
    assert!(loaded.stages[0].shared.is_frozen && !stage(&loaded, "more").shared.is_cached);
    let best = stage(&loaded, "best");
    assert_eq!(best.after.len(), 4);
    assert_eq!(best.when.as_ref().unwrap().reads[0].metric, "kept");
    let labels = |id: &str| {
        let (port, refs) = &stage(&loaded, id).inputs[0];
        let named = refs.iter().map(|input| format!("{}←{}", input.label.as_deref().unwrap_or("–"), input.stage));
        format!("{port}: {}", named.collect::<Vec<_>>().join(" "))
    };
    let two = "code←rows@path=a.jsonl code←rows@path=c.jsonl";
    assert_eq!(labels("labelled"), format!("data: talk←more {two} code←best"), "in the order of the file");
    assert_eq!(labels("shortly"), "data: talk←more code←best", "its only port takes many");
    let strict = Overrides { profile: Some("strict".into()), ..Overrides::default() };
    let loaded = load_over(&text, &strict);
    assert_eq!(loaded.diagnostics.to_string(), "");
    let split = stage(&loaded, "split");
    assert_eq!((&split.with()["test_size"], split.resources().cores), (&serde_json::json!(0.2), Demand::Exactly(4)));
    assert_eq!(split.resources().memory_bytes, Demand::Exactly(8 << 30), "what the profile leaves alone stays");
    assert_eq!(split.origin_of("test_size").unwrap().describe(&loaded.pipeline.source), "set by --profile strict");
    assert_eq!(loaded.pipeline.params["threshold"].value.as_f64(), Some(0.9));
}

#[test]
fn a_file_of_params_wins_over_a_profile_and_set_over_both() {
    let text = "params: {share: 0.1, path: a}\nprofiles: {p: {params: {share: 0.2, path: b}}}\nstages:\n  rows: {op: data.load, with: {path: \"${params.path}\"}}\n  split: {op: data.split, in: rows, with: {test_size: \"${params.share}\"}}\n";
    let params = |text: &str| Some(SourceFile::new("over.yaml", text));
    let share = |overrides: &Overrides| {
        let loaded = load_over(text, overrides);
        assert_eq!(loaded.diagnostics.to_string(), "");
        stage(&loaded, "split").with()["test_size"].as_f64().unwrap()
    };
    let mut overrides = Overrides { profile: Some("p".into()), ..Overrides::default() };
    assert_eq!(share(&overrides), 0.2);
    overrides.params_file = params("share: 0.3");
    assert_eq!(share(&overrides), 0.3);
    overrides.params_file = params(r#"{"split.test_size": 0.4, "params.path": "c"}"#);
    assert_eq!(share(&overrides), 0.4);
    overrides.set = vec!["split.test_size=0.5".into()];
    assert_eq!(share(&overrides), 0.5);
    for (file, part) in [
        ("shre: 1", "`--params-file over.yaml`: there is no param `shre`"),
        ("share: big", "`--params-file over.yaml`: `params.share` is a number"),
        ("split.test_size: 7", "`--params-file over.yaml`: `test_size` is 7, it must be 0 to 1"),
        ("[1]", "`over.yaml:1:1`: params are a map, not a list"),
        ("a: [", "`over.yaml:1:4`"),
    ] {
        let shown = load_over(text, &Overrides { params_file: params(file), ..Overrides::default() }).diagnostics;
        assert!(shown.to_string().contains(part), "{file}: {shown}");
    }
    let shown = load_over(text, &Overrides { profile: Some("q".into()), ..Overrides::default() }).diagnostics;
    assert!(shown.to_string().contains("`--profile q`: there is no such profile"), "{shown}");
}

#[test]
fn a_secret_is_a_name_and_nothing_else() {
    let text = "stages:\n  rows: {op: data.load, with: {path: x, token: \"${secret.HF_TOKEN}\"}}\n";
    let loaded = load(text, &[]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!(stage(&loaded, "rows").with()["token"], "${secret.HF_TOKEN}");
    let shown = load(text, &["rows.path=${secret.X}"]).diagnostics.to_string();
    assert!(shown.contains("secret/outside"), "{shown}");
}

#[test]
fn every_given_param_knows_its_place_and_its_origin() {
    let loaded = load(VALID, &["rank=32"]);
    let sft = stage(&loaded, "sft");
    assert_eq!(sft.with()["lora_r"], 32);
    let origin = sft.origin_of("lora_r").unwrap();
    assert_eq!(origin.describe(&loaded.pipeline.source), "params.rank, p.yaml:6, set by --set");
    assert_eq!(sft.origin_of("learning_rate").unwrap().describe(&loaded.pipeline.source), "params.lr, p.yaml:7");
    assert_eq!(loaded.pipeline.source.slice(sft.place_of(Some("lora_r"))), "\"${params.rank}\"");
    let unique = stage(&loaded, "unique");
    assert_eq!(loaded.pipeline.source.slice(unique.place_of(Some("keep.min_overlap"))), "0.3");
    assert_eq!(unique.place_of(Some("keep.other")), unique.place_of(Some("keep")));
    assert_eq!(unique.place_of(None), unique.shared.span);
    assert!(unique.origin_of("threshold").is_none());
}

#[test]
fn set_reaches_params_and_stages_whatever_name_they_use() {
    let set = ["params.lr=1", "unique.keep.min_overlap=0.5", "sft.learning_rate=1e-3", "split.test_size=0.2"];
    let loaded = load(VALID, &set);
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!(stage(&loaded, "sft").with()["learning_rate"], 1e-3, "the alias in the file gives way");
    assert_eq!(stage(&loaded, "unique").with()["keep"]["min_overlap"], 0.5);
    let origin = stage(&loaded, "split").origin_of("test_size").unwrap();
    assert_eq!(origin.describe(&loaded.pipeline.source), "set by --set");
}

#[test]
fn a_set_that_does_not_fit_is_refused() {
    let message = |set: &str| load(VALID, &[set]).diagnostics.to_string();
    for (set, part) in [
        ("rank", "sets nothing"),
        ("rnk=1", "the nearest is `rank`"),
        ("rank=big", "`params.rank` is a whole number"),
        ("share=0.9", "outside 0 to 0.5"),
        ("stf.lora_r=1", "there is no stage `stf`"),
        ("unique@a=1,b=2.threshold=0.5", "one combination of `unique` cannot be set"),
        ("sft.lora_s=1", "`train.sft` has no param `lora_s`"),
        ("sft.lora_r=0", "it must be 1 to 1024"),
        ("rank=0", "it must be 1 to 1024"),
    ] {
        let shown = message(set);
        let target = set.split(['=', '@']).next().unwrap();
        assert!(shown.contains(part) && shown.contains(&format!("`--set {target}")), "{set}: {shown}");
    }
}

#[test]
fn a_seed_is_filled_as_a_name_is() {
    let text = "params: {s: 7}\nseed: \"REF\"\nstages: {rows: {op: data.load, with: {path: x}}}";
    let loaded = |reference: &str, set: &str| {
        let environment = |name: &str| (name == "S").then(|| "5".to_owned());
        let overrides = Overrides::from(&[set.to_owned()][..]);
        load_in(SourceFile::new("p.yaml", text.replace("REF", reference)), &overrides, &registry(), &environment)
    };
    for (reference, set, seed) in [("${params.s}", "s=7", 7), ("${params.s}", "s=9", 9), ("${env.S}", "s=7", 5)] {
        let loaded = loaded(reference, set);
        assert_eq!((loaded.diagnostics.to_string(), loaded.pipeline.seed), (String::new(), seed), "{reference}");
    }
    for (reference, said) in [
        ("${params.s}.5", "`seed` is a whole number"),
        ("${env.T}", "no variable `T`"),
        ("${params.t}", "no param `t`"),
        ("7", "`seed` is a whole number"),
    ] {
        let shown = loaded(reference, "s=7").diagnostics.to_string();
        assert!(shown.contains(said) && shown.contains("p.yaml:2:"), "{reference}: {shown}");
    }
}

#[test]
fn a_text_knows_which_of_its_references_make_the_difference() {
    let text = r#"params: {a: "0.1", b: b, n: 2}
stages:
  rows: {op: data.load, with: {path: "${params.a}/${params.b}.jsonl"}}
  call: {op: run.command, with: {command: [sh, "${params.a}-${params.b}", "${params.n}"], outputs: {f: files}}}
"#;
    let loaded = load(text, &["b=c"]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    let (call, source) = (stage(&loaded, "call"), &loaded.pipeline.source);
    let told = |before: &str| {
        call.told_origin_of_change("command", before, r#"["sh","0.1-c","2"]"#, source).unwrap_or_default()
    };
    let (a, b, n) = ("params.a, p.yaml:1", "params.b, p.yaml:1, set by --set", "params.n, p.yaml:1");
    assert_eq!(told(r#"["sh","0.1-b","2"]"#), format!("with {b}"));
    assert_eq!(told(r#"["sh","0.2-c","2"]"#), format!("with {a}"));
    assert_eq!(told(r#"["sh","0.2-b","2"]"#), format!("with {a}; {b}"), "it cannot be told");
    assert_eq!(told(r#"["sh","0.1-c","3"]"#), format!("with {n}"));
    assert_eq!(told(r#"["bash","0.1-c","2"]"#), "", "the file's own word");
    assert_eq!(told(""), format!("with {a}; {b}; {n}"));
    assert_eq!(call.told_origin_of("command", source), Some(format!("with {a}; {b}; {n}")));
    assert_eq!(stage(&loaded, "rows").told_origin_of("path", source), Some(format!("with {a}; {b}")));
    assert_eq!(call.params_in("command").collect::<Vec<_>>(), ["a", "b", "n"]);
}

#[test]
fn the_dialect_is_yaml_1_2() {
    let source =
        SourceFile::new("p", "[no, off, yes, true, 2e-4, 007, 1_000, 0x10, ~, '1', 12345678901234567890, -3, 1.0]");
    let (node, _) = Node::parse(&source).unwrap();
    assert_eq!(
        node.to_json(),
        serde_json::json!([
            "no",
            "off",
            "yes",
            true,
            2e-4,
            7,
            "1_000",
            16,
            null,
            "1",
            12345678901234567890_u64,
            -3,
            1.0
        ])
    );
}

#[test]
fn every_node_knows_its_bytes() {
    let source = SourceFile::new("p", "é: 1\nkey: \"v\u{e9}\" # c\nlist:\n  - a\n  - { b: c }\n");
    let (node, _) = Node::parse(&source).unwrap();
    let map = node.as_map().unwrap();
    let shown: Vec<_> = map.iter().map(|(key, value)| (source.slice(key.span), source.slice(value.span))).collect();
    assert_eq!(shown[0], ("é", "1"));
    assert_eq!(shown[1], ("key", "\"vé\""));
    let Value::List(items) = &map[2].1.value else { panic!() };
    assert_eq!(source.slice(items[0].span), "a");
    assert_eq!(source.slice(items[1].get("b").unwrap().span), "c");
}

#[test]
fn a_dollar_doubled_is_a_dollar() {
    let text = "stages:\n  rows:\n    op: data.load\n    with: { path: \"$${HOME}/${env.REGION}-$5\" }\n";
    assert_eq!(stage(&load(text, &[]), "rows").with()["path"], "${HOME}/eu-$5");
}

#[test]
fn bombs_are_refused_at_once() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, last) in ('b'..='k').zip('a'..='j') {
        let items = vec![format!("*{last}"); 10].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{items}]\n"));
    }
    let params = format!(
        "params: {{long: {}}}\nstages:\n  a: {{op: x, with: {{y: [{}]}}}}\n",
        "x".repeat(100_000),
        vec!["\"${params.long}\""; 50_000].join(",")
    );
    let deep = format!("stages: {}", "[".repeat(100_000));
    let block = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
    for text in [&bomb, &params, &deep, &block] {
        let start = Instant::now();
        let shown = load(text, &[]).diagnostics.to_string();
        assert!(shown.contains("error[yaml/"), "{}", &shown[..shown.len().min(300)]);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[test]
fn ten_thousand_stages_are_read_and_a_long_chain_is_no_cycle() {
    let mut text = "stages:\n  s0: {op: data.load, with: {path: x}}\n".to_owned();
    for at in 1..10_000 {
        text.push_str(&format!(
            "  s{at}: {{op: data.dedup, in: s{}, with: {{threshold: 0.8, num_perm: 112}}, retry: {{attempts: 2}}}} # {:>8}\n",
            at - 1, at
        ));
    }
    assert!(text.len() > 1_000_000, "{}", text.len());
    let loaded = load(&text, &[]);
    assert_eq!(loaded.diagnostics.to_string(), "");
    assert_eq!(loaded.stages.len(), 10_000);
}

#[test]
fn the_schema_knows_every_param_under_all_its_names() {
    let schema = schema(&registry());
    let cases = schema["definitions"]["stage"]["allOf"].as_array().unwrap();
    let sft = cases.iter().find(|case| case["if"]["properties"]["op"]["const"] == "train.sft").unwrap();
    let params = &sft["then"]["properties"]["with"];
    for name in ["lora_r", "rank", "learning_rate", "lr"] {
        assert_eq!(params["properties"][name]["anyOf"][1]["type"], "string", "{name} may be a reference");
    }
    assert_eq!(params["properties"]["lora_r"]["description"], "Rank of the adapter.");
    assert_eq!(params["additionalProperties"], false);
    assert_eq!(cases[0]["then"]["properties"]["with"]["required"], serde_json::json!(["path"]));
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
}

#[test]
fn spans_join() {
    assert_eq!(Span::new(4, 6).to(Span::new(1, 2)), Span::new(1, 6));
}
