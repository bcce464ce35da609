//! Which ready stages start now: a pure function of what is ready and what is free.

/// A stage that could start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub index: usize,
    pub cores: u32,
    pub memory_bytes: u64,
    /// Length of the longest path of work behind it, itself included: higher goes first.
    pub urgency: f64,
}

/// What nobody has leased.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Free {
    pub cores: u32,
    pub memory_bytes: u64,
    /// Nothing runs: then the first candidate starts even if it wants more than the machine has.
    pub is_idle: bool,
}

/// The stages to start, most urgent first.
///
/// The most urgent candidate is never passed over by less urgent ones: it would starve.
pub fn starts(mut ready: Vec<Candidate>, mut free: Free) -> Vec<usize> {
    ready.sort_by(|a, b| b.urgency.total_cmp(&a.urgency).then(a.index.cmp(&b.index)));
    let mut chosen = Vec::new();
    for candidate in ready {
        let fits = candidate.cores <= free.cores && candidate.memory_bytes <= free.memory_bytes;
        if !fits && !free.is_idle {
            break;
        }
        free.cores = free.cores.saturating_sub(candidate.cores);
        free.memory_bytes = free.memory_bytes.saturating_sub(candidate.memory_bytes);
        free.is_idle = false;
        chosen.push(candidate.index);
    }
    chosen
}

/// Urgency of every stage: its own seconds plus the most urgent one behind it. `needs` are in topological order.
pub fn urgencies(needs: &[Vec<usize>], seconds: &[f64]) -> Vec<f64> {
    let mut urgency = seconds.to_vec();
    for stage in (0..needs.len()).rev() {
        for need in &needs[stage] {
            urgency[*need] = urgency[*need].max(seconds[*need] + urgency[stage]);
        }
    }
    urgency
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: usize, cores: u32, urgency: f64) -> Candidate {
        Candidate { index, cores, memory_bytes: 1, urgency }
    }

    #[test]
    fn the_critical_path_goes_first_and_leases_never_exceed_the_machine() {
        let free = Free { cores: 2, memory_bytes: 10, is_idle: true };
        assert_eq!(starts(vec![candidate(0, 1, 1.0), candidate(1, 1, 5.0), candidate(2, 1, 3.0)], free), [1, 2]);
        assert_eq!(urgencies(&[vec![], vec![0], vec![0]], &[1.0, 2.0, 9.0]), [10.0, 2.0, 9.0]);
    }

    #[test]
    fn a_wide_stage_is_not_starved_by_narrow_ones_and_a_giant_runs_alone() {
        let busy = Free { cores: 1, memory_bytes: 10, is_idle: false };
        assert!(starts(vec![candidate(0, 2, 9.0), candidate(1, 1, 1.0)], busy).is_empty());
        let idle = Free { cores: 2, memory_bytes: 10, is_idle: true };
        assert_eq!(starts(vec![candidate(0, 64, 9.0), candidate(1, 1, 1.0)], idle), [0]);
    }
}
