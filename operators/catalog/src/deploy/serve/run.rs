//! Starts the server, keeps it up or asks it, stops it.

use std::{io::ErrorKind, net::SocketAddr, thread, time::Duration};

use llmflow_contract::{Context, Failure, Report, Sample};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};

use super::{
    Params, routes, smoke,
    spec::In,
    worker::{self, Queue},
};
use crate::synth::speaker::Speaker;

/// How often the engine's wish to stop is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long open connections may take to end.
const GRACE: Duration = Duration::from_secs(1);

/// The server while it is up. Dropping it stops the server.
struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
    queue: Queue,
    worker: Option<thread::JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    /// Listens first, so that a port in use costs no time, then loads the model.
    fn start(params: &Params, inputs: &In, ctx: &Context) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::environment("serve/thread", "no thread could be started").cause(error))?;
        let wanted = params.address()?;
        let listener = runtime.block_on(TcpListener::bind(wanted)).map_err(|error| unbound(wanted, &error))?;
        let address = listener.local_addr().map_err(|error| unbound(wanted, &error))?;
        ctx.check()?;
        let speaker = Speaker::open(&inputs.model)?;
        ctx.check()?;
        let (queue, worker) = worker::start(speaker, params)?;
        let router = routes::router(params, queue.clone());
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(async move {
            let until = async {
                // An error means that the server was dropped, which stops it too.
                let _ = stopped.await;
            };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until).await {
                tracing::error!(%error, "the server ended");
            }
        });
        Ok(Self { address, runtime: Some(runtime), queue, worker: Some(worker), stop: Some(stop) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(stop) = self.stop.take() {
            // The server may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(worker) = self.worker.take() {
            // A panic inside was answered with 500 already.
            let _ = worker.join();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(GRACE);
        }
    }
}

/// Serves until cancelled.
pub(super) fn serve(params: Params, inputs: &In, ctx: &Context, ready: &dyn Fn(SocketAddr)) -> Result<(), Failure> {
    let server = Server::start(&params, inputs, ctx)?;
    ready(server.address);
    while !ctx.cancelled() {
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Starts, asks, stops.
pub(super) fn stage(params: Params, inputs: &In, ctx: &Context) -> Result<(), Failure> {
    let pattern = params.pattern()?;
    ctx.progress(0, Some(1), "questions");
    let server = Server::start(&params, inputs, ctx)?;
    let asked = {
        let runtime = server.runtime.as_ref().expect("a server has its runtime until it is dropped");
        let asking = smoke::ask(server.address, &params);
        runtime.block_on(async {
            let cancelled = async {
                while !ctx.cancelled() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::select! {
                asked = asking => asked,
                () = cancelled => Err(Failure::cancelled()),
            }
        })?
    };
    drop(server);
    ctx.progress(1, Some(1), "questions");
    let test = &params.smoke_test;
    if !pattern.is_match(&asked.answer) {
        let message = format!(
            "asked `{}`, the server answered `{}`, which does not match `{}`",
            test.prompt,
            short(&asked.answer),
            test.matches
        );
        return Err(Failure::input("serve/smoke-test", message)
            .param("smoke_test.matches")
            .help("talk to the model with `llmflow chat`; if the answer is fine, loosen `smoke_test.matches`"));
    }
    ctx.measured("answer_seconds", asked.seconds, None);
    ctx.measured("first_piece_seconds", asked.first_piece_seconds, None);
    if asked.seconds > 0.0 {
        ctx.measured("tokens_per_second", asked.tokens as f64 / asked.seconds, None);
    }
    ctx.metric("answer_tokens", asked.tokens as f64, None);
    ctx.report(&Report {
        summary: format!("answered “{}”", short(&asked.answer)),
        metrics: [("answer_tokens".to_owned(), asked.tokens as f64)].into(),
        samples: vec![Sample {
            row: None,
            title: "smoke test".into(),
            texts: vec![("prompt".into(), test.prompt.clone()), ("answer".into(), asked.answer)],
            ..Sample::default()
        }],
        ..Report::default()
    })
}

/// An answer on one line, cut at 60 characters.
fn short(answer: &str) -> String {
    let line = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn unbound(address: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = match error.kind() {
        ErrorKind::AddrInUse => {
            Failure::environment("serve/port-in-use", format!("port {} on {} is in use", address.port(), address.ip()))
                .help("`port: auto` takes a free one")
                .param("port")
        }
        ErrorKind::PermissionDenied => {
            Failure::environment("serve/port-refused", format!("port {} may not be used", address.port()))
                .help("ports below 1024 belong to the system; `port: auto` takes a free one")
                .param("port")
        }
        _ => Failure::environment("serve/address", format!("cannot listen on {address}")).param("host"),
    };
    failure.cause(error)
}
