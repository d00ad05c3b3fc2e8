//! What one rendering may use: work, memory, depth.
//!
//! A chat template comes with a model file, so it is untrusted code. Work and memory are counted
//! where they are spent, and memory is counted *before* it is taken: an allocation that fails aborts
//! the process, so there must never be one whose size a template chose freely.

use std::cell::Cell;

use crate::fault::{Fault, Outcome};

/// Longest template source, in bytes. The longest published one known is some 40 KB.
pub(crate) const MAX_SOURCE: usize = 1 << 19;

/// Longest line of a source, in characters: minijinja counts columns in 16 bits.
pub(crate) const MAX_LINE: usize = 65_000;

/// Units of work in one rendering: one a node evaluated, one for every [`BYTES_PER_UNIT`] bytes
/// or so touched. A conversation of a thousand messages takes some hundred thousand.
const MAX_WORK: u64 = 5_000_000;

/// Bytes of text that count as one unit of work.
const BYTES_PER_UNIT: usize = 64;

/// Bytes that a template's own values and outputs may hold at one time; what the caller passed in
/// comes on top. Buffers grow by doubling, so the process may see up to twice this.
const MAX_MEMORY: usize = 24 << 20;

/// How deep values may be nested: lists in lists, a `map` over a `map`.
pub(crate) const MAX_NESTING: usize = 160;

/// How deep evaluation may recurse, in nodes: macros that call themselves, mostly.
pub(crate) const MAX_DEPTH: usize = 600;

/// The account of one rendering.
pub(crate) struct Budget {
    work: Cell<u64>,
    memory: Cell<usize>,
    limit: Cell<usize>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { work: Cell::new(MAX_WORK), memory: Cell::new(0), limit: Cell::new(usize::MAX) }
    }

    /// From now on memory and work are limited; what was spent so far was the caller's.
    pub(crate) fn seal(&self) {
        self.limit.set(self.memory.get().saturating_add(MAX_MEMORY));
        self.work.set(MAX_WORK);
    }

    /// Spends `units` of work.
    pub(crate) fn work(&self, units: usize) -> Outcome<()> {
        match self.work.get().checked_sub(units as u64) {
            Some(rest) => {
                self.work.set(rest);
                Ok(())
            }
            None => {
                self.work.set(0);
                Err(Fault::new("the template takes too many steps"))
            }
        }
    }

    /// Spends the work of touching `bytes` bytes.
    pub(crate) fn touch(&self, bytes: usize) -> Outcome<()> {
        self.work(1 + bytes / BYTES_PER_UNIT)
    }

    /// Takes `bytes` of memory, before they are allocated.
    pub(crate) fn take(&self, bytes: usize) -> Outcome<()> {
        let held = self.memory.get().saturating_add(bytes);
        if held > self.limit.get() {
            return Err(Fault::new("the template takes too much memory"));
        }
        self.memory.set(held);
        Ok(())
    }

    /// Gives `bytes` back.
    pub(crate) fn give(&self, bytes: usize) {
        self.memory.set(self.memory.get().saturating_sub(bytes));
    }
}
