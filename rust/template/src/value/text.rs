//! Strings: immutable, counted, indexed by character.

use std::ops::Deref;
use std::rc::Rc;

use crate::budget::Budget;
use crate::fault::Outcome;

/// What a string is counted as beside its bytes.
const SELF: usize = 96;

struct Inner {
    text: Box<str>,
    chars: usize,
    budget: Rc<Budget>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.budget.give(SELF + self.text.len());
    }
}

/// A string.
#[derive(Clone)]
pub(crate) struct Text {
    inner: Rc<Inner>,
    /// Whether it is jinja2's `Markup`, HTML that need not be escaped. Published templates call
    /// `safe` on parts of a prompt, and what is then added to such a part is escaped.
    is_markup: bool,
}

impl Text {
    /// A copy of `text`, counted.
    pub(crate) fn new(budget: &Rc<Budget>, text: &str) -> Outcome<Self> {
        budget.touch(text.len())?;
        budget.take(SELF + text.len())?;
        Ok(Self::counted(budget, text.into()))
    }

    /// A caller's text, counted; copying it is no work of the template's.
    pub(crate) fn from_caller(budget: &Rc<Budget>, text: &str) -> Outcome<Self> {
        budget.take(SELF + text.len())?;
        Ok(Self::counted(budget, text.into()))
    }

    /// Takes a string whose memory has been counted, [`SELF`] included.
    fn counted(budget: &Rc<Budget>, text: Box<str>) -> Self {
        let chars = text.chars().count();
        Self { inner: Rc::new(Inner { text, chars, budget: budget.clone() }), is_markup: false }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.inner.text
    }

    pub(crate) fn is_markup(&self) -> bool {
        self.is_markup
    }

    /// The same text, as `Markup` or as a plain string.
    pub(crate) fn with_markup(&self, is_markup: bool) -> Self {
        Self { inner: self.inner.clone(), is_markup }
    }

    /// The length in characters.
    pub(crate) fn chars_len(&self) -> usize {
        self.inner.chars
    }

    /// Where character `index` begins, in bytes; the end for an index past it.
    pub(crate) fn offset(&self, index: usize) -> usize {
        if index >= self.inner.chars {
            return self.inner.text.len();
        }
        if self.inner.chars == self.inner.text.len() {
            return index;
        }
        self.inner.text.char_indices().nth(index).map_or(self.inner.text.len(), |(at, _)| at)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.inner.text
    }
}

/// A string in the making: every byte is counted before it is there.
pub(crate) struct Buf {
    text: String,
    /// What has been counted: [`SELF`] and at least the text's length.
    taken: usize,
    budget: Rc<Budget>,
}

impl Buf {
    pub(crate) fn new(budget: &Rc<Budget>) -> Self {
        Self { text: String::new(), taken: 0, budget: budget.clone() }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Outcome<()> {
        self.reserve(piece.len())?;
        self.budget.touch(piece.len())?;
        self.text.push_str(piece);
        Ok(())
    }

    pub(crate) fn push_char(&mut self, c: char) -> Outcome<()> {
        self.reserve(c.len_utf8())?;
        self.text.push(c);
        Ok(())
    }

    /// Appends `piece` `count` times.
    pub(crate) fn push_times(&mut self, piece: &str, count: usize) -> Outcome<()> {
        self.reserve(piece.len().saturating_mul(count))?;
        self.budget.touch(piece.len().saturating_mul(count))?;
        if !piece.is_empty() {
            (0..count).for_each(|_| self.text.push_str(piece));
        }
        Ok(())
    }

    /// Counts what `more` bytes will need. Small pieces are counted a chunk at a time.
    fn reserve(&mut self, more: usize) -> Outcome<()> {
        let needed = self.text.len().saturating_add(more).saturating_add(SELF);
        if needed > self.taken {
            let step = (needed - self.taken).max(self.taken / 8).max(256);
            self.budget.take(step)?;
            self.taken += step;
        }
        Ok(())
    }

    /// Spends work beyond that of copying.
    pub(crate) fn work(&self, units: usize) -> Outcome<()> {
        self.budget.work(units)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The text as a value.
    pub(crate) fn finish(mut self) -> Outcome<Text> {
        let text = std::mem::take(&mut self.text).into_boxed_str();
        self.budget.touch(text.len())?;
        self.budget.take(SELF + text.len())?;
        // `self.taken` is given back when `self` drops.
        Ok(Text::counted(&self.budget, text))
    }

    /// The text itself, no longer counted.
    pub(crate) fn into_string(mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.budget.give(self.taken);
    }
}
