//! Rotary position embeddings, resolved from a family's configuration.

/// Which coordinates of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// Coordinate `i` with `i + dim / 2`: what Hugging Face checkpoints are stored for.
    Half,
    /// Coordinate `2 i` with `2 i + 1`: what llama.cpp's conversion permutes Llama's q and k into.
    Interleaved,
}

/// How the frequencies are stretched for longer contexts.
///
/// Formulas: `modeling_rope_utils.py` of transformers, which follows the papers named below.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor` (Chen et al., arXiv 2306.15595).
    Linear {
        /// The stretch.
        factor: f32,
    },
    /// The base grows with the sequence once it is longer than `original_len` ("NTK-aware").
    Dynamic {
        /// The stretch.
        factor: f32,
        /// The context length before stretching, in tokens.
        original_len: usize,
    },
    /// YaRN: high frequencies stay, low ones are interpolated (Peng et al., arXiv 2309.00071).
    Yarn {
        /// The stretch.
        factor: f32,
        /// The context length before stretching, in tokens.
        original_len: usize,
        /// Turns over the original context above which a frequency stays.
        beta_fast: f32,
        /// Turns over the original context below which a frequency is interpolated.
        beta_slow: f32,
        /// Whether the ramp's ends are rounded to whole coordinates.
        truncate: bool,
        /// The factor on cos and sin.
        magnitude: f32,
    },
    /// Llama 3's piecewise smoothing between wave lengths.
    Llama3 {
        /// The stretch of the lowest frequencies.
        factor: f32,
        /// Frequencies with fewer turns than this over the original context are stretched.
        low_freq_factor: f32,
        /// Frequencies with more turns than this stay.
        high_freq_factor: f32,
        /// The context length before stretching, in tokens.
        original_len: usize,
    },
    /// One divisor a frequency, one set for short sequences and one for long (LongRoPE, arXiv
    /// 2402.13753).
    LongRope {
        /// Divisors up to `original_len` tokens.
        short: Vec<f32>,
        /// Divisors beyond.
        long: Vec<f32>,
        /// The context length before stretching, in tokens.
        original_len: usize,
        /// The factor on cos and sin.
        magnitude: f32,
    },
    /// One divisor a frequency, as a GGUF file's `rope_freqs.weight` has them.
    Divisors(Vec<f32>),
}

/// One rotary embedding. A model may have several (Gemma 3's local and global layers).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// The base of the frequencies.
    pub theta: f32,
    /// Coordinates of a head that turn, from its first; even.
    pub dim: usize,
    /// Which coordinates turn together.
    pub layout: RopeLayout,
    /// How frequencies are stretched.
    pub scaling: RopeScaling,
    /// M-RoPE (Qwen2-VL, arXiv 2409.12191): which frequencies take their position from time, height
    /// and width. `None`: one position for all.
    pub sections: Option<RopeSections>,
}

/// How M-RoPE divides the frequencies among time, height and width, each given by its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeSections {
    /// Those of time first, then height, then width: Qwen2-VL and Qwen2.5-VL.
    Contiguous([usize; 3]),
    /// By turns, time first, until height and width have had theirs: Qwen3-VL.
    Interleaved([usize; 3]),
}

/// The frequencies that hold at one sequence length.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// `dim / 2` angular frequencies, in radians a position.
    pub inv_freq: Vec<f32>,
    /// The factor on cos and sin.
    pub magnitude: f32,
}

impl RopeSections {
    /// The counts of time, height and width.
    pub fn counts(self) -> [usize; 3] {
        match self {
            Self::Contiguous(counts) | Self::Interleaved(counts) => counts,
        }
    }
}

impl RopeSpec {
    /// For each frequency, which of a position's three numbers it takes. Frequencies that no section
    /// claims take the first.
    pub fn axes(&self) -> Vec<usize> {
        let axis = |i: usize| match self.sections {
            None => 0,
            Some(RopeSections::Contiguous([time, height, width])) => match i {
                i if i < time => 0,
                i if i < time + height => 1,
                i if i < time + height + width => 2,
                _ => 0,
            },
            Some(RopeSections::Interleaved([_, height, width])) => match i % 3 {
                1 if i < 3 * height => 1,
                2 if i < 3 * width => 2,
                _ => 0,
            },
        };
        (0..self.dim / 2).map(axis).collect()
    }

    /// The sequence length beyond which the frequencies change, where they do. Keys cached before
    /// that keep their turn with [`RopeScaling::Dynamic`], as in the reference, which computes a step's
    /// table for that step alone.
    pub fn changes_after(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::Dynamic { original_len, .. } | RopeScaling::LongRope { original_len, .. } => {
                Some(original_len)
            }
            _ => None,
        }
    }

    /// The frequencies for a sequence of `len` tokens, computed in f32 as the reference does.
    pub fn table(&self, len: usize) -> RopeTable {
        let plain = |theta: f32| -> Vec<f32> {
            (0..self.dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / self.dim as f32)).collect()
        };
        let base = plain(self.theta);
        let divided = |by: &[f32]| -> Vec<f32> {
            let wave = |i: usize| self.theta.powf((2 * i) as f32 / self.dim as f32);
            by.iter().take(self.dim / 2).enumerate().map(|(i, d)| 1.0 / (d * wave(i))).collect()
        };
        match &self.scaling {
            RopeScaling::None => RopeTable { inv_freq: base, magnitude: 1.0 },
            RopeScaling::Linear { factor } => {
                RopeTable { inv_freq: base.iter().map(|f| f / factor).collect(), magnitude: 1.0 }
            }
            RopeScaling::Dynamic { factor, original_len } => {
                let (factor, dim) = (f64::from(*factor), self.dim as f64);
                let stretch = factor * len.max(*original_len) as f64 / *original_len as f64 - (factor - 1.0);
                let theta = f64::from(self.theta) * stretch.powf(dim / (dim - 2.0));
                RopeTable { inv_freq: plain(theta as f32), magnitude: 1.0 }
            }
            RopeScaling::Yarn { factor, original_len, beta_fast, beta_slow, truncate, magnitude } => {
                // the coordinate whose frequency makes `turns` turns over the original context, in
                // double precision: where it is rounded, a little less is a whole coordinate less
                let (dim, theta) = (self.dim as f64, f64::from(self.theta));
                let coordinate = |turns: f32| {
                    let wave = *original_len as f64 / (f64::from(turns) * 2.0 * std::f64::consts::PI);
                    dim * wave.ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (coordinate(*beta_fast), coordinate(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let (low, high) = (low as f32, high as f32);
                let inv_freq = base
                    .iter()
                    .enumerate()
                    .map(|(i, f)| {
                        let ramp = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
                        f / factor * ramp + f * (1.0 - ramp)
                    })
                    .collect();
                RopeTable { inv_freq, magnitude: *magnitude }
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_len } => {
                let old_len = *original_len as f32;
                let inv_freq = base
                    .iter()
                    .map(|f| {
                        let wave_len = 2.0 * std::f32::consts::PI / f;
                        if wave_len > old_len / low_freq_factor {
                            f / factor
                        } else if wave_len < old_len / high_freq_factor {
                            *f
                        } else {
                            let smooth =
                                (old_len / wave_len - low_freq_factor) / (high_freq_factor - low_freq_factor);
                            (1.0 - smooth) * f / factor + smooth * f
                        }
                    })
                    .collect();
                RopeTable { inv_freq, magnitude: 1.0 }
            }
            RopeScaling::LongRope { short, long, original_len, magnitude } => RopeTable {
                inv_freq: divided(if len > *original_len { long } else { short }),
                magnitude: *magnitude,
            },
            RopeScaling::Divisors(by) => RopeTable { inv_freq: divided(by), magnitude: 1.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(theta: f32, dim: usize, scaling: RopeScaling) -> RopeSpec {
        RopeSpec { theta, dim, layout: RopeLayout::Half, scaling, sections: None }
    }

    /// Expected numbers: the formulas of transformers' `modeling_rope_utils.py`, evaluated in Python
    /// in double precision.
    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*f) / e - 1.0).abs() < 2e-6, "frequency {i}: {f}, expected {e}");
        }
    }

    #[test]
    fn plain_and_linear() {
        let plain = spec(10_000.0, 8, RopeScaling::None).table(1);
        assert_close(&plain.inv_freq, &[1.0, 0.1, 0.01, 0.001]);
        let linear = spec(10_000.0, 8, RopeScaling::Linear { factor: 4.0 }).table(9999);
        assert_close(&linear.inv_freq, &[0.25, 0.025, 0.0025, 0.00025]);
        assert_eq!((plain.magnitude, linear.magnitude), (1.0, 1.0));
    }

    #[test]
    fn dynamic_grows_beyond_the_original_length_only() {
        let dynamic = spec(10_000.0, 16, RopeScaling::Dynamic { factor: 2.0, original_len: 2048 });
        let plain = spec(10_000.0, 16, RopeScaling::None).table(1);
        assert_eq!(dynamic.table(1), plain);
        assert_eq!(dynamic.table(2048), plain);
        assert_eq!(dynamic.changes_after(), Some(2048));
        let expected = [
            1.0,
            0.260517094,
            0.0678691565,
            0.0176810755,
            0.0046062224,
            0.00119999968,
            0.000312620429,
            8.14429659e-05,
        ];
        assert_close(&dynamic.table(5000).inv_freq, &expected);
    }

    #[test]
    fn yarn_with_whole_coordinates() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original_len: 32_768,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            magnitude: 1.25,
        };
        let table = spec(1e6, 16, scaling).table(1);
        let expected = [
            1.0,
            0.177827941,
            0.0316227766,
            0.00421755994,
            0.0005,
            4.44569853e-05,
            7.90569415e-06,
            1.40585331e-06,
        ];
        assert_close(&table.inv_freq, &expected);
        assert_eq!(table.magnitude, 1.25);
    }

    #[test]
    fn yarn_as_gpt_oss_has_it() {
        let scaling = RopeScaling::Yarn {
            factor: 32.0,
            original_len: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: false,
            magnitude: 1.0,
        };
        let table = spec(150_000.0, 64, scaling).table(1);
        // the ramp runs from coordinate 8.09 to 17.40
        let expected = [0.0508132748, 0.0317056962, 0.0193350011, 0.0115920493];
        assert_close(&table.inv_freq[8..12], &expected);
        let expected = [0.000456483919, 0.000129318701, 3.83088124e-05, 2.6396469e-05];
        assert_close(&table.inv_freq[16..20], &expected);
    }

    #[test]
    fn llama3() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_len: 8192,
        };
        let expected = [
            1.0,
            0.193922745,
            0.0376060309,
            0.00729266474,
            0.000524846161,
            3.4281022e-05,
            6.64786987e-06,
            1.28917317e-06,
        ];
        assert_close(&spec(500_000.0, 16, scaling).table(1).inv_freq, &expected);
    }

    #[test]
    fn longrope_takes_the_long_set_from_the_token_after() {
        let scaling = RopeScaling::LongRope {
            short: vec![1.0, 1.02, 1.03, 1.03, 1.05, 1.05],
            long: vec![1.08, 1.1, 1.13, 1.3, 1.6, 2.5],
            original_len: 128,
            magnitude: 1.19,
        };
        let rope = spec(10_000.0, 12, scaling);
        let short = [1.0, 0.211219087, 0.0450639693, 0.00970873786, 0.00205184256, 0.000442056079];
        let long = [0.925925926, 0.195857699, 0.0410760074, 0.00769230769, 0.00134652168, 0.000185663553];
        assert_close(&rope.table(128).inv_freq, &short);
        assert_close(&rope.table(129).inv_freq, &long);
        assert_eq!((rope.table(128).magnitude, rope.table(129).magnitude), (1.19, 1.19));
    }

    #[test]
    fn divisors() {
        let rope = spec(10_000.0, 8, RopeScaling::Divisors(vec![1.0, 1.0, 4.0, 8.0]));
        assert_close(&rope.table(1).inv_freq, &[1.0, 0.1, 0.0025, 0.000125]);
        assert_eq!(rope.changes_after(), None);
    }
}
