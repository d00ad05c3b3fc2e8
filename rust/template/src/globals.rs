//! What a template can call by name.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use indexmap::IndexMap;

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Fault, Outcome, fail};
use crate::methods::make_dict;
use crate::value::{Cycler, Joiner, Namespace, Object, Range, Value};

/// A global function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
    /// jinja2 has it, but a rendering here is a function of its input.
    Random,
}

/// The sandbox's own bound.
const MAX_RANGE: i128 = 100_000;
/// Beyond it no arithmetic on a range is needed: it is too long or has a single item.
const MAX_BOUND: i128 = 1 << 63;

/// The global called `name`.
pub(crate) fn global(name: &str) -> Option<Value> {
    let function = match name {
        "range" => Function::Range,
        "dict" => Function::Dict,
        "namespace" => Function::Namespace,
        "cycler" => Function::Cycler,
        "joiner" => Function::Joiner,
        "raise_exception" => Function::RaiseException,
        "strftime_now" => Function::StrftimeNow,
        "lipsum" => Function::Random,
        "self" => return Some(Value::object(Object::Blocks)),
        _ => return None,
    };
    Some(Value::object(Object::Function(function)))
}

impl Function {
    pub(crate) fn is_dict(self) -> bool {
        self == Self::Dict
    }

    pub(crate) fn call(self, interp: &mut Interp<'_>, args: Args) -> Outcome<Value> {
        match self {
            Self::Range => range(args),
            Self::Dict => {
                let entries = make_dict(interp, args)?;
                interp.new_dict(entries)
            }
            Self::Namespace => namespace(interp, args),
            Self::Cycler => {
                if args.args.is_empty() {
                    fail!("at least one item has to be provided");
                }
                let items = Value::list(&interp.budget, args.args.clone())?;
                drop(items);
                Ok(Value::object(Object::Cycler(Cycler { items: args.args, at: Cell::new(0) })))
            }
            Self::Joiner => {
                let [separator] = args.bind("joiner", ["sep"], 0)?;
                let separator = match separator {
                    Some(separator) => separator,
                    None => interp.new_text(", ")?,
                };
                Ok(Value::object(Object::Joiner(Joiner { separator, is_used: Cell::new(false) })))
            }
            Self::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"], 1)?;
                let message = interp.str_of(&message.unwrap_or(Value::None))?;
                Err(Fault::new(message.as_str()))
            }
            Self::StrftimeNow => {
                let [format] = args.bind("strftime_now", ["format"], 1)?;
                let format = format.unwrap_or(Value::None);
                let format = format.as_text("strftime() argument 1")?;
                let mut out = interp.buf();
                interp.clock.format(&mut out, format)?;
                Ok(Value::Str(out.finish()?))
            }
            Self::Random => fail!("a template may not draw random text"),
        }
    }
}

fn range(args: Args) -> Outcome<Value> {
    let [first, second, step] = args.positional("range", 1)?;
    let bound = |value: Option<Value>, default: i128| -> Outcome<i128> {
        let bound = value.map_or(Ok(default), |value| value.as_index())?;
        if !(-MAX_BOUND..=MAX_BOUND).contains(&bound) {
            fail!("a bound of range is too large");
        }
        Ok(bound)
    };
    let first = bound(first, 0)?;
    let (start, stop) = match second {
        None => (0, first),
        Some(second) => (first, bound(Some(second), 0)?),
    };
    let step = bound(step, 1)?;
    let distance = match step {
        0 => fail!("range() arg 3 must not be zero"),
        1.. => stop - start,
        _ => start - stop,
    };
    let len = if distance <= 0 { 0 } else { (distance - 1) / step.abs() + 1 };
    if len > MAX_RANGE {
        fail!("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE}).");
    }
    Ok(Value::Range(Rc::new(Range { start, stop, step, len: len as usize })))
}

fn namespace(interp: &mut Interp<'_>, args: Args) -> Outcome<Value> {
    let entries = make_dict(interp, args)?;
    let namespace = Namespace { attrs: RefCell::new(IndexMap::with_capacity(entries.len())) };
    for (key, value) in entries {
        let Value::Str(name) = key.value() else { fail!("a namespace's attributes are named by strings") };
        interp.set_attr(&namespace, name, value)?;
    }
    interp.keep_namespace(Object::Namespace(namespace))
}
