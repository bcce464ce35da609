//! The work of `run.command`: hands the inputs over, runs the program, takes what it left.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::PathBuf,
};

use llmflow_contract::{AnyArtifact, Bound, Context, Facts, Failure, Named, Port};
use llmflow_dataset::{Dataset, TraceWriter, write_jsonl};

use super::{
    protocol::Listener,
    spec::{self, Params},
    stamp::{Stamped, check_added},
};
use crate::{
    data::count_of,
    language_model::gguf_file,
    run::{
        left::{Left, count_files},
        placeholder,
        program::{Program, make_folder},
        script,
    },
};

/// Bytes of one line of standard output: the protocol's are short, the log's are cut.
const LINE_BYTES: usize = 16 << 10;

pub(super) fn run(params: &Params, inputs: Bound, ctx: &Context) -> Result<Named, Failure> {
    let inputs: BTreeMap<Port, AnyArtifact> =
        inputs.into_ports().into_iter().filter_map(|(port, mut given)| Some((port, given.pop()?))).collect();
    for name in ["in", "out"] {
        make_folder(&ctx.scratch().join(name))?;
    }
    let (mut paths, mut stamped) = (BTreeMap::new(), Vec::new());
    for (port, artifact) in &inputs {
        ctx.check()?;
        let path = hand_over(ctx, port, artifact, params.raw)?;
        stamped.extend(Stamped::all(port, artifact, &path)?);
        paths.insert(format!("in.{port}"), path);
    }
    let outputs: Vec<Left> =
        params.ports().map(|(port, kind)| Left::prepare(ctx, port, kind)).collect::<Result<_, _>>()?;
    paths.extend(outputs.iter().map(|left| (format!("out.{}", left.port), left.path.clone())));

    let mut listener = Listener::new(ctx, &params.metrics);
    start(params, ctx, &paths, &outputs, &mut listener)?;
    stamped.iter().try_for_each(Stamped::check)?;
    inputs.iter().try_for_each(|(port, artifact)| check_added(port, artifact, &paths[&format!("in.{port}")]))?;

    let models = inputs.iter().filter(|(_, artifact)| artifact.kind().as_str() == "model").map(|(port, _)| port);
    let base = params.base(models)?.map(|port| inputs[port].digest);
    let licences = spec::licences(inputs.values().map(AnyArtifact::facts));
    let has_rows = outputs.iter().any(|left| left.kind.is_dataset());
    let mut trace = if has_rows { Some(TraceWriter::create(ctx)?) } else { None };
    let (mut made, mut rows, mut summary) = (Vec::new(), 0, Vec::new());
    for left in outputs {
        let (port, facts) = (left.port.clone(), Facts { licences: licences.clone(), ..Facts::default() });
        let mut one = left.take(ctx, facts, trace.as_mut())?;
        if let Some(base) = base.filter(|_| one.kind.as_str() == "adapter") {
            one.facts.base = Some(base);
            one.references.insert("base".into(), base);
        }
        let count = match one.facts.rows {
            Some(count) => {
                rows += count;
                count_of(count, "row")
            }
            None => count_of(count_files(&one.folder), "file"),
        };
        summary.push(format!("{port}: {count}"));
        made.push((port, one));
    }
    if let Some(trace) = trace {
        trace.finish(0, rows)?; // what became of each row that went in, the command alone knows
    }
    ctx.report(&listener.report(&summary)?)?;
    Ok(Named(made))
}

fn start(
    params: &Params,
    ctx: &Context,
    paths: &BTreeMap<String, PathBuf>,
    outputs: &[Left],
    listener: &mut Listener,
) -> Result<(), Failure> {
    let value = |name: &str| match name {
        "seed" => Some(ctx.seed().to_string()),
        "cores" => Some(ctx.lease().cores.to_string()),
        "scratch" => Some(ctx.scratch().display().to_string()),
        _ => paths.get(name).map(|path| path.display().to_string()),
    };
    let argv = params.command.iter().map(|word| placeholder::fill(word, value)).collect();
    let env = params.env.iter().map(|(name, text)| (name.clone(), placeholder::fill(text, value))).collect();
    let files = script::find_again(&params.files, ctx)?;
    let program = Program::new(ctx, argv, env, &params.secrets, &files)?;
    let mut hear = |line: crate::run::heard::Line| {
        let text = program.text(&line);
        if let Some(said) = listener.hear(&text, &|name| program.scrub(name)) {
            program.log(&said);
        }
        Ok(())
    };
    let watch = || {
        let size_bytes: u64 = outputs.iter().map(Left::size_bytes).sum();
        match size_bytes > params.max_output_bytes {
            true => Err(Failure::input("command/too-much", format!("its outputs have {size_bytes} bytes already"))
                .param("max_output_bytes")
                .help("raise `max_output_bytes`, or let it keep fewer checkpoints in its output")),
            false => Ok(()),
        }
    };
    program.run(ctx, Vec::new(), LINE_BYTES, &mut hear, &watch)
}

/// A path at which the program can read an input.
fn hand_over(ctx: &Context, port: &Port, artifact: &AnyArtifact, raw: bool) -> Result<PathBuf, Failure> {
    match artifact.kind().as_str() {
        "gguf" => gguf_file(artifact),
        "report" => artifact.file("report.json"),
        kind if kind.starts_with("dataset/") && !raw => {
            let path = ctx.scratch().join("in").join(format!("{port}.jsonl"));
            let failed = |error: std::io::Error| Failure::io("writing", &path, &error);
            let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
            write_jsonl(&Dataset::open(artifact)?, &mut file)?;
            file.flush().map_err(failed)?;
            Ok(path)
        }
        _ => fs::canonicalize(artifact.folder()).map_err(|error| Failure::io("reading", artifact.folder(), &error)),
    }
}
