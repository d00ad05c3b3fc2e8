//! The two ends of a request's events: the caller's [`Handle`], the owner thread's `Outbox`.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloyforge_types::{Error, Result};

use crate::command::{Command, JobId};
use crate::{Event, Output};

/// Called on the engine's thread when events have arrived; it must not block.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// A terminal event has been put in; nothing may follow it.
    is_closed: bool,
    /// The terminal event has been taken out.
    is_over: bool,
    /// The caller wants no more.
    is_cancelled: bool,
}

/// The queue between the owner thread and one caller.
#[derive(Default)]
struct Mailbox {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // every change below leaves the state whole, so that a panic elsewhere cannot break it
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if matches!(event, Some(Event::Finished(_) | Event::Failed(_))) {
            self.is_over = true;
        }
        event
    }
}

/// The caller's end of a request. Dropping it cancels the request.
pub struct Handle {
    mailbox: Arc<Mailbox>,
    job: JobId,
    commands: Sender<Command>,
}

impl Handle {
    /// The next event, waiting for it at most `timeout` (`None`: for as long as it takes). `None`
    /// when the time is over, or when the last event has been taken.
    pub fn next(&self, timeout: Option<Duration>) -> Option<Event> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.mailbox.lock();
        loop {
            if let Some(event) = state.take() {
                return Some(event);
            }
            if state.is_over {
                return None;
            }
            state = match deadline {
                None => self.mailbox.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let (state, _) = self
                        .mailbox
                        .arrived
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner);
                    state
                }
            };
        }
    }

    /// The next event, where one is there already.
    pub fn try_next(&self) -> Option<Event> {
        self.mailbox.lock().take()
    }

    /// Whether the last event has been taken.
    pub fn is_over(&self) -> bool {
        self.mailbox.lock().is_over
    }

    /// Ends the request. What it wrote so far comes as its end result, marked as cancelled; a request
    /// that is over stays as it is.
    pub fn cancel(&self) {
        self.mailbox.lock().is_cancelled = true;
        // a closed engine has ended the request already
        let _ = self.commands.send(Command::Cancel(self.job));
    }

    /// Has `waker` called whenever events arrive, and now if some are waiting.
    pub fn set_waker(&self, waker: Waker) {
        let mut state = self.mailbox.lock();
        let is_pending = !state.events.is_empty();
        state.waker = Some(Arc::clone(&waker));
        drop(state);
        if is_pending {
            waker();
        }
    }

    /// Waits for the end result and passes over chunks.
    ///
    /// # Errors
    /// Whatever the request failed with.
    pub fn wait(&self) -> Result<Output> {
        loop {
            match self.next(None) {
                Some(Event::Chunk(_)) => {}
                Some(Event::Finished(output)) => return Ok(*output),
                Some(Event::Failed(error)) => return Err(error),
                None => return Err(Error::internal("the request's end result was taken before")),
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.mailbox.lock().is_closed {
            self.cancel();
        }
    }
}

/// The owner thread's end. One that is dropped before a terminal event fails the request, so that no
/// caller waits for ever.
pub(crate) struct Outbox {
    mailbox: Arc<Mailbox>,
    held: Vec<Event>,
}

impl Outbox {
    /// Both ends of a new mailbox.
    pub(crate) fn new(job: JobId, commands: Sender<Command>) -> (Self, Handle) {
        let mailbox = Arc::new(Mailbox::default());
        (Self { mailbox: Arc::clone(&mailbox), held: Vec::new() }, Handle { mailbox, job, commands })
    }

    /// Whether the caller has cancelled the request.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.mailbox.lock().is_cancelled
    }

    /// Keeps `event` until the next [`flush`](Self::flush).
    pub(crate) fn hold(&mut self, event: Event) {
        self.held.push(event);
    }

    /// Puts in what was held and wakes the caller once. Events behind a terminal one are dropped.
    pub(crate) fn flush(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let mut state = self.mailbox.lock();
        for event in self.held.drain(..) {
            if !state.is_closed {
                state.is_closed = matches!(event, Event::Finished(_) | Event::Failed(_));
                state.events.push_back(event);
            }
        }
        let waker = state.waker.clone();
        drop(state);
        self.mailbox.arrived.notify_all();
        if let Some(waker) = waker {
            waker();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if !self.mailbox.lock().is_closed {
            self.hold(Event::Failed(Error::Closed));
            // this may run while a panic unwinds, when another one must not leave
            let _ = catch_unwind(AssertUnwindSafe(|| self.flush()));
        }
    }
}
