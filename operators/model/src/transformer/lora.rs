//! LoRA: y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ beside a frozen W, with s = alpha / r.
//!
//! Source: Hu et al. 2021, eq. 3.

use super::{
    linear::{self, ADD, Into, SET, View},
    parameters::Parameters,
};

/// The linear layers of a block, in the order their weights lie in memory.
pub const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Small matrices beside the linear layers of every block.
#[derive(Clone, Debug)]
pub struct Lora {
    pub rank: usize,
    /// s: what the small product is multiplied by.
    pub scale: f32,
    /// `layers.N.MODULE.lora_A` `[rank, in]` and `.lora_B` `[out, rank]`.
    pub parameters: Parameters,
    /// Start of A and of B in `parameters`, by layer and module.
    places: Vec<[Option<(usize, usize)>; 7]>,
}

/// One adapted layer: the small matrices and where its outputs lie among its neighbours'.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub a: usize,
    pub b: usize,
    pub first_output: usize,
    pub outputs: usize,
}

impl Lora {
    /// All zero. `shapes` gives each module's `[out, in]`; a module not in `targets` gets none.
    pub fn zeros(layers: usize, shapes: [[usize; 2]; 7], targets: &[&str], rank: usize, alpha: f32) -> Self {
        let mut parameters = Parameters::default();
        let mut places = vec![[None; 7]; layers];
        for (layer, places) in places.iter_mut().enumerate() {
            for (module, name) in MODULES.iter().enumerate().filter(|(_, name)| targets.contains(*name)) {
                let [outputs, inputs] = shapes[module];
                let a = parameters.values.len();
                parameters.push(format!("layers.{layer}.{name}.lora_A"), &[rank, inputs]);
                let b = parameters.values.len();
                parameters.push(format!("layers.{layer}.{name}.lora_B"), &[outputs, rank]);
                places[module] = Some((a, b));
            }
        }
        Self { rank, scale: alpha / rank as f32, parameters, places }
    }

    /// The adapted layers among `modules`, whose outputs lie side by side with these widths.
    pub(crate) fn parts(&self, layer: usize, modules: &[(usize, usize)]) -> Vec<Part> {
        let mut first_output = 0;
        let mut parts = Vec::new();
        for (module, outputs) in modules {
            if let Some((a, b)) = self.places[layer][*module] {
                parts.push(Part { a, b, first_output, outputs: *outputs });
            }
            first_output += outputs;
        }
        parts
    }

    /// Adds the small products to `y` `[rows, y_width]`.
    pub(crate) fn add_forward(&self, parts: &[Part], y: &mut [f32], y_width: usize, x: View) {
        for part in parts {
            let (a, b) = self.matrices(part, x.cols);
            let mut u = vec![0.0; x.rows * self.rank];
            linear::forward(&mut u, self.rank, x, a, SET);
            let how = Into { scale: self.scale, ..ADD };
            linear::forward(&mut y[part.first_output..], y_width, View::new(&u, x.rows, self.rank), b, how);
        }
    }

    /// With u = x·Aᵀ and v = s·dy·B: dB += s·dyᵀ·u, dA += vᵀ·x, dx += v·A.
    pub(crate) fn add_backward(
        &self,
        parts: &[Part],
        grads: &mut [f32],
        dx: Option<&mut [f32]>,
        dy: (&[f32], usize),
        x: View,
    ) {
        let mut dx = dx;
        for part in parts {
            let (a, b) = self.matrices(part, x.cols);
            let d = View::columns(dy.0, x.rows, dy.1, part.first_output, part.outputs);
            let (mut u, mut v) = (vec![0.0; x.rows * self.rank], vec![0.0; x.rows * self.rank]);
            linear::forward(&mut u, self.rank, x, a, SET);
            linear::backward_input(&mut v, self.rank, d, b, Into { scale: self.scale, ..SET });
            let (u, v) = (View::new(&u, x.rows, self.rank), View::new(&v, x.rows, self.rank));
            linear::backward_weight(&mut grads[part.a..][..self.rank * x.cols], v, x, ADD);
            let how = Into { scale: self.scale, ..ADD };
            linear::backward_weight(&mut grads[part.b..][..part.outputs * self.rank], d, u, how);
            if let Some(dx) = dx.as_deref_mut() {
                linear::backward_input(dx, x.cols, v, a, ADD);
            }
        }
    }

    fn matrices(&self, part: &Part, inputs: usize) -> (View<'_>, View<'_>) {
        let values = &self.parameters.values;
        (
            View::new(&values[part.a..][..self.rank * inputs], self.rank, inputs),
            View::new(&values[part.b..][..part.outputs * self.rank], part.outputs, self.rank),
        )
    }
}
