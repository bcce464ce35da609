//! Random parameters: where training from nothing starts.

use crate::{Config, Result, transformer::Decoder};

/// Standard deviation of a new weight, as GPT-2 and Llama start.
const STD: f64 = 0.02;

/// Random numbers in [0, 1).
pub type Uniform<'a> = dyn FnMut() -> f64 + 'a;

/// A decoder of this shape with random weights: normal with deviation 0.02, the projections back into the residual
/// stream divided by √(2·layers), norms one. A function of the numbers `uniform` gives alone.
///
/// # Errors
/// Those of [`Config::check`].
///
/// Source: Radford et al. 2019, § 2.3.
pub fn init(config: &Config, uniform: &mut Uniform) -> Result<Decoder> {
    let mut decoder = Decoder::zeros(config)?;
    let mut normal = Normal { uniform, spare: None };
    let parameters = decoder.parameters_mut();
    for span in parameters.spans().to_vec() {
        let values = &mut parameters.values[span.range()];
        if span.shape.len() == 1 {
            values.fill(1.0);
            continue;
        }
        let returns = span.name.ends_with("o_proj.weight") || span.name.ends_with("down_proj.weight");
        let std = if returns { STD / (2.0 * config.layers as f64).sqrt() } else { STD };
        values.iter_mut().for_each(|value| *value = (std * normal.next()) as f32);
    }
    Ok(decoder)
}

/// Normal numbers in pairs (Box and Muller 1958).
struct Normal<'a, 'b> {
    uniform: &'a mut Uniform<'b>,
    spare: Option<f64>,
}

impl Normal<'_, '_> {
    fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - (self.uniform)()).ln()).sqrt(); // 1 - u is never 0
        let angle = std::f64::consts::TAU * (self.uniform)();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{small_checkpoint, uniform};

    #[test]
    fn weights_have_their_deviation_and_the_seed_alone_decides_them() {
        let config = small_checkpoint().config;
        let decoder = init(&config, &mut uniform(1)).unwrap();
        let deviation = |name: &str| {
            let values = decoder.parameters().get(name).unwrap();
            (values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
        };
        assert!((deviation("model.embed_tokens.weight") - 0.02).abs() < 5e-4);
        assert!((deviation("model.layers.1.mlp.down_proj.weight") - 0.01).abs() < 5e-4);
        assert!((deviation("model.norm.weight") - 1.0).abs() < 1e-9);
        let again = init(&config, &mut uniform(1)).unwrap();
        assert_eq!(again.parameters().values, decoder.parameters().values);
        assert_ne!(init(&config, &mut uniform(2)).unwrap().parameters().values, decoder.parameters().values);
    }
}
