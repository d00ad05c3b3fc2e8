//! Splitting text by regular expressions, in linear time.
//!
//! Why an engine of its own: the patterns of tokenizers need lookahead (`\s+(?!\S)`), which
//! linear-time engines lack, and engines that have it give up after a count of steps or recurse: a
//! megabyte of blanks is then one unsplit word, or a crash. The dialect is small, classes come from
//! `regex-syntax`, and every choice is remembered, so that no text takes more than linear time.

mod class;
mod matcher;
mod program;
mod syntax;

pub(crate) use class::{ClassTable, parse_class};

use matcher::Matcher;
use program::Program;

/// A compiled regular expression.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    program: Program,
    classes: ClassTable,
}

impl Pattern {
    /// Compiles a regular expression, or says what in it is not known here.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let (node, mut classes) = syntax::parse(pattern)?;
        // Anchors ask for newlines; most patterns have none, and then the class is only one more.
        let newline = parse_class(r"\n", false).ok_or("the class `\\n`")?;
        let bit = match classes.iter().position(|known| *known == newline) {
            Some(bit) => bit,
            None if classes.len() < class::MAX_CLASSES => {
                classes.push(newline);
                classes.len() - 1
            }
            None => return Err(format!("more than {} classes", class::MAX_CLASSES)),
        };
        Ok(Self { program: Program::new(&node, 1 << bit)?, classes: ClassTable::new(&classes) })
    }

    /// Cuts pieces finer: `ends` are the ends, in characters, of the pieces that `text` is cut into,
    /// and become those of the matches and of what lies between them, inside each piece.
    pub(crate) fn refine(&self, text: &str, ends: &mut Vec<usize>, sets: &mut Vec<u64>) {
        self.classes.sets_of(text, sets);
        let mut matcher = Matcher::new(&self.program, sets);
        let mut finer = Vec::with_capacity(ends.len());
        let mut begin = 0;
        for &end in ends.iter() {
            let mut cut = |at: usize| {
                if at > finer.last().copied().unwrap_or(0) {
                    finer.push(at);
                }
            };
            matcher.each_match(begin, end, |from, to| {
                cut(from);
                cut(to);
            });
            cut(end);
            begin = end;
        }
        *ends = finer;
    }

    /// The matches in `text` as byte ranges, empty ones among them.
    pub(crate) fn matches(&self, text: &str) -> Vec<(usize, usize)> {
        let mut sets = Vec::new();
        self.classes.sets_of(text, &mut sets);
        let mut found = Vec::new();
        Matcher::new(&self.program, &sets).each_match(0, sets.len(), |from, to| found.push((from, to)));
        if sets.len() == text.len() {
            return found;
        }
        // Matches come in order: one walk turns characters into bytes.
        let mut offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]).enumerate().peekable();
        let mut byte_of = |character: usize| {
            while offsets.peek().is_some_and(|(index, _)| *index < character) {
                offsets.next();
            }
            offsets.peek().map_or(text.len(), |(_, byte)| *byte)
        };
        found.into_iter().map(|(from, to)| (byte_of(from), byte_of(to))).collect()
    }
}

#[cfg(test)]
mod tests;
