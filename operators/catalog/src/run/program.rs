//! Runs one program of the user's: in a group of its own, with an environment of its own, heard line by line.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use llmflow_contract::{Class, Context, Failure, Scrubber, Secret, SecretName};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
};

use super::{
    group::Group,
    heard::{Heard, Line, listen},
    script::{self, ScriptFile},
};

/// Between two looks at whether it ended, or was asked to.
const TICK: Duration = Duration::from_millis(50);
const TICK_MS: u16 = 50;
/// Between two looks at what it writes.
const WATCH: Duration = Duration::from_secs(1);
/// From the request to end to the kill.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// Bytes of one line in the log.
const LOG_LINE_BYTES: usize = 16 << 10;
/// Bytes of the log of one stage; what comes after is read and thrown away.
const LOG_BYTES: usize = 64 << 20;
/// Lines of standard error that a failure carries.
const TAIL_LINES: usize = 10;
/// Characters of each.
const TAIL_CHARS: usize = 400;
/// Lines that wait to be read; beyond, the program waits.
const QUEUE_LINES: usize = 256;
/// Exit status of a program that failed for now (`EX_TEMPFAIL` of sysexits.h).
const TEMPORARY: i32 = 75;

/// A program ready to be started, as often as wanted.
pub(crate) struct Program {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    secrets: BTreeMap<String, Secret>,
    scrubber: Scrubber,
    /// Where it runs; its files lie here.
    folder: PathBuf,
    home: PathBuf,
    /// `CUDA_VISIBLE_DEVICES`.
    gpus: String,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    bytes: usize,
    is_full: bool,
}

impl Program {
    /// Lays the files out in the stage's scratch folder.
    ///
    /// # Errors
    /// A file that cannot be copied; a secret that the stage was not given.
    pub fn new(
        ctx: &Context,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        secrets: &BTreeMap<String, SecretName>,
        files: &[ScriptFile],
    ) -> Result<Self, Failure> {
        let folder = make_folder(&ctx.scratch().join("run"))?;
        make_folder(&ctx.scratch().join("tmp"))?;
        script::lay_out(files, &folder)?;
        ctx.sources_read()?; // a script may be edited while it runs
        let secrets = secrets.iter().map(|(name, secret)| Ok((name.clone(), ctx.secret(secret)?)));
        let secrets: BTreeMap<String, Secret> = secrets.collect::<Result<_, Failure>>()?;
        Ok(Self {
            argv,
            env,
            scrubber: Scrubber::new(secrets.values().map(Secret::expose)),
            secrets,
            folder,
            home: ctx.scratch().to_owned(),
            gpus: visible_gpus(ctx),
            log: Mutex::default(),
        })
    }

    /// Runs it to its end: `input` on standard input, each line of standard output to `out` (at most `line_bytes` of it),
    /// standard error to the log. `watch` is asked every second, and at the end, whether all is well.
    ///
    /// # Errors
    /// Class `input` for an exit status other than 0 (`transient` for 75), `lost` for a program that was killed,
    /// `environment` for one that cannot be started, `cancelled`, or what `out` and `watch` fail with.
    pub fn run(
        &self,
        ctx: &Context,
        input: Vec<u8>,
        line_bytes: usize,
        out: &mut dyn FnMut(Line) -> Result<(), Failure>,
        watch: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        ctx.check()?;
        let failed = |error: std::io::Error| {
            Failure::environment("command/start", "no process can be started (`/bin/sh` holds its group)").cause(error)
        };
        let group = Group::start().map_err(failed)?;
        let mut child = self.start(&group)?;
        let (sender, heard) = mpsc::sync_channel(QUEUE_LINES);
        let is_over = AtomicBool::new(false);
        if let Some(mut stdin) = child.stdin.take() {
            // A program need not read all of it, or any; one that left the group may hold it open for ever.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let outcome = std::thread::scope(|scope| {
            let _over = Over(&is_over); // before the threads that read from it are waited for
            let group = group;
            let heard = heard;
            let stdout = child.stdout.take().map(|stream| Until { stream, is_over: &is_over });
            let stderr = child.stderr.take().map(|stream| Until { stream, is_over: &is_over });
            let own = sender.clone();
            scope.spawn(move || forward(stdout, line_bytes, &own, Heard::Out));
            scope.spawn(move || forward(stderr, LOG_LINE_BYTES, &sender, Heard::Err));
            let mut tail = VecDeque::new();
            let mut take = |heard| match heard {
                Heard::Out(line) => out(line),
                Heard::Err(line) => {
                    self.say(&line, &mut tail);
                    Ok(())
                }
                Heard::Broken(error) => {
                    Err(Failure::environment("command/stream", "what the command says cannot be read").cause(error))
                }
            };
            let status = follow(ctx, &mut child, &group, &heard, &mut take, watch)?;
            self.judge(status, tail).and_then(|()| watch())
        });
        let _ = child.wait(); // the group is gone, and it with it
        outcome
    }

    fn start(&self, group: &Group) -> Result<Child, Failure> {
        let program = &self.argv[0];
        // A name is looked up on PATH; a path starts where the files lie.
        let path = if program.contains('/') { self.folder.join(program) } else { PathBuf::from(program) };
        let mut command = Command::new(path);
        command.args(&self.argv[1..]).current_dir(&self.folder).process_group(group.id());
        command.env_clear().env("HOME", &self.home).env("TMPDIR", self.home.join("tmp")).env("LANG", "C.UTF-8");
        command.env("CUDA_VISIBLE_DEVICES", &self.gpus);
        // In this order the driver numbered the GPUs that the lease names.
        let given = ["PATH", "CUDA_DEVICE_ORDER"].map(|name| Some((name, std::env::var_os(name)?)));
        command.envs(given.into_iter().flatten());
        command.envs(&self.env);
        command.envs(self.secrets.iter().map(|(name, secret)| (name, secret.expose())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let message = format!("there is no program `{program}` here");
                Failure::environment("command/not-found", message)
                    .param("command")
                    .help("install it, or name a file of yours in `files` and start it as `./NAME`")
            }
            std::io::ErrorKind::PermissionDenied => {
                // What another stage gave is nobody's to change: that stage says what may be executed.
                let help = match Path::new(program).is_absolute() {
                    true => format!("start it with its interpreter: `[sh, {program}]`"),
                    false => format!("chmod +x {program}, or start it with its interpreter: `[python3, {program}]`"),
                };
                Failure::input("command/not-executable", format!("`{program}` may not be executed"))
                    .param("command")
                    .help(help)
            }
            std::io::ErrorKind::InvalidInput => {
                Failure::input("command/invalid", "a word of the command or of its environment holds a zero byte")
            }
            _ => Failure::environment("command/start", format!("`{program}` cannot be started")).cause(error),
        })
    }

    /// Puts a line into the stage's log, without secrets.
    pub fn log(&self, line: &str) {
        let line = self.scrub(line);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_full {
            return;
        }
        log.bytes += line.len() + 1;
        log.is_full = log.bytes > LOG_BYTES;
        let last = if log.is_full { "\nthe log ends here: it holds 64 MB" } else { "" };
        // A worker's standard error is the stage's log. Nothing can be done where it is closed.
        let _ = writeln!(std::io::stderr().lock(), "{line}{last}");
    }

    fn say(&self, line: &Line, tail: &mut VecDeque<String>) {
        let text = self.text(line);
        self.log(&text);
        if !text.trim().is_empty() {
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(self.scrub(&text).chars().take(TAIL_CHARS).collect());
        }
    }

    /// What stands on a line; of one that was cut, without an end that may be a part of a secret.
    pub fn text(&self, line: &Line) -> String {
        match line.is_cut {
            true => format!("{}…", self.scrubber.trim_cut(&line.text())),
            false => line.text().into_owned(),
        }
    }

    /// The same without the values of secrets.
    pub fn clean(&self, line: &Line) -> String {
        self.scrub(&self.text(line))
    }

    /// A text without the values of secrets.
    pub fn scrub(&self, line: &str) -> String {
        self.scrubber.scrub(line)
    }

    fn judge(&self, status: ExitStatus, tail: VecDeque<String>) -> Result<(), Failure> {
        let program = &self.argv[0];
        let mut failure = match (status.code(), status.signal()) {
            (Some(0), _) => return Ok(()),
            (Some(TEMPORARY), _) => {
                let message = format!("`{program}` says that it failed for now (exit status {TEMPORARY})");
                Failure::new(Class::Transient { after: None }, "command/temporary", message)
            }
            (Some(code), _) => Failure::input("command/failed", format!("`{program}` ended with exit status {code}")),
            (None, Some(signal)) if signal == nix::sys::signal::Signal::SIGKILL as i32 => {
                Failure::new(Class::Lost, "command/killed", format!("`{program}` was killed"))
                    .help("memory may have run out: `dmesg` tells")
            }
            (None, signal) => {
                let name = signal.and_then(|signal| nix::sys::signal::Signal::try_from(signal).ok());
                let name = name.map_or("a signal", nix::sys::signal::Signal::as_str);
                Failure::input("command/failed", format!("`{program}` was ended by {name}"))
            }
        };
        failure.causes.extend(tail);
        Err(failure)
    }
}

/// Ends what reads from a program.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A stream that ends when the program is over, whoever still holds its other end open.
struct Until<'a, R> {
    stream: R,
    is_over: &'a AtomicBool,
}

impl<R: Read + AsFd> Read for Until<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while !self.is_over.load(Ordering::Relaxed) {
            let mut polled = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, TICK_MS) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.stream.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

/// Passes on what a stream says until it ends or nobody listens.
fn forward(stream: Option<impl Read>, line_bytes: usize, sender: &SyncSender<Heard>, heard: impl Fn(Line) -> Heard) {
    let Some(stream) = stream else { return };
    if let Err(error) = listen(stream, line_bytes, |line| sender.send(heard(line)).is_ok()) {
        let _ = sender.send(Heard::Broken(error)); // nobody listens: nobody is told
    }
}

/// Hears a program out until it has ended and said all.
fn follow(
    ctx: &Context,
    child: &mut Child,
    group: &Group,
    heard: &mpsc::Receiver<Heard>,
    take: &mut dyn FnMut(Heard) -> Result<(), Failure>,
    watch: &dyn Fn() -> Result<(), Failure>,
) -> Result<ExitStatus, Failure> {
    let waiting = |error: std::io::Error| Failure::bug(format!("a child cannot be waited for: {error}"));
    let (mut ended, mut is_silent) = (None::<(ExitStatus, Instant)>, false);
    let (mut looked, mut watched) = (Instant::now(), Instant::now());
    loop {
        match ended {
            // One that left the group and holds the streams open is not waited for.
            Some((status, at)) if is_silent || at.elapsed() > GRACE => return Ok(status),
            _ => {}
        }
        if is_silent {
            std::thread::sleep(TICK / 10);
        } else {
            match heard.recv_timeout(TICK) {
                Ok(line) => take(line)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => is_silent = true,
            }
        }
        if looked.elapsed() < TICK && !is_silent {
            continue;
        }
        looked = Instant::now();
        if ctx.cancelled() {
            end_politely(child, group, heard, take);
            return Err(Failure::cancelled());
        }
        if watched.elapsed() >= WATCH {
            watched = Instant::now();
            watch()?;
        }
        if ended.is_none() {
            ended = child.try_wait().map_err(waiting)?.map(|status| (status, Instant::now()));
            if ended.is_some() {
                group.kill(); // what it left running would hold its streams open
            }
        }
    }
}

/// Gives it time to save, and hears what it says of that.
fn end_politely(
    child: &mut Child,
    group: &Group,
    heard: &mpsc::Receiver<Heard>,
    take: &mut dyn FnMut(Heard) -> Result<(), Failure>,
) {
    group.terminate();
    let (asked, mut is_silent) = (Instant::now(), false);
    // A child of its own that still saves holds the streams open.
    while asked.elapsed() < GRACE && (!is_silent || matches!(child.try_wait(), Ok(None))) {
        if is_silent {
            std::thread::sleep(TICK);
            continue;
        }
        match heard.recv_timeout(TICK) {
            Ok(line) => {
                let _ = take(line); // it ends as asked, whatever it says
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => is_silent = true,
        }
    }
}

/// The devices of the lease, as the worker was bound to them.
fn visible_gpus(ctx: &Context) -> String {
    let gpus = &ctx.lease().gpus;
    let bound = std::env::var("CUDA_VISIBLE_DEVICES").ok().filter(|_| !gpus.is_empty());
    bound.unwrap_or_else(|| gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}

/// A folder that is there and empty.
pub(crate) fn make_folder(folder: &Path) -> Result<PathBuf, Failure> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| Failure::io("clearing", folder, &error))?;
    }
    fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
    Ok(folder.to_owned())
}
