//! With the feature.

use super::FaultPoint;

/// Where a request's path panics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault(Option<FaultPoint>);

impl Fault {
    /// A panic whenever the request comes to `point`.
    pub fn at(point: FaultPoint) -> Self {
        Self(Some(point))
    }

    #[allow(clippy::panic, reason = "it is what the feature is for")]
    pub(crate) fn pass(self, point: FaultPoint) {
        if self.0 == Some(point) {
            panic!("a fault was injected: {point:?}");
        }
    }
}
