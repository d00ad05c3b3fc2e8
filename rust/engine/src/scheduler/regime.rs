//! Which rotary tables a sequence's tokens are turned by.

use alloyforge_types::{ModelSpec, RopeScaling};

/// How a model's rotary tables depend on the length of the sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RopeRegimes {
    /// Lengths beyond which LongRoPE takes its other table, ascending.
    switches: Vec<usize>,
    /// The least length beyond which a dynamic table grows with every token.
    grows_after: Option<usize>,
}

impl RopeRegimes {
    /// The regimes of `spec`.
    pub fn new(spec: &ModelSpec) -> Self {
        let mut regimes = Self::default();
        for rope in &spec.ropes {
            match rope.scaling {
                RopeScaling::LongRope { original_len, .. } => regimes.switches.push(original_len),
                RopeScaling::Dynamic { original_len, .. } => {
                    let least = regimes.grows_after.unwrap_or(original_len).min(original_len);
                    regimes.grows_after = Some(least);
                }
                _ => {}
            }
        }
        regimes.switches.sort_unstable();
        regimes.switches.dedup();
        regimes
    }

    #[cfg(test)]
    pub(super) fn testing(switches: &[usize], grows_after: Option<usize>) -> Self {
        Self { switches: switches.to_vec(), grows_after }
    }

    /// The number of the regime that a sequence with `rope_len` is computed in. Two sequences in one
    /// regime that begin with the same tokens have the same keys and values for them.
    pub fn number(&self, rope_len: usize) -> u64 {
        match self.grows_after {
            // the table for max(rope_len, index + 1) differs for every rope_len from here on
            Some(len) if rope_len > len => (self.switches.len() + rope_len) as u64,
            _ => self.num_switches_before(rope_len) as u64,
        }
    }

    /// Whether a sequence that was computed for `rope_len` tokens must be computed again from its
    /// start now that it has `len`.
    ///
    /// LongRoPE's two tables do not mix: transformers drops the cache when a sequence crosses over.
    /// A dynamic table grows token by token and what is cached stays, as it does there.
    pub fn must_restart(&self, rope_len: usize, len: usize) -> bool {
        self.num_switches_before(len) > self.num_switches_before(rope_len)
    }

    fn num_switches_before(&self, len: usize) -> usize {
        self.switches.partition_point(|&switch| switch < len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longrope_switches_once() {
        let regimes = RopeRegimes { switches: vec![128], grows_after: None };
        assert_eq!((regimes.number(1), regimes.number(128), regimes.number(129)), (0, 0, 1));
        assert!(!regimes.must_restart(40, 128));
        assert!(regimes.must_restart(40, 129));
        assert!(!regimes.must_restart(129, 4000));
    }

    #[test]
    fn dynamic_tables_are_their_own_and_never_restart() {
        let regimes = RopeRegimes { switches: vec![], grows_after: Some(64) };
        assert_eq!(regimes.number(10), regimes.number(64));
        assert_ne!(regimes.number(65), regimes.number(66));
        assert!(!regimes.must_restart(10, 1000));
    }
}
