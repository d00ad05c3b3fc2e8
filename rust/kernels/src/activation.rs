//! What stands between a gated MLP's two input products and its output product.

use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::math::{erfc, exp};

/// A gated activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, by the tanh approximation.
    GeluTanh,
    /// `gelu(gate) * up`, by the error function.
    Gelu,
    /// `g * sigmoid(alpha * g) * (u + 1)` with `g = min(gate, limit)`, `u = clamp(up, -limit, limit)`.
    ClampedSwiglu {
        /// The slope inside the sigmoid.
        alpha: f32,
        /// The bound.
        limit: f32,
    },
    /// `gate * sigmoid(1.702 gate) * up`.
    QuickGelu,
    /// `max(gate, 0) * up`.
    Relu,
}

/// `gate = activation(gate, up)`, number by number.
pub fn activate(isa: Isa, activation: Activation, gate: &mut [f32], up: &[f32]) {
    isa.run(Activate { activation, gate, up });
}

/// `values = activation(values)`, number by number: a plain MLP's, without a gate. A gated form is taken
/// with an `up` of one.
pub fn activate_plain(isa: Isa, activation: Activation, values: &mut [f32]) {
    const ONES: [f32; 64] = [1.0; 64];
    for part in values.chunks_mut(ONES.len()) {
        let len = part.len();
        activate(isa, activation, part, &ONES[..len]);
    }
}

struct Activate<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gate, gate_rest) = self.gate.as_chunks_mut::<LANES>();
        let (up, up_rest) = self.up.as_chunks::<LANES>();
        for (gate, up) in gate.iter_mut().zip(up) {
            vector(s, self.activation, gate, up);
        }
        if !gate_rest.is_empty() {
            let (mut gate, mut up) = ([0.0; LANES], [0.0; LANES]);
            let len = gate_rest.len().min(up_rest.len());
            gate[..len].copy_from_slice(&gate_rest[..len]);
            up[..len].copy_from_slice(&up_rest[..len]);
            vector(s, self.activation, &mut gate, &up);
            gate_rest[..len].copy_from_slice(&gate[..len]);
        }
    }
}

/// Sixteen numbers.
#[inline(always)]
fn vector<S: Simd>(s: S, activation: Activation, gate: &mut [f32; LANES], up: &[f32; LANES]) {
    let (g, u, one) = (s.load(gate), s.load(up), s.splat(1.0));
    let out = match activation {
        Activation::Silu => {
            let e = s.exp(s.mul(g, s.splat(-1.0)));
            s.mul(s.div(g, s.add(one, e)), u)
        }
        Activation::QuickGelu => {
            let e = s.exp(s.mul(g, s.splat(-1.702)));
            s.mul(s.div(g, s.add(one, e)), u)
        }
        Activation::GeluTanh => {
            // 0.5 (1 + tanh y) is the sigmoid of 2 y
            const SLOPE: f32 = 1.595_769; // 2 sqrt(2 / pi)
            let cubic = s.mul(s.mul(s.mul(s.splat(0.044_715), g), g), g);
            let e = s.exp(s.mul(s.splat(-SLOPE), s.add(g, cubic)));
            s.mul(s.div(g, s.add(one, e)), u)
        }
        Activation::Gelu => {
            for (g, u) in gate.iter_mut().zip(up) {
                *g = 0.5 * *g * erfc(s, *g * -std::f32::consts::FRAC_1_SQRT_2) * u;
            }
            return;
        }
        Activation::Relu => {
            for (g, u) in gate.iter_mut().zip(up) {
                // a comparison that is false for NaN, so that it stays
                *g = if *g < 0.0 { 0.0 } else { *g } * u;
            }
            return;
        }
        Activation::ClampedSwiglu { alpha, limit } => {
            for (g, u) in gate.iter_mut().zip(up) {
                // comparisons that are false for NaN, so that it stays
                let gate = if *g > limit { limit } else { *g };
                let up = if *u > limit { limit } else { *u };
                let up = if up < -limit { -limit } else { up };
                *g = gate / (1.0 + exp(s, -alpha * gate)) * (up + 1.0);
            }
            return;
        }
    };
    s.store(out, gate);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    const ALL: [Activation; 6] = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::Gelu,
        Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 },
        Activation::QuickGelu,
        Activation::Relu,
    ];

    #[test]
    fn they_are_the_reference() {
        let gate: Vec<f32> = (-4000..4000).map(|i| i as f32 * 5e-3).collect();
        let up: Vec<f32> = (0..8000).map(|i| (i as f32 * 0.61).sin() * 12.0).collect();
        for isa in Isa::available() {
            for activation in ALL {
                let mut out = gate.clone();
                activate(isa, activation, &mut out, &up);
                for ((g, u), o) in gate.iter().zip(&up).zip(out) {
                    let want = reference::activate(activation, *g, *u);
                    let error = (f64::from(o) - want).abs();
                    assert!(error <= 2e-6 * (1.0 + want.abs()), "{activation:?}({g}, {u}) = {o}, not {want}");
                }
            }
        }
    }

    #[test]
    fn a_plain_one_is_a_gated_one_with_ones() {
        for isa in Isa::available() {
            for activation in ALL {
                let mut plain: Vec<f32> = (0..150).map(|i| (i as f32 * 0.3).sin() * 4.0).collect();
                let mut gated = plain.clone();
                activate(isa, activation, &mut gated, &[1.0; 150]);
                activate_plain(isa, activation, &mut plain);
                assert_eq!(plain, gated);
            }
        }
    }

    #[test]
    fn they_hide_no_nan() {
        for isa in Isa::available() {
            for activation in ALL {
                let mut gate = [f32::NAN, 1.0];
                activate(isa, activation, &mut gate, &[1.0, f32::NAN]);
                assert!(gate.iter().all(|g| g.is_nan()), "{activation:?}");
            }
        }
    }
}
