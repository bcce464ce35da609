//! Executors: where a worker lives, and how one is started. Whatever it is, engine and worker speak over a socket.

use std::{os::linux::net::SocketAddrExt, process::Stdio, sync::Arc};

use llmflow_contract::{Failure, Registry};
use tokio::{
    net::{UnixListener, UnixStream},
    process::{Child, Command},
};

use super::{
    message::FromWorker,
    secret::Withheld,
    worker::{self, SOCKET, TOKEN},
};
use crate::device;

/// Where a run's workers live.
#[derive(Clone, Default)]
pub enum Workers {
    /// In processes of this program: what one does to itself, its memory or its device harms no other.
    #[default]
    Processes,
    /// In threads of this process, for tests and simulations: none is killed, and all see one environment.
    Threads(Arc<Registry>),
}

/// What starts workers.
pub(super) enum Executor {
    Processes(Processes),
    Threads(Arc<Registry>),
}

/// Processes of this program, which find the engine at a socket that leaves no file.
pub(super) struct Processes {
    listener: UnixListener,
    name: String,
    token: String,
    threads: u32,
    withheld: Withheld,
}

/// A worker and the line to it.
pub(super) struct Started {
    /// None of a thread.
    pub child: Option<Child>,
    pub stream: UnixStream,
}

impl Executor {
    /// `threads`: the width of each process's thread pool; `withheld`: what none inherits.
    pub fn new(workers: Workers, threads: u32, withheld: Withheld) -> Result<Self, Failure> {
        Ok(match workers {
            Workers::Processes => Self::Processes(Processes::new(threads, withheld)?),
            Workers::Threads(registry) => Self::Threads(registry),
        })
    }

    /// Starts a worker that sees the GPUs `visible` alone, and of the withheld variables `credentials` alone.
    pub async fn start(&self, visible: &str, credentials: &[&str]) -> Result<Started, Failure> {
        match self {
            Self::Processes(processes) => processes.start(visible, credentials).await,
            Self::Threads(registry) => start_thread(registry.clone()).map_err(not_started),
        }
    }
}

impl Processes {
    fn new(threads: u32, withheld: Withheld) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::environment("worker/socket", error.to_string());
        let (name, token) = (random_name().map_err(failed)?, random_name().map_err(failed)?);
        let name = format!("llmflow-{name}");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).map_err(failed)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, name, token, threads, withheld })
    }

    async fn start(&self, visible: &str, credentials: &[&str]) -> Result<Started, Failure> {
        let mut command = Command::new(std::env::current_exe().map_err(not_started)?);
        for name in self.withheld.0.iter().filter(|name| !credentials.contains(&name.as_str())) {
            command.env_remove(name);
        }
        let mut child = command
            .arg("__worker")
            .env(SOCKET, &self.name)
            .env(TOKEN, &self.token)
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .env(device::VISIBLE, visible)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0) // Ctrl-C reaches the engine alone, which asks its workers to save
            .spawn()
            .map_err(not_started)?;
        let stream = tokio::select! {
            stream = accept(&self.listener, &self.token) => stream.map_err(not_started)?,
            status = child.wait() => {
                let status = status.map_err(not_started)?;
                return Err(Failure::environment("worker/start", format!("a worker process ended at once: {status}")));
            }
        };
        Ok(Started { child: Some(child), stream })
    }
}

fn start_thread(registry: Arc<Registry>) -> std::io::Result<Started> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    std::thread::Builder::new().name("worker".into()).spawn(move || worker::work(&registry, theirs, || {}))?;
    ours.set_nonblocking(true)?;
    Ok(Started { child: None, stream: UnixStream::from_std(ours)? })
}

fn not_started(error: std::io::Error) -> Failure {
    Failure::environment("worker/start", "a worker did not start").cause(error)
}

/// 16 random bytes as text.
fn random_name() -> std::io::Result<String> {
    let mut bytes = [0u8; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(llmflow_contract::Digest::of(&bytes).hex()[..32].to_owned())
}

/// Waits for the one that knows the token; others are turned away.
async fn accept(listener: &UnixListener, token: &str) -> std::io::Result<UnixStream> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut line = Vec::new();
        let mut byte = [0u8];
        while line.len() < 256 && tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await? == 1 && byte[0] != b'\n'
        {
            line.push(byte[0]);
        }
        if matches!(serde_json::from_slice(&line), Ok(FromWorker::Hello(said)) if said == token) {
            return Ok(stream);
        }
    }
}
