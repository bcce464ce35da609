//! Workers: started when needed, reused while they are clean, ended when they are not.

use std::{collections::HashMap, path::PathBuf};

use llmflow_contract::{Class, Failure, StageId};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::unix::OwnedWriteHalf,
    process::Child,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::{
    executor::{Executor, Started},
    message::{Assignment, FromWorker, ToWorker},
};
use crate::device;

/// A worker's number within its pool.
pub type WorkerId = u64;

/// What a worker has to say, or that it is gone.
#[derive(Debug)]
pub enum Report {
    Said(FromWorker),
    /// Lines on its standard output or error.
    Printed(Vec<String>),
    Gone,
}

struct Worker {
    child: Option<Child>,
    writer: OwnedWriteHalf,
    busy: Option<StageId>,
    /// It held a secret or a key, used a GPU or ran foreign code: it is not used again.
    is_spent: bool,
}

/// The workers of one run.
pub struct Pool {
    executor: Executor,
    workers: HashMap<WorkerId, Worker>,
    next: WorkerId,
    sender: UnboundedSender<(WorkerId, Report)>,
    reports: UnboundedReceiver<(WorkerId, Report)>,
    /// Kills for lack of memory that are accounted for.
    memory_kills: u64,
}

impl Pool {
    /// None starts before the first assignment, or [`Pool::warm`].
    pub fn new(executor: Executor) -> Self {
        let (sender, reports) = unbounded_channel();
        Self {
            executor,
            workers: HashMap::new(),
            next: 0,
            sender,
            reports,
            memory_kills: device::out_of_memory_kills(),
        }
    }

    /// Starts a worker, if there is none, that the first assignment will find. If that fails, so will the assignment.
    pub async fn warm(&mut self) {
        if self.workers.is_empty() {
            let _ = self.start("", &[]).await;
        }
    }

    /// Hands work to an idle worker, or to a new one that sees the GPUs `visible` alone, and of the withheld variables
    /// `credentials` alone.
    pub async fn assign(
        &mut self,
        assignment: Assignment,
        visible: &str,
        credentials: &[&str],
    ) -> Result<WorkerId, Failure> {
        let is_special = !visible.is_empty() || !credentials.is_empty();
        let is_spent = is_special || !assignment.secrets.is_empty() || assignment.is_foreign;
        let idle = self.workers.iter().find(|(_, worker)| worker.busy.is_none()).map(|(id, _)| *id);
        let id = match idle.filter(|_| !is_special) {
            Some(id) => id,
            None => self.start(visible, credentials).await?,
        };
        let stage = assignment.stage.clone();
        self.say(id, &ToWorker::Assign(Box::new(assignment))).await;
        if let Some(worker) = self.workers.get_mut(&id) {
            (worker.busy, worker.is_spent) = (Some(stage), is_spent);
        }
        Ok(id)
    }

    async fn start(&mut self, visible: &str, credentials: &[&str]) -> Result<WorkerId, Failure> {
        let Started { mut child, stream } = self.executor.start(visible, credentials).await?;
        let id = self.next;
        self.next += 1;
        if let Some(out) = child.as_mut().and_then(|child| child.stdout.take()) {
            forward(id, out, self.sender.clone());
        }
        if let Some(out) = child.as_mut().and_then(|child| child.stderr.take()) {
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

    /// Ends a worker that may not be reused. A thread is told by the end of its line, and ends when it next asks.
    pub async fn end(&mut self, id: WorkerId) {
        if let Some(Worker { child: Some(mut child), .. }) = self.workers.remove(&id) {
            let _ = child.kill().await;
        }
    }

    /// Why a worker is gone.
    pub async fn autopsy(&mut self, id: WorkerId) -> Failure {
        use std::os::unix::process::ExitStatusExt;
        let Some(Worker { child: Some(mut child), .. }) = self.workers.remove(&id) else {
            return Failure::bug("a worker that is no process is gone");
        };
        let before = std::mem::replace(&mut self.memory_kills, device::out_of_memory_kills());
        match child.wait().await {
            Ok(status) => match status.signal() {
                Some(9) if self.memory_kills > before => {
                    Failure::new(Class::Memory, "worker/memory", "the kernel killed the worker process: memory ran out")
                        .help("lower the batch size or `max_length`")
                }
                Some(signal) => {
                    let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", |signal| signal.as_str());
                    Failure::new(Class::Lost, "worker/lost", format!("the worker process was killed by {name}"))
                        .help("run the same command again")
                }
                None => Failure::bug(format!("the worker process ended by itself: {status}")),
            },
            Err(error) => Failure::bug(format!("the worker process cannot be waited for: {error}")),
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
            let mut printed = vec![line];
            // What came with it is told with it: a program may say much.
            while lines.get_ref().buffer().contains(&b'\n')
                && let Ok(Some(line)) = lines.next_line().await
            {
                printed.push(line);
            }
            let _ = sender.send((id, Report::Printed(printed)));
        }
    });
}

/// Appends printed lines to a stage's log.
pub fn append_log(path: PathBuf, lines: &[String]) {
    use std::io::Write;
    let Some(folder) = path.parent() else { return };
    let _ = std::fs::create_dir_all(folder);
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(&path) {
        let _ = file.write_all((lines.join("\n") + "\n").as_bytes());
    }
}
