//! `RNN`, `GRU` and `LSTM`.

use super::array::{Array, Result, elements};
use super::call::Call;
use super::unary::float;

/// An activation and its two parameters.
struct Activation {
    name: String,
    alpha: f64,
    beta: f64,
}

impl Activation {
    fn of(&self, x: f64) -> f64 {
        float(&self.name, x, self.alpha, self.beta).unwrap_or(f64::NAN)
    }
}

/// The activations of all directions, with what the standard has where the node says nothing.
fn activations(call: &Call<'_>, defaults: &[&str], directions: usize) -> Result<Vec<Activation>> {
    let named = call.texts("activations");
    let (alphas, betas) = (call.floats("activation_alpha"), call.floats("activation_beta"));
    let (mut alphas, mut betas) = (alphas.into_iter().flatten(), betas.into_iter().flatten());
    let count = defaults.len() * directions;
    let name = |index: usize| named.get(index).map_or(defaults[index % defaults.len()], |name| name);
    let mut found = Vec::new();
    for index in 0..count {
        let name = name(index);
        // Parameters are given for those activations only that have some.
        let (alpha, beta) = match name {
            "Affine" | "HardSigmoid" | "ScaledTanh" => {
                let (alpha, beta) =
                    if name == "HardSigmoid" { (0.2, 0.5) } else { (1.0, if name == "Affine" { 0.0 } else { 1.0 }) };
                (alphas.next().unwrap_or(alpha), betas.next().unwrap_or(beta))
            }
            "LeakyRelu" => (alphas.next().unwrap_or(0.01), 0.0),
            "ThresholdedRelu" | "Elu" => (alphas.next().unwrap_or(1.0), 0.0),
            "Relu" | "Tanh" | "Sigmoid" | "Softsign" | "Softplus" => (0.0, 0.0),
            other => return Err(format!("activation {other:?}")),
        };
        found.push(Activation { name: name.to_string(), alpha, beta });
    }
    Ok(found)
}

/// A row times the transpose of a matrix.
fn times(row: &[f64], matrix: &[f64]) -> Vec<f64> {
    matrix.chunks(row.len().max(1)).map(|weights| weights.iter().zip(row).map(|(w, x)| w * x).sum()).collect()
}

/// Weights of one direction.
struct Cell<'a> {
    name: &'a str,
    hidden: usize,
    w: &'a [f64],
    r: &'a [f64],
    /// Biases of the input's products, and of the state's.
    w_bias: &'a [f64],
    r_bias: &'a [f64],
    peepholes: &'a [f64],
    activations: &'a [Activation],
    clip: f64,
    resets_after: bool,
    couples_gates: bool,
}

impl Cell<'_> {
    /// One step of one row: the new state from the input and the old one.
    fn step(&self, x: &[f64], h: &mut Vec<f64>, c: &mut [f64]) {
        let n = self.hidden;
        let clip = |x: f64| x.clamp(-self.clip, self.clip);
        let act = |index: usize, x: f64| self.activations[index].of(clip(x));
        let (from_x, from_h) = (times(x, self.w), times(h, self.r));
        // A gate before its activation.
        let gate = |gate: usize, i: usize| {
            from_x[gate * n + i] + from_h[gate * n + i] + self.w_bias[gate * n + i] + self.r_bias[gate * n + i]
        };
        match self.name {
            "LSTM" => {
                for i in 0..n {
                    let peephole = |gate: usize, c: f64| self.peepholes[gate * n + i] * c;
                    let forget = act(0, gate(2, i) + peephole(2, c[i]));
                    let input = if self.couples_gates { 1.0 - forget } else { act(0, gate(0, i) + peephole(0, c[i])) };
                    c[i] = forget * c[i] + input * act(1, gate(3, i));
                    h[i] = act(0, gate(1, i) + peephole(1, c[i])) * self.activations[2].of(c[i]);
                }
            }
            "GRU" => {
                let reset: Vec<f64> = (0..n).map(|i| act(0, gate(1, i))).collect();
                let hidden: Vec<f64> = match self.resets_after {
                    true => (0..n).map(|i| reset[i] * (from_h[2 * n + i] + self.r_bias[2 * n + i])).collect(),
                    false => {
                        let scaled: Vec<f64> = reset.iter().zip(&*h).map(|(reset, h)| reset * h).collect();
                        let from_scaled = times(&scaled, &self.r[2 * n * n..]);
                        (0..n).map(|i| from_scaled[i] + self.r_bias[2 * n + i]).collect()
                    }
                };
                for i in 0..n {
                    let update = act(0, gate(0, i));
                    let new = act(1, from_x[2 * n + i] + self.w_bias[2 * n + i] + hidden[i]);
                    h[i] = (1.0 - update) * new + update * h[i];
                }
            }
            _ => *h = (0..n).map(|i| act(0, gate(0, i))).collect(),
        }
    }
}

pub(super) fn recurrent(call: &Call<'_>) -> Result<Vec<Array>> {
    let name = &*call.node.op_type;
    let (gates, defaults): (usize, &[&str]) = match name {
        "LSTM" => (4, &["Sigmoid", "Tanh", "Tanh"]),
        "GRU" => (3, &["Sigmoid", "Tanh"]),
        _ => (1, &["Tanh"]),
    };
    let (w, r) = (call.input(1)?, call.input(2)?);
    let is_batch_first = call.flag("layout");
    let swap = |x: &Array| if is_batch_first { x.transposed(&[1, 0, 2]) } else { Ok(x.clone()) };
    let x = swap(call.input(0)?)?;
    let (&[steps, batch, size], &[directions, _, hidden]) = (x.shape.as_slice(), r.shape.as_slice()) else {
        return Err(format!("shapes {:?} and {:?}", x.shape, r.shape));
    };
    if w.shape != [directions, gates * hidden, size]
        || r.shape != [directions, gates * hidden, hidden]
        || directions > 2
    {
        return Err(format!("weights of shapes {:?} and {:?} for inputs of {size}", w.shape, r.shape));
    }
    // The numbers of an input, zeros if it is not there.
    let optional = |index: usize, shape: &[usize], swaps: bool| -> Result<Vec<f64>> {
        match call.optional(index) {
            None => Ok(vec![0.0; elements(shape)?]),
            Some(given) => {
                let given = if swaps { swap(given)? } else { given.clone() };
                if given.shape == shape {
                    Ok(given.f64s())
                } else {
                    Err(format!("input {index} has shape {:?}", given.shape))
                }
            }
        }
    };
    let biases = optional(3, &[directions, 2 * gates * hidden], false)?;
    let lengths = call.optional(4).map_or_else(|| vec![steps as i64; batch], Array::i64s);
    let mut h = optional(5, &[directions, batch, hidden], true)?;
    let is_lstm = name == "LSTM";
    let (mut c, peepholes) = match is_lstm {
        true => (optional(6, &[directions, batch, hidden], true)?, optional(7, &[directions, 3 * hidden], false)?),
        false => (vec![0.0; h.len()], Vec::new()),
    };
    if lengths.len() != batch {
        return Err(format!("{} lengths for {batch} rows", lengths.len()));
    }
    let activations = activations(call, defaults, directions)?;
    let (xs, ws, rs) = (x.f64s(), w.f64s(), r.f64s());
    let mut y = vec![0.0; elements(&[steps, directions, batch, hidden])?];
    for direction in 0..directions {
        let part = |length: usize| direction * length..(direction + 1) * length;
        let bias = &biases[part(2 * gates * hidden)];
        let cell = Cell {
            name,
            hidden,
            w: &ws[part(gates * hidden * size)],
            r: &rs[part(gates * hidden * hidden)],
            w_bias: &bias[..gates * hidden],
            r_bias: &bias[gates * hidden..],
            peepholes: if is_lstm { &peepholes[part(3 * hidden)] } else { &[] },
            activations: &activations[direction * defaults.len()..],
            clip: call.attribute("clip").map_or(f64::INFINITY, |clip| f64::from(clip.f).abs()),
            resets_after: call.flag("linear_before_reset"),
            couples_gates: call.flag("input_forget"),
        };
        let goes_back = direction == 1 || call.text("direction", "forward") == "reverse";
        for (row, length) in lengths.iter().enumerate() {
            let length = (*length).clamp(0, steps as i64) as usize;
            let state = (direction * batch + row) * hidden..(direction * batch + row + 1) * hidden;
            let mut hidden_state = h[state.clone()].to_vec();
            for step in 0..length {
                let step = if goes_back { length - 1 - step } else { step };
                let input = &xs[(step * batch + row) * size..][..size];
                cell.step(input, &mut hidden_state, &mut c[state.clone()]);
                let to = ((step * directions + direction) * batch + row) * hidden;
                y[to..to + hidden].copy_from_slice(&hidden_state);
            }
            h[state].copy_from_slice(&hidden_state);
        }
    }
    let element_type = x.element_type;
    let y = Array::floats(element_type, vec![steps, directions, batch, hidden], &y)?;
    let y = if is_batch_first { y.transposed(&[2, 0, 1, 3])? } else { y };
    let state = |values: &[f64]| swap(&Array::floats(element_type, vec![directions, batch, hidden], values)?);
    let mut outputs = vec![y, state(&h)?];
    if is_lstm {
        outputs.push(state(&c)?);
    }
    Ok(outputs)
}
