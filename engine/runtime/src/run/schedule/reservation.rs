//! The promise to the most urgent stage that does not fit: who may start before it.

use std::time::Duration;

use super::{
    Candidate, Running, UNKNOWN,
    room::{Hold, Room},
};

/// A stage that waits for room, and what is known of the moment it gets it.
#[derive(Debug)]
pub(super) struct Reservation {
    candidate: Candidate,
    /// When it will fit, if what runs takes as long as it did before; none while that hangs on a stage never timed.
    at: Option<Duration>,
    /// What will be free when it starts, with those let past beside it still there.
    room: Room,
}

/// Why a less urgent stage may start first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// It takes nothing that the reservation needs, however long it stays.
    Beside,
    /// It will have ended by then.
    Before,
}

impl Reservation {
    /// `running` in order of expected ends; an end that has passed is expected any moment.
    pub(super) fn new<'a>(
        candidate: &Candidate,
        free: &Room,
        running: impl Iterator<Item = (Duration, &'a Running)>,
        now: Duration,
    ) -> Self {
        let mut all = free.clone();
        let mut room = free.clone();
        let mut at = None;
        for (end, running) in running {
            all.give(&running.hold);
            if at.is_none() && all.fits(candidate) {
                at = Some(end.max(now));
            }
            if running.beside != Some(candidate.index) {
                room.give(&running.hold);
                if room.fits(candidate) {
                    break;
                }
            }
        }
        Self { candidate: *candidate, at: at.filter(|at| *at < UNKNOWN), room }
    }

    pub(super) fn index(&self) -> usize {
        self.candidate.index
    }

    /// Whether a stage that would hold `hold` from `now` on may start first.
    pub(super) fn pass(&self, other: &Candidate, hold: &Hold, now: Duration) -> Option<Pass> {
        let mut left = self.room.clone();
        left.take(hold);
        if left.fits(&self.candidate) {
            return Some(Pass::Beside);
        }
        let end = now.saturating_add(other.expected?);
        self.at.is_some_and(|at| end <= at).then_some(Pass::Before)
    }
}
