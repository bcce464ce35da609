//! The best order of the last few stages, by search: it may be right that one which could start waits for another.
//!
//! Depth first with bounds over every schedule in which a stage starts where another ends (Sprecher, Kolisch and Drexl
//! 1995: one of these is the shortest), the most urgent first; at most [`LOOKS`] steps, so that no start waits long for it.

use std::time::Duration;

use llmflow_contract::Gpus;

use super::{
    Candidate,
    room::{Hold, Room},
};

/// Of no more stages than this is the order searched for.
pub const FORESEEN: usize = 8;

/// Steps of one search. What is best by then is taken.
const LOOKS: u32 = 10_000;

/// A stage of which nothing has ended yet, and the stages it still waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Ahead {
    pub candidate: Candidate,
    pub needs: Vec<usize>,
}

/// A stage as the search sees it; times are in microseconds from now.
#[derive(Clone, Debug)]
pub(super) struct Left {
    candidate: Candidate,
    takes: u64,
    /// The longest path behind it, itself included.
    path: u64,
    /// A bit for each stage it waits for, by its place among those left.
    needs: u32,
    /// One before it, alike in everything, that may as well start first.
    twin: Option<usize>,
    end: Option<u64>,
}

/// What is left, what is free, and the shortest way through found so far.
pub(super) struct Search {
    /// The longest path first, so every stage stands behind those it needs.
    left: Vec<Left>,
    free: Room,
    whole: Room,
    /// How many more of each group may start.
    slots: Vec<u32>,
    running: Vec<(u64, usize, Hold)>,
    now: u64,
    /// What starts at once in the schedule that is looked at.
    first: Vec<(usize, Hold)>,
    best: u64,
    best_first: Vec<(usize, Hold)>,
    looks: u32,
}

impl Search {
    /// `running`: the index of each stage that runs, in how long it ends, and what it holds. None if the time that some
    /// stage takes is not known.
    pub(super) fn new(
        ahead: &[Ahead],
        running: &[(usize, Duration, Hold)],
        free: &Room,
        whole: &Room,
        slots: Vec<u32>,
    ) -> Option<Self> {
        let mut left = left(ahead)?;
        let place = |index: usize, left: &[Left]| left.iter().position(|stage| stage.candidate.index == index);
        let mut at_work = Vec::new();
        for (index, rest, hold) in running {
            let at = place(*index, &left)?;
            let end = micros(*rest).max(1);
            left[at].end = Some(end);
            at_work.push((end, at, hold.clone()));
        }
        Some(Self {
            left,
            free: free.clone(),
            whole: whole.clone(),
            slots,
            running: at_work,
            now: 0,
            first: Vec::new(),
            best: u64::MAX,
            best_first: Vec::new(),
            looks: LOOKS,
        })
    }

    /// What starts now in the shortest schedule found: index and hold, in order; nothing where waiting is best.
    pub(super) fn best_starts(mut self) -> Vec<(usize, Hold)> {
        self.look(0, true);
        let index = |at: usize| self.left[at].candidate.index;
        self.best_first.iter().map(|(at, hold)| (index(*at), hold.clone())).collect()
    }

    /// Goes on from this moment: starts one of the stages from `from` on, or waits for the next end.
    fn look(&mut self, from: usize, is_first: bool) {
        if self.looks == 0 {
            return;
        }
        self.looks -= 1;
        if self.left.iter().all(|stage| stage.end.is_some()) {
            let makespan = self.running.iter().map(|(end, ..)| *end).max().unwrap_or(self.now);
            if makespan < self.best {
                self.best = makespan;
                self.best_first = self.first.clone();
            }
            return;
        }
        if self.bound() >= self.best {
            return;
        }
        for at in from..self.left.len() {
            if !self.may_start(at) {
                continue;
            }
            for hold in self.free.ways_to_hold(&self.left[at].candidate) {
                self.start(at, &hold);
                if is_first {
                    self.first.push((at, hold.clone()));
                }
                self.look(at + 1, is_first);
                if is_first {
                    self.first.pop();
                }
                self.take_back(at, &hold);
            }
        }
        self.wait();
    }

    fn may_start(&self, at: usize) -> bool {
        let stage = &self.left[at];
        let has_ended = |need: usize| self.left[need].end.is_some_and(|end| end <= self.now);
        stage.end.is_none()
            && (0..self.left.len()).all(|need| stage.needs & (1 << need) == 0 || has_ended(need))
            && stage.twin.is_none_or(|twin| self.left[twin].end.is_some())
            && stage.candidate.group.is_none_or(|group| self.slots.get(group).is_none_or(|slots| *slots > 0))
            && self.free.fits(&stage.candidate)
    }

    fn start(&mut self, at: usize, hold: &Hold) {
        let end = self.now + self.left[at].takes;
        self.left[at].end = Some(end);
        self.free.take(hold);
        self.count(at, false);
        self.running.push((end, at, hold.clone()));
    }

    fn take_back(&mut self, at: usize, hold: &Hold) {
        self.left[at].end = None;
        self.free.give(hold);
        self.count(at, true);
        self.running.retain(|(_, other, _)| *other != at);
    }

    fn count(&mut self, at: usize, is_free: bool) {
        let group = self.left[at].candidate.group;
        if let Some(slots) = group.and_then(|group| self.slots.get_mut(group)) {
            *slots = if is_free { *slots + 1 } else { *slots - 1 };
        }
    }

    /// Lets time pass to the next end.
    fn wait(&mut self) {
        let Some(next) = self.running.iter().map(|(end, ..)| *end).min() else { return };
        // What fits and is over by then could as well have started: some other branch is at least as short.
        let is_idle = |at: usize| self.may_start(at) && self.now + self.left[at].takes <= next;
        if (0..self.left.len()).any(is_idle) {
            return;
        }
        let (ended, running) = std::mem::take(&mut self.running).into_iter().partition(|(end, ..)| *end == next);
        let ended: Vec<(u64, usize, Hold)> = ended;
        self.running = running;
        let before = std::mem::replace(&mut self.now, next);
        for (_, at, hold) in &ended {
            self.free.give(hold);
            self.count(*at, true);
        }
        self.look(0, false);
        for (_, at, hold) in &ended {
            self.free.take(hold);
            self.count(*at, false);
        }
        self.now = before;
        self.running.extend(ended);
    }

    /// No schedule from here ends sooner: by paths, and by what is taken of cores, slots and GPUs over time.
    fn bound(&self) -> u64 {
        let mut bound = 0;
        let mut heads = [0; FORESEEN];
        let mut work = self.whole.no_work();
        for (at, stage) in self.left.iter().enumerate() {
            if let Some(end) = stage.end {
                (heads[at], bound) = (end, bound.max(end));
                continue;
            }
            let needs = (0..at).filter(|need| stage.needs & (1 << need) != 0);
            let starts = needs.map(|need| heads[need]).max().unwrap_or(0).max(self.now);
            heads[at] = starts + stage.takes;
            bound = bound.max(starts + stage.path);
            work.add(&self.whole.least_hold(&stage.candidate), stage.takes);
        }
        for (end, _, hold) in &self.running {
            work.add(hold, end - self.now);
        }
        bound.max(self.now + work.least_time())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX >> 8).min(u64::MAX >> 8)
}

/// Those left, the longest path first.
fn left(ahead: &[Ahead]) -> Option<Vec<Left>> {
    let takes = |stage: &Ahead| stage.candidate.expected.map(|expected| micros(expected).max(1));
    let takes: Vec<u64> = ahead.iter().map(takes).collect::<Option<_>>()?;
    let place = |index: usize| ahead.iter().position(|stage| stage.candidate.index == index);
    let needs: Vec<Vec<usize>> =
        ahead.iter().map(|stage| stage.needs.iter().filter_map(|need| place(*need)).collect()).collect();
    // Few: as many rounds as there are stages reach along every path.
    let mut paths = takes.clone();
    for _ in ahead {
        for (at, needs) in needs.iter().enumerate() {
            for need in needs {
                paths[*need] = paths[*need].max(takes[*need].saturating_add(paths[at]).min(u64::MAX >> 8));
            }
        }
    }
    let mut order: Vec<usize> = (0..ahead.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(paths[*at]), ahead[*at].candidate.index));
    let bits = |at: usize| {
        let of_need = |need: &usize| order.iter().position(|other| other == need).map_or(0, |place| 1 << place);
        needs[at].iter().map(of_need).fold(0, |bits, bit: u32| bits | bit)
    };
    let mut left: Vec<Left> = order
        .iter()
        .map(|at| Left {
            candidate: ahead[*at].candidate,
            takes: takes[*at],
            path: paths[*at],
            needs: bits(*at),
            twin: None,
            end: None,
        })
        .collect();
    for at in 0..left.len() {
        left[at].twin = (0..at).rev().find(|other| are_alike(&left, *other, at));
    }
    Some(left)
}

/// Would it make no difference which of two goes first?
fn are_alike(left: &[Left], one: usize, other: usize) -> bool {
    let asks = |stage: &Left| {
        let Candidate { cores, memory_bytes, gpus: Gpus { min, memory_bytes: on_gpus, .. }, group, .. } =
            stage.candidate;
        (cores, memory_bytes, min, on_gpus, group, stage.takes, stage.needs)
    };
    let follow = |at: usize| left.iter().map(move |stage| stage.needs >> at & 1);
    asks(&left[one]) == asks(&left[other]) && follow(one).eq(follow(other))
}
