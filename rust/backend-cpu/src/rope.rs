//! The angles of a step's rows.

use alloyforge_types::{RopeLayout, RopeSpec, RopeTable};

/// One rotary embedding, ready to make angles.
#[derive(Debug)]
pub(crate) struct Rope {
    spec: RopeSpec,
    /// Up to the length after which the frequencies change, or for all lengths.
    table: RopeTable,
    /// Beyond it, where one table holds for all such lengths.
    beyond: Option<RopeTable>,
    /// For each frequency, which of a position's three numbers it takes.
    axes: Vec<usize>,
}

impl Rope {
    pub(crate) fn new(spec: &RopeSpec) -> Self {
        let beyond = spec.changes_after().and_then(|len| {
            let (next, later) =
                (spec.table(len.saturating_add(1)), spec.table(len.saturating_mul(2).saturating_add(1)));
            (next == later).then_some(next)
        });
        Self { spec: spec.clone(), table: spec.table(1), beyond, axes: spec.axes() }
    }

    /// Angles of a row.
    pub(crate) fn num_angles(&self) -> usize {
        self.spec.dim / 2
    }

    pub(crate) fn layout(&self) -> RopeLayout {
        self.spec.layout
    }

    /// Whether the file gave a frequency for every angle.
    pub(crate) fn is_complete(&self) -> bool {
        let fits = |table: &RopeTable| table.inv_freq.len() == self.num_angles();
        fits(&self.table) && self.beyond.as_ref().is_none_or(fits)
    }

    /// Writes the cosines and sines for a token at `position` of a sequence of `len` tokens.
    pub(crate) fn angles(&self, position: [u32; 3], len: usize, cos: &mut [f32], sin: &mut [f32]) {
        let made;
        let table = match (self.spec.changes_after(), &self.beyond) {
            (Some(limit), Some(beyond)) if len > limit => beyond,
            // every length has frequencies of its own: the one place where a step takes memory, a
            // fraction of a kilobyte
            (Some(limit), None) if len > limit => {
                made = self.spec.table(len);
                &made
            }
            _ => &self.table,
        };
        for (i, (c, s)) in cos.iter_mut().zip(sin).enumerate() {
            let angle = position[self.axes[i]] as f32 * table.inv_freq[i];
            (*s, *c) = (angle.sin() * table.magnitude, angle.cos() * table.magnitude);
        }
    }
}
