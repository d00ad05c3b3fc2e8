//! From any rate to 16 kHz, by `rubato`'s Fourier transform: linear in phase, so that nothing is shifted.

use alloyforge_types::{Error, Result};
use rubato::{FftFixedInOut, Resampler};

/// Samples that are turned at a time, about.
const CHUNK: usize = 4096;

/// The rates that are taken, in samples a second.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// `samples` at `from` a second as samples at `to` a second, as long as they last.
///
/// # Errors
/// `Media` for a rate that no sound has.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    let fault = |fault: String| Error::Media { item: "audio".into(), fault };
    if !RATES.contains(&from) || !RATES.contains(&to) {
        return Err(fault(format!("has {from} samples a second")));
    }
    if from == to || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let wrong = |e: String| Error::internal(format!("resampling: {e}"));
    let mut turner =
        FftFixedInOut::<f32>::new(from as usize, to as usize, CHUNK, 1).map_err(|e| wrong(e.to_string()))?;
    let (delay, step) = (turner.output_delay(), turner.input_frames_next());
    let wanted = (samples.len() as f64 * f64::from(to) / f64::from(from)).round() as usize;
    let mut out = Vec::with_capacity(wanted + delay + CHUNK);
    let mut padded = vec![0.0; step];
    let mut chunks = samples.chunks(step);
    while out.len() < wanted + delay {
        let chunk = chunks.next().unwrap_or_default();
        padded[..chunk.len()].copy_from_slice(chunk);
        padded[chunk.len()..].fill(0.0);
        let made = turner.process(&[&padded], None).map_err(|e| wrong(e.to_string()))?;
        out.extend_from_slice(&made[0]);
    }
    out.drain(..delay);
    out.truncate(wanted);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_keeps_its_pitch_its_height_and_its_place() {
        for rate in [8_000u32, 22_050, 44_100, 48_000] {
            let tone = |n: usize, rate: u32| -> Vec<f32> {
                (0..n).map(|i| (i as f32 / rate as f32 * 440.0 * std::f32::consts::TAU).sin()).collect()
            };
            let out = resample(&tone(rate as usize, rate), rate, 16_000).expect("turns");
            assert_eq!(out.len(), 16_000);
            let want = tone(16_000, 16_000);
            for (o, w) in out.iter().zip(&want).skip(400).take(15_000) {
                assert!((o - w).abs() < 5e-3, "{rate}: {o} {w}");
            }
        }
    }

    #[test]
    fn odd_rates_are_refused() {
        for rate in [0, 1, u32::MAX] {
            assert!(matches!(resample(&[0.0; 10], rate, 16_000), Err(Error::Media { .. })));
        }
        assert!(resample(&[], 8_000, 16_000).expect("nothing").is_empty());
    }
}
