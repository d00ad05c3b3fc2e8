//! Arguments of a call, and how Python hands them to parameters.

use std::sync::Arc;

use crate::fault::{Outcome, fail};
use crate::value::Value;

/// Positional and keyword arguments.
#[derive(Clone, Default)]
pub(crate) struct Args {
    pub(crate) args: Vec<Value>,
    pub(crate) kwargs: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// Hands the arguments to the parameters of `function`, of which the first `required` have no
    /// default.
    pub(crate) fn bind<const N: usize>(
        self,
        function: &str,
        params: [&str; N],
        required: usize,
    ) -> Outcome<[Option<Value>; N]> {
        if self.args.len() > N {
            fail!("{function}() takes at most {N} arguments ({} given)", self.args.len());
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.args) {
            *slot = Some(value);
        }
        for (name, value) in self.kwargs {
            let Some(at) = params.iter().position(|param| **param == *name) else {
                fail!("{function}() got an unexpected keyword argument '{name}'");
            };
            if bound[at].replace(value).is_some() {
                fail!("{function}() got multiple values for argument '{name}'");
            }
        }
        for (name, value) in params.iter().zip(&bound).take(required) {
            if value.is_none() {
                fail!("{function}() missing required argument: '{name}'");
            }
        }
        Ok(bound)
    }

    /// As [`Args::bind`], for a function without keyword arguments.
    pub(crate) fn positional<const N: usize>(
        self,
        function: &str,
        required: usize,
    ) -> Outcome<[Option<Value>; N]> {
        if !self.kwargs.is_empty() {
            fail!("{function}() takes no keyword arguments");
        }
        if self.args.len() > N || self.args.len() < required {
            fail!("{function}() got {} arguments, expected {required} to {N}", self.args.len());
        }
        let mut args = self.args.into_iter();
        Ok([(); N].map(|()| args.next()))
    }

    /// Faults where there is any argument.
    pub(crate) fn none(self, function: &str) -> Outcome<()> {
        self.positional::<0>(function, 0).map(|_| ())
    }

    /// How deep the deepest argument is nested.
    pub(crate) fn depth(&self) -> usize {
        let named = self.kwargs.iter().map(|(_, value)| value);
        self.args.iter().chain(named).map(Value::depth).max().unwrap_or(0)
    }
}
