//! Methods of dictionaries, and the making of new ones.

use std::rc::Rc;

use indexmap::IndexMap;

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::value::{Dict, Key, Object, Value, View, ViewKind};

pub(super) const METHODS: &[&str] = &["copy", "get", "items", "keys", "values"];

pub(super) fn call(interp: &mut Interp<'_>, dict: &Rc<Dict>, name: &str, args: Args) -> Outcome<Value> {
    let kind = match name {
        "get" => {
            let [key, default] = args.positional("get", 1)?;
            let found = dict.get(&key.unwrap_or(Value::None))?.cloned();
            return Ok(found.or(default).unwrap_or(Value::None));
        }
        "copy" => {
            args.none("copy")?;
            interp.budget.work(dict.len())?;
            return interp.new_dict(dict.entries().clone());
        }
        "keys" => ViewKind::Keys,
        "values" => ViewKind::Values,
        _ => ViewKind::Items,
    };
    args.none(name)?;
    Ok(Value::object(Object::View(View { dict: dict.clone(), kind })))
}

/// `dict(...)`: from a mapping or pairs, and keyword arguments.
pub(crate) fn make(interp: &mut Interp<'_>, args: Args) -> Outcome<IndexMap<Key, Value>> {
    if args.args.len() > 1 {
        fail!("dict expected at most 1 argument, got {}", args.args.len());
    }
    let mut entries = match args.args.first() {
        None => IndexMap::new(),
        Some(Value::Dict(dict)) => {
            interp.budget.work(dict.len())?;
            dict.entries().clone()
        }
        Some(pairs) => {
            let mut entries = IndexMap::new();
            let mut cursor = interp.cursor(pairs)?;
            while let Some(pair) = cursor.next(interp)? {
                let pair = interp.items(&pair)?;
                let [key, value] = pair.as_slice() else {
                    fail!("dictionary update sequence element has length {}; 2 is required", pair.len());
                };
                entries.insert(Key::new(&interp.budget, key.clone())?, value.clone());
            }
            entries
        }
    };
    for (name, value) in args.kwargs {
        let name = interp.new_text(&name)?;
        entries.insert(Key::new(&interp.budget, name)?, value);
    }
    Ok(entries)
}

/// `dict.fromkeys(...)`.
pub(super) fn from_keys(interp: &mut Interp<'_>, args: Args) -> Outcome<Value> {
    let [keys, value] = args.positional("fromkeys", 1)?;
    let value = value.unwrap_or(Value::None);
    let mut entries = IndexMap::new();
    let mut cursor = interp.cursor(&keys.unwrap_or(Value::None))?;
    while let Some(key) = cursor.next(interp)? {
        entries.insert(Key::new(&interp.budget, key)?, value.clone());
    }
    interp.new_dict(entries)
}
