//! A sound on its way into a text model, described as data: pieces of a spectrum, rows of an encoder of
//! Whisper's kind, rows of the decoder.

use std::ops::Range;

/// Samples from one frame of a spectrum to the next, at 16 kHz.
pub const SOUND_HOP: usize = 160;

/// Samples a second of what models hear.
pub const SOUND_RATE: usize = 16_000;

/// How a sound becomes pieces of a spectrum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundPieces {
    /// Each piece of the sound has a spectrum of its own, with silence behind it up to a whole window.
    Windows,
    /// The whole sound has one spectrum, which is cut.
    Cuts,
}

/// What stands between an encoder's rows and the decoder's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SoundHead {
    /// The means of every two rows, the encoder's last norm, one product with a bias: Qwen2-Audio.
    Pool,
    /// The encoder's last norm; `factor` rows side by side; norm, product, gate, product: Ultravox.
    Stack {
        /// Rows that become one.
        factor: usize,
        /// Numbers behind the first product and its gate.
        inner: usize,
        /// Whether the second norm stands before the second product, else behind it.
        norms_inside: bool,
        /// What both norms add.
        norm_eps: f32,
    },
}

/// What a text model hears with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoundSpec {
    /// Numbers in a frame of the spectrum.
    pub num_mels: usize,
    /// Most rows that the encoder makes of one piece; a piece has at most twice as many frames.
    pub source_len: usize,
    /// How the sound is cut.
    pub pieces: SoundPieces,
    /// What makes the decoder's rows.
    pub head: SoundHead,
    /// Numbers in a row of the decoder.
    pub out_dim: usize,
}

/// A piece of a sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundPiece {
    /// Its frames, in the whole sound.
    pub frames: Range<usize>,
    /// Rows that the encoder makes of it.
    pub source_rows: usize,
    /// Rows for the decoder.
    pub rows: usize,
}

impl SoundSpec {
    /// Frames in a sound of `num_samples` samples: what is left over counts as one.
    pub fn num_frames(&self, num_samples: usize) -> usize {
        let least = match self.pieces {
            SoundPieces::Windows => 0,
            // the least that the spectrum of a whole sound is made of
            SoundPieces::Cuts => 2,
        };
        num_samples.div_ceil(SOUND_HOP).max(least)
    }

    /// The pieces of a sound of `num_samples` samples.
    pub fn pieces(&self, num_samples: usize) -> impl Iterator<Item = SoundPiece> + use<> {
        let (frames, window, head) = (self.num_frames(num_samples), 2 * self.source_len, self.head);
        (0..frames).step_by(window.max(1)).map(move |first| {
            let frames = first..frames.min(first + window);
            // a row is made of every second frame and its neighbours
            let source_rows = frames.len().div_ceil(2);
            let rows = match head {
                SoundHead::Pool => source_rows / 2,
                SoundHead::Stack { factor, .. } => source_rows.div_ceil(factor.max(1)),
            };
            SoundPiece { frames, source_rows, rows }
        })
    }

    /// Rows that stand for a sound of `num_samples` samples.
    pub fn num_rows(&self, num_samples: usize) -> usize {
        self.pieces(num_samples).map(|piece| piece.rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(pieces: SoundPieces, head: SoundHead) -> SoundSpec {
        SoundSpec { num_mels: 80, source_len: 1500, pieces, head, out_dim: 64 }
    }

    #[test]
    fn rows_are_those_of_the_published_processors() {
        let pool = spec(SoundPieces::Windows, SoundHead::Pool);
        let head = SoundHead::Stack { factor: 8, inner: 4, norms_inside: true, norm_eps: 1e-6 };
        let stack = spec(SoundPieces::Cuts, head);
        for seconds in 1..=30 {
            let samples = seconds * SOUND_RATE + 77 * seconds;
            let frames = samples.div_ceil(160);
            if frames <= 3000 {
                // Qwen2-Audio: `(((frames - 1) // 2 + 1) - 2) // 2 + 1`
                assert_eq!(pool.num_rows(samples), (((frames - 1) / 2 + 1) - 2) / 2 + 1);
                // Ultravox: `ceil(frames / (2 * 8))`
                assert_eq!(stack.num_rows(samples), frames.div_ceil(16));
            }
        }
        assert_eq!(pool.num_rows(30 * SOUND_RATE), 750);
        assert_eq!(stack.num_rows(30 * SOUND_RATE), 188);
    }

    #[test]
    fn what_is_longer_than_a_window_is_cut() {
        let spec = spec(SoundPieces::Windows, SoundHead::Pool);
        let pieces: Vec<_> = spec.pieces(70 * SOUND_RATE).collect();
        let frames: Vec<_> = pieces.iter().map(|p| p.frames.clone()).collect();
        assert_eq!(frames, [0..3000, 3000..6000, 6000..7000]);
        assert_eq!(pieces.iter().map(|p| p.rows).collect::<Vec<_>>(), [750, 750, 250]);
        assert_eq!(spec.num_rows(0), 0);
        assert_eq!(spec.num_rows(320), 0);
    }
}
