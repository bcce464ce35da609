//! The loop every training shares: steps, measurements, checkpoints, cancellation, progress.
//!
//! Owns: when to measure, when to save, what a saved state holds, divergence.
//! Must not know: what a lesson is; rows, files of artifacts.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use llmflow_contract::{Context, Failure};
use llmflow_model::{
    ModelError,
    training::{OnPass, Policy, Stepped, Trainer},
};
use serde::{Deserialize, Serialize};

use super::{course::Course, settings::Settings};
use crate::language_model::failure;

/// Time between two checkpoints.
const SAVE_EVERY: Duration = Duration::from_secs(15);
/// Saving may take this share of the time: a large state is saved less often.
const SAVE_SHARE: u32 = 20;
const HISTORY_FILE: &str = "history.json";
/// The curve every training has.
const LOSS: &str = "loss";

/// What is learned: one step on rows given by their indices, and a measurement.
pub(crate) trait Lesson {
    fn step(&self, trainer: &mut Trainer, rows: &[usize], on_pass: &mut OnPass) -> Result<Learned, ModelError>;
    /// The loss on rows that are not learned from; `None` without such rows.
    fn measure(&self, trainer: &Trainer, on_pass: &mut OnPass) -> Result<Option<f64>, ModelError>;
    /// Saves what the lesson itself had to compute, beside the trainer's state.
    fn save(&self, _folder: &Path) -> Result<(), Failure> {
        Ok(())
    }
}

/// What a step taught.
pub(crate) struct Learned {
    pub stepped: Stepped,
    /// Further figures of the batch, by name.
    pub figures: Vec<(&'static str, f64)>,
}

/// What happened, step by step: kept in checkpoints, so that a resumed stage reports what an uninterrupted one does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    fingerprint: String,
    /// By name, a value a step: `loss`, `grad_norm`, `learning_rate`, further figures.
    pub curves: BTreeMap<String, Vec<f64>>,
    /// Steps taken and the loss then, on rows that are not learned from.
    pub evals: Vec<(u64, f64)>,
}

impl History {
    fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(HISTORY_FILE);
        let bytes = std::fs::read(&path).map_err(|error| Failure::io("reading", &path, &error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::bug(format!("the saved history does not read back: {error}")))
    }
    /// Steps taken.
    fn steps(&self) -> u64 {
        self.curves.get(LOSS).map_or(0, |curve| curve.len() as u64)
    }
    /// Mean of a curve over the last tenth of the steps.
    pub fn last(&self, name: &str) -> Option<f64> {
        let curve = self.curves.get(name).filter(|curve| !curve.is_empty())?;
        let tail = &curve[curve.len() - curve.len().div_ceil(10)..];
        Some(tail.iter().sum::<f64>() / tail.len() as f64)
    }
}

/// A training that came to its end.
pub(crate) struct Finished {
    pub policy: Policy,
    pub history: History,
    pub total_steps: u64,
    pub epochs: f64,
    pub warmup_steps: u64,
    /// Tokens read, repeats counted.
    pub tokens: u64,
}

/// Learns until the course is over, going on from the newest checkpoint if there is one.
///
/// # Errors
/// `train/diverged` if the loss or a gradient is no number; class `cancelled`, after a save; those of the maths.
pub(crate) fn run(
    ctx: &Context,
    settings: &Settings,
    mut course: Course,
    policy: Policy,
    lesson: &dyn Lesson,
) -> Result<Finished, Failure> {
    let total_steps = course.total_steps;
    let mut session = Session {
        ctx,
        settings,
        trainer: Trainer::new(policy, settings.trainer(total_steps)),
        history: History { fingerprint: settings.fingerprint(course.rows(), total_steps), ..History::default() },
        total_tokens: course.tokens_until(total_steps),
        learning: Duration::ZERO,
        learned_tokens: 0,
        last_save: (Instant::now(), Duration::ZERO),
    };
    let steps_per_epoch = course.steps_per_epoch;
    let is_measured = |step: u64| is_measured(step, total_steps, steps_per_epoch, settings.eval_steps);
    let restored = session.restore(total_steps, &is_measured)?;
    let mut done = course.tokens_until(session.trainer.steps());
    loop {
        let step = session.trainer.steps();
        if is_measured(step) {
            session.measure(step, lesson)?;
        }
        if step == total_steps {
            break;
        }
        done += session.step(&course.batch(step), done, lesson)?;
        session.save_if_due(lesson)?;
    }
    if settings.reads_no_length() && restored != Some(total_steps) {
        session.save(lesson)?; // for who goes further one day
    }
    Ok(Finished {
        policy: session.trainer.into_policy(),
        history: session.history,
        total_steps,
        epochs: course.epochs(),
        warmup_steps: settings.warmup(total_steps),
        tokens: done,
    })
}

/// Before the first step, after the last, and every `eval_steps` or every epoch between.
fn is_measured(step: u64, total_steps: u64, steps_per_epoch: u64, eval_steps: Option<u64>) -> bool {
    step == 0 || step == total_steps || step.is_multiple_of(eval_steps.unwrap_or(steps_per_epoch))
}

struct Session<'a> {
    ctx: &'a Context<'a>,
    settings: &'a Settings,
    trainer: Trainer,
    history: History,
    total_tokens: u64,
    /// Time and tokens of this attempt's steps.
    learning: Duration,
    learned_tokens: u64,
    /// When the last save ended, and how long it took.
    last_save: (Instant, Duration),
}

impl Session<'_> {
    /// Goes on from the state that came furthest without passing the end; returns its step. One of other settings is left
    /// alone: what it would give is not what was asked.
    fn restore(&mut self, total_steps: u64, is_measured: &dyn Fn(u64) -> bool) -> Result<Option<u64>, Failure> {
        let reach = |folder: &Path| {
            let history = History::read(folder).ok()?;
            (history.fingerprint == self.history.fingerprint)
                .then(|| history.steps())
                .filter(|steps| *steps <= total_steps)
        };
        let Some(checkpoint) = self.ctx.restore_where(&reach)? else { return Ok(None) };
        self.history = History::read(&checkpoint.folder)?;
        // Who went less far also measured at its own end.
        self.history.evals.retain(|(step, _)| is_measured(*step));
        self.trainer.restore(&checkpoint.folder).map_err(failure)?;
        Ok(Some(self.trainer.steps()))
    }

    fn save(&mut self, lesson: &dyn Lesson) -> Result<(), Failure> {
        let start = Instant::now();
        let history = serde_json::to_vec(&self.history).map_err(|error| Failure::bug(error.to_string()))?;
        self.ctx.save(|folder| {
            self.trainer.save(folder).map_err(failure)?;
            lesson.save(folder)?;
            let path = folder.join(HISTORY_FILE);
            std::fs::write(&path, &history).map_err(|error| Failure::io("writing", &path, &error))
        })?;
        self.last_save = (Instant::now(), start.elapsed());
        Ok(())
    }

    fn save_if_due(&mut self, lesson: &dyn Lesson) -> Result<(), Failure> {
        let (last, cost) = self.last_save;
        let by_time = last.elapsed() >= SAVE_EVERY.max(cost * SAVE_SHARE);
        let by_steps = self.settings.save_steps.is_some_and(|every| self.trainer.steps().is_multiple_of(every));
        if by_time || by_steps { self.save(lesson) } else { Ok(()) }
    }

    /// Stops as asked, the state of the last whole step saved.
    fn stop(&mut self, lesson: &dyn Lesson) -> Failure {
        self.save(lesson).err().unwrap_or_else(Failure::cancelled)
    }

    fn measure(&mut self, step: u64, lesson: &dyn Lesson) -> Result<(), Failure> {
        if self.history.evals.last().is_some_and(|(last, _)| *last == step) {
            return Ok(());
        }
        let ctx = self.ctx;
        match lesson.measure(&self.trainer, &mut |_| !ctx.cancelled()) {
            Ok(Some(loss)) => {
                ctx.measured("eval_loss", loss, Some(step));
                self.history.evals.push((step, loss));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(ModelError::Cancelled) => Err(self.stop(lesson)),
            Err(error) => Err(failure(error)),
        }
    }

    /// One step; returns its tokens. `done` counts those before it.
    fn step(&mut self, rows: &[usize], done: u64, lesson: &dyn Lesson) -> Result<u64, Failure> {
        let (ctx, total, start) = (self.ctx, self.total_tokens, Instant::now());
        let mut tokens = 0;
        if ctx.cancelled() {
            return Err(self.stop(lesson));
        }
        let learned = lesson.step(&mut self.trainer, rows, &mut |pass| {
            tokens += pass as u64;
            ctx.progress(done + tokens, Some(total), "tokens");
            !ctx.cancelled()
        });
        let learned = match learned {
            Ok(learned) => learned,
            Err(ModelError::Cancelled) => return Err(self.stop(lesson)),
            Err(error) => return Err(failure(error)),
        };
        self.learning += start.elapsed();
        self.learned_tokens += tokens;
        self.record(&learned)?;
        Ok(tokens)
    }

    fn record(&mut self, learned: &Learned) -> Result<(), Failure> {
        let Stepped { loss, grad_norm, rate } = learned.stepped;
        if !learned.stepped.is_finite() {
            let step = self.trainer.steps() + 1;
            let message = format!("training diverged at step {step}: loss {loss}, gradient norm {grad_norm}");
            let lower = self.settings.learning_rate / 4.0;
            return Err(Failure::input("train/diverged", message)
                .param("learning_rate")
                .help(format!("lower the rate: `learning_rate: {lower:e}`, or warm up longer")));
        }
        let step = self.trainer.steps();
        let figures = [(LOSS, loss), ("grad_norm", grad_norm), ("learning_rate", rate)];
        for (name, value) in figures.into_iter().chain(learned.figures.iter().copied()) {
            self.ctx.measured(name, value, Some(step));
            self.history.curves.entry(name.to_owned()).or_default().push(value);
        }
        let seconds = self.learning.as_secs_f64();
        if seconds > 0.0 {
            self.ctx.measured("tokens_per_second", self.learned_tokens as f64 / seconds, Some(step));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use llmflow_model::training::Example;

    use super::*;
    use crate::{
        model::toy,
        testing::TestHost,
        train::{
            adapter::Student,
            settings::{Scheduler, Targets},
        },
    };

    pub(crate) fn settings() -> Settings {
        Settings {
            batch_size: 2,
            epochs: 1.0,
            max_steps: None,
            learning_rate: 1e-2,
            scheduler: Scheduler::Constant,
            warmup_ratio: 0.0,
            warmup_steps: None,
            optimizer: Default::default(),
            max_grad_norm: 1.0,
            eval_steps: None,
            save_steps: None,
        }
    }

    #[test]
    fn a_longer_run_may_go_on_from_a_shorter_one_only_where_the_rate_does_not_read_the_length() {
        let longer = |settings: &Settings| settings.fingerprint(10, 5) == settings.fingerprint(10, 9);
        assert!(longer(&settings()));
        assert!(longer(&Settings { warmup_steps: Some(3), ..settings() }));
        assert!(!longer(&Settings { warmup_ratio: 0.1, ..settings() }));
        assert!(!longer(&Settings { scheduler: Scheduler::Linear, ..settings() }));
    }

    /// Whose loss is no number at the third step.
    struct Diverging;

    impl Lesson for Diverging {
        fn step(&self, trainer: &mut Trainer, _: &[usize], on_pass: &mut OnPass) -> Result<Learned, ModelError> {
            let example = Example { ids: vec![1, 2, 3], loss_mask: vec![true; 3] };
            let mut stepped = trainer.step(&[&example], on_pass)?;
            if trainer.steps() == 3 {
                stepped.loss = f64::NAN;
            }
            Ok(Learned { stepped, figures: Vec::new() })
        }
        fn measure(&self, _: &Trainer, _: &mut OnPass) -> Result<Option<f64>, ModelError> {
            Ok(None)
        }
    }

    #[test]
    fn a_loss_that_is_no_number_ends_the_training_and_names_the_rate() {
        let host = TestHost::new();
        let ctx = host.context();
        let settings = Settings { epochs: 4.0, ..settings() };
        let student = Student::open(&toy::model(&host)).unwrap();
        let policy = student.adapted(&ctx, &Targets::default(), 2, 4.0);
        let course = Course::new(&ctx, &settings, vec![3; 4]).unwrap();
        let failure = run(&ctx, &settings, course, policy, &Diverging).err().unwrap();
        assert_eq!((failure.code.as_str(), failure.param.as_deref()), ("train/diverged", Some("learning_rate")));
        assert!(failure.help.unwrap().contains("learning_rate: 2.5e-3"));
    }

    #[test]
    fn rows_held_out_are_measured_first_last_and_every_epoch() {
        let at = |eval_steps| (0..=10).filter(|step| is_measured(*step, 10, 4, eval_steps)).collect::<Vec<_>>();
        assert_eq!(at(None), [0, 4, 8, 10]);
        assert_eq!(at(Some(5)), [0, 5, 10]);
    }
}
