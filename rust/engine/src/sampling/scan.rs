//! The kernels' passes over a row of logits, on this machine's instructions.

use std::sync::OnceLock;

use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::scan;

pub(super) use scan::{exp, group};

fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(Isa::detect)
}

/// The highest logit, and whether any is NaN. Negative infinity for an empty row.
pub(super) fn max_and_nan(row: &[f32]) -> (f32, bool) {
    scan::max_and_nan(isa(), row)
}

/// The lowest index whose logit is `value`.
pub(super) fn first_at(row: &[f32], value: f32) -> Option<usize> {
    scan::first_at(isa(), row, value)
}

/// The sum of `e^((l - max) * slope)` over a row, `max` being its finite maximum and `slope` positive.
pub(super) fn sum_exp(row: &[f32], max: f32, slope: f32) -> f64 {
    scan::sum_exp(isa(), row, max, slope)
}

/// The highest logit of each [`group`] into `out`, and whether any logit is NaN.
pub(super) fn maxima(row: &[f32], out: &mut Vec<f32>) -> bool {
    out.resize(scan::num_groups(row.len()), 0.0);
    scan::maxima(isa(), row, out)
}
