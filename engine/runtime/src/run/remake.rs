//! Results that turn out damaged, or gone: made again, and with them all that was made of other bytes.

use llmflow_contract::Failure;

use super::{engine::Engine, state::State};
use crate::{event::Finished, plan::Standing};

/// A stage that is made again.
#[derive(Default)]
pub(super) struct Remade {
    /// How often.
    pub times: u32,
    /// What it gave before, where that counted.
    gave: Option<Finished>,
}

impl Engine {
    /// A result that gc took after the plan found it, and before it was told that this run stands on it, is made anew.
    pub(super) async fn look_again(&mut self) -> Result<(), Failure> {
        if self.attended.is_none() || super::still_stands(&self.plan, &self.place.store) {
            return Ok(());
        }
        for index in 0..self.plan.stages.len() {
            let Standing::Cached(record) = &self.plan.stages[index].standing else { continue };
            if self.place.store.find_record(&record.key).await?.is_none() {
                match self.states[index].is_over() {
                    true => self.remake(index),
                    false => self.must_run(index),
                }
            }
        }
        Ok(())
    }

    /// A stage has to run after all.
    fn must_run(&mut self, index: usize) {
        let stage = &mut self.plan.stages[index];
        stage.standing = Standing::Run(None);
        self.plan.outputs.expect(index, stage.settled.plan.clone(), false);
    }

    /// A stage's result is gone or damaged: it makes it anew, and who waits for it waits again.
    pub(super) fn remake(&mut self, index: usize) {
        let remade = self.remade.entry(index).or_default();
        remade.times += 1;
        remade.gave = self.states[index].result().cloned();
        self.tries[index] = 0;
        self.must_run(index);
        self.set(index, State::Waiting);
        for dependant in self.dependants[index].clone() {
            // One that could start cannot any more.
            if matches!(self.states[dependant as usize], State::Held(_) | State::Queued | State::Pausing { .. }) {
                self.set(dependant as usize, State::Waiting);
            }
        }
        self.due.push_back(index);
    }

    /// What read a stage that was made again, and came out otherwise, is looked at again: what a run leaves fits together.
    pub(super) fn spread(&mut self, index: usize, gives: &Finished) {
        let Some(gave) = self.remade.get_mut(&index).and_then(|remade| remade.gave.take()) else { return };
        for dependant in self.dependants[index].clone() {
            let dependant = dependant as usize;
            let stage = &self.plan.stages[dependant];
            let mut refs =
                stage.def.inputs.iter().flat_map(|(_, refs)| refs.iter()).filter(|from| from.index as usize == index);
            let reads_other = refs.any(|from| gave.outputs.get(&from.port) != gives.outputs.get(&from.port));
            let mut fills = stage.def.shared.fills.iter().filter(|fill| fill.read.index as usize == index);
            let is_filled_otherwise = fills.next().is_some() && gave.metrics != gives.metrics;
            if !reads_other && !is_filled_otherwise || stage.def.shared.is_frozen {
                continue;
            }
            match self.states[dependant] {
                State::Running(_) => {
                    self.stale.insert(dependant);
                }
                State::Ran(_) | State::Cached(_) | State::Refused { .. } => self.remake(dependant),
                _ => {} // it starts with what is there then, or is out of this run
            }
        }
    }

    /// Says why a stage runs that ran, or was found, before.
    pub(super) fn say_remade(&self, index: usize) {
        self.remark(index, "its result is damaged or gone from the store: it is made again".to_owned());
    }

    /// What ended before this run began to be written down.
    pub(super) fn tell_again(&self) {
        for index in self.plan.order.iter().map(|index| *index as usize) {
            if let Some(what) = self.states[index].told(self.attempts[index]).filter(|_| self.states[index].is_over()) {
                self.emit(Some(index), what);
            }
        }
        self.remade.keys().for_each(|index| self.say_remade(*index));
    }
}
