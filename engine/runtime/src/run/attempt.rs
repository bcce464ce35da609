//! Attempts: what workers report, retries, timeouts, stopping.

use std::time::Duration;

use llmflow_contract::{Class, Failure};
use tokio::time::Instant;

use super::{
    engine::Engine,
    message::FromWorker,
    pool::{self, Report, WorkerId},
    state::State,
};
use crate::{event::What, pipeline::LONGEST_BACKOFF, store};

/// How long a cancelled or timed-out worker may take to save before it is killed.
const GRACE: Duration = Duration::from_secs(20);

impl Engine {
    pub(super) async fn hear(&mut self, worker: WorkerId, report: Report) -> Result<(), Failure> {
        let Some(index) = self.working.get(&worker).copied() else {
            if matches!(report, Report::Gone) {
                self.pool.end(worker).await;
            }
            return Ok(());
        };
        match report {
            Report::Printed(lines) => {
                let stage = &self.plan.stages[index].def.id;
                pool::append_log(self.place.home.log(&self.run, stage.as_str(), self.attempts[index]), &lines);
                for message in lines {
                    self.emit(Some(index), What::Log { level: "info".into(), message });
                }
                Ok(())
            }
            Report::Gone => {
                let failure = match self.ending(index) {
                    Some(class) => ended_by(class),
                    None => self.pool.autopsy(worker).await,
                };
                self.fail(index, self.with_prospect(index, failure));
                Ok(())
            }
            Report::Said(message) => self.heed(index, worker, message).await,
        }
    }

    async fn heed(&mut self, index: usize, worker: WorkerId, message: FromWorker) -> Result<(), Failure> {
        match message {
            FromWorker::Progress(progress) => self.emit(Some(index), What::Progress(progress)),
            FromWorker::Metric { name, value, step, reproducible } => {
                self.emit(Some(index), What::Metric { name, value, step, reproducible });
            }
            FromWorker::Checkpoint => {
                self.saved.insert(index);
                self.emit(Some(index), What::Checkpoint);
            }
            FromWorker::Restored => {
                self.saved.insert(index);
                self.emit(Some(index), What::Restored);
            }
            FromWorker::Hello(_) | FromWorker::Serving(_) => {}
            FromWorker::Done(record) => {
                self.note_time(index);
                self.pool.free(worker).await;
                self.succeed(index, record.into(), false).await?;
                if self.stale.remove(&index) {
                    self.remake(index);
                }
            }
            FromWorker::Failed(failure) => {
                let ending = self.ending(index);
                self.pool.end(worker).await;
                if store::is_damage(&failure) && self.remake_inputs(index).await? {
                    return Ok(());
                }
                let failure = match (failure.class, ending) {
                    (Class::Cancelled, Some(class)) => self.with_prospect(index, ended_by(class)),
                    _ => failure,
                };
                self.fail(index, failure);
            }
        }
        Ok(())
    }

    /// What a stage reads turned out damaged, and is out of the way by now: those who made it make it anew, then the stage
    /// tries again. Says whether there was anything to make.
    async fn remake_inputs(&mut self, index: usize) -> Result<bool, Failure> {
        /// A result that is damaged more often than this is not the fault of what is stored.
        const TIMES: u32 = 3;
        let needs: Vec<usize> = self.plan.stages[index].needs.iter().map(|need| *need as usize).collect();
        let (mut gone, mut is_awaited) = (Vec::new(), false);
        for need in needs {
            is_awaited |= !self.states[need].is_over(); // another that reads it found out first
            let Some(key) = self.states[need].result().and_then(|finished| finished.key) else { continue };
            if self.place.store.key_record(&key).await?.is_none() {
                gone.push(need);
            }
        }
        if (gone.is_empty() && !is_awaited)
            || gone.iter().any(|need| self.remade.get(need).is_some_and(|remade| remade.times >= TIMES))
        {
            return Ok(false);
        }
        self.note_time(index);
        self.set(index, State::Waiting);
        for need in gone {
            self.remake(need);
            self.say_remade(need);
        }
        Ok(true)
    }

    /// As what a running attempt was asked to end.
    fn ending(&self, index: usize) -> Option<Class> {
        match &self.states[index] {
            State::Running(attempt) => attempt.ending.map(|(_, class)| class),
            _ => None,
        }
    }

    /// The failure of a running attempt that was cut short; its help says what the next one can go on from.
    fn with_prospect(&self, index: usize, mut failure: Failure) -> Failure {
        if self.saved.contains(&index) {
            failure.help = failure.help.map(|help| format!("{help}; the next attempt goes on from the checkpoint"));
        }
        failure
    }

    fn note_time(&mut self, index: usize) {
        if let State::Running(attempt) = &self.states[index] {
            self.seconds[index] += attempt.since.elapsed().as_secs_f64();
        }
    }

    /// An attempt ended badly: again after a pause if `retry` says so, else the stage failed.
    fn fail(&mut self, index: usize, failure: Failure) {
        let failure = self.place.home.with_free_space(failure);
        self.note_time(index);
        if failure.class == Class::Cancelled {
            return self.set(index, State::Interrupted);
        }
        let is_asked_to_stop = self.cancel.requests() > 0;
        if self.stale.remove(&index) && !is_asked_to_stop {
            self.emit(Some(index), What::Failed { failure, retry_in_ms: Some(0) }); // with what is there no more
            self.set(index, State::Waiting);
            return self.due.push_back(index);
        }
        self.tries[index] += 1;
        let (retry, tries) = (&self.plan.stages[index].def.shared.retry, self.tries[index]);
        let is_listed = retry.on.iter().any(|name| name == failure.class.name());
        if !is_listed || tries >= retry.attempts || is_asked_to_stop {
            return self.set(index, State::Failed(failure));
        }
        let doublings = (tries - 1).min(10);
        let pause = match failure.class {
            Class::Transient { after: Some(after) } => after,
            _ => retry.backoff.saturating_mul(2u32.pow(doublings)),
        };
        let pause = pause.min(LONGEST_BACKOFF);
        let is_ready = self.unmet[index] == 0; // else something it reads is being made again
        let (until, told) = (Instant::now() + pause, failure.clone());
        self.set(index, if is_ready { State::Pausing { until, failure } } else { State::Waiting });
        self.emit(Some(index), What::Failed { failure: told, retry_in_ms: Some(pause.as_millis() as u64) });
    }

    /// First request: every worker saves and stops. Second: all are killed.
    pub(super) async fn stop(&mut self, requests: u8) -> Result<(), Failure> {
        let working: Vec<(WorkerId, usize)> = self.working.iter().map(|(worker, index)| (*worker, *index)).collect();
        for (worker, index) in working {
            if requests < 2 {
                self.ask_to_end(worker, index, Class::Cancelled).await;
            } else {
                self.pool.end(worker).await;
                self.note_time(index);
                self.set(index, State::Interrupted);
            }
        }
        Ok(())
    }

    async fn ask_to_end(&mut self, worker: WorkerId, index: usize, class: Class) {
        self.pool.cancel(worker).await;
        if let State::Running(attempt) = &mut self.states[index] {
            attempt.ending = Some((Instant::now(), class));
        }
    }

    /// Enforces `timeout`, ends workers that do not stop when asked, and pauses that are over.
    pub(super) async fn watch_clocks(&mut self) -> Result<(), Failure> {
        let working: Vec<(WorkerId, usize)> = self.working.iter().map(|(worker, index)| (*worker, *index)).collect();
        for (worker, index) in working {
            let State::Running(attempt) = &self.states[index] else { continue };
            match attempt.ending {
                Some((asked, class)) if asked.elapsed() > GRACE => {
                    self.pool.end(worker).await;
                    self.fail(index, self.with_prospect(index, ended_by(class)));
                }
                None if self.plan.stages[index]
                    .def
                    .shared
                    .timeout
                    .is_some_and(|limit| attempt.since.elapsed() > limit) =>
                {
                    self.ask_to_end(worker, index, Class::Timeout).await;
                }
                _ => {}
            }
        }
        self.look_elsewhere().await?;
        while let Some(index) = self.turns.pause_over(Instant::now()) {
            self.queue(index);
        }
        Ok(())
    }
}

/// The failure of an attempt that was asked to end.
fn ended_by(class: Class) -> Failure {
    match class {
        Class::Timeout => {
            Failure::new(Class::Timeout, "stage/timeout", "it ran longer than its `timeout`").help("raise `timeout`")
        }
        _ => Failure::cancelled(),
    }
}
