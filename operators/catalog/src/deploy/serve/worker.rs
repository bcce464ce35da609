//! The one thread that owns the model and answers requests in turn.
//!
//! Owns: the queue, prompts to tokens, stop sequences, the end of an answer. Must not know: HTTP.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
};
use std::{panic::AssertUnwindSafe, thread, time::Duration};

use llmflow_contract::Failure;
use llmflow_model::{
    ModelError,
    sampling::{Control, Event, GenerateConfig, generate},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    error::ApiError,
    protocol::{Ask, Finish, Settings, Usage},
    spec::Params,
    stop::StopFilter,
};
use crate::{language_model::failure, synth::speaker::Speaker};

/// How often an idle worker looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(50);

/// What comes back of a request, in order: pieces of text, then an end.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The prompt was read; nothing is refused from here on.
    Begun,
    Text(String),
    Done {
        finish: Finish,
        usage: Usage,
    },
    Failed(ApiError),
}

/// A request on its way to the model. Its replies are few: at most one a token.
pub(super) struct Job {
    pub ask: Ask,
    pub settings: Settings,
    pub replies: UnboundedSender<Reply>,
}

/// The way to the worker.
#[derive(Clone)]
pub(super) struct Queue {
    jobs: SyncSender<Job>,
    stopping: Arc<AtomicBool>,
}

impl Queue {
    /// # Errors
    /// 503 if too many wait, or the server stops.
    pub fn push(&self, job: Job) -> Result<(), ApiError> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(ApiError::stopping());
        }
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => ApiError::busy(),
            TrySendError::Disconnected(_) => ApiError::stopping(),
        })
    }
    /// Ends the answer in progress and refuses the rest.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }
}

/// Starts the thread. It ends after [`Queue::stop`], or when no queue is left.
pub(super) fn start(speaker: Speaker, params: &Params) -> Result<(Queue, thread::JoinHandle<()>), Failure> {
    let (jobs, waiting) = sync_channel(params.queue as usize);
    let stopping = Arc::new(AtomicBool::new(false));
    let worker = Worker {
        speaker,
        temperature: params.temperature,
        max_tokens: params.max_tokens as usize,
        stopping: stopping.clone(),
    };
    let thread = thread::Builder::new()
        .name("answers".into())
        .spawn(move || worker.work(&waiting))
        .map_err(|error| Failure::environment("serve/thread", "no thread could be started").cause(error))?;
    Ok((Queue { jobs, stopping }, thread))
}

struct Worker {
    speaker: Speaker,
    temperature: f32,
    max_tokens: usize,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    fn work(&self, waiting: &Receiver<Job>) {
        while !self.stopping.load(Ordering::SeqCst) {
            match waiting.recv_timeout(LOOK) {
                Ok(job) if job.replies.is_closed() => {}
                Ok(job) => {
                    // A panic in the maths ends one answer, not the server; the decoder is only read.
                    let answered = std::panic::catch_unwind(AssertUnwindSafe(|| self.answer(&job)));
                    let failed = match answered {
                        Ok(Ok(())) => continue,
                        Ok(Err(error)) => error,
                        Err(_) => ApiError::internal(),
                    };
                    // The client may be gone by now.
                    let _ = job.replies.send(Reply::Failed(failed));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        for job in waiting.try_iter() {
            let _ = job.replies.send(Reply::Failed(ApiError::stopping()));
        }
    }

    fn answer(&self, job: &Job) -> Result<(), ApiError> {
        let prompt = self.prompt(&job.ask)?;
        let context = self.speaker.context;
        let room = context.saturating_sub(prompt.len());
        if prompt.is_empty() || room == 0 {
            return Err(ApiError::too_long(prompt.len(), context));
        }
        let config = GenerateConfig {
            max_new_tokens: job.settings.max_tokens.unwrap_or(self.max_tokens).min(room),
            temperature: job.settings.temperature.unwrap_or(self.temperature),
            top_p: job.settings.top_p.max(f32::EPSILON),
            eos: self.speaker.eos.clone(),
            batch_size: 1,
            seed: job.settings.seed.unwrap_or_else(chance),
            ..GenerateConfig::default()
        };
        let send = |text: String| text.is_empty() || job.replies.send(Reply::Text(text)).is_ok();
        let _ = job.replies.send(Reply::Begun);
        let mut pieces = self.speaker.tokenizer.stream();
        let mut stop = StopFilter::new(job.settings.stop.clone());
        let (mut count, mut broken) = (0, None);
        let usage = |completion| Usage { prompt: prompt.len(), completion };
        let completions = generate(&self.speaker.decoder, std::slice::from_ref(&prompt), &config, &mut |event| {
            let Event::Token { token, .. } = event else { return Control::Continue };
            count += 1;
            match pieces.push(token) {
                Ok(piece) => {
                    let heard = send(stop.push(&piece)) && !job.replies.is_closed();
                    if !heard || self.stopping.load(Ordering::SeqCst) {
                        Control::Stop
                    } else if stop.is_stopped() {
                        Control::Finish
                    } else {
                        Control::Continue
                    }
                }
                Err(error) => {
                    broken = Some(error);
                    Control::Stop
                }
            }
        });
        let completions = match completions {
            Ok(completions) => completions,
            Err(ModelError::Cancelled) if broken.is_none() => return Err(ApiError::stopping()),
            Err(error) => return Err(inside(broken.unwrap_or(error))),
        };
        let mut finished = completions.first().is_some_and(|completion| completion.finished);
        if !stop.is_stopped() {
            let rest = pieces.finish().map_err(inside)?;
            send(stop.push(&rest));
            send(stop.finish());
        }
        finished |= stop.is_stopped();
        let finish = if finished { Finish::Stop } else { Finish::Length };
        let _ = job.replies.send(Reply::Done { finish, usage: usage(count) });
        Ok(())
    }

    fn prompt(&self, ask: &Ask) -> Result<Vec<u32>, ApiError> {
        let text = match ask {
            Ask::Text(text) => text.clone(),
            Ask::Chat(messages) => self.speaker.tokenizer.render(messages, true).map_err(|error| match error {
                ModelError::Template(why) => {
                    ApiError::bad("messages", format!("the model's chat template refuses them: {why}"))
                }
                other => inside(other),
            })?,
        };
        self.speaker.tokenizer.encode(&text, false).map_err(inside)
    }
}

/// Logs what went wrong; the client hears only that it did.
fn inside(error: ModelError) -> ApiError {
    tracing::warn!(error = %failure(error), "a request failed");
    ApiError::internal()
}

/// A seed for requests that name none: not reproducible, and said to be so by OpenAI's protocol.
fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}
