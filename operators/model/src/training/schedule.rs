//! The learning rate over the steps of a training run.

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Constant,
    /// To zero at the last step.
    Linear,
    /// Half a cosine, to zero at the last step.
    Cosine,
}

/// A learning rate for every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    /// The rate after the warm-up.
    pub peak: f64,
    pub warmup_steps: u64,
    pub total_steps: u64,
}

impl Schedule {
    /// The rate of a step, counted from 0, as Hugging Face's `get_scheduler` gives it.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / span).min(1.0);
        self.peak
            * match self.shape {
                Shape::Constant => 1.0,
                Shape::Linear => 1.0 - progress,
                Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_to_zero() {
        let linear = Schedule { shape: Shape::Linear, peak: 1.0, warmup_steps: 2, total_steps: 6 };
        let rates: Vec<f64> = (0..7).map(|step| linear.rate(step)).collect();
        assert_eq!(rates, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
        let cosine = Schedule { shape: Shape::Cosine, ..linear };
        assert!((cosine.rate(4) - 0.5).abs() < 1e-12);
    }
}
