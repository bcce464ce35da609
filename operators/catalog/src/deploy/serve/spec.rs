//! Params, ports and plan of `deploy.serve`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use llmflow_contract::{Artifact, Context, Failure, Known, Operator, StagePlan, inputs, kinds};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    language_model,
    synth::{empty_line, speaker},
};

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Port {
    /// This one.
    Number(#[schemars(with = "u16")] i64),
    Free(Auto),
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

/// Takes any whole number: [`Params::address`] refuses one that is no port, and names the param.
struct PortVisitor;

impl de::Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`auto` or a number from 1 to 65535 as `port`")
    }
    fn visit_i64<E>(self, number: i64) -> Result<Port, E> {
        Ok(Port::Number(number))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Port, E> {
        Ok(Port::Number(i64::try_from(number).unwrap_or(i64::MAX)))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
        match text {
            "auto" => Ok(Port::Free(Auto::Auto)),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

/// `auto`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// A free one.
    Auto,
}

/// A question that the server must answer before the stage counts as done.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeTest {
    /// What is asked.
    pub prompt: String,
    /// Regular expression that the answer must match somewhere.
    #[serde(default = "something")]
    pub matches: String,
}

fn something() -> String {
    r"\S".into()
}

impl Default for SmokeTest {
    fn default() -> Self {
        Self { prompt: "What can you do?".into(), matches: something() }
    }
}

/// How to serve.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// What clients put in `model`.
    pub model_name: String,
    /// Address to listen on; 127.0.0.1 is this machine alone.
    #[schemars(extend("x-role" = "tuning"))]
    pub host: String,
    /// Port to listen on; `auto` takes a free one.
    #[schemars(extend("x-role" = "tuning"))]
    pub port: Port,
    /// The system line of chats that bring none; `null` leaves it to the template.
    pub system: Option<String>,
    /// Where a request names none: 0 takes the likeliest token.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: f32,
    /// Longest answer where a request names none, in tokens.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_tokens: u32,
    /// Requests that may wait; the next get 503.
    #[schemars(range(min = 1, max = 65536), extend("x-role" = "tuning"))]
    pub queue: u32,
    /// Largest request body, in bytes; larger ones get 413.
    #[schemars(range(min = 1024, max = 268_435_456), extend("x-role" = "tuning"))]
    pub max_body_bytes: u32,
    /// Asked when the stage runs.
    pub smoke_test: SmokeTest,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            model_name: "model".into(),
            host: "127.0.0.1".into(),
            port: Port::Free(Auto::Auto),
            system: empty_line(),
            temperature: 0.0,
            max_tokens: 256,
            queue: 32,
            max_body_bytes: 1 << 20,
            smoke_test: SmokeTest::default(),
        }
    }
}

impl Params {
    /// The address to bind; port 0 means a free one.
    ///
    /// # Errors
    /// `param/invalid` if the host is no address of this machine, or the port no port.
    pub(super) fn address(&self) -> Result<SocketAddr, Failure> {
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        let host: IpAddr = host.parse().map_err(|_| {
            Failure::input("param/invalid", format!("`{}` is no IP address", self.host))
                .param("host")
                .help("use 127.0.0.1 for this machine alone, 0.0.0.0 for its whole network")
        })?;
        let port = match self.port {
            Port::Number(port) => u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
                let message = format!("`port` is `auto` or a number from 1 to 65535, not {port}");
                Failure::input("param/invalid", message).param("port")
            })?,
            Port::Free(_) => 0,
        };
        Ok(SocketAddr::new(host, port))
    }
    /// The compiled `smoke_test.matches`.
    ///
    /// # Errors
    /// `param/invalid` if it is no regular expression.
    pub(super) fn pattern(&self) -> Result<Regex, Failure> {
        Regex::new(&self.smoke_test.matches).map_err(|error| {
            let message = format!("`{}` is no regular expression", self.smoke_test.matches);
            Failure::input("param/invalid", message).param("smoke_test.matches").cause(error)
        })
    }
}

inputs! {
    pub struct In {
        /// The model to serve.
        pub model: Artifact<kinds::Runnable>,
    }
}

/// `deploy.serve`
pub struct Serve;

impl Operator for Serve {
    const NAME: &'static str = "deploy.serve";
    const VERSION: u32 = 1;
    const DOC: &'static str = include_str!("doc.md");
    type Params = Params;
    type Inputs = In;
    type Outputs = ();
    const SERVES: &'static [&'static str] = &["model", "gguf"];

    fn plan(params: &mut Params, known: &Known) -> Result<StagePlan, Failure> {
        language_model::check_turns(known, None)?;
        params.address()?;
        params.pattern()?;
        if params.model_name.trim().is_empty() {
            return Err(Failure::input("param/invalid", "`model_name` is empty").param("model_name"));
        }
        Ok(StagePlan::derived::<Self>()
            .metric("answer_tokens", "tokens of the answer to the smoke test")
            .needs(speaker::needs(known, None))
            .numerics(speaker::numerics()))
    }

    fn run(params: Params, inputs: In, ctx: &Context) -> Result<(), Failure> {
        super::run::stage(params, &inputs, ctx)
    }

    fn serve(params: Params, inputs: In, ctx: &Context, ready: &dyn Fn(SocketAddr)) -> Result<(), Failure> {
        super::run::serve(params, &inputs, ctx, ready)
    }
}
