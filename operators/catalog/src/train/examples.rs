//! The lesson of sequences: learn some, measure on others.

use llmflow_model::{
    ModelError,
    training::{Example, OnPass, Trainer},
};

use super::session::{Learned, Lesson};

/// Examples to learn from, and those to measure on.
pub(crate) struct Examples {
    pub learned: Vec<Example>,
    pub held_out: Vec<Example>,
}

impl Lesson for Examples {
    fn step(&self, trainer: &mut Trainer, rows: &[usize], on_pass: &mut OnPass) -> Result<Learned, ModelError> {
        let batch: Vec<&Example> = rows.iter().map(|row| &self.learned[*row]).collect();
        Ok(Learned { stepped: trainer.step(&batch, on_pass)?, figures: Vec::new() })
    }
    fn measure(&self, trainer: &Trainer, on_pass: &mut OnPass) -> Result<Option<f64>, ModelError> {
        if self.held_out.is_empty() { Ok(None) } else { trainer.evaluate(&self.held_out, on_pass).map(Some) }
    }
}
