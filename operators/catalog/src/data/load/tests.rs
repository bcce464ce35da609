use llmflow_contract::{Operator as _, Report, Use};
use llmflow_dataset::{Dataset, Fate, Field, Row, RowKind, TraceReader};

use super::{Format, Load, OnBadRow, Params, SplitText};
use crate::testing::{TestHost, artifact, known, shared_data};

fn params(path: &str, format: Format) -> Params {
    Params {
        path: path.into(),
        format,
        on_bad_row: OnBadRow::Fail,
        split: SplitText::None,
        role: Use::Train,
        licence: None,
        max_rows: None,
        source: None,
        locked: None,
    }
}

fn load(host: &TestHost, params: Params) -> (Vec<Row>, Report) {
    let out = Load::run(params, (), &host.context()).unwrap();
    (Dataset::open(&artifact(out.data.into_any())).unwrap().read_all().unwrap(), host.stage_report())
}

#[test]
fn a_row_without_an_answer_fails_with_its_file_and_line() {
    let host = TestHost::new();
    host.write("a.jsonl", "{\"instruction\": \"q\", \"output\": \"a\"}\n\n{\"instruction\": \"q\"}\n");
    let failure = Load::run(params("a.jsonl", Format::Alpaca), (), &host.context()).unwrap_err();
    assert_eq!(failure.message, "`a.jsonl:3` has no `output`");
    assert_eq!(failure.at.unwrap().line, Some(3));
}

#[test]
fn bad_rows_set_aside_are_counted_and_traced() {
    let host = TestHost::new();
    host.write("a.jsonl", "{\"text\": \"a\"}\nnot json\n{\"text\": \"\"}\n{\"text\": \"b\", \"lang\": \"en\"}\n");
    let (rows, report) = load(&host, Params { on_bad_row: OnBadRow::SetAside, ..params("a.jsonl", Format::Text) });
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].meta["lang"], "en");
    assert!(report.summary.starts_with("2 rows · 2 set aside"), "{}", report.summary);
    let trace: Vec<_> = TraceReader::open(&host.output_folder("trace").unwrap()).unwrap().map(Result::unwrap).collect();
    assert_eq!((trace[1].verdict, trace[1].row.as_str()), (Fate::SetAside, "a.jsonl:2"));
    assert_eq!(trace[3].parents, ["a.jsonl:4"]);
}

#[test]
fn equal_rows_get_ids_of_their_own() {
    let host = TestHost::new();
    host.write("a.csv", "text\n\"a, b\"\n\"a, b\"\n");
    let (rows, _) = load(&host, params("a.csv", Format::Auto));
    assert_eq!(rows[1].id.to_string(), format!("{}#2", rows[0].id));
}

#[test]
fn documents_are_rows_that_name_their_file() {
    let host = TestHost::new();
    host.write("docs/b.md", "# B\ntext\n\n## C\nmore\n");
    host.write("docs/a.md", "first");
    let (rows, _) = load(&host, params("docs/*.md", Format::Text));
    assert_eq!(
        rows.iter().map(|row| row.meta["source"].as_str().unwrap()).collect::<Vec<_>>(),
        ["docs/a.md", "docs/b.md"]
    );
    let (rows, _) = load(&host, Params { split: SplitText::Headings, ..params("docs/b.md", Format::Text) });
    assert_eq!(rows.iter().map(|row| row.text().into_owned()).collect::<Vec<_>>(), ["# B\ntext", "## C\nmore"]);
}

#[test]
fn planning_settles_auto_and_marks_what_is_for_evaluation() {
    let host = TestHost::new();
    host.write("q.json", r#"[{"query": "q", "choices": ["a", "b"], "gold": 1}]"#);
    let mut params = Params { role: Use::Eval, ..params("q.json", Format::Auto) };
    let plan = Load::plan(&mut params, &known(host.base(), &[])).unwrap();
    assert_eq!(params.format, Format::Choice);
    assert_eq!(plan.outputs[0].1, RowKind::Choice.kind());
    assert_eq!(plan.outputs[0].2.used_for, Some(Use::Eval));
    assert_eq!(plan.sources.len(), 1);
}

#[test]
fn a_missing_file_is_refused_at_planning() {
    let host = TestHost::new();
    let failure = Load::plan(&mut params("no.jsonl", Format::Text), &known(host.base(), &[])).unwrap_err();
    assert_eq!((failure.code.as_str(), failure.param.as_deref()), ("file/missing", Some("path")));
}

#[test]
fn an_empty_path_and_a_device_are_called_what_they_are() {
    let known = known(TestHost::new().base(), &[]);
    for (path, message) in [("", "`path` is empty"), ("/dev/zero", "`/dev/zero` is no regular file")] {
        let failure = Load::plan(&mut params(path, Format::Text), &known).unwrap_err();
        assert_eq!((failure.message.as_str(), failure.param.as_deref()), (message, Some("path")));
    }
}

#[test]
fn a_table_whose_quote_is_never_closed_is_not_read_without_end() {
    use std::io::Write as _;
    let pack = |start: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(start).unwrap();
        (0..65).for_each(|_| packed.write_all(&[b'a'; 1 << 20]).unwrap());
        packed.finish().unwrap()
    };
    let host = TestHost::new();
    for (name, start, line) in [("a.csv.gz", &b"text\nb\n\"a"[..], 3), ("b.tsv.gz", &b"\"text"[..], 1)] {
        host.write(name, pack(start));
        let set_aside = Params { on_bad_row: OnBadRow::SetAside, ..params(name, Format::Text) };
        let failure = Load::run(set_aside, (), &host.context()).unwrap_err();
        assert_eq!(failure.code, "data/too-large");
        assert_eq!(failure.message, format!("`{name}:{line}` is longer than 64 MB: a quote may be unclosed"));
    }
}

#[test]
fn whole_dialogues_share_their_first_turns_as_the_prompt() {
    let host = TestHost::new();
    let line = r#"{"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}"#;
    host.write("p.jsonl", line);
    let (rows, _) = load(&host, params("p.jsonl", Format::Auto));
    let pair = rows[0].as_preference().unwrap();
    assert_eq!((pair.prompt[0].content.as_str(), pair.chosen[0].content.as_str()), ("q", "good"));
    assert_eq!(rows[0].field(Field::Prompt), "q");
}

#[test]
fn real_files_of_every_shape_load_whole() {
    let Some(root) = shared_data("sft") else { return };
    let root = root.parent().unwrap();
    for (file, rows, kind) in [
        ("sft/alpaca-en-demo.json", 999, RowKind::Chat),
        ("sft/glaive-toolcall-demo.jsonl.gz", 300, RowKind::Chat),
        ("sft/dolly-hhrlhf-1k.jsonl.gz", 1000, RowKind::Chat),
        ("preference/hh-rlhf-harmless.jsonl.gz", 1500, RowKind::Preference),
        ("preference/dpo-en-demo.jsonl.gz", 300, RowKind::Preference),
        ("preference/polite-vs-rude.jsonl.gz", 544, RowKind::Preference),
        ("eval/arc-easy.jsonl.gz", 1177, RowKind::Choice),
        ("eval/hellaswag-val-1000.jsonl.gz", 1000, RowKind::Choice),
        ("gsm8k/test-half.jsonl", 627, RowKind::Prompt),
    ] {
        let host = TestHost::new();
        let path = root.join(file).to_str().unwrap().to_owned();
        let params = Params { on_bad_row: OnBadRow::SetAside, ..params(&path, Format::Auto) };
        let (loaded, report) = load(&host, params);
        println!("{file}: {}", report.summary.replace(&path, file));
        assert_eq!(loaded[0].kind(), kind, "{file}");
        assert!(loaded.len() * 100 >= rows * 99, "{file}: {}", report.summary);
    }
}

#[test]
fn the_lessons_own_rows_load_and_the_broken_ones_are_set_aside() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/data");
    for (file, format, broken) in [
        ("instructions.jsonl", Format::Alpaca, true),
        ("general_prompts.jsonl", Format::Prompt, false),
        ("questions.jsonl", Format::Choice, false),
        ("docs/*.md", Format::Text, false),
        ("tiny/instructions.jsonl", Format::Alpaca, true),
        ("tiny/questions.jsonl", Format::Choice, false),
        ("tiny/corpus.jsonl", Format::Text, false),
    ] {
        let host = TestHost::new();
        let params = Params { on_bad_row: OnBadRow::SetAside, ..params(&format!("{data}/{file}"), format) };
        let (rows, report) = load(&host, params);
        println!("{file}: {}", report.summary);
        assert!(!rows.is_empty());
        assert_eq!(report.metrics["set_aside"] > 0.0, broken, "{file}: {}", report.summary);
    }
}

#[test]
fn a_packed_file_cut_short_is_damaged_and_a_byte_of_noise_is_a_bad_row() {
    use std::io::Write as _;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    (0..500).for_each(|n| writeln!(packed, "{{\"text\": \"row {n}\"}}").unwrap());
    let bytes = packed.finish().unwrap();
    let host = TestHost::new();
    host.write("a.jsonl.gz", &bytes);
    assert_eq!(load(&host, params("a.jsonl.gz", Format::Text)).0.len(), 500);
    host.write("a.jsonl.gz", &bytes[..bytes.len() / 2]);
    let failure = Load::run(params("a.jsonl.gz", Format::Text), (), &host.context()).unwrap_err();
    assert_eq!(failure.code, "data/damaged");
    host.write("b.jsonl", b"{\"text\": \"\xff\"}\n");
    let failure = Load::run(params("b.jsonl", Format::Text), (), &host.context()).unwrap_err();
    assert!(failure.message.starts_with("`b.jsonl:1` is no valid JSON"), "{failure}");
}
