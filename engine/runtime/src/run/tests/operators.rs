//! Operators that write and join text, a pipeline of them; one that talks until it is stopped, one that computes on a device
//! of the user's choice, one that goes on from where a shorter one ended, one that asks for a pause without end.

use llmflow_contract::{
    Artifact, Class, Context, Device, Facts, Failure, Known, Made, Numerics, Operator, Registry, StagePlan, inputs,
    kinds, outputs,
    schemars::{self, JsonSchema},
};
use serde::{Deserialize, Serialize};

pub const PIPELINE: &str = "
name: words
stages:
  one: {op: test.write, with: {text: one}}
  two: {op: test.write, with: {text: two}}
  both: {op: test.join, in: [one, two], with: {text: and}}
  more: {op: test.join, in: [both, one], with: {text: or}}
  most: {op: test.join, in: [more, both], with: {text: but}}
";
/// Stages of [`PIPELINE`].
pub const STAGES: usize = 5;

const FILE: &str = "text";

pub fn registry() -> Registry {
    Registry::new().with::<Write>().with::<Join>().with::<Talk>().with::<Compute>().with::<Count>().with::<Busy>()
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Words {
    /// What is written.
    text: String,
}

inputs! { pub struct Parts { /// What is joined.
pub parts: Vec<Artifact<kinds::Model>> } }
outputs! { pub struct Text { /// The text.
pub text: Made<kinds::Model> } }

fn write(text: &str, ctx: &Context) -> Result<Text, Failure> {
    let folder = ctx.output("text")?;
    let path = folder.join(FILE);
    std::fs::write(&path, text).map_err(|error| Failure::io("writing", &path, &error))?;
    ctx.metric("bytes", text.len() as f64, None);
    Ok(Text { text: Made::new(folder, Facts::default()) })
}

/// `test.write`
pub struct Write;

impl Operator for Write {
    const NAME: &'static str = "test.write";
    const VERSION: u32 = 1;
    const DOC: &'static str = "Writes a text; panics if it is to write `panic`.";
    type Params = Words;
    type Inputs = ();
    type Outputs = Text;

    fn run(params: Words, (): (), ctx: &Context) -> Result<Text, Failure> {
        assert_ne!(params.text, "panic");
        write(&params.text, ctx)
    }
}

/// `test.join`
pub struct Join;

impl Operator for Join {
    const NAME: &'static str = "test.join";
    const VERSION: u32 = 1;
    const DOC: &'static str = "Joins texts.";
    type Params = Words;
    type Inputs = Parts;
    type Outputs = Text;

    fn run(params: Words, inputs: Parts, ctx: &Context) -> Result<Text, Failure> {
        let mut texts = Vec::new();
        for part in &inputs.parts {
            let path = part.file(FILE)?;
            texts.push(std::fs::read_to_string(&path).map_err(|error| Failure::io("reading", &path, &error))?);
        }
        write(&texts.join(&format!(" {} ", params.text)), ctx)
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// `test.talk`
pub struct Talk;

impl Operator for Talk {
    const NAME: &'static str = "test.talk";
    const VERSION: u32 = 1;
    const DOC: &'static str = "Tells a figure every millisecond, for ten seconds at most.";
    type Params = Nothing;
    type Inputs = ();
    type Outputs = Text;

    fn run(_: Nothing, (): (), ctx: &Context) -> Result<Text, Failure> {
        let began = std::time::Instant::now();
        for step in 0.. {
            if ctx.cancelled() {
                return Err(Failure::cancelled());
            }
            if began.elapsed().as_secs() >= 10 {
                break;
            }
            ctx.metric("step", step as f64, Some(step));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        write("done", ctx)
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct On {
    /// What is computed on; as a machine would decide it, in no key.
    #[schemars(extend("x-role" = "tuning"))]
    device: String,
}

impl On {
    fn device(&self) -> Device {
        Device::ALL.into_iter().find(|device| device.name() == self.device).unwrap_or(Device::Cpu)
    }
}

/// `test.compute`
pub struct Compute;

impl Operator for Compute {
    const NAME: &'static str = "test.compute";
    const VERSION: u32 = 1;
    const DOC: &'static str = "Writes what it was computed on.";
    type Params = On;
    type Inputs = ();
    type Outputs = Text;

    fn plan(params: &mut On, _: &Known) -> Result<StagePlan, Failure> {
        Ok(StagePlan::derived::<Self>().numerics(Numerics::Seeded { device: params.device(), dtype: "f32".into() }))
    }
    fn run(params: On, (): (), ctx: &Context) -> Result<Text, Failure> {
        write(params.device().name(), ctx)
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Steps {
    /// How far it counts.
    #[schemars(extend("x-role" = "horizon"))]
    steps: u64,
    /// Whether what it counts depends on how far.
    is_falling: bool,
}

/// `test.count`
pub struct Count;

impl Operator for Count {
    const NAME: &'static str = "test.count";
    const VERSION: u32 = 1;
    const DOC: &'static str = "Counts, saves what it has after each step, and tells how many it took itself.";
    type Params = Steps;
    type Inputs = ();
    type Outputs = Text;

    fn plan(params: &mut Steps, _: &Known) -> Result<StagePlan, Failure> {
        Ok(StagePlan::derived::<Self>().extends(!params.is_falling))
    }
    fn run(params: Steps, (): (), ctx: &Context) -> Result<Text, Failure> {
        let io = |error: std::io::Error| Failure::io("keeping", FILE, &error);
        let steps =
            |folder: &std::path::Path| -> Option<u64> { std::fs::read_to_string(folder.join(FILE)).ok()?.parse().ok() };
        let found = ctx.restore_where(&|folder| steps(folder).filter(|steps| *steps <= params.steps))?;
        let first = found.and_then(|found| steps(&found.folder)).unwrap_or(0);
        for step in first + 1..=params.steps {
            ctx.save(|folder| std::fs::write(folder.join(FILE), step.to_string()).map_err(io))?;
        }
        ctx.metric("taken", (params.steps - first) as f64, None);
        write(&params.steps.to_string(), ctx)
    }
}

/// `test.busy`
pub struct Busy;

impl Operator for Busy {
    const NAME: &'static str = "test.busy";
    const VERSION: u32 = 1;
    const DOC: &'static str = "Fails, and asks to be left alone for ever.";
    type Params = Nothing;
    type Inputs = ();
    type Outputs = Text;

    fn run(_: Nothing, (): (), _: &Context) -> Result<Text, Failure> {
        let after = Some(std::time::Duration::from_secs(u64::MAX));
        Err(Failure::new(Class::Transient { after }, "test/busy", "busy"))
    }
}
