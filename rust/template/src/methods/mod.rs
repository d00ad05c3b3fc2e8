//! The methods of Python's types, less those that the sandbox hides.

mod mapping;
pub(crate) use mapping::make as make_dict;
pub(crate) use string::strip;
mod sequence;
mod string;

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::value::{Object, Value};

/// What a method's name leads to.
pub(crate) enum Found {
    Method(&'static str),
    /// A method that would change its receiver, or that shows Python's inside.
    Hidden,
}

/// Looks a method up by its receiver's type.
pub(crate) fn find(receiver: &Value, name: &str) -> Option<Found> {
    let (methods, hidden): (&[&'static str], &[&str]) = match receiver {
        Value::Str(_) => (string::METHODS, &["encode", "maketrans", "translate"]),
        Value::List(_) => (
            &["copy", "count", "index"],
            &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"],
        ),
        Value::Tuple(_) | Value::Range(_) => (&["count", "index"], &[]),
        Value::Dict(_) => {
            (mapping::METHODS, &["clear", "fromkeys", "pop", "popitem", "setdefault", "update"])
        }
        Value::Int(_) | Value::Bool(_) => (&["bit_count", "bit_length"], &[]),
        Value::Float(_) => (&["is_integer"], &[]),
        Value::Object(object) => match &**object {
            Object::Loop(_) => (&["cycle", "changed"], &[]),
            Object::Cycler(_) => (&["next", "reset"], &[]),
            Object::Function(function) if function.is_dict() => (&["fromkeys"], &[]),
            _ => return None,
        },
        _ => return None,
    };
    match methods.iter().find(|known| **known == name) {
        Some(known) => Some(Found::Method(known)),
        None => hidden.contains(&name).then_some(Found::Hidden),
    }
}

/// Calls a method that [`find`] found.
pub(crate) fn call(interp: &mut Interp<'_>, receiver: &Value, name: &str, args: Args) -> Outcome<Value> {
    match receiver {
        Value::Str(text) => string::call(interp, text, name, args),
        Value::Dict(dict) => mapping::call(interp, dict, name, args),
        Value::List(_) | Value::Tuple(_) | Value::Range(_) => sequence::call(interp, receiver, name, args),
        Value::Int(_) | Value::Bool(_) => {
            args.none(name)?;
            let bits = receiver.as_index()?.unsigned_abs();
            let count = if name == "bit_count" { bits.count_ones() } else { 128 - bits.leading_zeros() };
            Ok(Value::Int(count.into()))
        }
        Value::Float(value) => {
            args.none(name)?;
            Ok(Value::Bool(value.is_finite() && value.fract() == 0.0))
        }
        Value::Object(object) => match &**object {
            Object::Loop(state) => sequence::call_loop(state, name, args),
            Object::Cycler(cycler) => {
                args.none(name)?;
                let current = cycler.items.get(cycler.at.get()).cloned().unwrap_or(Value::None);
                if name == "reset" {
                    cycler.at.set(0);
                    return Ok(Value::None);
                }
                cycler.at.set((cycler.at.get() + 1) % cycler.items.len().max(1));
                Ok(current)
            }
            Object::Function(_) => mapping::from_keys(interp, args),
            _ => fail!("'{}' object has no method '{name}'", receiver.type_name()),
        },
        _ => fail!("'{}' object has no method '{name}'", receiver.type_name()),
    }
}
