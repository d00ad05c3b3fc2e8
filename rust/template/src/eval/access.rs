//! Attributes, items and slices, as the sandbox gives them out.

use super::Interp;
use crate::fault::{Outcome, fail};
use crate::methods::{self, Found};
use crate::value::{BlockRef, LoopState, Method, Namespace, Object, Range, Text, Value, quoted, write_repr};

impl Interp<'_> {
    /// `owner.name`: the attribute, else the item.
    pub(crate) fn get_attr(&mut self, owner: &Value, name: &str) -> Outcome<Value> {
        if let Some(value) = self.attr(owner, name)? {
            return Ok(value);
        }
        if let Value::Dict(dict) = owner
            && let Some(value) = dict.get_str(name)
        {
            return Ok(value.clone());
        }
        Ok(owner.lacks(name))
    }

    /// `owner[item]`: the item, else the attribute.
    pub(crate) fn get_item(&mut self, owner: &Value, item: &Value) -> Outcome<Value> {
        let found = match owner {
            Value::Undefined(missing) => return Err(missing.fault()),
            Value::Dict(dict) => match item {
                Value::List(_) | Value::Dict(_) => None,
                key => dict.get(key)?.cloned(),
            },
            Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_) => match item {
                Value::Int(_) | Value::Bool(_) => self.item_at(owner, item.as_index()?)?,
                _ => None,
            },
            Value::Object(object) => match (&**object, item) {
                (Object::Blocks, Value::Str(name)) => self.attr(owner, &name.clone())?,
                _ => None,
            },
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Value::Str(name) = item {
            return Ok(match self.attr(owner, name)? {
                Some(value) => value,
                None => owner.lacks(name),
            });
        }
        let mut repr = self.buf();
        write_repr(&mut repr, item)?;
        Ok(owner.lacks_item(repr.as_str()))
    }

    fn item_at(&self, owner: &Value, index: i128) -> Outcome<Option<Value>> {
        let len = self.len_of(owner).unwrap_or(0) as i128;
        let index = if index < 0 { index + len } else { index };
        if index < 0 || index >= len {
            return Ok(None);
        }
        let index = index as usize;
        Ok(match owner {
            Value::List(seq) | Value::Tuple(seq) => seq.items().get(index).cloned(),
            Value::Range(range) => Some(range.get(index)),
            Value::Str(text) => {
                self.scan(text)?;
                let (start, end) = (text.offset(index), text.offset(index + 1));
                let item = Text::new(&self.budget, text.get(start..end).unwrap_or(""))?;
                Some(Value::Str(item.with_markup(text.is_markup())))
            }
            _ => None,
        })
    }

    /// What Python's `getattr` finds, or an undefined value where the sandbox hides it.
    fn attr(&mut self, owner: &Value, name: &str) -> Outcome<Option<Value>> {
        if let Value::Undefined(missing) = owner {
            return Err(missing.fault());
        }
        if name.starts_with("__") {
            return Ok(Some(owner.unsafe_attr(name)));
        }
        match methods::find(owner, name) {
            Some(Found::Method(name)) => {
                let method = Method { receiver: owner.clone(), name };
                return Ok(Some(Value::object(Object::Method(method))));
            }
            Some(Found::Hidden) => return Ok(Some(owner.unsafe_attr(name))),
            None => {}
        }
        Ok(match owner {
            Value::Tuple(seq) => seq.group_attr(name).cloned(),
            Value::Range(range) => range_attr(range, name),
            Value::Object(object) => match &**object {
                Object::Namespace(namespace) => namespace.attrs.borrow().get(name).cloned(),
                Object::Loop(state) => self.loop_attr(state, name)?,
                Object::Blocks => self.block_ref(name),
                Object::Cycler(cycler) if name == "current" => cycler.items.get(cycler.at.get()).cloned(),
                Object::Macro(value) => match name {
                    "name" => match &value.def.name {
                        Some(name) => Some(self.new_text(name)?),
                        None => Some(Value::None),
                    },
                    "arguments" => {
                        let names = value.def.params.iter().map(|(id, _)| &self.source.names[*id as usize]);
                        let names = names.map(|name| self.new_text(name)).collect::<Outcome<_>>()?;
                        Some(self.new_tuple(names)?)
                    }
                    "catch_kwargs" => Some(Value::Bool(value.def.kwargs.is_some())),
                    "catch_varargs" => Some(Value::Bool(value.def.varargs.is_some())),
                    "caller" => Some(Value::Bool(value.def.caller.is_some())),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
    }

    fn block_ref(&self, name: &str) -> Option<Value> {
        let body = self.source.blocks.iter().find(|block| &*block.name == name)?.clone();
        Some(Value::object(Object::Block(BlockRef { body })))
    }

    fn loop_attr(&mut self, state: &LoopState, name: &str) -> Outcome<Option<Value>> {
        let index0 = i128::from(state.index0.get());
        let int = |value: i128| Ok(Some(Value::Int(value)));
        match name {
            "index0" => int(index0),
            "index" => int(index0 + 1),
            "first" => Ok(Some(Value::Bool(index0 == 0))),
            "last" => Ok(Some(Value::Bool(self.loop_peek(state)?.is_none()))),
            "length" => int(self.loop_len(state)? as i128),
            "revindex" => int(self.loop_len(state)? as i128 - index0),
            "revindex0" => int(self.loop_len(state)? as i128 - index0 - 1),
            "depth0" => int(state.depth0 as i128),
            "depth" => int(state.depth0 as i128 + 1),
            "previtem" => Ok(Some(match &*state.before.borrow() {
                Some(item) if index0 > 0 => item.clone(),
                _ => Value::hint("there is no previous item"),
            })),
            "nextitem" => {
                let item = self.loop_peek(state)?;
                Ok(Some(item.unwrap_or_else(|| Value::hint("there is no next item"))))
            }
            _ => Ok(None),
        }
    }

    /// Sets a namespace's attribute.
    pub(crate) fn set_attr(&mut self, namespace: &Namespace, name: &str, value: Value) -> Outcome<()> {
        if name.starts_with('_') {
            fail!(
                "Chat templates cannot store underscore-prefixed attributes on a namespace, but got {}. \
                 Please rename the attribute.",
                quoted(name)
            );
        }
        let is_new = !namespace.attrs.borrow().contains_key(name);
        if is_new {
            self.budget.take(ATTR_BYTES + name.len())?;
        }
        let old = namespace.attrs.borrow_mut().insert(name.into(), value);
        drop(old);
        Ok(())
    }

    /// `value[start:stop:step]`.
    pub(super) fn get_slice(
        &mut self,
        value: &Value,
        start: Option<i128>,
        stop: Option<i128>,
        step: Option<i128>,
    ) -> Outcome<Value> {
        let len = match value {
            Value::Undefined(missing) => return Err(missing.fault()),
            Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
                self.len_of(value).unwrap_or(0)
            }
            Value::Dict(_) => fail!("unhashable type: 'slice'"),
            other => fail!("'{}' object is not subscriptable", other.type_name()),
        };
        let picked = slice_indices(len, start, stop, step.unwrap_or(1))?;
        self.budget.work(1 + picked.len / 2)?;
        match value {
            Value::Str(text) => {
                let slice = self.slice_text(text, picked)?;
                if text.is_markup() { slice.marked(&self.budget) } else { Ok(slice) }
            }
            Value::Range(range) => {
                let at = |index: i64| range.start.saturating_add(range.step.saturating_mul(index.into()));
                Ok(Value::Range(std::rc::Rc::new(Range {
                    start: at(picked.start),
                    stop: at(picked.stop),
                    step: range.step.saturating_mul(picked.step.into()),
                    len: picked.len,
                })))
            }
            Value::List(seq) | Value::Tuple(seq) => {
                let items = match picked.step {
                    1 => seq.items().iter().skip(picked.start as usize).take(picked.len).cloned().collect(),
                    _ => picked.indices().filter_map(|i| seq.items().get(i).cloned()).collect(),
                };
                if matches!(value, Value::List(_)) { self.new_list(items) } else { self.new_tuple(items) }
            }
            _ => Ok(Value::None),
        }
    }

    /// Spends the work of finding a character: only in ASCII does its index say where it is.
    fn scan(&self, text: &Text) -> Outcome<()> {
        let is_ascii = text.chars_len() == text.len();
        self.budget.work(if is_ascii { 1 } else { 1 + text.len() / 8 })
    }

    fn slice_text(&mut self, text: &Text, picked: Picked) -> Outcome<Value> {
        self.scan(text)?;
        if picked.len == 0 {
            return self.new_text("");
        }
        if picked.step == 1 {
            let (start, stop) = (text.offset(picked.start as usize), text.offset(picked.stop as usize));
            return self.new_text(text.get(start..stop).unwrap_or(""));
        }
        self.budget.work(text.chars_len() / 8)?;
        self.budget.take(text.chars_len() * size_of::<char>())?;
        let chars: Vec<char> = text.chars().collect();
        let mut buf = self.buf();
        for i in picked.indices() {
            buf.push_char(chars.get(i).copied().unwrap_or(char::REPLACEMENT_CHARACTER))?;
        }
        self.budget.give(text.chars_len() * size_of::<char>());
        Ok(Value::Str(buf.finish()?))
    }
}

/// What an attribute of a namespace is counted as beside its name.
const ATTR_BYTES: usize = 96;

fn range_attr(range: &Range, name: &str) -> Option<Value> {
    let part = match name {
        "start" => range.start,
        "stop" => range.stop,
        "step" => range.step,
        _ => return None,
    };
    Some(Value::Int(part))
}

/// The indices that a slice picks, all within the sequence.
struct Picked {
    start: i64,
    stop: i64,
    step: i64,
    len: usize,
}

impl Picked {
    fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        let (start, step) = (self.start, self.step);
        (0..self.len as i64).map(move |i| (start + i * step) as usize)
    }
}

/// Python's `slice.indices`.
fn slice_indices(len: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> Outcome<Picked> {
    if step == 0 {
        fail!("slice step cannot be zero");
    }
    let len = len as i128;
    let (lowest, highest) = if step < 0 { (-1, len - 1) } else { (0, len) };
    let bound = |index: i128| {
        let index = if index < 0 { index.saturating_add(len) } else { index };
        index.clamp(lowest, highest)
    };
    let start = start.map_or(if step < 0 { highest } else { lowest }, bound);
    let stop = stop.map_or(if step < 0 { lowest } else { highest }, bound);
    let distance = if step < 0 { start - stop } else { stop - start };
    // A step longer than any sequence picks one item at most, as the longest one does.
    let step = step.clamp(-(1 << 40), 1 << 40);
    let len = if distance <= 0 { 0 } else { (distance - 1) / step.abs() + 1 };
    Ok(Picked { start: start as i64, stop: stop as i64, step: step as i64, len: len as usize })
}
