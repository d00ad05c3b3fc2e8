//! Reading out what the model thinks of given tokens.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use alloyforge_types::{Error, Result};

use crate::command::{Command, JobId};

/// What is read out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// The logits of every token, of shape `[tokens, vocab]`.
    Logits,
    /// The natural log probability of every token but the first, given those before it.
    Score,
}

/// What a read-out gives.
pub(crate) type Readings = Result<Vec<f32>>;

/// A read-out that is under way. Dropping it cancels it.
pub struct Probe {
    result: Receiver<Readings>,
    job: JobId,
    commands: Sender<Command>,
}

impl Probe {
    pub(crate) fn new(job: JobId, commands: Sender<Command>) -> (Sender<Readings>, Self) {
        let (sender, result) = channel();
        (sender, Self { result, job, commands })
    }

    /// The values, waiting for them at most `timeout`; `None` when the time is over. It gives them
    /// once.
    ///
    /// # Errors
    /// Whatever the model failed with; `Closed` where the engine was closed.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Result<Vec<f32>>> {
        match timeout {
            None => Some(self.result.recv().unwrap_or(Err(Error::Closed))),
            Some(timeout) => match self.result.recv_timeout(timeout) {
                Ok(result) => Some(result),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Err(Error::Closed)),
            },
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // one that is over is passed by
        let _ = self.commands.send(Command::Cancel(self.job));
    }
}
