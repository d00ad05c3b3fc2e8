//! What callers send to the owner thread.

use crate::job::{Generation, Probing};

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
    /// End all requests and the thread.
    Close,
}
