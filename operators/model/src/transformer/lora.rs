//! LoRA: y = x·(W + s·B·A)ᵀ beside a frozen W, with s = alpha / r.
//!
//! Source: Hu et al. 2021, eq. 3.

use super::{
    linear::{self, Into, SET, View},
    parameters::Parameters,
    product::Gain,
    vector::add,
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

    /// What the frozen weights, `[out, in]` side by side, gain: s·B·A. It enters while they are packed for a product, so
    /// no row pays for it.
    pub(crate) fn gains(&self, parts: &[Part], inputs: usize) -> Vec<Gain<'_>> {
        let gain = |part: &Part| {
            let (a, b) = self.matrices(part, inputs);
            Gain { left: b.operand(), right: a.operand(), row: part.first_output, col: 0, scale: self.scale }
        };
        parts.iter().map(gain).collect()
    }

    /// With u = x·Aᵀ and v = s·dy·B: dB += s·dyᵀ·u and dA += vᵀ·x. All A of one input are taken together.
    pub(crate) fn add_backward(&self, parts: &[Part], grads: &mut [f32], dy: (&[f32], usize), x: View) {
        if parts.is_empty() {
            return;
        }
        let (rank, together) = (self.rank, parts.len() * self.rank);
        let all_a: Vec<f32> =
            parts.iter().flat_map(|part| self.matrices(part, x.cols).0.data.iter().copied()).collect();
        let (mut u, mut v) = (vec![0.0; x.rows * together], vec![0.0; x.rows * together]); // [rows, parts · rank]
        linear::forward(&mut u, together, x, View::new(&all_a, together, x.cols), SET);
        for (index, part) in parts.iter().enumerate() {
            let (_, b) = self.matrices(part, x.cols);
            let d = View::columns(dy.0, x.rows, dy.1, part.first_output, part.outputs);
            linear::backward_input(&mut v[index * rank..], together, d, b, Into { scale: self.scale, ..SET });
            let mut d_b = vec![0.0; rank * part.outputs]; // [rank, outputs]: long rows suit the product
            let u = View::columns(&u, x.rows, together, index * rank, rank);
            linear::backward_weight(&mut d_b, u, d, Into { scale: self.scale, ..SET });
            for (output, row) in grads[part.b..][..part.outputs * rank].chunks_exact_mut(rank).enumerate() {
                row.iter_mut().enumerate().for_each(|(i, grad)| *grad += d_b[i * part.outputs + output]);
            }
        }
        let mut d_a = vec![0.0; together * x.cols];
        linear::backward_weight(&mut d_a, View::new(&v, x.rows, together), x, SET);
        for (part, d_a) in parts.iter().zip(d_a.chunks_exact(rank * x.cols)) {
            add(&mut grads[part.a..][..rank * x.cols], d_a);
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
