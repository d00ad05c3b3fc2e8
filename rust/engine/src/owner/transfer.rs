//! A conversation's blocks out of the cache and back into it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use alloyforge_types::{BLOCK_LEN, Batch, Error, Result, SequenceStep};

use super::{Books, Stepper, message};
use crate::command::Transfer;
use crate::conversation::{Contents, checksum};
use crate::kv::free_memory;

/// Tokens that a model is asked about to tell it from others.
const SIGNED: usize = 24;

fn panicked<T>(panic: Box<dyn Any + Send>) -> Result<T> {
    Err(Error::internal(message(&*panic)))
}

impl Stepper {
    /// Carries out what was asked for since the last step.
    pub(super) fn transfer(&mut self, books: &mut Books) {
        for transfer in std::mem::take(&mut books.transfers) {
            // who no longer waits gets nothing
            match transfer {
                Transfer::Out(keep, reply) => {
                    let done = catch_unwind(AssertUnwindSafe(|| self.contents(books, keep)));
                    let _ = reply.send(done.unwrap_or_else(panicked));
                }
                Transfer::In(keep, contents, reply) => {
                    let done = catch_unwind(AssertUnwindSafe(|| self.take_back(books, keep, &contents)));
                    let _ = reply.send(done.unwrap_or_else(panicked));
                }
            }
        }
    }

    fn contents(&mut self, books: &mut Books, keep: u64) -> Result<Contents> {
        let signature = self.signature(books)?;
        let Some((kept, known)) = books.scheduler.kept(keep) else {
            return Ok(Contents { signature, ..Contents::default() });
        };
        let mut contents = Contents {
            signature,
            regime: kept.regime,
            tokens: kept.tokens.clone(),
            marks: kept.marks.clone(),
            ..Contents::default()
        };
        for block in &known {
            let before = contents.data.len();
            self.model.read_block(block.group, block.block, &mut contents.data)?;
            let len = contents.data.len() - before;
            if contents.blocks.is_empty() {
                // they are all of a size or less than some times this one
                let needed = (len * known.len()) as u64;
                let available = free_memory().unwrap_or(u64::MAX);
                if needed > available / 2 || contents.data.try_reserve(len * known.len()).is_err() {
                    return Err(Error::OutOfMemory { what: "a conversation".into(), needed, available });
                }
            }
            contents.blocks.push((block.group, block.index, len));
        }
        Ok(contents)
    }

    fn take_back(&mut self, books: &mut Books, keep: u64, contents: &Contents) -> Result<()> {
        if contents.signature != self.signature(books)? {
            let fault = "was saved with another model, or with other options that change what it computes";
            return Err(Error::invalid("path", fault));
        }
        let spec = self.model.spec();
        let damaged = |item: &str, fault: &str| Err(Error::format("the conversation", item, fault));
        if contents.tokens.iter().any(|&t| t as usize >= spec.vocab_size) {
            return damaged("tokens", "are not the model's");
        }
        let num_blocks = contents.tokens.len() / BLOCK_LEN;
        if contents.marks.len() > contents.tokens.len().div_ceil(BLOCK_LEN) {
            return damaged("marks", "are more than its tokens have blocks");
        }
        let is_there =
            |&(group, index, _): &(usize, usize, usize)| group < spec.kv_groups.len() && index < num_blocks;
        if !contents.blocks.iter().all(is_there) {
            return damaged("blocks", "are not those of its tokens");
        }
        let wanted: Vec<(usize, usize)> = contents.blocks.iter().map(|&(g, i, _)| (g, i)).collect();
        let made = books.scheduler.make_known(contents.regime, &contents.tokens, &contents.marks, &wanted);
        let mut at = 0;
        let mut written = Ok(());
        for &(group, index, len) in &contents.blocks {
            let bytes = &contents.data[at..at + len];
            at += len;
            let Some(new) = made.iter().find(|b| (b.group, b.index) == (group, index)) else { continue };
            written = self.model.write_block(group, new.block, bytes);
            if written.is_err() {
                break;
            }
        }
        if let Err(error) = written {
            // what was made is found by its tokens and holds nothing: nobody may find it
            books.scheduler.forget_known(&made);
            return Err(error);
        }
        books.scheduler.keep_tokens(keep, contents.regime, contents.tokens.clone(), contents.marks.clone());
        Ok(())
    }

    /// What tells this model with its options from others: what it says of a few tokens, to the bit.
    fn signature(&mut self, books: &mut Books) -> Result<u64> {
        if let Some(signature) = self.signature {
            return Ok(signature);
        }
        let spec = self.model.spec();
        let rows = SIGNED.min(self.max_rows);
        let scratch = books.scheduler.scratch(rows);
        let Some(mut scratch) = scratch else {
            let what = "telling the model from others: all blocks are held".to_owned();
            return Err(Error::OutOfMemory { what, needed: 1, available: 0 });
        };
        // what so few tokens do not reach is said beside them
        let name = format!(
            "{} {} {} {:?} {:?} {:?}",
            spec.architecture,
            spec.vocab_size,
            spec.context_len,
            spec.kv_groups,
            spec.ropes,
            self.model.kv_type()
        );
        let batch = Batch {
            tokens: (0..rows).map(|i| (i * spec.vocab_size / rows) as u32).collect(),
            sequences: vec![SequenceStep {
                num_rows: rows,
                start: 0,
                rope_len: rows,
                tables: scratch.tables().to_vec(),
                ..SequenceStep::default()
            }],
            logit_rows: vec![rows - 1],
            ..Batch::default()
        };
        let done = self.model.forward(&batch, &mut self.logits);
        books.scheduler.give_back(&mut scratch);
        done?;
        let mut bytes = name.into_bytes();
        bytes.extend(self.logits.iter().flat_map(|l| l.to_bits().to_le_bytes()));
        let signature = checksum(&bytes);
        self.signature = Some(signature);
        Ok(signature)
    }
}
