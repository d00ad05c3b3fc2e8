//! What callers send to the owner thread.

use std::sync::mpsc::Sender;

use alloyforge_types::Result;

use crate::conversation::Contents;
use crate::job::{Generation, Probing};
use crate::scheduler::KeepId;

/// The number of a request, unique in its engine.
pub(crate) type JobId = u64;

/// One message to the owner thread.
pub(crate) enum Command {
    /// Write text.
    Generate(JobId, Box<Generation>),
    /// Read out logits.
    Probe(JobId, Box<Probing>),
    /// End a request; one that is over is passed by.
    Cancel(JobId),
    /// Let what a conversation keeps go.
    LetGo(KeepId),
    /// Have the second conversation keep what the first does.
    Fork(KeepId, KeepId),
    /// Bring a conversation's blocks out or in.
    Transfer(Transfer),
    /// End all requests and the thread.
    Close,
}

/// A conversation's blocks out of the cache or into it.
pub(crate) enum Transfer {
    /// Out.
    Out(KeepId, Sender<Result<Contents>>),
    /// In.
    In(KeepId, Contents, Sender<Result<()>>),
}
