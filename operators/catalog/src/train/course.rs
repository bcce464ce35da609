//! Which rows each step learns from.

use llmflow_contract::{Context, Failure};

use super::settings::Settings;
use crate::eval::statistics::below;

/// The order of rows over epochs: each epoch is a shuffle of its own, a function of the stage's seed and the epoch.
///
/// A batch never straddles two epochs; the last one of an epoch may be smaller.
pub(crate) struct Course<'a> {
    ctx: &'a Context<'a>,
    /// Tokens of each row.
    tokens: Vec<usize>,
    batch_size: usize,
    pub steps_per_epoch: u64,
    pub total_steps: u64,
    /// The epoch at hand and its order.
    current: Option<(u64, Vec<usize>)>,
}

impl<'a> Course<'a> {
    /// # Errors
    /// `train/nothing-to-learn` if there is no row.
    pub fn new(ctx: &'a Context<'a>, settings: &Settings, tokens: Vec<usize>) -> Result<Self, Failure> {
        if tokens.is_empty() {
            let failure = Failure::input("train/nothing-to-learn", "no row is left to learn from");
            return Err(failure.help("see what was dropped and why: `llmflow show @/STAGE --dropped`"));
        }
        let steps_per_epoch = tokens.len().div_ceil(settings.batch_size) as u64;
        let by_epochs = (settings.epochs * steps_per_epoch as f64).ceil() as u64;
        let total_steps = settings.max_steps.unwrap_or(by_epochs).max(1);
        Ok(Self { ctx, tokens, batch_size: settings.batch_size, steps_per_epoch, total_steps, current: None })
    }

    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
    /// How often each row is read.
    pub fn epochs(&self) -> f64 {
        self.total_steps as f64 / self.steps_per_epoch as f64
    }

    /// The rows of a step, counted from 0.
    pub fn batch(&mut self, step: u64) -> Vec<usize> {
        let (epoch, place) = (step / self.steps_per_epoch, (step % self.steps_per_epoch) as usize);
        let first = place * self.batch_size;
        let last = (first + self.batch_size).min(self.tokens.len());
        self.order(epoch)[first..last].to_vec()
    }

    /// Tokens of the first `steps` steps.
    pub fn tokens_until(&mut self, steps: u64) -> u64 {
        let (epochs, rest) = (steps / self.steps_per_epoch, (steps % self.steps_per_epoch) as usize);
        let rows = (rest * self.batch_size).min(self.tokens.len());
        let own = if rows == 0 { Vec::new() } else { self.order(epochs)[..rows].to_vec() };
        let whole: u64 = self.tokens.iter().map(|tokens| *tokens as u64).sum();
        epochs * whole + own.iter().map(|row| self.tokens[*row] as u64).sum::<u64>()
    }

    fn order(&mut self, epoch: u64) -> &[usize] {
        if self.current.as_ref().is_none_or(|(current, _)| *current != epoch) {
            let mut order: Vec<usize> = (0..self.tokens.len()).collect();
            let mut rng = self.ctx.rng(&format!("shuffle/{epoch}"));
            for place in (1..order.len()).rev() {
                order.swap(place, below(place + 1, &mut rng));
            }
            self.current = Some((epoch, order));
        }
        self.current.as_ref().map_or(&[], |(_, order)| order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{testing::TestHost, train::session::tests::settings};

    #[test]
    fn every_row_is_read_once_an_epoch_in_an_order_of_its_own() {
        let host = TestHost::new();
        let ctx = host.context();
        let settings = Settings { batch_size: 3, epochs: 2.0, ..settings() };
        let mut course = Course::new(&ctx, &settings, (1..=10).collect()).unwrap();
        assert_eq!((course.steps_per_epoch, course.total_steps), (4, 8));
        let mut epoch = |first: u64| (first..first + 4).flat_map(|step| course.batch(step)).collect::<Vec<_>>();
        let (one, two) = (epoch(0), epoch(4));
        assert_ne!(one, two);
        for mut rows in [one, two] {
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(course.tokens_until(8), 110);
        let first: usize = course.batch(0).iter().map(|row| row + 1).sum();
        assert_eq!(course.tokens_until(1), first as u64);
    }

    #[test]
    fn no_row_is_refused_and_a_part_of_an_epoch_is_rounded_up() {
        let host = TestHost::new();
        let ctx = host.context();
        let settings = Settings { batch_size: 4, epochs: 0.3, ..settings() };
        assert_eq!(Course::new(&ctx, &settings, vec![1; 20]).unwrap().total_steps, 2);
        let failure = Course::new(&ctx, &settings, Vec::new()).err().unwrap();
        assert_eq!(failure.code, "train/nothing-to-learn");
    }
}
