//! Methods of lists, tuples and ranges, and of `loop`.

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::ops::equal;
use crate::value::{LoopState, Value};

pub(super) fn call(interp: &mut Interp<'_>, receiver: &Value, name: &str, args: Args) -> Outcome<Value> {
    match name {
        "copy" => {
            args.none("copy")?;
            let items = interp.items(receiver)?;
            interp.new_list(items)
        }
        "count" => {
            let [wanted] = args.positional("count", 1)?;
            let wanted = wanted.unwrap_or(Value::None);
            let mut count = 0;
            let mut cursor = interp.cursor(receiver)?;
            while let Some(item) = cursor.next(interp)? {
                count += i128::from(item.same(&wanted) || interp.equal(&item, &wanted)?);
            }
            Ok(Value::Int(count))
        }
        _ => {
            let [wanted, start, stop] = args.positional("index", 1)?;
            let wanted = wanted.unwrap_or(Value::None);
            let len = interp.len_of(receiver).unwrap_or(0) as i128;
            let bound = |bound: Option<Value>, default: i128| -> Outcome<i128> {
                let Some(bound) = bound else { return Ok(default) };
                let bound = bound.as_index()?;
                Ok(if bound < 0 { bound.saturating_add(len).max(0) } else { bound })
            };
            let (start, stop) = (bound(start, 0)?, bound(stop, len)?);
            let mut cursor = interp.cursor(receiver)?;
            let mut at = 0;
            while let Some(item) = cursor.next(interp)? {
                let is_inside = at >= start && at < stop;
                if is_inside && (item.same(&wanted) || interp.equal(&item, &wanted)?) {
                    return Ok(Value::Int(at));
                }
                at += 1;
            }
            fail!("value is not in {}", receiver.type_name())
        }
    }
}

pub(super) fn call_loop(state: &LoopState, name: &str, args: Args) -> Outcome<Value> {
    if !args.kwargs.is_empty() {
        fail!("{name}() takes no keyword arguments");
    }
    let args = args.args;
    if name == "cycle" {
        let index = state.index0.get().max(0) as usize;
        let Some(at) = index.checked_rem(args.len()) else { fail!("no items for cycling given") };
        return Ok(args.into_iter().nth(at).unwrap_or(Value::None));
    }
    let is_changed = match &*state.last_changed.borrow() {
        Some(last) => {
            last.len() != args.len() || !last.iter().zip(&args).all(|(a, b)| a.same(b) || equal(a, b))
        }
        None => true,
    };
    if is_changed {
        let old = state.last_changed.replace(Some(args));
        drop(old);
    }
    Ok(Value::Bool(is_changed))
}
