//! jinja2's tests: what stands after `is`.

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::filters::filter_by_name;
use crate::syntax::{Arithmetic, Comparison};
use crate::value::{Object, Value};

/// A test.
pub(crate) type TestFn = fn(&mut Interp<'_>, &Value, Args) -> Outcome<bool>;

/// The test called `name`.
pub(crate) fn test_by_name(name: &str) -> Option<TestFn> {
    macro_rules! plain {
        ($value:ident => $holds:expr) => {
            |_, $value, args| {
                args.none("test")?;
                Ok($holds)
            }
        };
    }
    macro_rules! compare {
        ($comparison:ident) => {
            |interp, value, args| {
                let [other] = args.positional("test", 1)?;
                interp.holds(Comparison::$comparison, value, &other.unwrap_or(Value::None))
            }
        };
    }
    Some(match name {
        "defined" => plain!(value => !matches!(value, Value::Undefined(_))),
        "undefined" => plain!(value => matches!(value, Value::Undefined(_))),
        "none" => plain!(value => matches!(value, Value::None)),
        "boolean" => plain!(value => matches!(value, Value::Bool(_))),
        "true" => plain!(value => matches!(value, Value::Bool(true))),
        "false" => plain!(value => matches!(value, Value::Bool(false))),
        "integer" => plain!(value => matches!(value, Value::Int(_))),
        "float" => plain!(value => matches!(value, Value::Float(_))),
        "number" => plain!(value => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_))),
        "string" => plain!(value => matches!(value, Value::Str(_))),
        "mapping" => plain!(value => matches!(value, Value::Dict(_))),
        "sequence" => plain!(value => is_sequence(value)),
        "iterable" => plain!(value => is_iterable(value)),
        "callable" => plain!(value => is_callable(value)),
        "escaped" => plain!(value => matches!(value, Value::Str(text) if text.is_markup())),
        "odd" => |interp, value, args| {
            args.none("odd")?;
            remainder_is(interp, value, 2, 1)
        },
        "even" => |interp, value, args| {
            args.none("even")?;
            remainder_is(interp, value, 2, 0)
        },
        "divisibleby" => |interp, value, args| {
            let [divisor] = args.bind("divisibleby", ["num"], 1)?;
            let rem = interp.arithmetic(Arithmetic::Rem, value, &divisor.unwrap_or(Value::None))?;
            interp.equal(&rem, &Value::Int(0))
        },
        "lower" => |interp, value, args| is_cased(interp, value, args, "islower"),
        "upper" => |interp, value, args| is_cased(interp, value, args, "isupper"),
        "sameas" => |_, value, args| {
            let [other] = args.bind("sameas", ["other"], 1)?;
            Ok(other.is_some_and(|other| value.same(&other)))
        },
        "in" => |interp, value, args| {
            let [sequence] = args.bind("in", ["seq"], 1)?;
            interp.contains(&sequence.unwrap_or(Value::None), value)
        },
        "filter" => |_, value, args| {
            args.none("filter")?;
            names(value, |name| filter_by_name(name).is_some())
        },
        "test" => |_, value, args| {
            args.none("test")?;
            names(value, |name| test_by_name(name).is_some())
        },
        "==" | "eq" | "equalto" => compare!(Eq),
        "!=" | "ne" => compare!(Ne),
        ">" | "gt" | "greaterthan" => compare!(Gt),
        ">=" | "ge" => compare!(Ge),
        "<" | "lt" | "lessthan" => compare!(Lt),
        "<=" | "le" => compare!(Le),
        _ => return None,
    })
}

fn remainder_is(interp: &mut Interp<'_>, value: &Value, divisor: i128, wanted: i128) -> Outcome<bool> {
    let rem = interp.arithmetic(Arithmetic::Rem, value, &Value::Int(divisor))?;
    interp.equal(&rem, &Value::Int(wanted))
}

fn is_sequence(value: &Value) -> bool {
    matches!(
        value,
        Value::Undefined(_)
            | Value::Str(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Dict(_)
            | Value::Range(_)
    )
}

fn is_iterable(value: &Value) -> bool {
    match value {
        Value::Object(object) => matches!(&**object, Object::View(_) | Object::Stream(_) | Object::Loop(_)),
        other => is_sequence(other),
    }
}

fn is_callable(value: &Value) -> bool {
    match value {
        // An undefined value has a call, which only fails.
        Value::Undefined(_) => true,
        Value::Object(object) => object.is_callable(),
        _ => false,
    }
}

fn is_cased(interp: &mut Interp<'_>, value: &Value, args: Args, method: &str) -> Outcome<bool> {
    args.none(method)?;
    let text = Value::Str(interp.str_of(value)?);
    crate::methods::call(interp, &text, method, Args::default()).map(|holds| holds.truth())
}

fn names(value: &Value, is_known: impl Fn(&str) -> bool) -> Outcome<bool> {
    match value {
        Value::Str(name) => Ok(is_known(name)),
        Value::List(_) | Value::Dict(_) => fail!("unhashable type: '{}'", value.type_name()),
        _ => Ok(false),
    }
}
