//! Filters over sequences and mappings.

use std::cmp::Ordering;

use indexmap::IndexSet;

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::filters::AttrPath;
use crate::strings::mapped;
use crate::syntax::Arithmetic;
use crate::value::{Key, Object, Seq, Value};

impl Interp<'_> {
    /// Sorts as Python does: stable, and by `<` alone, so that an order with gaps cannot upset it.
    pub(crate) fn sort_by<T: Clone>(&self, items: &mut Vec<T>, key: impl Fn(&T) -> &Value) -> Outcome<()> {
        let mut width = 1;
        while width < items.len() {
            let mut merged = Vec::with_capacity(items.len());
            for pair in items.chunks(width * 2) {
                let (mut left, mut right) = pair.split_at(width.min(pair.len()));
                while let (Some(a), Some(b)) = (left.first(), right.first()) {
                    if self.order(key(b), key(a), "<")? == Some(Ordering::Less) {
                        merged.push(b.clone());
                        right = &right[1..];
                    } else {
                        merged.push(a.clone());
                        left = &left[1..];
                    }
                }
                merged.extend_from_slice(left);
                merged.extend_from_slice(right);
            }
            *items = merged;
            width *= 2;
        }
        Ok(())
    }

    /// Strings in lower case, unless case matters.
    fn folded(&mut self, value: Value, is_case_sensitive: bool) -> Outcome<Value> {
        match &value {
            Value::Str(text) if !is_case_sensitive => mapped(self, text, str::to_lowercase),
            _ => Ok(value),
        }
    }

    /// The pairs of sort keys and items, in order.
    fn sorted(&mut self, pairs: Vec<(Value, Value)>, is_reverse: bool) -> Outcome<Vec<(Value, Value)>> {
        let mut pairs = pairs;
        if is_reverse {
            pairs.reverse();
        }
        self.sort_by(&mut pairs, |(key, _)| key)?;
        if is_reverse {
            pairs.reverse();
        }
        Ok(pairs)
    }
}

fn flag(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.truth())
}

pub(super) fn length(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("len")?;
    match interp.len_of(&value) {
        Some(len) => Ok(Value::Int(len as i128)),
        None => fail!("object of type '{}' has no len()", value.type_name()),
    }
}

pub(super) fn first(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("first")?;
    let item = interp.cursor(&value)?.next(interp)?;
    Ok(item.unwrap_or_else(|| Value::hint("No first item, sequence was empty.")))
}

pub(super) fn last(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("last")?;
    let len = match (interp.len_of(&value), &value) {
        (Some(len), _) => len,
        (None, other) => fail!("'{}' object is not reversible", other.type_name()),
    };
    let item = match (&value, len.checked_sub(1)) {
        (_, None) => None,
        (Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_), Some(at)) => {
            Some(interp.get_item(&value, &Value::Int(at as i128))?)
        }
        _ => interp.items(&value)?.pop(),
    };
    Ok(item.unwrap_or_else(|| Value::hint("No last item, sequence was empty.")))
}

pub(super) fn list(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("list")?;
    let items = interp.items(&value)?;
    interp.new_list(items)
}

pub(super) fn items(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("items")?;
    let dict = match &value {
        Value::Undefined(_) => return interp.ready(Vec::new()),
        Value::Dict(dict) => dict,
        _ => fail!("Can only get item pairs from a mapping."),
    };
    let pairs = dict.entries().iter();
    let pairs = pairs.map(|(key, value)| interp.new_tuple(vec![key.value().clone(), value.clone()]));
    interp.ready(pairs.collect::<Outcome<_>>()?)
}

pub(super) fn reverse(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("reverse")?;
    if let Value::Str(text) = &value {
        let reversed = mapped(interp, text, |text| text.chars().rev().collect())?;
        return if text.is_markup() { reversed.marked(&interp.budget) } else { Ok(reversed) };
    }
    let mut items = interp.items(&value)?;
    items.reverse();
    let is_stream = matches!(&value, Value::Object(object) if matches!(&**object, Object::Stream(_)));
    if is_stream { interp.new_list(items) } else { interp.ready(items) }
}

pub(super) fn sort(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [is_reverse, is_case_sensitive, attribute] =
        args.bind("sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let is_case_sensitive = flag(is_case_sensitive);
    let paths = AttrPath::several(interp, &attribute.unwrap_or(Value::None))?;
    let mut pairs = Vec::new();
    for item in interp.items(&value)? {
        let mut keys = Vec::with_capacity(paths.len());
        for path in &paths {
            let key = path.get(interp, item.clone(), None)?;
            keys.push(interp.folded(key, is_case_sensitive)?);
        }
        pairs.push((interp.new_list(keys)?, item));
    }
    let pairs = interp.sorted(pairs, flag(is_reverse))?;
    interp.new_list(pairs.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn dict_sort(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [is_case_sensitive, by, is_reverse] =
        args.bind("dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let is_case_sensitive = flag(is_case_sensitive);
    let by_value = match &by {
        None => false,
        Some(Value::Str(by)) if by.as_str() == "key" => false,
        Some(Value::Str(by)) if by.as_str() == "value" => true,
        Some(_) => fail!("You can only sort by either \"key\" or \"value\""),
    };
    let Value::Dict(dict) = &value else { return Err(no_items(&value)) };
    let mut pairs = Vec::new();
    for (key, value) in dict.entries() {
        let by = if by_value { value } else { key.value() };
        let by = interp.folded(by.clone(), is_case_sensitive)?;
        pairs.push((by, interp.new_tuple(vec![key.value().clone(), value.clone()])?));
    }
    let pairs = interp.sorted(pairs, flag(is_reverse))?;
    interp.new_list(pairs.into_iter().map(|(_, item)| item).collect())
}

fn no_items(value: &Value) -> crate::fault::Fault {
    match value {
        Value::Undefined(missing) => missing.fault(),
        other => crate::fault::Fault::new(format!("'{}' object has no attribute 'items'", other.type_name())),
    }
}

pub(super) fn unique(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [is_case_sensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"], 0)?;
    let is_case_sensitive = flag(is_case_sensitive);
    let path = AttrPath::new(interp, &attribute.unwrap_or(Value::None))?;
    let mut seen = IndexSet::new();
    let mut kept = Vec::new();
    for item in interp.items(&value)? {
        let key = path.get(interp, item.clone(), None)?;
        let key = interp.folded(key, is_case_sensitive)?;
        if seen.insert(Key::new(&interp.budget, key)?) {
            kept.push(item);
        }
    }
    interp.ready(kept)
}

pub(super) fn min(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    extreme(interp, value, args, "<", Ordering::Less)
}

pub(super) fn max(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    extreme(interp, value, args, ">", Ordering::Greater)
}

fn extreme(
    interp: &mut Interp<'_>,
    value: Value,
    args: Args,
    symbol: &str,
    wanted: Ordering,
) -> Outcome<Value> {
    let [is_case_sensitive, attribute] = args.bind("min", ["case_sensitive", "attribute"], 0)?;
    let is_case_sensitive = flag(is_case_sensitive);
    let path = AttrPath::new(interp, &attribute.unwrap_or(Value::None))?;
    let mut best: Option<(Value, Value)> = None;
    let mut cursor = interp.cursor(&value)?;
    while let Some(item) = cursor.next(interp)? {
        let key = path.get(interp, item.clone(), None)?;
        let key = interp.folded(key, is_case_sensitive)?;
        let is_better = match &best {
            Some((best, _)) => interp.order(&key, best, symbol)? == Some(wanted),
            None => true,
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::hint("No aggregated item, sequence was empty."), |(_, item)| item))
}

pub(super) fn sum(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"], 0)?;
    let mut total = start.unwrap_or(Value::Int(0));
    if matches!(total, Value::Str(_)) {
        fail!("sum() can't sum strings [use ''.join(seq) instead]");
    }
    let path = AttrPath::new(interp, &attribute.unwrap_or(Value::None))?;
    let mut cursor = interp.cursor(&value)?;
    while let Some(item) = cursor.next(interp)? {
        let item = path.get(interp, item, None)?;
        total = interp.arithmetic(Arithmetic::Add, &total, &item)?;
    }
    Ok(total)
}

pub(super) fn batch(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [len, fill] = args.bind("batch", ["linecount", "fill_with"], 1)?;
    let len = len.unwrap_or(Value::None);
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut cursor = interp.cursor(&value)?;
    while let Some(item) = cursor.next(interp)? {
        if interp.equal(&Value::Int(batch.len() as i128), &len)? {
            batches.push(interp.new_list(std::mem::take(&mut batch))?);
        }
        batch.push(item);
    }
    if !batch.is_empty() {
        if let Some(fill) = fill {
            let len = usize::try_from(len.as_index()?.max(0)).unwrap_or(usize::MAX);
            let missing = len.saturating_sub(batch.len());
            // Counted before the list is there, then again by the list itself.
            let bytes = missing.saturating_mul(size_of::<Value>());
            interp.budget.work(missing / 8)?;
            interp.budget.take(bytes)?;
            batch.resize(batch.len() + missing, fill);
            interp.budget.give(bytes);
        }
        batches.push(interp.new_list(batch)?);
    }
    interp.ready(batches)
}

pub(super) fn slice(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [count, fill] = args.bind("slice", ["slices", "fill_with"], 1)?;
    let count = count.unwrap_or(Value::None).as_index()?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = interp.items(&value)?;
    if count == 0 {
        fail!("integer division or modulo by zero");
    }
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    let (every, longer) = match count {
        0 => (0, 0),
        count => (items.len() / count, items.len() % count),
    };
    let mut slices = Vec::new();
    let mut rest = items.as_slice();
    for at in 0..count {
        interp.budget.work(8)?;
        let (slice, tail) = rest.split_at(every + usize::from(at < longer));
        rest = tail;
        let mut slice = slice.to_vec();
        if at >= longer {
            slice.extend(fill.clone());
        }
        slices.push(interp.new_list(slice)?);
    }
    interp.ready(slices)
}

pub(super) fn group_by(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [attribute, default, is_case_sensitive] =
        args.bind("groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let is_case_sensitive = flag(is_case_sensitive);
    let default = default.filter(|default| !matches!(default, Value::None));
    let path = AttrPath::new(interp, &attribute.unwrap_or(Value::None))?;
    let mut pairs = Vec::new();
    for item in interp.items(&value)? {
        let key = path.get(interp, item.clone(), default.as_ref())?;
        pairs.push((interp.folded(key, is_case_sensitive)?, item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in interp.sorted(pairs, false)? {
        match groups.last_mut() {
            Some((last, items)) if last.same(&key) || interp.equal(last, &key)? => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::with_capacity(groups.len());
    for (key, items) in groups {
        // The group is called by its first item's own key, not by the lower case of it.
        let key = match (is_case_sensitive, items.first()) {
            (false, Some(first)) => path.get(interp, first.clone(), default.as_ref())?,
            _ => key,
        };
        let items = interp.new_list(items)?;
        out.push(Value::Tuple(Seq::group(&interp.budget, key, items)?));
    }
    interp.new_list(out)
}
