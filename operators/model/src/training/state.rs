//! A trainer's state as one file: parameters, both moments, the step count. Bits in, bits out.

use std::{borrow::Cow, path::Path};

use candle_core::Device;
use safetensors::{Dtype, SafeTensorError, View};

use super::Trainer;
use crate::{ModelError, Result};

const FILE: &str = "trainer.safetensors";

/// A run of numbers, turned to bytes only while it is written.
struct Numbers<'a> {
    values: &'a [f32],
    shape: [usize; 1],
}

impl View for Numbers<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
    }
    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

impl Trainer {
    /// Writes parameters, moments and the step count.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let (values, optimizer) = (&self.policy.parameters().values, &self.optimizer);
        let runs = [("values", values), ("first", &optimizer.first), ("second", &optimizer.second)];
        let views = runs.map(|(name, values)| (name, Numbers { values, shape: [values.len()] }));
        let about = [("steps".to_owned(), optimizer.steps.to_string())].into();
        safetensors::serialize_to_file(views, Some(about), &path).map_err(|error| match error {
            SafeTensorError::IoError(source) => ModelError::io("writing", &path)(source),
            other => ModelError::malformed(&path, other.to_string()),
        })
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`ModelError::Shape`] or [`ModelError::Malformed`] for the state of another run; [`ModelError::Io`].
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let bytes = std::fs::read(&path).map_err(ModelError::io("reading", &path))?;
        let malformed = |error: SafeTensorError| ModelError::malformed(&path, error.to_string());
        let (_, about) = safetensors::SafeTensors::read_metadata(&bytes).map_err(malformed)?;
        let steps = about.metadata().as_ref().and_then(|about| about.get("steps")?.parse().ok());
        let state = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let expected = self.policy.parameters().values.len();
        let read = |name: &str| -> Result<Vec<f32>> {
            let tensor = state.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.into() })?;
            if tensor.elem_count() != expected {
                let found = tensor.dims().to_vec();
                return Err(ModelError::Shape { name: name.into(), expected: vec![expected], found });
            }
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
        };
        let (values, first, second) = (read("values")?, read("first")?, read("second")?);
        self.policy.parameters_mut().values = values;
        (self.optimizer.first, self.optimizer.second) = (first, second);
        self.optimizer.steps = steps.ok_or_else(|| ModelError::malformed(&path, "it does not say its step"))?;
        Ok(())
    }
}
