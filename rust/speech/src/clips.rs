//! The stretches of long audio that are walked side by side.

use std::ops::Range;

use crate::HOP;

/// Stretches of speech as clips of frames: neighbours joined up to a window.
pub(crate) fn spoken(stretches: Vec<Range<usize>>, window: usize, frames: usize) -> Vec<Range<usize>> {
    let mut clips: Vec<Range<usize>> = Vec::new();
    for stretch in stretches {
        let clip = stretch.start / HOP..(stretch.end.div_ceil(HOP)).min(frames);
        match clips.last_mut() {
            Some(last) if clip.end - last.start <= window => last.end = clip.end,
            _ if clip.is_empty() => {}
            _ => clips.push(clip),
        }
    }
    clips
}

/// Cuts a clip that is longer than a window where it is quietest, in the last third of each window.
pub(crate) fn cut_quietly(samples: &[f32], clip: Range<usize>, window: usize) -> Vec<Range<usize>> {
    /// Frames over which loudness is averaged: 0.2 s.
    const SPAN: usize = 20;
    let loudness = |frame: usize| {
        let part = &samples[(frame * HOP).min(samples.len())..((frame + SPAN) * HOP).min(samples.len())];
        part.iter().map(|x| x * x).sum::<f32>()
    };
    let mut out = Vec::new();
    let mut start = clip.start;
    while clip.end - start > window {
        let candidates = (start + window / 3 * 2..(start + window).saturating_sub(SPAN)).step_by(SPAN / 4);
        let quietest = candidates.map(|frame| (loudness(frame), frame)).min_by(|a, b| a.0.total_cmp(&b.0));
        let end = quietest.map_or(start + window, |(_, frame)| frame + SPAN / 2);
        out.push(start..end);
        start = end;
    }
    out.push(start..clip.end);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SAMPLE_RATE;

    #[test]
    fn long_clips_are_cut_where_it_is_quiet() {
        let mut samples = vec![0.5f32; 70 * SAMPLE_RATE];
        samples[25 * SAMPLE_RATE..26 * SAMPLE_RATE].fill(0.0);
        let clips = cut_quietly(&samples, 0..7000, 3000);
        assert_eq!(clips[0].start, 0);
        assert!((2490..2610).contains(&clips[0].end), "{clips:?}");
        assert_eq!(clips.last().map(|c| c.end), Some(7000));
        assert!(clips.windows(2).all(|c| c[0].end == c[1].start));
        assert!(clips.iter().all(|c| c.len() <= 3000));
    }

    #[test]
    fn stretches_are_joined_up_to_a_window() {
        let second = SAMPLE_RATE;
        let stretches = vec![second..5 * second, 8 * second..20 * second, 40 * second..50 * second];
        assert_eq!(spoken(stretches, 3000, 5000), [100..2000, 4000..5000]);
    }
}
