use std::time::{Duration, Instant};

use llmflow_contract::Port;

use super::{VALID, load, operators::registry};
use crate::pipeline::{Demand, Node, SourceFile, Span, Value, schema};

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
        ("sft.lora_s=1", "`train.sft` has no param `lora_s`"),
        ("sft.lora_r=0", "it must be 1 to 1024"),
        ("rank=0", "it must be 1 to 1024"),
    ] {
        let shown = message(set);
        assert!(shown.contains(part) && shown.contains(&format!("--set {set}")), "{set}: {shown}");
    }
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

/// About four seconds on one core; 100,000 (18 s) were tried once, without a panic.
const MUTATIONS: u32 = 20_000;

/// Vigna's splitmix64: enough to choose bytes with.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn no_mutation_of_a_file_panics() {
    let mut rng = SplitMix(7);
    let start = Instant::now();
    let mut tried = 0;
    for round in 0..MUTATIONS {
        let mut bytes = VALID.as_bytes().to_vec();
        for _ in 0..=round % 3 {
            let at = (rng.next() as usize) % bytes.len();
            match rng.next() % 3 {
                0 => bytes[at] = b"{}[]:,&*#|>'\"$!%@-? \n\t\0ax9"[(rng.next() % 26) as usize],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.next() as u8),
            }
        }
        if start.elapsed() > Duration::from_secs(60) {
            break;
        }
        tried += 1;
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = load(&text, &[]).diagnostics.to_string();
        }
    }
    println!("{tried} mutations in {:?}", start.elapsed());
    assert_eq!(tried, MUTATIONS);
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
