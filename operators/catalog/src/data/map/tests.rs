use std::fs;

use llmflow_contract::{Artifact, Class, Context, Failure, Lease, Numerics, Operator as _};
use llmflow_dataset::{Content, Dataset, Fate, Meta, Row, RowKind, TraceReader, TraceRecord};
use serde_json::{Value, json};

use super::{Map, Params, answer, spec::In};
use crate::{
    data::load::OnBadRow,
    testing::{TestHost, artifact, known},
};

fn text(text: &str) -> Row {
    Row::new(Content::Text(text.into()), Meta::new())
}

fn params(command: &[&str], more: Value) -> Params {
    let mut value = json!({"command": command});
    more.as_object().into_iter().flatten().for_each(|(name, given)| value[name] = given.clone());
    serde_json::from_value(value).unwrap()
}

fn map(host: &TestHost, params: Params, rows: &[&str]) -> Result<(Vec<Row>, Vec<TraceRecord>), Failure> {
    let data = Artifact::new(host.dataset(RowKind::Text, rows.iter().map(|row| text(row))));
    let out = Map::run(params, In { data }, &host.context())?;
    let rows = Dataset::open(&artifact(out.data.into_any()))?.read_all()?;
    let trace = TraceReader::open(&host.output_folder("trace").unwrap())?;
    Ok((rows, trace.collect::<Result<_, _>>()?))
}

fn texts(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.text().into_owned()).collect()
}

#[test]
fn rows_come_back_kept_changed_made_or_not_at_all_and_the_law_holds() {
    let host = TestHost::new();
    // One line is left out, one is changed, one comes twice.
    let does = params(&["sed", "-e", "/rain/d", "-e", "s/good/fair/", "-e", "/snow/p"], json!({"batch": 2}));
    let (rows, trace) = map(&host, does, &["sun", "rain", "good wind", "snow", "fog"]).unwrap();
    assert_eq!(texts(&rows), ["sun", "fair wind", "snow", "snow", "fog"]);
    let fates: Vec<_> = trace.iter().map(|record| record.verdict).collect();
    assert_eq!(fates, [Fate::Kept, Fate::Dropped, Fate::Changed, Fate::Kept, Fate::Made, Fate::Kept]);
    assert_eq!(trace[1].rule.as_deref(), Some("not_returned"));
    assert_eq!(trace[2].parents, [text("good wind").id.to_string()]);
    assert_eq!(rows[3].id.to_string(), format!("{}#2", rows[2].id), "a made row has an id of its own");
    assert_eq!(trace[4].parents, [rows[2].id.to_string()]);
    assert_eq!(host.stage_report().summary, "4 kept · 1 made · 1 not_returned");
    assert_eq!(host.metric("rows"), Some(5.0));
}

#[test]
fn answers_are_remembered_and_batches_with_new_rows_are_the_only_ones_asked_anew() {
    let host = TestHost::new();
    let count = host.base().join("starts");
    let starts = || fs::read_to_string(&count).map_or(0, |text| text.lines().count());
    let script = "echo start >> \"$1\"; cat";
    let does = |more| params(&["sh", "-c", script, "sh", count.to_str().unwrap()], more);
    let first = map(&host, does(json!({"batch": 2})), &["a", "b", "c", "d"]).unwrap();
    assert_eq!((starts(), host.remembered()), (2, 2));
    let again = map(&host, does(json!({"batch": 2})), &["a", "b", "c", "d"]).unwrap();
    assert_eq!((starts(), &again), (2, &first));
    map(&host, does(json!({"batch": 2})), &["a", "b", "c", "d", "e"]).unwrap();
    assert_eq!(starts(), 3, "only the batch with the new row");
    map(&host, does(json!({"batch": 2, "env": {"MODE": "b"}})), &["a", "b"]).unwrap();
    assert_eq!(starts(), 4, "another environment is another question");
    map(&host, does(json!({"batch": 2, "reuse": false})), &["a", "b"]).unwrap();
    assert_eq!(starts(), 5);
    host.set_secret("PAID", "one");
    for (name, expected) in [("KEY", 6), ("KEY", 6), ("TOKEN", 7)] {
        map(&host, does(json!({"batch": 2, "secrets": {name: "${secret.PAID}"}})), &["a", "b"]).unwrap();
        assert_eq!(starts(), expected, "a secret under another name is another question");
    }
}

#[test]
fn an_edited_script_is_another_question() {
    let host = TestHost::new();
    host.write("map.sh", "sed 's/:\"a\"/:\"b\"/'"); // ids hold letters too
    let does = || params(&["sh", "map.sh"], json!({"files": ["map.sh"]}));
    assert_eq!(texts(&map(&host, does(), &["a"]).unwrap().0), ["b"]);
    host.write("map.sh", "sed 's/:\"a\"/:\"c\"/'");
    assert_eq!(texts(&map(&host, does(), &["a"]).unwrap().0), ["c"]);
}

#[test]
fn a_malformed_answer_fails_with_its_line_or_sets_aside_what_it_came_from() {
    let host = TestHost::new();
    for (does, says) in [
        ("s/.*bad.*/nonsense/", "line 2 of what the command gave back is no valid JSON"),
        ("/bad/s/\"text\"/\"txt\"/", "line 2 of what the command gave back has no `text`"),
        ("/bad/s/\"id\"/\"other\"/", "line 2 of what the command gave back has no `id` or `parent`"),
    ] {
        let failure = map(&host, params(&["sed", does], Value::Null), &["one", "bad", "two"]).unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (Class::Input, "command/bad-row"));
        assert!(failure.message.starts_with(says), "{failure}");
        let aside = params(&["sed", does], json!({"on_bad_row": "set_aside"}));
        let (rows, trace) = map(&host, aside, &["one", "bad", "two"]).unwrap();
        assert_eq!(texts(&rows), ["one", "two"], "{does}");
        assert_eq!((trace[1].verdict, trace[1].rule.as_deref()), (Fate::SetAside, Some("bad_row")), "{does}");
    }
}

/// Gives rows back, and for one with `bad` in it `$1`, which it ends with a secret.
const SPILLS: &str = r#"echo start >> "$2"; while read -r line; do
    case $line in *bad*) printf "$1"'%s\n' "$KEY" ;; *) printf '%s\n' "$line" ;; esac; done"#;

#[test]
fn a_line_with_a_secret_that_is_no_row_is_told_and_remembered_without_a_part_of_it() {
    let host = TestHost::new();
    host.set_secret("PAID", "S3cretHalfOne");
    let count = host.base().join("starts");
    let does = |printed: &str, on_bad_row: &str| {
        let more = json!({"secrets": {"KEY": "${secret.PAID}"}, "on_bad_row": on_bad_row});
        params(&["sh", "-c", SPILLS, "sh", printed, count.to_str().unwrap()], more)
    };
    // At the 400th character the excerpt ends.
    let failure = map(&host, does(&"x".repeat(395), "fail"), &["one", "bad"]).unwrap_err();
    assert!(failure.causes[0].contains("xx***") && !format!("{failure:?}").contains("S3c"), "{failure:?}");

    let first = map(&host, does("nonsense ", "set_aside"), &["one", "bad"]).unwrap();
    assert_eq!((texts(&first.0), first.1[1].verdict), (vec!["one".to_owned()], Fate::SetAside));
    let memory = String::from_utf8(host.memory()).unwrap();
    assert!(memory.contains("nonsense ***\n") && !memory.contains("S3c"), "{memory}");
    let again = map(&host, does("nonsense ", "set_aside"), &["one", "bad"]).unwrap();
    assert_eq!((again, fs::read_to_string(&count).unwrap().lines().count()), (first, 2), "recalled and judged alike");
}

#[test]
fn an_answer_that_is_another_without_its_secrets_is_not_remembered() {
    let batch = [text("a")];
    let kept = |clean: &str| {
        let clean = |_: &_| clean.to_owned();
        answer::judge(RowKind::Text, OnBadRow::SetAside, &batch, b"nonsense\n".to_vec(), &clean).unwrap().kept
    };
    assert_eq!(kept("nonsense"), Some(b"nonsense\n".to_vec()));
    assert_eq!(kept("***"), Some(b"***\n".to_vec()));
    assert_eq!(kept(&batch[0].to_json().to_string()), None);
}

#[test]
fn starts_on_a_gpu_take_turns() {
    let host = TestHost::new();
    let lock = host.base().join("lock");
    // Two side by side meet at the folder; one of them fails.
    let does = r#"mkdir "$1" || exit 9; sleep 0.2; cat; rmdir "$1""#;
    let does = params(&["sh", "-c", does, "sh", lock.to_str().unwrap()], json!({"batch": 1}));
    let inner = host.context();
    let lease = Lease { gpus: vec![0], ..inner.lease().clone() };
    let ctx = Context::new(&host, inner.seed(), lease, inner.scratch().to_owned(), host.base());
    let data = Artifact::new(host.dataset(RowKind::Text, [text("a"), text("b"), text("c")]));
    Map::run(does, In { data }, &ctx).unwrap();
}

#[test]
fn another_kind_can_come_back() {
    let host = TestHost::new();
    let does = "s/\"text\":\\(\"[^\"]*\"\\)/\"prompt\":[{\"role\":\"user\",\"content\":\\1}]/";
    let params = params(&["sed", does], json!({"out": "dataset/prompt"}));
    let plan = Map::plan(&mut params.clone(), &known(host.base(), &[])).unwrap();
    assert_eq!((plan.outputs[0].1.as_str(), plan.numerics), ("dataset/prompt", Numerics::Stochastic));
    let (rows, trace) = map(&host, params, &["why?"]).unwrap();
    assert_eq!(rows[0].as_prompt().unwrap().prompt[0].content, "why?");
    assert_eq!(trace[0].verdict, Fate::Changed);
}

#[test]
fn a_program_that_fails_fails_the_stage_and_one_that_reads_nothing_does_not_hang() {
    let host = TestHost::new();
    let rows: Vec<String> = (0..2000).map(|number| format!("{number} {}", "x".repeat(200))).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let failure = map(&host, params(&["sh", "-c", "exit 4"], Value::Null), &rows).unwrap_err();
    assert_eq!(failure.code, "command/failed");
    let (rows, trace) = map(&host, params(&["true"], Value::Null), &rows).unwrap();
    assert_eq!((rows.len(), trace.len()), (0, 2000));
}

#[test]
fn a_mistake_is_refused_at_planning() {
    let known = known(TestHost::new().base(), &[]);
    for (command, more, param) in [
        (&["cat", "{in.data}"][..], Value::Null, "command"),
        (&[], Value::Null, "command"),
        (&["cat"], json!({"out": "dataset/chatt"}), "out"),
        (&["cat"], json!({"files": ["absent"]}), "files"),
        (&["cat"], json!({"env": {"CUDA_VISIBLE_DEVICES": "0"}}), "env"),
        (&["cat"], json!({"secrets": {"CUDA_VISIBLE_DEVICES": "${secret.GPUS}"}}), "secrets"),
    ] {
        let failure = Map::plan(&mut params(command, more), &known).unwrap_err();
        assert_eq!(failure.param.as_deref(), Some(param));
    }
}
