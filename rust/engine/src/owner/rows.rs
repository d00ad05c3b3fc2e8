//! What a step leaves for each row that was asked for.

use alloyforge_types::DrawnToken;

/// Of several rows: their logits, or the tokens that the device drew from them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Logits, row after row.
    Logits { values: &'a [f32], vocab_size: usize },
    /// One token a row.
    Drawn(&'a [DrawnToken]),
}

/// Of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Row<'a> {
    Logits(&'a [f32]),
    Drawn(DrawnToken),
}

impl<'a> Rows<'a> {
    /// The first `num` rows, and those behind them.
    pub(crate) fn split_at(self, num: usize) -> (Self, Self) {
        match self {
            Self::Logits { values, vocab_size } => {
                let (first, rest) = values.split_at((num * vocab_size).min(values.len()));
                (Self::Logits { values: first, vocab_size }, Self::Logits { values: rest, vocab_size })
            }
            Self::Drawn(tokens) => {
                let (first, rest) = tokens.split_at(num.min(tokens.len()));
                (Self::Drawn(first), Self::Drawn(rest))
            }
        }
    }

    /// Row `index`, where there is one.
    pub(crate) fn get(self, index: usize) -> Option<Row<'a>> {
        match self {
            Self::Logits { values, vocab_size } => {
                values.chunks_exact(vocab_size.max(1)).nth(index).map(Row::Logits)
            }
            Self::Drawn(tokens) => tokens.get(index).copied().map(Row::Drawn),
        }
    }
}
