//! Whose turn it is: the right to work on a key, and who waits for that, or for a pause to end.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use llmflow_contract::Digest;
use nix::sys::resource::{Resource, getrlimit};
use tokio::time::Instant;

use super::state::{Holder, State};
use crate::store::Claim;

/// More stages than this are never queued at once.
const MOST_CLAIMS: usize = 1 << 16;

/// The claims of stages that may work, and an index of those that may not yet: it follows their states and decides nothing.
#[derive(Debug)]
pub(super) struct Turns {
    /// Of each stage that is queued, running or pausing.
    claims: HashMap<usize, (Digest, Claim)>,
    most_claims: usize,
    /// Keys that stages of this run are at, and the stages that are held by that.
    at: HashMap<Digest, BTreeSet<usize>>,
    elsewhere: BTreeSet<usize>,
    /// Most urgent first.
    crowd: BTreeSet<(Reverse<u64>, usize)>,
    pausing: BTreeSet<(Instant, usize)>,
}

impl Turns {
    pub fn new() -> Self {
        Self {
            claims: HashMap::new(),
            most_claims: most_claims(),
            at: HashMap::new(),
            elsewhere: BTreeSet::new(),
            crowd: BTreeSet::new(),
            pausing: BTreeSet::new(),
        }
    }

    /// Is another stage of this run at this key?
    pub fn is_taken(&self, key: &Digest) -> bool {
        self.at.contains_key(key)
    }

    /// Are as many stages at their keys as may be?
    pub fn is_full(&self) -> bool {
        self.claims.len() >= self.most_claims
    }

    /// A stage may work on its key, which no other stage of this run is at.
    pub fn take(&mut self, index: usize, key: Digest, claim: Claim) {
        self.at.insert(key, BTreeSet::new());
        self.claims.insert(index, (key, claim));
    }

    /// A stage went from one state to another. Returns the stages that this lets go on.
    pub fn follow(&mut self, index: usize, urgency: f64, was: &State, is: &State) -> BTreeSet<usize> {
        let rank = Reverse(urgency.to_bits());
        match was {
            State::Held(Holder::Stage(key)) => {
                self.at.get_mut(key).map(|held| held.remove(&index));
            }
            State::Held(Holder::Run { .. }) => {
                self.elsewhere.remove(&index);
            }
            State::Held(Holder::Crowd) => {
                self.crowd.remove(&(rank, index));
            }
            State::Pausing { until, .. } => {
                self.pausing.remove(&(*until, index));
            }
            _ => {}
        }
        match is {
            State::Held(Holder::Stage(key)) => {
                self.at.entry(*key).or_default().insert(index);
            }
            State::Held(Holder::Run { .. }) => {
                self.elsewhere.insert(index);
            }
            State::Held(Holder::Crowd) => {
                self.crowd.insert((rank, index));
            }
            State::Pausing { until, .. } => {
                self.pausing.insert((*until, index));
            }
            _ => {}
        }
        if is.has_claim() {
            return BTreeSet::new();
        }
        let given_back = self.claims.remove(&index);
        given_back.and_then(|(key, _)| self.at.remove(&key)).unwrap_or_default()
    }

    /// The first of those that wait for fewer stages to be at their keys, once there is room for it.
    pub fn next_of_crowd(&self) -> Option<usize> {
        let (_, next) = self.crowd.first().filter(|_| !self.is_full())?;
        Some(*next)
    }

    /// Those whose key another run is at.
    pub fn elsewhere(&self) -> Vec<usize> {
        self.elsewhere.iter().copied().collect()
    }

    /// One whose pause is over.
    pub fn pause_over(&self, now: Instant) -> Option<usize> {
        let (_, index) = self.pausing.first().filter(|(until, _)| *until <= now)?;
        Some(*index)
    }

    /// Does nobody wait for another run, or for a pause to end?
    pub fn is_idle(&self) -> bool {
        self.pausing.is_empty() && self.elsewhere.is_empty()
    }
}

/// How many claims are held at once: each is an open file, and the rest of the run needs some, too.
fn most_claims() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft);
    usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(1, MOST_CLAIMS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use llmflow_contract::Failure;

    use super::*;
    use crate::store::Store;

    const WAITING: State = State::Waiting;

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn pausing(until: Instant) -> State {
        State::Pausing { until, failure: Failure::cancelled() }
    }

    fn take(turns: &mut Turns, index: usize, key: Digest) {
        let store = Store::open("memory://turns").unwrap();
        turns.take(index, key, store.claim(&key).unwrap().unwrap());
        turns.follow(index, 1.0, &WAITING, &State::Queued);
    }

    #[test]
    fn those_at_the_same_key_go_on_once_the_first_gives_it_back() {
        let mut turns = Turns::new();
        take(&mut turns, 0, key("a"));
        let held = State::Held(Holder::Stage(key("a")));
        for index in [1, 2, 3] {
            assert!(turns.is_taken(&key("a")));
            turns.follow(index, 1.0, &WAITING, &held);
        }
        turns.follow(2, 1.0, &held, &WAITING); // what it reads is made anew
        let pausing = pausing(Instant::now());
        assert!(turns.follow(0, 1.0, &State::Queued, &pausing).is_empty(), "it will try again");
        assert_eq!(turns.follow(0, 1.0, &pausing, &State::Interrupted), BTreeSet::from([1, 3]));
        assert!(!turns.is_taken(&key("a")));
    }

    #[test]
    fn the_most_urgent_of_the_crowd_is_next_once_there_is_room() {
        let mut turns = Turns { most_claims: 1, ..Turns::new() };
        take(&mut turns, 0, key("a"));
        let crowd = State::Held(Holder::Crowd);
        for (index, urgency) in [(1, 1.0), (2, 5.0), (3, 2.0)] {
            turns.follow(index, urgency, &WAITING, &crowd);
        }
        assert_eq!(turns.next_of_crowd(), None, "as many as may be are at their keys");
        turns.follow(0, 1.0, &State::Queued, &State::Interrupted);
        assert_eq!(turns.next_of_crowd(), Some(2));
        turns.follow(2, 5.0, &crowd, &WAITING);
        assert_eq!(turns.next_of_crowd(), Some(3));
    }

    #[test]
    fn a_run_is_idle_once_nobody_pauses_or_waits_for_another_run() {
        let (mut turns, now) = (Turns::new(), Instant::now());
        let (early, late) = (pausing(now), pausing(now + Duration::from_secs(60)));
        let elsewhere = State::Held(Holder::Run { since: now, is_told: false });
        turns.follow(1, 1.0, &State::Queued, &late);
        turns.follow(2, 1.0, &State::Queued, &early);
        turns.follow(3, 1.0, &WAITING, &elsewhere);
        assert_eq!((turns.pause_over(now), turns.elsewhere()), (Some(2), vec![3]));
        turns.follow(2, 1.0, &early, &State::Queued);
        assert_eq!(turns.pause_over(now), None);
        turns.follow(3, 1.0, &elsewhere, &State::Queued);
        assert!(!turns.is_idle());
        turns.follow(1, 1.0, &late, &State::Interrupted);
        assert!(turns.is_idle());
    }
}
