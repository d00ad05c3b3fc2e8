//! One answer's way along a form.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use alloyforge_types::{Error, Result};
use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

/// A matcher whose next tokens are wanted, and where it goes back to.
type Order = (Box<Matcher>, Sender<Done>);

/// It, with the tokens.
type Done = (Box<Matcher>, std::result::Result<SimpleVob, String>);

/// The thread that works out which tokens may come next, beside the model's step. It begins with the first
/// guide, and ends when the engine and all guides are gone.
#[derive(Default)]
pub(super) struct MaskDesk(Mutex<Option<Sender<Order>>>);

impl MaskDesk {
    /// The way to it.
    ///
    /// # Errors
    /// `Internal` where no thread can be started.
    pub(super) fn open(&self) -> Result<Sender<Order>> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(orders) = &*orders {
            return Ok(orders.clone());
        }
        let (sender, received) = channel::<Order>();
        thread::Builder::new()
            .name("alloyforge-masks".into())
            .spawn(move || {
                for (mut matcher, back) in received {
                    let mask = compute(&mut matcher);
                    // a request that is over wants nothing
                    let _ = back.send((matcher, mask));
                }
            })
            .map_err(|error| Error::internal(format!("no thread for constraints: {error}")))?;
        Ok(orders.insert(sender).clone())
    }
}

/// The matcher catches its own panics.
fn compute(matcher: &mut Matcher) -> std::result::Result<SimpleVob, String> {
    matcher.compute_mask_or_eos().map_err(|error| error.to_string())
}

/// Where the matcher is.
enum Place {
    Here(Box<Matcher>),
    /// At the desk.
    Away(Receiver<Done>),
}

/// One answer's way along a form.
pub(crate) struct Guide {
    place: Option<Place>,
    /// The tokens that may come next, where they are known.
    mask: Option<SimpleVob>,
    desk: Sender<Order>,
    name: &'static str,
}

impl Guide {
    pub(super) fn new(matcher: Matcher, desk: Sender<Order>, name: &'static str) -> Self {
        Self { place: Some(Place::Here(Box::new(matcher))), mask: None, desk, name }
    }

    /// The tokens that may come next: a bit a token, 32 a word.
    ///
    /// # Errors
    /// `InvalidRequest` naming the form where it takes too much work.
    pub(crate) fn mask(&mut self) -> Result<&[u32]> {
        let mut matcher = self.take()?;
        if self.mask.is_none() {
            self.mask = Some(compute(&mut matcher).map_err(|error| self.fault(&error))?);
        }
        self.place = Some(Place::Here(matcher));
        Ok(self.mask.as_ref().map_or(&[], |mask| mask.as_slice()))
    }

    /// Goes on behind `token`, one of those that may come. True where the answer is complete and nothing
    /// can follow.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool> {
        let mut matcher = self.take()?;
        self.mask = None;
        matcher.consume_token(token).map_err(|error| self.fault(&error.to_string()))?;
        if let Some(error) = matcher.get_error() {
            return Err(self.fault(&error));
        }
        let is_over = matcher.is_stopped();
        self.place = Some(Place::Here(matcher));
        Ok(is_over)
    }

    /// Has the next tokens worked out beside whatever comes until [`mask`](Self::mask) is called.
    pub(crate) fn look_ahead(&mut self) {
        if self.mask.is_some() {
            return;
        }
        if let Some(Place::Here(matcher)) = self.place.take() {
            let (back, away) = channel();
            self.place = Some(match self.desk.send((matcher, back)) {
                Ok(()) => Place::Away(away),
                // the desk is gone: done here when it is asked for
                Err(order) => Place::Here(order.0.0),
            });
        }
    }

    /// The matcher, waited for where it is away.
    fn take(&mut self) -> Result<Box<Matcher>> {
        match self.place.take() {
            Some(Place::Here(matcher)) => Ok(matcher),
            Some(Place::Away(away)) => {
                let (matcher, mask) = away.recv().map_err(|_| Error::internal("a constraint was lost"))?;
                self.mask = Some(mask.map_err(|error| self.fault(&error))?);
                Ok(matcher)
            }
            None => Err(Error::internal("a constraint was lost")),
        }
    }

    fn fault(&self, error: &str) -> Error {
        Error::invalid(self.name, super::said(error))
    }
}
