//! Operators that write and join text, a pipeline of them, and one that talks until it is stopped.

use llmflow_contract::{
    Artifact, Context, Facts, Failure, Made, Operator, Registry, inputs, kinds, outputs,
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
    Registry::new().with::<Write>().with::<Join>().with::<Talk>()
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
