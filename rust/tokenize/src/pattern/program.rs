//! A pattern as instructions.

use super::syntax::{Greed, Node};

/// One instruction; `u64` operands are sets of classes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Inst {
    /// One character of the class.
    Class(u64),
    /// As many characters of the class as there are, up to `max`, and at least `min`.
    Run { class: u64, min: u32, max: u32 },
    /// Go on at `first`, and at `second` where that fails. `first` is not even tried where the next
    /// character is in none of `guard`, the classes it can begin with.
    Split { first: u32, second: u32, slot: u8, guard: Option<u64> },
    /// Go on elsewhere.
    Jump(u32),
    /// The next character is of the class, or is not.
    LookClass { class: u64, negate: bool },
    /// What follows, up to its `Match`, matches from here, or does not; go on at `end`.
    Look { end: u32, negate: bool },
    /// An anchor.
    Anchor(Anchor),
    /// The end of the pattern or of a lookahead.
    Match,
}

/// What must hold between two characters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Anchor {
    /// The beginning of the text, or behind a newline.
    LineStart { newline: u64 },
    /// The end of the text, or before a newline.
    LineEnd { newline: u64 },
    /// The beginning of the text.
    TextStart,
    /// The end of the text.
    TextEnd,
    /// A change from word to non-word characters, or none.
    Word { word: u64, negate: bool },
}

/// Instructions that one pattern may take.
const MAX_INSTRUCTIONS: usize = 4096;

/// Choices that one pattern may make: each is one bit a position.
const MAX_SLOTS: u8 = 64;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The instructions; it begins with the first.
    pub(crate) code: Vec<Inst>,
    /// The classes that a match can begin with; `None`: a match may be empty.
    pub(crate) first: Option<u64>,
}

impl Program {
    /// Compiles a tree; `newline` is the class of `\n`.
    pub(crate) fn new(node: &Node, newline: u64) -> Result<Self, String> {
        let mut compiler = Compiler { code: Vec::new(), slots: 0, newline };
        compiler.emit(node)?;
        compiler.push(Inst::Match)?;
        Ok(Self { code: compiler.code, first: guard(node) })
    }
}

/// The classes that a match of `node` can begin with, and whether it can be empty.
fn first(node: &Node) -> (u64, bool) {
    match node {
        Node::Class(class) => (*class, false),
        Node::Concat(items) => {
            let mut union = 0;
            for item in items {
                let (classes, empty) = first(item);
                union |= classes;
                if !empty {
                    return (union, false);
                }
            }
            (union, true)
        }
        Node::Alternate(branches) => {
            branches.iter().map(first).fold((0, false), |a, b| (a.0 | b.0, a.1 | b.1))
        }
        Node::Repeat { node, min, max, .. } => {
            let (classes, empty) = first(node);
            if *max == Some(0) { (0, true) } else { (classes, empty || *min == 0) }
        }
        _ => (0, true),
    }
}

fn guard(node: &Node) -> Option<u64> {
    match first(node) {
        (_, true) => None,
        (classes, false) => Some(classes),
    }
}

struct Compiler {
    code: Vec<Inst>,
    slots: u8,
    newline: u64,
}

impl Compiler {
    fn at(&self) -> u32 {
        self.code.len() as u32
    }

    fn push(&mut self, inst: Inst) -> Result<usize, String> {
        if self.code.len() >= MAX_INSTRUCTIONS {
            return Err(format!("more than {MAX_INSTRUCTIONS} instructions"));
        }
        self.code.push(inst);
        Ok(self.code.len() - 1)
    }

    /// A choice between what follows it and a place that [`Self::land`] sets.
    fn split(&mut self, guard: Option<u64>) -> Result<usize, String> {
        if self.slots == MAX_SLOTS {
            return Err(format!("more than {MAX_SLOTS} choices"));
        }
        self.slots += 1;
        let here = self.at() + 1;
        self.push(Inst::Split { first: here, second: here, slot: self.slots - 1, guard })
    }

    /// Lets the jump, choice or lookahead at `index` go on at the next instruction.
    fn land(&mut self, index: usize) {
        let here = self.at();
        match &mut self.code[index] {
            Inst::Split { second: target, .. } | Inst::Jump(target) | Inst::Look { end: target, .. } => {
                *target = here;
            }
            _ => {}
        }
    }

    /// Makes the choice at `index` prefer the way out.
    fn prefer_second(&mut self, index: usize) {
        if let Inst::Split { first, second, guard, .. } = &mut self.code[index] {
            std::mem::swap(first, second);
            *guard = None;
        }
    }

    fn emit(&mut self, node: &Node) -> Result<(), String> {
        match node {
            Node::Class(class) => drop(self.push(Inst::Class(*class))?),
            Node::Concat(items) => items.iter().try_for_each(|item| self.emit(item))?,
            Node::Alternate(branches) => {
                let mut jumps = Vec::new();
                for (i, branch) in branches.iter().enumerate() {
                    if i + 1 == branches.len() {
                        self.emit(branch)?;
                    } else {
                        let split = self.split(guard(branch))?;
                        self.emit(branch)?;
                        jumps.push(self.push(Inst::Jump(0))?);
                        self.land(split);
                    }
                }
                for jump in jumps {
                    self.land(jump);
                }
            }
            Node::Repeat { node, min, max, greed } => self.repeat(node, *min, *max, *greed)?,
            Node::Look { node, negate } => {
                if let Some(class) = only_class(node) {
                    self.push(Inst::LookClass { class, negate: *negate })?;
                } else {
                    let look = self.push(Inst::Look { end: 0, negate: *negate })?;
                    self.emit(node)?;
                    self.push(Inst::Match)?;
                    self.land(look);
                }
            }
            Node::LineStart => self.anchor(Anchor::LineStart { newline: self.newline })?,
            Node::LineEnd => self.anchor(Anchor::LineEnd { newline: self.newline })?,
            Node::TextStart => self.anchor(Anchor::TextStart)?,
            Node::TextEnd => self.anchor(Anchor::TextEnd)?,
            Node::WordBoundary { word, negate } => {
                self.anchor(Anchor::Word { word: *word, negate: *negate })?;
            }
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: Anchor) -> Result<(), String> {
        self.push(Inst::Anchor(anchor)).map(drop)
    }

    fn repeat(&mut self, node: &Node, min: u32, max: Option<u32>, greed: Greed) -> Result<(), String> {
        if let Some(class) = only_class(node)
            && (greed == Greed::Possessive || max == Some(min))
        {
            return self.push(Inst::Run { class, min, max: max.unwrap_or(u32::MAX) }).map(drop);
        }
        if greed == Greed::Possessive {
            return Err("a possessive group".to_owned());
        }
        for _ in 0..min {
            self.emit(node)?;
        }
        match max {
            None => {
                let split = self.split(guard(node))?;
                self.emit(node)?;
                self.push(Inst::Jump(split as u32))?;
                self.land(split);
                if greed == Greed::Lazy {
                    self.prefer_second(split);
                }
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in min..max {
                    splits.push(self.split(guard(node))?);
                    self.emit(node)?;
                }
                for split in splits {
                    self.land(split);
                    if greed == Greed::Lazy {
                        self.prefer_second(split);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The class, where the node is nothing but one.
fn only_class(node: &Node) -> Option<u64> {
    match node {
        Node::Class(class) => Some(*class),
        Node::Concat(items) | Node::Alternate(items) if items.len() == 1 => only_class(&items[0]),
        _ => None,
    }
}
