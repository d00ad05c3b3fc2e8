//! Panics on purpose: with the feature `inject-faults`, a test has a request's own path panic at a point of
//! its choice. Without it [`Fault`] has no size and does nothing.

#[cfg(not(feature = "inject-faults"))]
mod disabled;
#[cfg(feature = "inject-faults")]
mod enabled;

#[cfg(not(feature = "inject-faults"))]
pub use disabled::Fault;
#[cfg(feature = "inject-faults")]
pub use enabled::Fault;

/// A point on a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// A step of the model that the request takes part in.
    Step,
    /// The draw of a token.
    Sampling,
    /// A token's text.
    Detokenising,
    /// The delivery of what was written.
    Delivery,
}
