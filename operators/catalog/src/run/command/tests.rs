use std::{collections::BTreeMap, fs};

use llmflow_contract::{
    AnyArtifact, AnyMade, Bound, Class, Facts, Failure, Host as _, Kind, Named, Numerics, Operator as _, Port, Use,
};
use llmflow_dataset::{Content, Dataset, Fate, Meta, Row, RowKind, TraceReader};
use serde_json::{Value, json};

use super::{Params, RunCommand};
use crate::{
    model::toy,
    run::{
        heard::Line,
        program::{GRACE, Program},
    },
    testing::{TestHost, artifact, known, stopping::Stopping},
};

fn params(value: Value) -> Params {
    serde_json::from_value(value).unwrap()
}

/// A shell script as the program: what a test wants done, its arguments as `$1`, `$2`, …
fn script(text: &str, arguments: &[&str], outputs: Value) -> Params {
    let command: Vec<&str> = ["sh", "-c", text, "sh"].into_iter().chain(arguments.iter().copied()).collect();
    params(json!({"command": command, "outputs": outputs}))
}

fn bound(inputs: &[(&str, &AnyArtifact)]) -> Bound {
    Bound::new(inputs.iter().map(|(port, one)| (Port::from(*port), vec![(*one).clone()])).collect::<BTreeMap<_, _>>())
}

fn run(host: &TestHost, params: Params, inputs: &[(&str, &AnyArtifact)]) -> Result<Vec<(Port, AnyMade)>, Failure> {
    RunCommand::run(params, bound(inputs), &host.context()).map(|Named(made)| made)
}

fn text(text: &str) -> Row {
    Row::new(Content::Text(text.into()), Meta::new())
}

#[test]
fn rows_go_in_as_lines_and_come_back_as_a_dataset_that_knows_its_parents() {
    let host = TestHost::new();
    let data = host.dataset(RowKind::Text, [text("good morning"), text("good night")]);
    let params =
        script("sed s/good/bad/ \"$1\" > \"$2\"", &["{in.data}", "{out.rows}"], json!({"rows": "dataset/text"}));
    let made = run(&host, params, &[("data", &data)]).unwrap();
    let rows = Dataset::open(&artifact(made[0].1.clone())).unwrap().read_all().unwrap();
    assert_eq!(rows, [text("bad morning"), text("bad night")]);
    let trace: Vec<_> = TraceReader::open(&host.output_folder("trace").unwrap()).unwrap().map(Result::unwrap).collect();
    assert_eq!((trace[0].verdict, &trace[0].parents), (Fate::Made, &vec![text("good morning").id.to_string()]));
    assert_eq!(host.stage_report().summary, "rows: 2 rows");
}

/// What `save_to_disk` of Hugging Face datasets does.
const LEAVES_FOLDER: &str = "mkdir \"$1\"; echo a > \"$1/data-00000-of-00001.arrow\"; echo '{}' > \"$1/state.json\"";

#[test]
fn an_output_that_is_missing_or_malformed_fails_though_the_program_ended_well() {
    for (kind, does, code, says) in [
        ("model", "true", "command/no-output", "left nothing at `{out.x}`"),
        ("dataset/text", "true", "command/no-output", "left nothing at `{out.x}`"),
        (
            "dataset/text",
            "echo '{\"text\": \"a\"}\n{\"txt\": 1}' > \"$1\"",
            "command/bad-output",
            "line 2 has no `text`",
        ),
        ("dataset/text", "echo nonsense > \"$1\"", "command/bad-output", "line 1 is no valid JSON"),
        ("model", "echo '{}' > \"$1/config.json\"", "command/bad-output", "it has no `.safetensors` file"),
        (
            "model",
            "echo '{}' > \"$1/config.json\"; echo hello > \"$1/a.safetensors\"",
            "command/bad-output",
            "is cut short",
        ),
        ("gguf", "echo GGUF > \"$1\"", "command/bad-output", "is no gguf"),
        ("report", "echo '[]' > \"$1\"", "command/bad-output", "is no report"),
        ("gguf", "echo nonsense > \"$1\"", "command/bad-output", "`{out.x}` is malformed"),
        ("tokenizer", "echo a > \"$1/tokenizer.json\"", "command/bad-output", "`{out.x}/tokenizer.json`"),
        ("files", "ln -s /etc/passwd \"$1/a\"", "command/bad-output", "`{out.x}/a` is a link"),
        ("files", "rmdir \"$1\"; ln -s /etc \"$1\"", "command/bad-output", "is no files: it is a link"),
        ("report", "ln -s /etc/passwd \"$1\"", "command/bad-output", "is no report: it is a link"),
        ("files", "mkfifo \"$1/a\"", "command/bad-output", "`{out.x}/a` is neither file nor folder"),
        ("files", "echo a > \"$1/$(printf 'a\\377')\"", "command/bad-output", "is a name that is no UTF-8"),
        ("files", "rmdir \"$1\"; echo a > \"$1\"", "command/bad-output", "is no files: it is a file"),
        ("model", "rmdir \"$1\"; echo a > \"$1\"", "command/bad-output", "is no model: it is a file"),
        ("dataset/text", LEAVES_FOLDER, "command/bad-output", "is no dataset/text: it is a folder"),
        ("dataset/text", "mkdir \"$1\"", "command/bad-output", "is no dataset/text: it is a folder"),
        ("gguf", LEAVES_FOLDER, "command/bad-output", "is no gguf: it is a folder"),
        ("report", LEAVES_FOLDER, "command/bad-output", "is no report: it is a folder"),
    ] {
        let host = TestHost::new();
        let failure = run(&host, script(does, &["{out.x}"], json!({"x": kind})), &[]).unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (Class::Input, code), "{kind}: {does}: {failure}");
        assert!(failure.message.contains(says), "{kind}: {does}: {failure}");
        assert_eq!(failure.param.as_deref(), Some("outputs.x"));
        let gone = host.base().parent().unwrap().display().to_string();
        assert!(!failure.message.contains(&gone), "a path that is gone by then: {failure}");
        assert!(!says.contains("is a") || failure.help.is_some(), "{failure}");
    }
    let host = TestHost::new();
    run(&host, script("echo a > \"$1/a\"", &["{out.x}"], json!({"x": "files"})), &[]).unwrap();
}

#[test]
fn how_it_ends_decides_the_class() {
    for (does, class, code) in [
        ("echo one >&2; echo two >&2; exit 3", Class::Input, "command/failed"),
        ("exit 75", Class::Transient { after: None }, "command/temporary"),
        ("kill -KILL $$", Class::Lost, "command/killed"),
        ("kill -SEGV $$", Class::Input, "command/failed"),
    ] {
        let host = TestHost::new();
        let failure = run(&host, script(does, &["{out.x}"], json!({"x": "files"})), &[]).unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (class, code), "{does}: {failure}");
        if class == Class::Input && does.contains("one") {
            assert_eq!(failure.causes, ["one", "two"]);
        }
    }
    let host = TestHost::new();
    let absent = params(json!({"command": ["no-such-program-here", "{out.x}"], "outputs": {"x": "files"}}));
    let failure = run(&host, absent, &[]).unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (Class::Environment, "command/not-found"));
}

#[test]
fn its_environment_is_what_the_page_says_and_a_secret_is_in_no_message() {
    let host = TestHost::new();
    host.set_secret("PAID", "canary-7");
    let mut params = script(
        "tr '\\0' '\\n' < /proc/$$/environ > \"$1/env\"; pwd > \"$1/pwd\"; echo \"I know $KEY\" >&2; exit \"$2\"",
        &["{out.x}", "0"],
        json!({"x": "files"}),
    );
    params.env.insert("SEED".into(), "{seed}".into());
    params.secrets.insert("KEY".into(), serde_json::from_value(json!("${secret.PAID}")).unwrap());
    let made = run(&host, params.clone(), &[]).unwrap();
    let said = fs::read_to_string(made[0].1.folder.join("env")).unwrap();
    let mut names: Vec<_> = said.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["CUDA_VISIBLE_DEVICES", "HOME", "KEY", "LANG", "PATH", "SEED", "TMPDIR"]);
    assert!(said.contains("KEY=canary-7") && said.contains("SEED=42") && said.contains("LANG=C.UTF-8"), "{said}");
    let folder = fs::read_to_string(made[0].1.folder.join("pwd")).unwrap();
    assert!(folder.contains("scratch"), "it runs in {folder}");
    *params.command.last_mut().unwrap() = "1".into();
    let failure = run(&host, params, &[]).unwrap_err();
    assert_eq!(failure.causes, ["I know ***"]);
}

#[test]
fn of_a_line_that_was_cut_no_part_of_a_secret_is_left() {
    let host = TestHost::new();
    host.set_secret("PAID", "S3cretHälfOne-99");
    let secrets = BTreeMap::from([("KEY".to_owned(), serde_json::from_value(json!("${secret.PAID}")).unwrap())]);
    let program = Program::new(&host.context(), vec!["true".into()], BTreeMap::new(), &secrets, &[]).unwrap();
    let clean = |bytes: &[u8], is_cut| program.clean(&Line { bytes: bytes.to_vec(), is_cut });
    let line = "S3cretHälfOne-99 is in S3cretHälfOne-99".as_bytes();
    assert_eq!(clean(line, false), "*** is in ***");
    for lost in 0..=16 {
        assert_eq!(clean(&line[..line.len() - lost], true), "*** is in …", "{lost} bytes are lost");
    }
    assert_eq!(clean(b"nothing of it", true), "nothing of it…");
}

#[test]
fn a_program_that_wrote_to_an_input_fails_and_one_that_wrote_to_its_copy_does_not() {
    let host = TestHost::new();
    let base = toy::model(&host);
    let does =
        |does: &str| script(&format!("{does}; echo a > \"$2/a\""), &["{in.it}", "{out.x}"], json!({"x": "files"}));
    run(&host, does("touch \"$1/config.json\""), &[("it", &base)]).unwrap();
    for wrong in ["echo ' ' >> \"$1/config.json\"", "rm \"$1/config.json\""] {
        let failure = run(&host, does(wrong), &[("it", &base)]).unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (Class::Input, "command/wrote-input"), "{wrong}");
        assert!(failure.message.starts_with("`{in.it}/config.json` was changed"), "{failure}");
    }
    let rows = host.dataset(RowKind::Text, [text("a")]);
    run(&host, does("echo more >> \"$1\""), &[("it", &rows)]).unwrap();
    let mut raw = does("for part in \"$1\"/*.parquet; do echo more >> \"$part\"; done");
    raw.raw = true;
    assert_eq!(run(&host, raw, &[("it", &rows)]).unwrap_err().code, "command/wrote-input");
}

#[test]
fn a_program_that_added_to_an_input_fails_and_what_python_caches_there_is_let_be() {
    let does = |does: &str, host: &TestHost| {
        let folder = host.output("lib").unwrap();
        fs::create_dir(folder.join("inner")).unwrap();
        fs::write(folder.join("inner/a.py"), "A = 1").unwrap();
        let made = AnyMade { kind: Kind::of("files"), folder, facts: Facts::default(), references: BTreeMap::new() };
        let does = format!("cd \"$1\"; {does}; echo a > \"$2/a\"");
        run(host, script(&does, &["{in.it}", "{out.x}"], json!({"x": "files"})), &[("it", &artifact(made))])
    };
    for (adds, named) in [
        ("echo hi > extra.txt", "extra.txt"),
        ("echo hi > inner/.hidden", "inner/.hidden"),
        ("mkdir empty", "empty"),
        ("mkdir new; echo hi > new/b; echo hi > new/a; echo hi > newer", "new"),
        ("ln -s inner link", "link"),
    ] {
        let failure = does(adds, &TestHost::new()).unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (Class::Input, "command/wrote-input"), "{adds}: {failure}");
        assert!(failure.message.starts_with(&format!("`{{in.it}}/{named}` was added")), "{adds}: {failure}");
    }
    does("mkdir inner/__pycache__; echo hi > inner/__pycache__/a.pyc", &TestHost::new()).unwrap();
    does("echo hi > extra.txt; rm extra.txt", &TestHost::new()).unwrap();
    let failure = does("rm -r inner", &TestHost::new()).unwrap_err();
    assert!(failure.message.starts_with("`{in.it}/inner/a.py` was changed"), "{failure}");
}

/// 500 words that a shell, a template or a careless program would do something with.
fn nasty_words() -> Vec<String> {
    let acts = ["touch $PWD/pwned", "touch pwned", "echo pwned > pwned", "exit 9", "kill $$"];
    let wraps: [fn(&str) -> String; 20] = [
        |act| format!("; {act}"),
        |act| format!("&& {act}"),
        |act| format!("| {act}"),
        |act| format!("$({act})"),
        |act| format!("`{act}`"),
        |act| format!("\n{act}\n"),
        |act| format!("' ; {act} ; '"),
        |act| format!("\" ; {act} ; \""),
        |act| format!("{{in.data}}$({act})"),
        |act| format!("${{IFS}}{act}"),
        |act| format!("%s%n$({act})"),
        |act| format!("--output=$({act})"),
        |act| format!("\\$({act})"),
        |act| format!("$'\\n'{act}"),
        |act| format!("<({act})"),
        |act| format!("{{{{{act}}}}}"),
        |act| format!("é\u{202e}$({act})"),
        |act| format!("../../$({act})"),
        |act| format!("\t&{act}&"),
        |act| format!("*?[a-z]~ {act}"),
    ];
    let tails = ["", " #", "\\", "'", "\u{1b}[2J"];
    acts.iter().flat_map(|act| wraps.iter().flat_map(|wrap| tails.map(|tail| wrap(act) + tail))).collect()
}

#[test]
fn five_hundred_words_made_to_be_executed_arrive_as_they_are() {
    let host = TestHost::new();
    let words = nasty_words();
    assert_eq!(words.len(), 500);
    let script = "out=$1; shift; printf '%s\\0' \"$@\" > \"$out/words\"; ls > \"$out/here\"";
    let mut command = vec!["sh".to_owned(), "-c".into(), script.into(), "sh".into(), "{out.x}".into()];
    command.extend(words.iter().cloned());
    let made = run(&host, params(json!({"command": command, "outputs": {"x": "files"}})), &[]).unwrap();
    let arrived = fs::read_to_string(made[0].1.folder.join("words")).unwrap();
    assert_eq!(arrived.split_terminator('\0').collect::<Vec<_>>(), words);
    assert_eq!(fs::read_to_string(made[0].1.folder.join("here")).unwrap(), "", "nothing was executed");
    // The same words do act where a shell reads them: the test can fail.
    let act = vec!["sh", "-c", "eval \"$1\"; ls > \"$2/here\"", "sh", "; touch pwned", "{out.x}"];
    let act: Vec<String> = act.into_iter().map(|word| word.trim_start_matches("; ").to_owned()).collect();
    let made = run(&host, params(json!({"command": act, "outputs": {"x": "files"}})), &[]).unwrap();
    assert_eq!(fs::read_to_string(made[0].1.folder.join("here")).unwrap(), "pwned\n");
    let zero = params(json!({"command": ["true", "a\u{0}b", "{out.x}"], "outputs": {"x": "files"}}));
    assert_eq!(run(&host, zero, &[]).unwrap_err().code, "command/invalid");
}

#[test]
fn asked_to_stop_it_ends_the_program_and_what_that_started() {
    let host = TestHost::new();
    let stopping = Stopping::after(&host, 1);
    let params = script("sleep 1000 & sleep 1000", &["{out.x}"], json!({"x": "files"}));
    let failure = RunCommand::run(params, bound(&[]), &stopping.context()).unwrap_err();
    assert_eq!(failure.class, Class::Cancelled);
}

#[test]
fn what_it_says_once_it_is_asked_to_stop_is_heard_however_much_that_is() {
    let host = TestHost::new();
    let stopping = Stopping::at_progress(&host);
    let (begun, saved) = (r#"LLMFLOW {"progress": [1, 2, "steps"]}"#, r#"LLMFLOW {"metric": ["saved", 1]}"#);
    // More than a pipe and the queue hold.
    let does = r#"trap 'yes "$2" | head -n 5000; echo "$3"; exit 0' TERM; echo "$2"; sleep 1000 & wait"#;
    let mut params = script(does, &["{out.x}", begun, saved], json!({"x": "files"}));
    params.metrics = vec!["saved".into()];
    let failure = RunCommand::run(params, bound(&[]), &stopping.context()).unwrap_err();
    assert_eq!((failure.class, host.metric("saved")), (Class::Cancelled, Some(1.0)));
    assert!(RunCommand::DOC.contains(&format!("{} seconds to save", GRACE.as_secs())));
}

#[test]
fn what_it_leaves_running_is_not_waited_for() {
    let host = TestHost::new();
    run(&host, script("sleep 1000 & echo a > \"$1/a\"", &["{out.x}"], json!({"x": "files"})), &[]).unwrap();
}

#[test]
fn progress_and_metrics_are_heard_and_a_declared_metric_must_be_told() {
    let host = TestHost::new();
    let does = r#"echo a > "$1/a"
        echo 'LLMFLOW {"progress": [1, 2, "steps"]}'
        echo 'LLMFLOW {"metric": ["loss", 0.5, 1]}'
        echo 'LLMFLOW {"metric": ["loss", 0.25, 2]}'
        echo 'LLMFLOW {"metric": ["speed", 9]}'
        echo 'LLMFLOW nonsense'
        head -c 100000 /dev/zero"#;
    let mut told = script(does, &["{out.x}"], json!({"x": "files"}));
    told.metrics = vec!["loss".into()];
    run(&host, told.clone(), &[]).unwrap();
    assert_eq!((host.metric("loss"), host.metric("speed")), (Some(0.25), None));
    assert_eq!(host.progress_seen()[0].total, Some(2));
    let report = host.stage_report();
    assert_eq!((report.summary.as_str(), report.series[0].points.len()), ("loss 0.2500 · x: 1 file", 2));
    told.metrics.push("accuracy".into());
    assert_eq!(run(&host, told, &[]).unwrap_err().code, "command/no-metric");
}

#[test]
fn a_figure_that_is_no_number_is_a_metric_and_a_line_that_is_not_understood_is_told() {
    let host = TestHost::new();
    let told = |line: &str| {
        let mut told = script("echo a > \"$1/a\"; printf '%s\\n' \"$2\"", &["{out.x}", line], json!({"x": "files"}));
        told.metrics = vec!["a NaN \\\" Infinity".into()];
        run(&host, told, &[])
    };
    for (value, expected) in [("NaN", "NaN"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("0.5", "0.5")] {
        told(&format!(r#"LLMFLOW {{"metric": ["a NaN \\\" Infinity", {value}, 2]}}"#)).unwrap();
        let last = host.metric("a NaN \\\" Infinity").unwrap();
        assert_eq!(last.to_string(), expected);
    }
    for (wrong, why) in [
        (r#"["loss", "0.5"]"#, r#""0.5" is no number"#),
        (r#"["loss", null]"#, "null is no number"),
        (r#"["loss", 0.5, -1]"#, "invalid value: integer `-1`"),
        (r#"["loss", 0.5, 1.5]"#, "invalid type: floating point `1.5`"),
        (r#"["loss""#, "expected `,` or `]`"),
    ] {
        let failure = told(&format!("LLMFLOW {{\"metric\": {wrong}}}")).unwrap_err();
        assert_eq!(failure.code, "command/no-metric");
        assert!(failure.causes[0].contains("was not understood") && failure.causes[0].contains(why), "{failure}");
    }
}

/// What is wrong with a line is told in words that quote it as it was read: half a secret, or one written otherwise.
#[test]
fn a_line_with_a_secret_that_is_not_understood_is_told_without_a_part_of_it() {
    let host = TestHost::new();
    host.set_secret("PAID", "S3cretHalfOne\"rest-of-it-99");
    let mut told =
        script("echo a > \"$1/a\"; echo 'LLMFLOW {\"metric\": \"'\"$KEY\"'\"}'", &["{out.x}"], json!({"x": "files"}));
    told.secrets.insert("KEY".into(), serde_json::from_value(json!("${secret.PAID}")).unwrap());
    told.metrics = vec!["loss".into()];
    let failure = run(&host, told, &[]).unwrap_err();
    assert!(failure.causes[0].contains("column") && !format!("{failure:?}").contains("S3cret"), "{failure:?}");
}

#[test]
fn outputs_that_grow_beyond_their_limit_end_it() {
    let host = TestHost::new();
    let mut params = script("head -c 2000 /dev/zero > \"$1/a\"", &["{out.x}"], json!({"x": "files"}));
    params.max_output_bytes = 2000;
    run(&host, params.clone(), &[]).unwrap();
    params.max_output_bytes = 1999;
    assert_eq!(run(&host, params, &[]).unwrap_err().code, "command/too-much");
}

#[test]
fn a_model_gets_its_facts_and_an_adapter_its_base() {
    let host = TestHost::new();
    let base = toy::model(&host);
    let copied = script("cp -r \"$1\"/. \"$2\"", &["{in.base}", "{out.model}"], json!({"model": "model"}));
    let made = run(&host, copied, &[("base", &base)]).unwrap();
    let facts = &made[0].1.facts;
    // What is learned from three words is two short of the 270 tokens that were asked for.
    assert_eq!((facts.vocab, facts.context), (Some(268), Some(64)));
    assert!(facts.tokenizer.is_some() && facts.parameters.is_some_and(|count| count > 40_000), "{facts:?}");

    let adapter = toy::adapter(&host, &base);
    let from = adapter.folder().display().to_string();
    let copied =
        script("cp -r \"$1\"/. \"$2\"; test -d \"$3\"", &[&from, "{out.it}", "{in.base}"], json!({"it": "adapter"}));
    let made = run(&host, copied, &[("base", &base)]).unwrap();
    assert_eq!((made[0].1.facts.base, made[0].1.references.get("base")), (Some(base.digest), Some(&base.digest)));
}

#[test]
fn planning_keys_the_scripts_by_content_and_says_what_training_may_not_read() {
    let host = TestHost::new();
    host.write("train.py", "print(1)");
    let rows = host.dataset(RowKind::Text, [text("a")]);
    let mut held = rows.clone();
    held.manifest.facts = Facts { used_for: Some(Use::Eval), ..Facts::default() };
    let known = known(host.base(), &[("data", &rows), ("held", &held)]);
    let command = json!(["python3", "train.py", "{in.data}", "{in.held}", "{out.model}", "{seed}"]);
    let mut params = params(
        json!({"command": command, "files": ["train.py"], "outputs": {"model": "model", "log": "files"}, "env": {"LOG": "{out.log}"}, "metrics": ["loss"]}),
    );
    let plan = RunCommand::plan(&mut params, &known).unwrap();
    assert_eq!(plan.trains_on, [Port::from("data"), Port::from("held")]);
    assert_eq!((plan.sources.len(), plan.seeded, plan.numerics), (1, true, Numerics::Stochastic));
    assert_eq!((plan.outputs[0].0.as_str(), plan.outputs[0].1.as_str()), ("model", "model"));
    assert_eq!(plan.metrics[0].name, "loss");
    params.measures_on = vec!["held".into()];
    params.deterministic = true;
    let plan = RunCommand::plan(&mut params, &known).unwrap();
    assert_eq!((plan.trains_on, plan.numerics), (vec![Port::from("data")], Numerics::Exact));
    assert_eq!(RunCommand::named_outputs(&params), [Port::from("model"), Port::from("log")]);
}

#[test]
fn a_mistake_is_refused_at_planning_with_the_param_at_fault() {
    let host = TestHost::new();
    let rows = host.dataset(RowKind::Text, [text("a")]);
    let known = known(host.base(), &[("data", &rows)]);
    let good = json!({"command": ["a", "{in.data}", "{out.x}"], "outputs": {"x": "model"}});
    RunCommand::plan(&mut params(good.clone()), &known).unwrap();
    for (at, value, code, param) in [
        ("command", json!([]), "command/empty", "command"),
        ("command", json!(["a", "{out.x}"]), "command/unused", "command"),
        ("command", json!(["a", "{in.data}"]), "command/unused", "command"),
        ("command", json!(["a", "{in.data}{in.dat}{out.x}"]), "command/placeholder", "command"),
        ("command", json!(["a", "{in.data}{out.y}{out.x}"]), "command/placeholder", "command"),
        ("outputs", json!({}), "command/no-outputs", "outputs"),
        ("outputs", json!({"x": "modle"}), "command/kind", "outputs.x"),
        ("outputs", json!({"../x": "model"}), "command/name", "outputs.../x"),
        ("outputs", json!({"report": "model"}), "command/name", "outputs.report"),
        ("outputs", json!({"x": "adapter"}), "command/base", "outputs.x"),
        ("files", json!(["absent.py"]), "file/missing", "files"),
        ("env", json!({"A B": "c"}), "command/variable", "env"),
        ("env", json!({"CUDA_VISIBLE_DEVICES": "0"}), "command/variable", "env"),
        ("env", json!({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}), "command/variable", "env"),
        ("secrets", json!({"CUDA_VISIBLE_DEVICES": "${secret.GPUS}"}), "command/variable", "secrets"),
        ("measures_on", json!(["dta"]), "command/unknown-input", "measures_on"),
    ] {
        let mut wrong = good.clone();
        wrong[at] = value;
        let failure = RunCommand::plan(&mut params(wrong.clone()), &known).err();
        let failure = failure.unwrap_or_else(|| panic!("{wrong} was accepted"));
        assert_eq!((failure.code.as_str(), failure.param.as_deref()), (code, Some(param)), "{wrong}");
    }
}
