//! The ranges of sampling parameters.

use alloyforge_types::{Error, Result, SamplingParams};

/// Checks every parameter's range.
///
/// # Errors
/// `InvalidRequest` naming the first parameter out of range.
pub(super) fn check(p: &SamplingParams, vocab_size: usize) -> Result<()> {
    let range = |name: &str, x: f32, low: f32, high: f32| {
        if x.is_finite() && (low..=high).contains(&x) {
            return Ok(());
        }
        let bound =
            if high == f32::MAX { format!("at least {low}") } else { format!("from {low} to {high}") };
        Err(Error::invalid(name, format!("must be a number {bound}, not {x}")))
    };
    let positive = |name: &str, x: f32| {
        if x.is_finite() && x > 0.0 {
            return Ok(());
        }
        Err(Error::invalid(name, format!("must be a positive number, not {x}")))
    };
    range("temperature", p.temperature, 0.0, f32::MAX)?;
    range("top_p", p.top_p, 0.0, 1.0)?;
    range("min_p", p.min_p, 0.0, f32::MAX)?;
    range("typical_p", p.typical_p, 0.0, 1.0)?;
    range("top_n_sigma", p.top_n_sigma, f32::MIN, f32::MAX)?;
    range("xtc_probability", p.xtc.probability, 0.0, 1.0)?;
    range("xtc_threshold", p.xtc.threshold, 0.0, 1.0)?;
    if let Some(m) = p.mirostat {
        positive("mirostat_tau", m.tau)?;
        range("mirostat_eta", m.eta, 0.0, 1.0)?;
    }
    positive("repetition_penalty", p.repetition_penalty)?;
    range("frequency_penalty", p.frequency_penalty, -100.0, 100.0)?;
    range("presence_penalty", p.presence_penalty, -100.0, 100.0)?;
    range("dry_multiplier", p.dry.multiplier, 0.0, f32::MAX)?;
    range("dry_base", p.dry.base, 1.0, f32::MAX)?;
    for &(token, bias) in &p.logit_bias {
        if token as usize >= vocab_size {
            return Err(Error::invalid(
                "logit_bias",
                format!("token {token} is outside the vocabulary of {vocab_size}"),
            ));
        }
        if bias.is_nan() || bias == f32::INFINITY {
            return Err(Error::invalid("logit_bias", format!("the bias of token {token} is {bias}")));
        }
    }
    Ok(())
}
