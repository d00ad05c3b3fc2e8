//! Chats whose blocks are kept between turns, forked, saved and restored.
//!
//! A conversation is a mark on the prefix cache: the blocks of its last turn are pinned, so that they go
//! after everything else when memory is wanted, and its requests find them whatever holds for others.
//! What a turn says does not depend on it: a block that did go is computed again, to the same bits. A
//! fork is a second mark on the same blocks.

mod checksum;
mod file;

use std::sync::mpsc::Sender;

use crate::command::Command;
use crate::scheduler::KeepId;

pub(crate) use checksum::checksum;
pub(crate) use file::{read, write};

/// A mark that keeps the blocks of a chat. Dropping it lets them go.
pub struct Conversation {
    id: KeepId,
    commands: Sender<Command>,
}

/// Which conversation a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConversationId(pub(crate) KeepId);

impl Conversation {
    pub(crate) fn new(id: KeepId, commands: Sender<Command>) -> Self {
        Self { id, commands }
    }

    /// What requests of this conversation name.
    pub fn id(&self) -> ConversationId {
        ConversationId(self.id)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // a closed engine keeps nothing
        let _ = self.commands.send(Command::LetGo(self.id));
    }
}

/// What a conversation's blocks hold, outside of the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Which model, with which options, computed them: see the owner's `signature`.
    pub(crate) signature: u64,
    /// The regime of rotary tables.
    pub(crate) regime: u64,
    /// The tokens.
    pub(crate) tokens: Vec<u32>,
    /// For each of the first blocks, a digest of the media rows in it; 0 where there are none.
    pub(crate) marks: Vec<u128>,
    /// Group, index in the sequence and bytes of each block in `data`, which holds them one after the
    /// other.
    pub(crate) blocks: Vec<(usize, usize, usize)>,
    pub(crate) data: Vec<u8>,
}
