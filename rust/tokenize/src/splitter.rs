//! Cuts text into the words that byte pair encoding must not merge across.

use crate::pattern::Pattern;

/// Patterns applied one after the other: each cuts what those before it left finer.
#[derive(Debug)]
pub(crate) struct Splitter {
    patterns: Vec<Pattern>,
}

impl Splitter {
    /// The splitter of `patterns`, or the one of them that is not understood and why.
    pub(crate) fn new(patterns: &[&str]) -> Result<Self, String> {
        let compile = |pattern: &&str| Pattern::new(pattern).map_err(|fault| format!("`{pattern}`: {fault}"));
        Ok(Self { patterns: patterns.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// The ends of the words of `text`, in bytes.
    pub(crate) fn split(&self, text: &str) -> Vec<usize> {
        let ascii = text.is_ascii();
        let mut ends = vec![if ascii { text.len() } else { text.chars().count() }];
        ends.retain(|&end| end > 0);
        let mut sets = Vec::new();
        for pattern in &self.patterns {
            pattern.refine(text, &mut ends, &mut sets);
        }
        if !ascii {
            let mut chars = text.char_indices();
            let mut passed = 0;
            for end in &mut ends {
                let next = chars.nth(*end - passed - 1).map_or(text.len(), |(at, c)| at + c.len_utf8());
                passed = *end;
                *end = next;
            }
        }
        ends
    }
}
