//! Which ready stages start now, and on what: a pure function of what is ready, what runs, and what is free.
//!
//! Owns: leases of cores, memory and GPUs; the order of starts. Has no clock: the caller says what time it is.
//! Must not know: what a stage does, how it is carried out. Start at [`Scheduler::next`].
//!
//! The longest path of work goes first. The most urgent stage that does not fit holds a reservation: a less urgent one
//! may pass it only where it cannot be delayed by that, so wide stages are never starved by narrow ones.
//! Of the last few stages, where all times are known, the whole order is searched for instead ([`foresight`]), until one
//! of them is late.
//! Source: Mu'alem and Feitelson 2001, "EASY" backfilling; what passes by resources alone is counted against the
//! reservation until it ends, so that wrong estimates of time cannot starve either.

mod foresight;
mod queue;
mod reservation;
mod room;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use llmflow_contract::{Gpus, Lease};

use foresight::Search;
pub use foresight::{Ahead, FORESEEN};
use queue::Ready;
use reservation::{Pass, Reservation};
use room::{Hold, Room};

/// How many kinds of ready stages one call looks at: those of one kind ask for the same, so there are few kinds.
const LOOK: usize = 64;

/// A stage is late when it has taken longer than it did before by the time it took, divided by this.
const PATIENCE: u32 = 4;

/// The end of a stage of which nothing is known.
const UNKNOWN: Duration = Duration::MAX;

/// What may be in use at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub cores: u32,
    pub memory_bytes: u64,
    /// Memory of each GPU, by its ordinal.
    pub gpus: Vec<u64>,
    /// Stages at once (`--jobs`).
    pub jobs: u32,
    /// Stages at once of each group (`max_parallel`).
    pub groups: Vec<u32>,
}

/// A stage that could start: all it reads exists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub index: usize,
    /// What is more than the machine has counts as all of it: such a stage runs alone.
    pub cores: u32,
    pub memory_bytes: u64,
    /// `memory_bytes` of 0: not known, so each GPU is taken whole. Otherwise others may share it.
    pub gpus: Gpus,
    /// Whose limit it counts against, in [`Capacity::groups`].
    pub group: Option<usize>,
    /// Length of the longest path of work behind it, itself included: higher goes first.
    pub urgency: f64,
    /// How long it took before.
    pub expected: Option<Duration>,
}

/// No machine state will ever let the stage start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} GPUs are wanted where {fitting} would serve")]
pub struct TooFewGpus {
    pub wanted: u32,
    /// GPUs with as much memory as is wanted.
    pub fitting: u32,
}

/// What runs, what waits, and what is free.
#[derive(Debug)]
pub struct Scheduler {
    whole: Room,
    free: Room,
    ready: Ready,
    /// By expected end.
    running: BTreeMap<(Duration, usize), Running>,
    ends: HashMap<usize, Duration>,
    /// All stages that have not ended, where they are few.
    ahead: Vec<Ahead>,
    /// What is best started now, the first last: none before it is asked for, and once anything has changed.
    foreseen: Option<Foreseen>,
}

/// What a search came to.
#[derive(Debug)]
enum Foreseen {
    Starts(Vec<(usize, Hold)>),
    /// The time that something takes is not known.
    Nothing,
}

#[derive(Debug)]
struct Running {
    hold: Hold,
    expected: Duration,
    group: Option<usize>,
    /// The reservation it was let past on the word that it takes nothing of it.
    beside: Option<usize>,
}

impl Scheduler {
    pub fn new(capacity: Capacity) -> Self {
        let whole = Room::new(&capacity);
        Self {
            free: whole.clone(),
            whole,
            ready: Ready::new(capacity.groups),
            running: BTreeMap::new(),
            ends: HashMap::new(),
            ahead: Vec::new(),
            foreseen: None,
        }
    }

    /// Says which stages have not ended, and what each still waits for; nothing while they are more than [`FORESEEN`].
    pub fn expect(&mut self, ahead: Vec<Ahead>) {
        if self.ahead != ahead {
            self.ahead = ahead;
            self.foreseen = None;
        }
    }

    /// The GPUs are these, with so much memory each; none was held so far.
    pub fn find_gpus(&mut self, memory: &[u64]) {
        self.whole.find_gpus(memory);
        self.free.find_gpus(memory);
        self.foreseen = None;
    }

    /// Adds a stage that could start.
    ///
    /// # Errors
    /// [`TooFewGpus`] if the machine can never serve it; it is not added.
    pub fn push(&mut self, candidate: Candidate) -> Result<(), TooFewGpus> {
        let candidate = self.whole.clamp(candidate);
        let fitting = self.whole.serving(&candidate.gpus).count() as u32;
        if fitting < candidate.gpus.min {
            return Err(TooFewGpus { wanted: candidate.gpus.min, fitting });
        }
        self.ready.push(candidate);
        self.foreseen = None;
        Ok(())
    }

    /// Takes back a stage that was added and has not started, if it is one.
    pub fn withdraw(&mut self, index: usize) {
        self.ready.withdraw(index);
        self.foreseen = None;
    }

    /// The next stage to start, and what it may use; call again until there is none. `now` runs from any fixed moment.
    ///
    /// Costs as much as there are kinds of ready stages, at most [`LOOK`], and stages that run: not as there are ready.
    pub fn next(&mut self, now: Duration) -> Option<(usize, Lease)> {
        if !self.free.has_slot() {
            return None;
        }
        if matches!(self.foreseen, Some(Foreseen::Starts(_))) && self.is_late(now) {
            self.foreseen = Some(Foreseen::Nothing); // nobody waits for what is late
        }
        if self.foreseen.is_none() {
            self.foreseen = Some(self.foresee(now).map_or(Foreseen::Nothing, Foreseen::Starts));
        }
        if let Some(Foreseen::Starts(starts)) = &mut self.foreseen {
            let (index, hold) = starts.pop()?;
            let candidate = *self.ready.all().find(|candidate| candidate.index == index)?;
            let for_gpus = self.ahead.iter().filter(|stage| stage.candidate.gpus.max > 0).count();
            let is_alone = candidate.gpus.max > 0 && for_gpus == 1;
            let hold = if is_alone { self.free.hold(&candidate, candidate.gpus.max) } else { hold };
            return self.start(&candidate, hold, None, now);
        }
        let mut reservation: Option<Reservation> = None;
        let mut beside = None;
        let found = self.ready.heads().take(LOOK).find_map(|head| {
            if !self.free.fits(head) {
                reservation.get_or_insert_with(|| self.reserve(head, now));
                return None;
            }
            let is_alone = reservation.is_none() && self.ready.waiting_for_gpus() == 1;
            let hold = self.free.hold(head, if is_alone { head.gpus.max } else { head.gpus.min });
            if let Some(reservation) = &reservation
                && reservation.pass(head, &hold, now)? == Pass::Beside
            {
                beside = Some(reservation.index());
            }
            Some((*head, hold))
        });
        let (candidate, hold) = found?;
        self.start(&candidate, hold, beside, now)
    }

    /// What the shortest way to the end starts now, the first last. None while the time that something takes is not known,
    /// or something takes longer than it is known to.
    fn foresee(&self, now: Duration) -> Option<Vec<(usize, Hold)>> {
        if self.ahead.is_empty() || self.ahead.len() > FORESEEN || self.is_late(now) {
            return None;
        }
        let ready: HashMap<usize, &Candidate> =
            self.ready.all().map(|candidate| (candidate.index, candidate)).collect();
        let mut ahead = self.ahead.clone();
        for stage in &mut ahead {
            let index = stage.candidate.index;
            stage.candidate = match ready.get(&index) {
                Some(candidate) => **candidate,
                None => self.whole.clamp(stage.candidate),
            };
            // One that pauses or is worked on elsewhere comes at a time that nobody knows.
            let is_known = ready.contains_key(&index) || self.ends.contains_key(&index) || !stage.needs.is_empty();
            if !is_known || !self.whole.fits(&stage.candidate) {
                return None;
            }
        }
        let running: Vec<(usize, Duration, Hold)> = self
            .running
            .iter()
            .map(|((end, index), running)| (*index, end.saturating_sub(now), running.hold.clone()))
            .collect();
        if self.ends.values().any(|end| *end == UNKNOWN) {
            return None;
        }
        let mut starts = Search::new(&ahead, &running, &self.free, &self.whole, self.ready.slots())?.best_starts();
        starts.reverse();
        Some(starts)
    }

    /// Does anything that runs take so much longer than it did before that nothing should wait for it?
    fn is_late(&self, now: Duration) -> bool {
        self.running.iter().any(|((end, _), running)| now > end.saturating_add(running.expected / PATIENCE))
    }

    fn start(
        &mut self,
        candidate: &Candidate,
        hold: Hold,
        beside: Option<usize>,
        now: Duration,
    ) -> Option<(usize, Lease)> {
        let candidate = self.ready.take(candidate)?;
        let index = candidate.index;
        self.free.take(&hold);
        let lease = hold.lease();
        let expected = candidate.expected.unwrap_or(UNKNOWN);
        let end = now.saturating_add(expected);
        self.running.insert((end, index), Running { hold, expected, group: candidate.group, beside });
        self.ends.insert(index, end);
        Some((index, lease))
    }

    /// A stage that was started has ended, however it did.
    pub fn finished(&mut self, index: usize) {
        self.foreseen = None;
        let end = self.ends.remove(&index);
        if let Some(running) = end.and_then(|end| self.running.remove(&(end, index))) {
            self.free.give(&running.hold);
            self.ready.left(running.group);
        }
    }

    /// When and beside what a stage that does not fit now will.
    fn reserve(&self, candidate: &Candidate, now: Duration) -> Reservation {
        let ends = self.running.iter().map(|((end, _), running)| (*end, running));
        Reservation::new(candidate, &self.free, ends, now)
    }
}

/// Urgency of every stage: its own seconds plus the most urgent one behind it. `order` is topological.
pub fn urgencies(order: &[u32], needs: &[impl AsRef<[u32]>], seconds: &[f64]) -> Vec<f64> {
    let mut urgency = seconds.to_vec();
    for stage in order.iter().rev().map(|stage| *stage as usize) {
        for need in needs[stage].as_ref().iter().map(|need| *need as usize) {
            urgency[need] = urgency[need].max(seconds[need] + urgency[stage]);
        }
    }
    urgency
}
