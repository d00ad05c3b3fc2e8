//! `map`, `select` and their like: lazy, as in jinja2.

use crate::args::Args;
use crate::eval::{Interp, Mapping, Selection, Stream};
use crate::fault::{Outcome, fail};
use crate::filters::AttrPath;
use crate::value::{Text, Value};

pub(super) fn map(interp: &mut Interp<'_>, value: Value, mut args: Args) -> Outcome<Value> {
    if !value.truth() {
        return interp.ready(Vec::new());
    }
    let attribute = args.kwargs.iter().position(|(name, _)| &**name == "attribute");
    let mapping = match attribute {
        Some(at) if args.args.is_empty() => {
            let (_, path) = args.kwargs.remove(at);
            let default = args.kwargs.iter().position(|(name, _)| &**name == "default");
            let default = default.map(|at| args.kwargs.remove(at).1);
            if let Some((unknown, _)) = args.kwargs.first() {
                fail!("Unexpected keyword argument '{unknown}'");
            }
            let default = default.filter(|default| !matches!(default, Value::None));
            Mapping::Attr(AttrPath::new(interp, &path)?, default)
        }
        _ => {
            if args.args.is_empty() {
                fail!("map requires a filter argument");
            }
            let name = name(args.args.remove(0), "filter")?;
            Mapping::Filter(name, args)
        }
    };
    Value::stream(Stream::Map(interp.cursor(&value)?, mapping))
}

fn name(value: Value, what: &str) -> Outcome<Text> {
    match value {
        Value::Str(name) => Ok(name),
        Value::Undefined(missing) => Err(missing.fault()),
        other => fail!("No {what} named {}.", other.type_name()),
    }
}

pub(super) fn select(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    choose(interp, value, args, false, false)
}

pub(super) fn reject(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    choose(interp, value, args, false, true)
}

pub(super) fn select_attr(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    choose(interp, value, args, true, false)
}

pub(super) fn reject_attr(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    choose(interp, value, args, true, true)
}

fn choose(
    interp: &mut Interp<'_>,
    value: Value,
    mut args: Args,
    by_attr: bool,
    is_reject: bool,
) -> Outcome<Value> {
    if !value.truth() {
        return interp.ready(Vec::new());
    }
    let mut attr = None;
    if by_attr {
        if args.args.is_empty() {
            fail!("Missing parameter for attribute name");
        }
        attr = Some(AttrPath::new(interp, &args.args.remove(0))?);
    }
    let test = match args.args.is_empty() {
        true => None,
        false => Some((name(args.args.remove(0), "test")?, args)),
    };
    let selection = Selection { attr, test, is_reject };
    Value::stream(Stream::Select(interp.cursor(&value)?, selection))
}
