//! Runs a program over a text, in time linear in the text.
//!
//! It backtracks, and so prefers alternatives and quantifiers as Perl's engines do, but remembers
//! every choice that has been made at every position. A choice leads to a match or not whatever came
//! before it, so one that was made and has failed is not made again, not even for a later beginning:
//! over a whole text each choice is made once a position.

use super::program::{Anchor, Inst, Program};

/// A text as class sets, and what is known about it.
#[derive(Debug)]
pub(crate) struct Matcher<'a> {
    program: &'a Program,
    sets: &'a [u64],
    // By position, a bit a choice: it was made there. All of them failed but those on the way to the
    // latest match, which are cleared with its end.
    tried: Vec<u64>,
    // By position, a bit a choice: a lookahead that made it there succeeded. Empty until needed.
    succeeded: Vec<u64>,
    stack: Vec<(u32, u32)>,
}

/// How a lookahead's choice stands: where it was made, and how deep the stack then was.
struct Open {
    slot: u8,
    at: usize,
    depth: usize,
}

impl<'a> Matcher<'a> {
    /// A matcher of `program` over a whole text.
    pub(crate) fn new(program: &'a Program, sets: &'a [u64]) -> Self {
        Self { program, sets, tried: vec![0; sets.len() + 1], succeeded: Vec::new(), stack: Vec::new() }
    }

    /// Calls `found` with every match in `begin..end`, taken as a text of its own; pieces must be
    /// given in their order.
    pub(crate) fn each_match(&mut self, begin: usize, end: usize, mut found: impl FnMut(usize, usize)) {
        self.forget(begin);
        let mut at = begin;
        let mut latest = None;
        while at <= end {
            if let Some(first) = self.program.first {
                match self.sets[at..end].iter().position(|set| set & first != 0) {
                    Some(skip) => at += skip,
                    None => return,
                }
            }
            match self.match_at(at, begin, end) {
                Some(stop) => {
                    // An empty match right behind another is none.
                    if stop > at || latest != Some(at) {
                        found(at, stop);
                    }
                    latest = Some(stop);
                    self.forget(stop);
                    at = stop.max(at + 1);
                }
                None => at += 1,
            }
        }
    }

    /// Another match or piece begins at `at`: what was tried there was tried before another end.
    fn forget(&mut self, at: usize) {
        self.tried[at] = 0;
        if let Some(set) = self.succeeded.get_mut(at) {
            *set = 0;
        }
    }

    /// The end of the match that begins at `start`.
    fn match_at(&mut self, start: usize, begin: usize, end: usize) -> Option<usize> {
        let (mut pc, mut at) = (0, start);
        self.stack.clear();
        loop {
            let onward = match self.program.code[pc] {
                Inst::Match => return Some(at),
                Inst::Split { first, second, slot, guard } => {
                    if guard.is_some_and(|classes| at == end || self.sets[at] & classes == 0) {
                        Some((second as usize, at))
                    } else if self.tried[at] & (1 << slot) == 0 {
                        self.tried[at] |= 1 << slot;
                        self.stack.push((second, at as u32));
                        Some((first as usize, at))
                    } else {
                        None
                    }
                }
                Inst::Look { end: next, negate } => {
                    (self.look(pc + 1, at, begin, end) != negate).then_some((next as usize, at))
                }
                ref inst => step(inst, pc, self.sets, at, begin, end),
            };
            (pc, at) = match onward {
                Some(place) => place,
                None => self.stack.pop().map(|(pc, at)| (pc as usize, at as usize))?,
            };
        }
    }

    /// Whether the program from `pc` on leads to a `Match` from `start`.
    fn look(&mut self, mut pc: usize, start: usize, begin: usize, end: usize) -> bool {
        if self.succeeded.is_empty() {
            self.succeeded = vec![0; self.sets.len() + 1];
        }
        let mut at = start;
        let mut stack: Vec<(u32, u32)> = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        loop {
            let mut matched = false;
            let onward = match self.program.code[pc] {
                Inst::Match => {
                    matched = true;
                    None
                }
                Inst::Split { first, second, slot, .. } => {
                    matched = self.succeeded[at] & (1 << slot) != 0;
                    if self.tried[at] & (1 << slot) == 0 {
                        self.tried[at] |= 1 << slot;
                        open.push(Open { slot, at, depth: stack.len() });
                        stack.push((second, at as u32));
                        Some((first as usize, at))
                    } else {
                        None
                    }
                }
                Inst::Look { end: next, negate } => {
                    (self.look(pc + 1, at, begin, end) != negate).then_some((next as usize, at))
                }
                ref inst => step(inst, pc, self.sets, at, begin, end),
            };
            if matched {
                for choice in open {
                    self.succeeded[choice.at] |= 1 << choice.slot;
                }
                return true;
            }
            if let Some(place) = onward {
                (pc, at) = place;
                continue;
            }
            let Some((next, position)) = stack.pop() else { return false };
            (pc, at) = (next as usize, position as usize);
            // Choices made after the one that now takes its second way have failed for good.
            while open.last().is_some_and(|choice| choice.depth > stack.len()) {
                open.pop();
            }
        }
    }
}

/// Where an instruction that makes no choice leads; `None` where it fails.
fn step(inst: &Inst, pc: usize, sets: &[u64], at: usize, begin: usize, end: usize) -> Option<(usize, usize)> {
    let is = |position: usize, class: u64| sets[position] & class != 0;
    let holds = match *inst {
        Inst::Class(class) => return (at < end && is(at, class)).then_some((pc + 1, at + 1)),
        Inst::Run { class, min, max } => {
            let most = end.min(at.saturating_add(max as usize));
            let run = sets[at..most].iter().take_while(|&&set| set & class != 0).count();
            return (run >= min as usize).then_some((pc + 1, at + run));
        }
        Inst::Jump(next) => return Some((next as usize, at)),
        Inst::LookClass { class, negate } => (at < end && is(at, class)) != negate,
        Inst::Anchor(anchor) => match anchor {
            Anchor::LineStart { newline } => at == begin || is(at - 1, newline),
            Anchor::LineEnd { newline } => at == end || is(at, newline),
            Anchor::TextStart => at == begin,
            Anchor::TextEnd => at == end,
            Anchor::Word { word, negate } => {
                ((at > begin && is(at - 1, word)) != (at < end && is(at, word))) != negate
            }
        },
        Inst::Split { .. } | Inst::Look { .. } | Inst::Match => false,
    };
    holds.then_some((pc + 1, at))
}
