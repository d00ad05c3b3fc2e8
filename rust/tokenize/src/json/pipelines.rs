//! One model's pipelines: special tokens read, taken for text, or both in one text.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::tokenizer::{OffsetReferential, OffsetType};
use tokenizers::{AddedToken, Model, Result as CrateResult};

use super::Pipeline;
use crate::partition::is_structure;

/// Pipelines over one model, whatever the model's type.
pub(super) trait Pipelines: Send + Sync {
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String>;
    fn encode_around(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<u32>, String>;
    fn token(&self, id: u32) -> Option<String>;
    fn id(&self, token: &str) -> Option<u32>;
    fn is_special(&self, id: u32) -> bool;
}

pub(super) struct Trio<M> {
    /// Reads special tokens in a text.
    special: Pipeline<M>,
    /// Takes them for text.
    literal: Pipeline<M>,
    /// Takes them for text, and what looks like them; and reads [`BARRIER`].
    between: Pipeline<M>,
}

/// A token of its own before a text that stands behind another, so that nothing takes it for the
/// beginning. Longer than what anybody writes by chance, and what it becomes is left out.
const BARRIER: &str = "\u{10fffd}\u{10fffc}alloyforge\u{10fffd}\u{10fffc}";

impl<M: Model> Trio<M> {
    pub(super) fn new(special: Pipeline<M>) -> CrateResult<Self> {
        let mut literal = special.clone();
        literal.set_encode_special_tokens(true);
        let mut between = literal.clone();
        let added = between.get_added_vocabulary().get_added_tokens_decoder();
        let looks = added.values().filter(|token| !token.special && is_structure(&token.content));
        let looks: Vec<_> = looks.map(|token| AddedToken { special: true, ..token.clone() }).collect();
        if !looks.is_empty() {
            between.add_special_tokens(looks)?;
        }
        between.add_tokens([AddedToken::from(BARRIER, false).normalized(false)])?;
        Ok(Self { special, literal, between })
    }

    /// The special tokens of `text` outside of `literal` and what they take with them, with their ids.
    fn specials(&self, text: &str, literal: &[Range<usize>]) -> Vec<(u32, Range<usize>)> {
        let masked = mask(text, literal);
        let found =
            self.special.get_added_vocabulary().extract_and_normalize(self.special.get_normalizer(), &masked);
        let splits = found.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let added = self.special.get_added_vocabulary().get_added_tokens_decoder();
        let reads = |id: u32| added.get(&id).is_some_and(|t| t.special || is_structure(&t.content));
        splits
            .into_iter()
            .filter_map(|(_, (start, end), tokens)| match tokens.as_deref() {
                Some([token]) if reads(token.id) => Some((token.id, start..end)),
                _ => None,
            })
            .collect()
    }

    /// Appends the ids of a part of a text without special tokens.
    fn append(&self, text: &str, is_first: bool, ids: &mut Vec<u32>) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let fault = |fault: tokenizers::Error| fault.to_string();
        if is_first {
            ids.extend(self.between.encode_fast(text, false).map_err(fault)?.get_ids());
            return Ok(());
        }
        let encoding = self.between.encode_fast(format!("{BARRIER}{text}"), false).map_err(fault)?;
        ids.extend(encoding.get_ids().iter().skip(1));
        Ok(())
    }
}

impl<M: Model + Send + Sync> Pipelines for Trio<M> {
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String> {
        let pipeline = if special { &self.special } else { &self.literal };
        guarded(|| {
            let encoding = pipeline.encode_fast(text, false).map_err(|fault| fault.to_string())?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    fn encode_around(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<u32>, String> {
        if literal.is_empty() {
            return self.encode(text, true);
        }
        if text.contains(BARRIER) {
            return Err("holds a sequence of private characters that is used otherwise".to_owned());
        }
        let part = |range: Range<usize>| text.get(range).ok_or("a token ends within a character");
        guarded(|| {
            let mut ids = Vec::new();
            let mut end = 0;
            for (id, range) in self.specials(text, literal) {
                self.append(part(end..range.start)?, end == 0, &mut ids)?;
                ids.push(id);
                end = range.end;
            }
            self.append(part(end..text.len())?, end == 0, &mut ids)?;
            Ok(ids)
        })
    }

    fn token(&self, id: u32) -> Option<String> {
        self.special.id_to_token(id)
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.special.token_to_id(token)
    }

    fn is_special(&self, id: u32) -> bool {
        let added = self.special.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&id).is_some_and(|token| token.special)
    }
}

/// Does what the crate may panic at, on files that it takes and cannot run.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("is more than the tokenizer can do".to_owned()))
}

/// `text` with what is literal made unreadable, each character but blanks by others of the same length.
fn mask(text: &str, literal: &[Range<usize>]) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut end = 0;
    for range in literal {
        masked.push_str(text.get(end..range.start).unwrap_or_default());
        for c in text.get(range.clone()).unwrap_or_default().chars() {
            match c.is_whitespace() {
                true => masked.push(c),
                false => masked.extend(std::iter::repeat_n('\u{1}', c.len_utf8())),
            }
        }
        end = range.end;
    }
    masked.push_str(text.get(end..).unwrap_or_default());
    masked
}
