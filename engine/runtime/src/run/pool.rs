//! Worker processes: started when needed, reused while they are clean, killed when they are not.

use std::{collections::HashMap, os::linux::net::SocketAddrExt, path::PathBuf, process::Stdio};

use llmflow_contract::{Class, Failure, StageId};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    process::{Child, Command},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::{
    message::{Assignment, FromWorker, ToWorker},
    worker::{SOCKET, TOKEN},
};
use crate::device;

/// A worker's number within its pool.
pub type WorkerId = u64;

/// What a worker has to say, or that it is gone.
#[derive(Debug)]
pub enum Report {
    Said(FromWorker),
    /// A line on its standard output or error.
    Printed(String),
    Gone,
}

struct Worker {
    child: Child,
    writer: OwnedWriteHalf,
    busy: Option<StageId>,
    /// It held a secret, used a GPU or ran foreign code: it is not used again.
    is_spent: bool,
}

/// The workers of one run.
pub struct Pool {
    listener: UnixListener,
    name: String,
    token: String,
    workers: HashMap<WorkerId, Worker>,
    next: WorkerId,
    sender: UnboundedSender<(WorkerId, Report)>,
    reports: UnboundedReceiver<(WorkerId, Report)>,
    threads: u32,
    /// Kills for lack of memory that are accounted for.
    memory_kills: u64,
}

impl Pool {
    /// No process starts before the first assignment. `threads`: the width of each worker's thread pool.
    pub fn new(threads: u32) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::environment("worker/socket", error.to_string());
        let (name, token) = (random_name().map_err(failed)?, random_name().map_err(failed)?);
        let address = std::os::unix::net::SocketAddr::from_abstract_name(format!("llmflow-{name}")).map_err(failed)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (sender, reports) = unbounded_channel();
        Ok(Self {
            listener: UnixListener::from_std(listener).map_err(failed)?,
            name: format!("llmflow-{name}"),
            token,
            workers: HashMap::new(),
            next: 0,
            sender,
            reports,
            threads,
            memory_kills: device::out_of_memory_kills(),
        })
    }

    /// Hands work to an idle worker, or to a new one that sees the GPUs `visible` alone.
    pub async fn assign(&mut self, assignment: Assignment, visible: &str) -> Result<WorkerId, Failure> {
        let is_spent = !visible.is_empty() || !assignment.secrets.is_empty() || assignment.is_foreign;
        let idle = self.workers.iter().find(|(_, worker)| worker.busy.is_none()).map(|(id, _)| *id);
        let id = match idle.filter(|_| visible.is_empty()) {
            Some(id) => id,
            None => self.start(visible).await?,
        };
        let stage = assignment.stage.clone();
        self.say(id, &ToWorker::Assign(Box::new(assignment))).await;
        if let Some(worker) = self.workers.get_mut(&id) {
            (worker.busy, worker.is_spent) = (Some(stage), is_spent);
        }
        Ok(id)
    }

    async fn start(&mut self, visible: &str) -> Result<WorkerId, Failure> {
        let failed =
            |error: std::io::Error| Failure::environment("worker/start", "a worker process did not start").cause(error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
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
            .map_err(failed)?;
        let stream = tokio::select! {
            stream = accept(&self.listener, &self.token) => stream.map_err(failed)?,
            status = child.wait() => {
                let status = status.map_err(failed)?;
                return Err(Failure::environment("worker/start", format!("a worker process ended at once: {status}")));
            }
        };
        let id = self.next;
        self.next += 1;
        if let Some(out) = child.stdout.take() {
            forward(id, out, self.sender.clone());
        }
        if let Some(out) = child.stderr.take() {
            forward(id, out, self.sender.clone());
        }
        let (read, writer) = stream.into_split();
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(message) = serde_json::from_str(&line) {
                    let _ = sender.send((id, Report::Said(message)));
                }
            }
            let _ = sender.send((id, Report::Gone));
        });
        self.workers.insert(id, Worker { child, writer, busy: None, is_spent: false });
        Ok(id)
    }

    async fn say(&mut self, id: WorkerId, message: &ToWorker) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Ok(mut line) = serde_json::to_string(message) {
            line.push('\n');
            // A worker that is gone says so through its reports.
            let _ = worker.writer.write_all(line.as_bytes()).await;
        }
    }

    /// The next report of any worker.
    pub async fn next(&mut self) -> (WorkerId, Report) {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await, // the pool itself holds a sender
        }
    }

    pub async fn cancel(&mut self, id: WorkerId) {
        self.say(id, &ToWorker::Cancel).await;
    }

    /// Done: ready for the next assignment, unless it is spent.
    pub async fn free(&mut self, id: WorkerId) {
        match self.workers.get_mut(&id) {
            Some(worker) if worker.is_spent => self.end(id).await,
            Some(worker) => worker.busy = None,
            None => {}
        }
    }

    /// Ends a worker that may not be reused.
    pub async fn end(&mut self, id: WorkerId) {
        if let Some(mut worker) = self.workers.remove(&id) {
            let _ = worker.child.kill().await;
        }
    }

    /// Why a worker is gone.
    pub async fn autopsy(&mut self, id: WorkerId) -> Failure {
        use std::os::unix::process::ExitStatusExt;
        let Some(mut worker) = self.workers.remove(&id) else { return Failure::bug("an unknown worker is gone") };
        let before = std::mem::replace(&mut self.memory_kills, device::out_of_memory_kills());
        match worker.child.wait().await {
            Ok(status) => match status.signal() {
                Some(9) if self.memory_kills > before => {
                    Failure::new(Class::Memory, "worker/memory", "the kernel killed the worker process: memory ran out")
                        .help("lower the batch size or `max_length`; the next attempt goes on from the checkpoint")
                }
                Some(signal) => {
                    let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", |signal| signal.as_str());
                    Failure::new(Class::Lost, "worker/lost", format!("the worker process was killed by {name}"))
                        .help("run the same command again: it goes on from the last checkpoint")
                }
                None => Failure::bug(format!("the worker process ended by itself: {status}")),
            },
            Err(error) => Failure::bug(format!("the worker process cannot be waited for: {error}")),
        }
    }
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

fn forward(
    id: WorkerId,
    out: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    sender: UnboundedSender<(WorkerId, Report)>,
) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(out).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let _ = sender.send((id, Report::Printed(line)));
        }
    });
}

/// Appends a printed line to a stage's log.
pub fn append_log(path: PathBuf, line: &str) {
    use std::io::Write;
    let Some(folder) = path.parent() else { return };
    let _ = std::fs::create_dir_all(folder);
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(&path) {
        let _ = writeln!(file, "{line}");
    }
}
