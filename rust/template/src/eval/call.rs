//! Calls.

use std::rc::Rc;

use super::{Interp, Scope};
use crate::args::Args;
use crate::fault::{Outcome, fail};
use crate::methods::{self, Found};
use crate::syntax::{Call, Expr};
use crate::value::{LoopState, MacroValue, Object, Value, quoted};

impl Interp<'_> {
    /// A call; a call block hands its body over as `caller`.
    pub(super) fn call_with(
        &mut self,
        call: &Call,
        scope: &Rc<Scope>,
        caller: Option<Value>,
    ) -> Outcome<Value> {
        // A method is called without making an object of it first.
        if let Expr::Attr(owner, name) = &call.function {
            let owner = self.eval(owner, scope)?;
            if let Some(Found::Method(name)) = methods::find(&owner, name) {
                let args = self.call_args(call, scope, caller)?;
                return self.nested(|interp| methods::call(interp, &owner, name, args));
            }
            let function = self.get_attr(&owner, name)?;
            let args = self.call_args(call, scope, caller)?;
            return self.call(&function, args);
        }
        let function = self.eval(&call.function, scope)?;
        let args = self.call_args(call, scope, caller)?;
        self.call(&function, args)
    }

    fn call_args(&mut self, call: &Call, scope: &Rc<Scope>, caller: Option<Value>) -> Outcome<Args> {
        let mut args = self.arguments(call, scope)?;
        if let Some(caller) = caller {
            args.kwargs.push(("caller".into(), caller));
        }
        Ok(args)
    }

    /// Calls `function`.
    pub(crate) fn call(&mut self, function: &Value, args: Args) -> Outcome<Value> {
        self.budget.work(1)?;
        let object = match function {
            Value::Undefined(missing) => return Err(missing.fault()),
            Value::Object(object) => object,
            other => fail!("'{}' object is not callable", other.type_name()),
        };
        match &**object {
            Object::Macro(value) => self.nested(|interp| interp.call_macro(value, args)),
            Object::Function(function) => function.call(self, args),
            Object::Method(method) => {
                self.nested(|interp| methods::call(interp, &method.receiver, method.name, args))
            }
            Object::Loop(state) => self.call_loop(state, args),
            Object::Joiner(joiner) => {
                args.none("joiner")?;
                if joiner.is_used.replace(true) { Ok(joiner.separator.clone()) } else { self.new_text("") }
            }
            Object::Block(block) => {
                args.none("block")?;
                let root = self.root.clone();
                self.nested(|interp| interp.printed(|interp| interp.block(&block.body, &root)))
            }
            other => fail!("'{}' object is not callable", other.type_name()),
        }
    }

    fn call_loop(&mut self, state: &LoopState, args: Args) -> Outcome<Value> {
        let [items] = args.bind("loop", ["iterable"], 1)?;
        let Some((node, scope)) = &state.recursive else {
            fail!("The loop must have the 'recursive' marker to be called recursively.");
        };
        let items = items.unwrap_or(Value::None);
        let depth0 = state.depth0 + 1;
        self.nested(|interp| interp.printed(|interp| interp.run_loop(node, &items, scope, depth0)))
    }

    /// jinja2's `Macro.__call__`.
    fn call_macro(&mut self, value: &MacroValue, call: Args) -> Outcome<Value> {
        // The scope and the buffer cost more than a node.
        self.budget.work(3)?;
        let def = &value.def;
        let name = def.name.as_deref().map_or_else(|| "None".to_owned(), quoted);
        let Args { args, mut kwargs } = call;
        let scope = Scope::new(Some(&value.scope));
        let caller_id = self.name_id("caller");
        let mut has_caller_param = false;
        let mut positional = args.into_iter();
        for (id, default) in &def.params {
            has_caller_param |= Some(*id) == caller_id;
            let given = match positional.next() {
                Some(value) => Some(value),
                None => {
                    let param = &self.source.names[*id as usize];
                    let at = kwargs.iter().position(|(name, _)| name == param);
                    at.map(|at| kwargs.remove(at).1)
                }
            };
            let value = match (given, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.eval(default, &scope)?,
                (None, None) => {
                    let param = quoted(&self.source.names[*id as usize]);
                    Value::hint(format!("parameter {param} was not provided"))
                }
            };
            scope.set(*id, value);
        }
        if let Some(id) = def.caller
            && !has_caller_param
        {
            let at = kwargs.iter().position(|(name, _)| &**name == "caller");
            let caller = match at {
                Some(at) => kwargs.remove(at).1,
                None => Value::hint("No caller defined"),
            };
            scope.set(id, caller);
        }
        match (def.kwargs, kwargs.first()) {
            (Some(id), _) => {
                let mut entries = indexmap::IndexMap::with_capacity(kwargs.len());
                for (name, value) in kwargs {
                    let key = self.new_text(&name)?;
                    entries.insert(crate::value::Key::new(&self.budget, key)?, value);
                }
                scope.set(id, self.new_dict(entries)?);
            }
            (None, Some((unknown, _))) if &**unknown == "caller" => fail!(
                "macro {name} was invoked with two values for the special caller argument. \
                 This is most likely a bug."
            ),
            (None, Some((unknown, _))) => {
                fail!("macro {name} takes no keyword argument {}", quoted(unknown))
            }
            (None, None) => {}
        }
        let rest: Vec<Value> = positional.collect();
        match def.varargs {
            Some(id) => scope.set(id, self.new_tuple(rest)?),
            None if !rest.is_empty() => {
                fail!("macro {name} takes not more than {} argument(s)", def.params.len())
            }
            None => {}
        }
        let body = def.clone();
        self.printed(|interp| interp.exec(&body.body, &scope).map(|_| ()))
    }
}
