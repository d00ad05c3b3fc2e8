//! The interpreter: it walks the tree with Python's values under a budget.
//!
//! A key decision: minijinja's virtual machine is not used. Its operators make strings and lists of
//! any size before anybody can count them, its values print, compare, divide and index in their own
//! way, and no setting changes either. Python's semantics and the bounds are what this crate is for.

mod access;
mod call;
mod cursor;
mod expression;
mod scope;
mod statement;

use std::rc::Rc;

use serde_json::Value as Json;

pub(crate) use cursor::{Cursor, Mapping, Selection, Stream};
pub(crate) use scope::Scope;

use crate::args::Args;
use crate::budget::{Budget, MAX_DEPTH};
use crate::clock::Clock;
use crate::fault::{Outcome, fail};
use crate::globals::global;
use crate::json::from_json;
use crate::syntax::{Literal, Source};
use crate::value::{Buf, Dict, Object, Seq, Text, Value, write_str};

/// How a statement ended.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flow {
    Next,
    Break,
    Continue,
}

/// One rendering.
pub(crate) struct Interp<'t> {
    source: &'t Source,
    pub(crate) budget: Rc<Budget>,
    /// The template's constants as values.
    literals: Vec<Value>,
    /// What each name stands for outside every scope: the context first, then the globals.
    outer: Vec<Option<Value>>,
    root: Rc<Scope>,
    out: Buf,
    depth: usize,
    pub(crate) clock: Clock,
    /// Everything through which a value could come to hold itself, emptied at the end.
    namespaces: Vec<Rc<Object>>,
    captured: Vec<Rc<Scope>>,
}

impl<'t> Interp<'t> {
    /// Renders `source` with the variables in `context`.
    pub(crate) fn render(
        source: &'t Source,
        context: &serde_json::Map<String, Json>,
        clock: Clock,
    ) -> Outcome<String> {
        let budget = Rc::new(Budget::new());
        let literals = source.literals.iter().map(|literal| constant(&budget, literal));
        let literals = literals.collect::<Outcome<_>>()?;
        let outer = source.names.iter().map(|name| match context.get(&**name) {
            Some(json) => from_json(&budget, json, 0).map(Some),
            None => Ok(global(name)),
        });
        let outer = outer.collect::<Outcome<_>>()?;
        budget.seal();
        let root = Scope::new(None);
        let mut interp = Self {
            source,
            out: Buf::new(&budget),
            budget,
            literals,
            outer,
            root: root.clone(),
            depth: 0,
            clock,
            namespaces: Vec::new(),
            captured: Vec::new(),
        };
        interp.exec(&source.body, &root)?;
        Ok(std::mem::replace(&mut interp.out, Buf::new(&interp.budget)).into_string())
    }

    /// Runs `task` one level deeper.
    pub(crate) fn nested<T>(&mut self, task: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.depth -= 1;
            fail!("maximum recursion depth exceeded");
        }
        let result = task(self);
        self.depth -= 1;
        result
    }

    /// Runs `task` and returns what it printed.
    fn capture<T>(&mut self, task: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<(T, Text)> {
        let outer = std::mem::replace(&mut self.out, Buf::new(&self.budget));
        let result = task(self);
        let inner = std::mem::replace(&mut self.out, outer);
        let result = result?;
        Ok((result, inner.finish()?))
    }

    /// Keeps an object that can be written into, so that cycles through it can be broken.
    pub(crate) fn keep_namespace(&mut self, object: Object) -> Outcome<Value> {
        self.budget.take(NAMESPACE_BYTES)?;
        let object = Rc::new(object);
        self.namespaces.push(object.clone());
        Ok(Value::Object(object))
    }

    /// Keeps a scope that a macro holds, likewise.
    fn keep_scope(&mut self, scope: &Rc<Scope>) -> Outcome<()> {
        if !scope.is_kept.replace(true) {
            self.budget.take(NAMESPACE_BYTES)?;
            self.captured.push(scope.clone());
        }
        Ok(())
    }

    pub(crate) fn new_text(&self, text: &str) -> Outcome<Value> {
        Value::text(&self.budget, text)
    }

    pub(crate) fn new_list(&self, items: Vec<Value>) -> Outcome<Value> {
        Value::list(&self.budget, items)
    }

    pub(crate) fn new_tuple(&self, items: Vec<Value>) -> Outcome<Value> {
        Ok(Value::Tuple(Seq::new(&self.budget, items)?))
    }

    pub(crate) fn new_dict(&self, entries: indexmap::IndexMap<crate::value::Key, Value>) -> Outcome<Value> {
        Ok(Value::Dict(Dict::new(&self.budget, entries)?))
    }

    pub(crate) fn buf(&self) -> Buf {
        Buf::new(&self.budget)
    }

    /// `str(value)`.
    pub(crate) fn str_of(&self, value: &Value) -> Outcome<Text> {
        if let Value::Str(text) = value {
            return Ok(text.clone());
        }
        let mut buf = self.buf();
        write_str(&mut buf, value)?;
        buf.finish()
    }

    /// Calls the filter `name` that a template chose by a string.
    pub(crate) fn filter(&mut self, name: &str, value: Value, args: Args) -> Outcome<Value> {
        match crate::filters::filter_by_name(name) {
            Some(filter) => self.nested(|interp| filter(interp, value, args)),
            None => fail!("No filter named {}.", crate::value::quoted(name)),
        }
    }

    /// Calls the test `name` likewise.
    pub(crate) fn test(&mut self, name: &str, value: &Value, args: Args) -> Outcome<bool> {
        match crate::predicates::test_by_name(name) {
            Some(test) => test(self, value, args),
            None => fail!("No test named {}.", crate::value::quoted(name)),
        }
    }
}

/// What a namespace or a captured scope is counted as.
const NAMESPACE_BYTES: usize = 256;

impl Drop for Interp<'_> {
    fn drop(&mut self) {
        for object in std::mem::take(&mut self.namespaces) {
            if let Object::Namespace(namespace) = &*object {
                // Taken out first: dropping a value must not find the cell borrowed.
                let attrs = std::mem::take(&mut *namespace.attrs.borrow_mut());
                drop(attrs);
            }
        }
        for scope in std::mem::take(&mut self.captured) {
            scope.clear();
        }
    }
}

fn constant(budget: &Rc<Budget>, literal: &Literal) -> Outcome<Value> {
    Ok(match literal {
        Literal::None => Value::None,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Float(value) => Value::Float(*value),
        Literal::Str(text) => Value::text(budget, text)?,
    })
}
