//! Attributes by a path in a string, as `map` and its like take them.

use std::rc::Rc;

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::methods;
use crate::value::{Object, Value};

/// A path of attributes, `a.b.0`.
#[derive(Clone)]
pub(crate) struct AttrPath(Rc<[Value]>);

impl AttrPath {
    /// The path that a filter's argument says: digits are indices, and dots separate.
    pub(crate) fn new(interp: &mut Interp<'_>, path: &Value) -> Outcome<Self> {
        Ok(Self(match path {
            Value::None => Rc::new([]),
            Value::Str(path) => {
                interp.budget.work(path.len())?;
                let parts = path.split('.').map(|part| {
                    let is_index = !part.is_empty() && part.chars().all(crate::unicode::is_digit);
                    match part.parse() {
                        Ok(index) if is_index => Ok(Value::Int(index)),
                        _ => interp.new_text(part),
                    }
                });
                parts.collect::<Outcome<Vec<_>>>()?.into()
            }
            other => Rc::new([other.clone()]),
        }))
    }

    /// The comma-separated paths of `sort`.
    pub(crate) fn several(interp: &mut Interp<'_>, paths: &Value) -> Outcome<Vec<Self>> {
        match paths {
            Value::Str(paths) => {
                let mut parsed = Vec::new();
                for path in paths.split(',') {
                    let path = interp.new_text(path)?;
                    parsed.push(Self::new(interp, &path)?);
                }
                Ok(parsed)
            }
            other => Ok(vec![Self::new(interp, other)?]),
        }
    }

    /// What the path leads to from `item`; `default` for what is undefined on the way.
    pub(crate) fn get(
        &self,
        interp: &mut Interp<'_>,
        item: Value,
        default: Option<&Value>,
    ) -> Outcome<Value> {
        let mut item = item;
        for part in &*self.0 {
            interp.budget.work(1)?;
            item = interp.get_item(&item, part)?;
            if let (Value::Undefined(_), Some(default)) = (&item, default) {
                item = default.clone();
            }
        }
        Ok(item)
    }
}

/// `attr`: an attribute, never an item.
pub(super) fn attr(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [name] = args.bind("attr", ["name"], 1)?;
    let Some(Value::Str(name)) = name else { fail!("attribute name must be string") };
    let is_item = matches!(&value, Value::Dict(_)) && methods::find(&value, &name).is_none();
    if is_item && !name.starts_with("__") {
        return Ok(value.lacks(&name));
    }
    if let Value::Object(object) = &value
        && matches!(&**object, Object::View(_) | Object::Stream(_))
    {
        return Ok(value.lacks(&name));
    }
    interp.get_attr(&value, &name)
}
