//! Variables.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::syntax::NameId;
use crate::value::Value;

/// The variables of one block, and the block around it.
///
/// jinja2 compiles to Python functions, whose variables are looked up where the code stands and when
/// it runs; so a macro sees the scope that it was defined in, as it is at the call.
pub(crate) struct Scope {
    /// Few at a time, so a list is faster than a map.
    vars: RefCell<Vec<(NameId, Value)>>,
    parent: Option<Rc<Scope>>,
    /// Whether the interpreter keeps it, to break cycles at the end.
    pub(super) is_kept: Cell<bool>,
}

impl Scope {
    pub(crate) fn new(parent: Option<&Rc<Scope>>) -> Rc<Self> {
        Rc::new(Self { vars: RefCell::new(Vec::new()), parent: parent.cloned(), is_kept: Cell::new(false) })
    }

    /// The variable, from here outwards.
    pub(super) fn get(&self, name: NameId) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some((_, value)) = scope.vars.borrow().iter().find(|(id, _)| *id == name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_deref()?;
        }
    }

    /// Sets the variable here.
    pub(super) fn set(&self, name: NameId, value: Value) {
        let old = {
            let mut vars = self.vars.borrow_mut();
            match vars.iter_mut().find(|(id, _)| *id == name) {
                Some((_, slot)) => Some(std::mem::replace(slot, value)),
                None => {
                    vars.push((name, value));
                    None
                }
            }
        };
        drop(old);
    }

    pub(super) fn clear(&self) {
        let vars = std::mem::take(&mut *self.vars.borrow_mut());
        drop(vars);
    }
}
