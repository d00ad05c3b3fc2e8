//! Statements.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::{Cursor, Flow, Interp, Scope, Stream};
use crate::fault::{Outcome, fail};
use crate::syntax::{Assign, Block, Filter, ForLoop, If, NameId, Stmt, Target};
use crate::value::{LoopState, MacroValue, Object, Text, Value, write_str};

impl Interp<'_> {
    pub(super) fn exec(&mut self, body: &[Stmt], scope: &Rc<Scope>) -> Outcome<Flow> {
        self.nested(|interp| {
            for stmt in body {
                let flow = interp.statement(stmt, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    fn statement(&mut self, stmt: &Stmt, scope: &Rc<Scope>) -> Outcome<Flow> {
        self.budget.work(1)?;
        match stmt {
            Stmt::Text(text) => self.out.push(text)?,
            Stmt::Emit(expr) => {
                let value = self.eval(expr, scope)?;
                write_str(&mut self.out, &value)?;
            }
            Stmt::If(node) => return self.if_chain(node, scope),
            Stmt::For(node) => return self.for_statement(node, scope),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
            Stmt::Set(target, expr) => {
                let value = self.eval(expr, scope)?;
                self.assign(target, value, scope)?;
            }
            Stmt::SetBlock(node) => return self.set_block(node, scope),
            Stmt::With(node) => {
                let inner = Scope::new(Some(scope));
                for (target, expr) in &node.assigned {
                    let value = self.eval(expr, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.exec(&node.body, &inner);
            }
            Stmt::Filter(node) => {
                let (filters, body) = &**node;
                let inner = Scope::new(Some(scope));
                let (flow, text) = self.capture(|interp| interp.exec(body, &inner))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.filtered(filters, text, &inner)?;
                write_str(&mut self.out, &value)?;
            }
            Stmt::Macro(name, def) => {
                self.keep_scope(scope)?;
                let value = MacroValue { def: def.clone(), scope: scope.clone() };
                scope.set(*name, Value::object(Object::Macro(value)));
            }
            Stmt::Call(call, def) => {
                let caller = MacroValue { def: def.clone(), scope: scope.clone() };
                self.keep_scope(scope)?;
                let value = self.call_with(call, scope, Some(Value::object(Object::Macro(caller))))?;
                write_str(&mut self.out, &value)?;
            }
            Stmt::Scoped(body) => {
                return self.exec(body, &Scope::new(Some(scope)));
            }
            Stmt::AutoEscape(node) => {
                let (is_on, body) = &**node;
                if self.eval(is_on, scope)?.truth() {
                    fail!("autoescape is not supported: a prompt is not HTML");
                }
                return self.exec(body, &Scope::new(Some(scope)));
            }
            Stmt::Block(block) => self.block(block, scope)?,
            Stmt::Load => fail!("no loader for this environment specified"),
        }
        Ok(Flow::Next)
    }

    fn if_chain(&mut self, node: &If, scope: &Rc<Scope>) -> Outcome<Flow> {
        for (condition, body) in &node.branches {
            if self.eval(condition, scope)?.truth() {
                return self.exec(body, scope);
            }
        }
        self.exec(&node.otherwise, scope)
    }

    fn set_block(&mut self, node: &Assign, scope: &Rc<Scope>) -> Outcome<Flow> {
        let inner = Scope::new(Some(scope));
        let (flow, text) = self.capture(|interp| interp.exec(&node.body, &inner))?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        let value = self.filtered(&node.filters, text, &inner)?;
        self.assign(&node.target, value, scope)?;
        Ok(Flow::Next)
    }

    fn filtered(&mut self, filters: &[Filter], text: Text, scope: &Rc<Scope>) -> Outcome<Value> {
        let mut value = Value::Str(text);
        for filter in filters {
            value = self.apply_filter(filter, value, scope)?;
        }
        Ok(value)
    }

    /// A block stands for itself, as there is no other template that could fill it.
    pub(super) fn block(&mut self, block: &Block, scope: &Rc<Scope>) -> Outcome<()> {
        let outer = if block.is_scoped { scope.clone() } else { self.root.clone() };
        self.exec(&block.body, &Scope::new(Some(&outer)))?;
        Ok(())
    }

    fn for_statement(&mut self, node: &Arc<ForLoop>, scope: &Rc<Scope>) -> Outcome<Flow> {
        let iterable = self.eval(&node.iter, scope)?;
        self.run_loop(node, &iterable, scope, 0)?;
        Ok(Flow::Next)
    }

    /// Runs a loop over `iterable`; a recursive one is run again by its own `loop`.
    pub(super) fn run_loop(
        &mut self,
        node: &Arc<ForLoop>,
        iterable: &Value,
        scope: &Rc<Scope>,
        depth0: usize,
    ) -> Outcome<()> {
        let mut items = self.cursor(iterable)?;
        let mut len = self.len_of(iterable);
        if node.filter.is_some() {
            let stream = Stream::LoopFilter(items, node.clone(), scope.clone());
            items = self.cursor(&Value::stream(stream)?)?;
            len = None;
        }
        let state = Rc::new(Object::Loop(Box::new(LoopState {
            items: RefCell::new(items),
            index0: Cell::new(-1),
            len: Cell::new(len),
            before: RefCell::new(None),
            current: RefCell::new(None),
            after: RefCell::new(None),
            last_changed: RefCell::new(None),
            depth0,
            recursive: node.is_recursive.then(|| (node.clone(), scope.clone())),
        })));
        let Object::Loop(looped) = &*state else { return Ok(()) };
        let loop_name = self.name_id("loop");
        let mut is_empty = true;
        while let Some(item) = self.loop_step(looped)? {
            is_empty = false;
            let inner = Scope::new(Some(scope));
            if let Some(name) = loop_name {
                inner.set(name, Value::Object(state.clone()));
            }
            self.assign(&node.target, item, &inner)?;
            if self.exec(&node.body, &inner)? == Flow::Break {
                break;
            }
        }
        if is_empty {
            self.exec(&node.otherwise, &Scope::new(Some(scope)))?;
        }
        Ok(())
    }

    /// The loop's next item; the loop's own record moves on.
    fn loop_step(&mut self, state: &LoopState) -> Outcome<Option<Value>> {
        // An iteration makes a scope, which costs more than a node.
        self.budget.work(2)?;
        let ahead = state.after.borrow_mut().take();
        let item = match ahead {
            Some(ahead) => ahead,
            None => self.loop_read(state)?,
        };
        if let Some(item) = &item {
            state.index0.set(state.index0.get() + 1);
            let before = state.current.replace(Some(item.clone()));
            state.before.replace(before);
        }
        Ok(item)
    }

    fn loop_read(&mut self, state: &LoopState) -> Outcome<Option<Value>> {
        match state.items.try_borrow_mut() {
            Ok(mut items) => items.next(self),
            Err(_) => fail!("generator already executing"),
        }
    }

    /// The item after the current one, without stepping to it.
    pub(super) fn loop_peek(&mut self, state: &LoopState) -> Outcome<Option<Value>> {
        if let Some(ahead) = &*state.after.borrow() {
            return Ok(ahead.clone());
        }
        let ahead = self.loop_read(state)?;
        state.after.replace(Some(ahead.clone()));
        Ok(ahead)
    }

    /// The loop's count of items; what is left of a generator is read for it.
    pub(super) fn loop_len(&mut self, state: &LoopState) -> Outcome<usize> {
        if let Some(len) = state.len.get() {
            return Ok(len);
        }
        let mut rest = Vec::new();
        while let Some(item) = self.loop_read(state)? {
            rest.push(item);
        }
        let is_ahead = matches!(&*state.after.borrow(), Some(Some(_)));
        let len = rest.len() + (state.index0.get() + 1).max(0) as usize + usize::from(is_ahead);
        let rest = self.new_list(rest)?;
        state.items.replace(self.cursor(&rest)?);
        state.len.set(Some(len));
        Ok(len)
    }

    pub(super) fn name_id(&self, name: &str) -> Option<NameId> {
        self.source.names.iter().position(|known| &**known == name).map(|id| id as NameId)
    }

    /// Assigns `value`, taking it apart where the target is a tuple.
    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Outcome<()> {
        match target {
            Target::Name(name) => scope.set(*name, value),
            Target::Attr(name, attr) => {
                let owner = self.variable(*name, scope);
                let Value::Object(object) = &owner else {
                    fail!("cannot assign attribute on non-namespace object");
                };
                let Object::Namespace(namespace) = &**object else {
                    fail!("cannot assign attribute on non-namespace object");
                };
                self.set_attr(namespace, attr, value)?;
            }
            Target::Tuple(targets) => {
                if matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::None) {
                    fail!("cannot unpack non-iterable {} object", value.type_name());
                }
                let mut cursor: Cursor = self.cursor(&value)?;
                for (i, target) in targets.iter().enumerate() {
                    let Some(item) = cursor.next(self)? else {
                        fail!("not enough values to unpack (expected {}, got {i})", targets.len());
                    };
                    self.assign(target, item, scope)?;
                }
                if cursor.next(self)?.is_some() {
                    fail!("too many values to unpack (expected {})", targets.len());
                }
            }
        }
        Ok(())
    }

    /// Calls of a block by `self.name()` and of a loop by `loop(...)` print into a string.
    pub(super) fn printed(&mut self, task: impl FnOnce(&mut Self) -> Outcome<()>) -> Outcome<Value> {
        Ok(Value::Str(self.capture(task)?.1))
    }
}
