//! Expressions.

use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Interp, Scope};
use crate::args::Args;
use crate::fault::{Outcome, fail};
use crate::ops;
use crate::syntax::{Call, Comparison, Expr, Filter, NameId, Slice, Test};
use crate::value::{Key, Value, quoted, write_str};

impl Interp<'_> {
    pub(super) fn eval(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Outcome<Value> {
        self.budget.work(1)?;
        match expr {
            Expr::Literal(id) => Ok(self.literals.get(*id as usize).cloned().unwrap_or(Value::None)),
            Expr::Name(name) => Ok(self.variable(*name, scope)),
            _ => self.nested(|interp| interp.compound(expr, scope)),
        }
    }

    pub(super) fn variable(&self, name: NameId, scope: &Rc<Scope>) -> Value {
        if let Some(value) = scope.get(name) {
            return value;
        }
        match self.outer.get(name as usize) {
            Some(Some(value)) => value.clone(),
            _ => Value::undefined(self.source.names.get(name as usize).map_or("", |name| name)),
        }
    }

    // Each case is a function of its own, so that the frame of this one, which recursion repeats,
    // stays small.
    fn compound(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Outcome<Value> {
        match expr {
            Expr::Literal(_) | Expr::Name(_) => self.eval(expr, scope),
            Expr::List(items) => {
                let items = self.eval_all(items, scope)?;
                self.new_list(items)
            }
            Expr::Tuple(items) => {
                let items = self.eval_all(items, scope)?;
                self.new_tuple(items)
            }
            Expr::Dict(entries) => self.dict(entries, scope),
            Expr::Attr(owner, name) => {
                let owner = self.eval(owner, scope)?;
                self.get_attr(&owner, name)
            }
            Expr::Item(node) => {
                let owner = self.eval(&node.0, scope)?;
                let item = self.eval(&node.1, scope)?;
                self.get_item(&owner, &item)
            }
            Expr::Slice(node) => self.slice(node, scope),
            Expr::Call(call) => self.call_with(call, scope, None),
            Expr::Filter(node) => {
                let value = self.eval(&node.0, scope)?;
                self.apply_filter(&node.1, value, scope)
            }
            Expr::Test(node) => self.apply_test(&node.0, &node.1, scope),
            Expr::Not(value) => Ok(Value::Bool(!self.eval(value, scope)?.truth())),
            Expr::Negate(value) => ops::negate(self.eval(value, scope)?),
            Expr::Plus(value) => ops::plus(self.eval(value, scope)?),
            Expr::Arithmetic(op, operands) => {
                let left = self.eval(&operands.0, scope)?;
                let right = self.eval(&operands.1, scope)?;
                self.arithmetic(*op, &left, &right)
            }
            Expr::And(operands) => {
                let left = self.eval(&operands.0, scope)?;
                if left.truth() { self.eval(&operands.1, scope) } else { Ok(left) }
            }
            Expr::Or(operands) => {
                let left = self.eval(&operands.0, scope)?;
                if left.truth() { Ok(left) } else { self.eval(&operands.1, scope) }
            }
            Expr::Concat(parts) => self.concat(parts, scope),
            Expr::Compare(node) => self.compare_chain(&node.0, &node.1, scope),
            Expr::If(node) => self.condition(node, scope),
        }
    }

    fn eval_all(&mut self, exprs: &[Expr], scope: &Rc<Scope>) -> Outcome<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    fn dict(&mut self, entries: &[(Expr, Expr)], scope: &Rc<Scope>) -> Outcome<Value> {
        let mut map = IndexMap::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.eval(key, scope)?;
            let value = self.eval(value, scope)?;
            map.insert(Key::new(&self.budget, key)?, value);
        }
        self.new_dict(map)
    }

    fn slice(&mut self, node: &Slice, scope: &Rc<Scope>) -> Outcome<Value> {
        let of = self.eval(&node.of, scope)?;
        let mut parts = [None; 3];
        for (part, expr) in parts.iter_mut().zip([&node.start, &node.stop, &node.step]) {
            let Some(expr) = expr else { continue };
            match self.eval(expr, scope)? {
                Value::None => {}
                value @ (Value::Int(_) | Value::Bool(_)) => *part = Some(value.as_index()?),
                _ => fail!("slice indices must be integers or None or have an __index__ method"),
            }
        }
        let [start, stop, step] = parts;
        self.get_slice(&of, start, stop, step)
    }

    fn concat(&mut self, parts: &[Expr], scope: &Rc<Scope>) -> Outcome<Value> {
        let values = self.eval_all(parts, scope)?;
        let mut buf = self.buf();
        for value in &values {
            write_str(&mut buf, value)?;
        }
        Ok(Value::Str(buf.finish()?))
    }

    fn compare_chain(
        &mut self,
        first: &Expr,
        rest: &[(Comparison, Expr)],
        scope: &Rc<Scope>,
    ) -> Outcome<Value> {
        let mut left = self.eval(first, scope)?;
        for (comparison, right) in rest {
            let right = self.eval(right, scope)?;
            if !self.holds(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn condition(&mut self, node: &(Expr, Expr, Option<Expr>), scope: &Rc<Scope>) -> Outcome<Value> {
        let (condition, value, other) = node;
        if self.eval(condition, scope)?.truth() {
            return self.eval(value, scope);
        }
        match other {
            Some(other) => self.eval(other, scope),
            None => Ok(Value::hint(
                "the inline if-expression evaluated to false and no else section was defined.",
            )),
        }
    }

    pub(super) fn arguments<F>(&mut self, call: &Call<F>, scope: &Rc<Scope>) -> Outcome<Args> {
        let mut args = self.eval_all(&call.args, scope)?;
        let mut kwargs: Vec<(Arc<str>, Value)> = Vec::with_capacity(call.kwargs.len());
        for (name, expr) in &call.kwargs {
            kwargs.push((name.clone(), self.eval(expr, scope)?));
        }
        if let Some(more) = &call.more_args {
            let more = self.eval(more, scope)?;
            args.extend(self.items(&more)?);
        }
        if let Some(more) = &call.more_kwargs {
            let more = self.eval(more, scope)?;
            let Value::Dict(dict) = &more else {
                fail!("argument after ** must be a mapping, not {}", more.type_name());
            };
            self.budget.work(dict.len())?;
            for (key, value) in dict.entries() {
                let Value::Str(name) = key.value() else { fail!("keywords must be strings") };
                if kwargs.iter().any(|(known, _)| **known == **name) {
                    fail!("got multiple values for keyword argument {}", quoted(name));
                }
                self.budget.touch(name.len())?;
                kwargs.push((name.as_str().into(), value.clone()));
            }
        }
        Ok(Args { args, kwargs })
    }

    pub(super) fn apply_filter(
        &mut self,
        filter: &Filter,
        value: Value,
        scope: &Rc<Scope>,
    ) -> Outcome<Value> {
        let (name, function) = &filter.function;
        let Some(function) = function else { fail!("No filter named {} found.", quoted(name)) };
        let args = self.arguments(filter, scope)?;
        function(self, value, args)
    }

    fn apply_test(&mut self, value: &Expr, test: &Test, scope: &Rc<Scope>) -> Outcome<Value> {
        let value = self.eval(value, scope)?;
        let (name, function) = &test.function;
        let Some(function) = function else { fail!("No test named {} found.", quoted(name)) };
        let args = self.arguments(test, scope)?;
        function(self, &value, args).map(Value::Bool)
    }
}
