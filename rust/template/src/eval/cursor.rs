//! Iteration, item by item: nothing is listed that a template only walks.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::{Interp, Scope};
use crate::args::Args;
use crate::fault::{Outcome, fail};
use crate::filters::AttrPath;
use crate::syntax::ForLoop;
use crate::value::{Dict, Object, Range, Seq, Text, Value, ViewKind};

/// A place in something that is iterated.
#[derive(Clone)]
pub(crate) enum Cursor {
    Empty,
    Seq(Rc<Seq>, usize),
    /// A string and the byte offset of the next character.
    Chars(Text, usize),
    Range(Rc<Range>, usize),
    Dict(Rc<Dict>, ViewKind, usize),
    /// A generator: all who iterate it share its place.
    Shared(Rc<Object>),
}

/// An iterator that can be read once, as Python's generators.
pub(crate) enum Stream {
    /// Items that are there already.
    Ready(std::vec::IntoIter<Value>, usize),
    /// `map`.
    Map(Cursor, Mapping),
    /// `select`, `reject` and their like.
    Select(Cursor, Selection),
    /// A loop's items under its `if`.
    LoopFilter(Cursor, Arc<ForLoop>, Rc<Scope>),
}

/// What `map` does to an item.
#[derive(Clone)]
pub(crate) enum Mapping {
    Attr(AttrPath, Option<Value>),
    Filter(Text, Args),
}

/// What `select` asks of an item.
#[derive(Clone)]
pub(crate) struct Selection {
    /// The attribute that is asked instead of the item.
    pub(crate) attr: Option<AttrPath>,
    /// The test, or the item's truth.
    pub(crate) test: Option<(Text, Args)>,
    /// Whether items that hold are dropped.
    pub(crate) is_reject: bool,
}

impl Stream {
    pub(crate) fn ready(items: Vec<Value>) -> Self {
        let depth = items.iter().map(Value::depth).max().unwrap_or(0);
        Self::Ready(items.into_iter(), depth)
    }

    pub(crate) fn depth(&self) -> usize {
        1 + match self {
            Self::Ready(_, depth) => *depth,
            Self::Map(source, Mapping::Attr(_, default)) => {
                source.depth().max(default.as_ref().map_or(0, Value::depth))
            }
            Self::Map(source, Mapping::Filter(_, args)) => source.depth().max(args.depth()),
            Self::Select(source, selection) => {
                source.depth().max(selection.test.as_ref().map_or(0, |(_, args)| args.depth()))
            }
            Self::LoopFilter(source, ..) => source.depth(),
        }
    }

    fn next(&mut self, interp: &mut Interp<'_>) -> Outcome<Option<Value>> {
        match self {
            Self::Ready(items, _) => Ok(items.next()),
            Self::Map(source, mapping) => {
                let Some(item) = source.next(interp)? else { return Ok(None) };
                Ok(Some(match mapping {
                    Mapping::Attr(path, default) => path.get(interp, item, default.as_ref())?,
                    Mapping::Filter(name, args) => interp.filter(name, item, args.clone())?,
                }))
            }
            Self::Select(source, selection) => {
                while let Some(item) = source.next(interp)? {
                    let asked = match &selection.attr {
                        Some(path) => path.get(interp, item.clone(), None)?,
                        None => item.clone(),
                    };
                    let holds = match &selection.test {
                        Some((name, args)) => interp.test(name, &asked, args.clone())?,
                        None => asked.truth(),
                    };
                    if holds != selection.is_reject {
                        return Ok(Some(item));
                    }
                }
                Ok(None)
            }
            Self::LoopFilter(source, node, scope) => {
                let Some(filter) = &node.filter else { return source.next(interp) };
                while let Some(item) = source.next(interp)? {
                    let inner = Scope::new(Some(scope));
                    interp.assign(&node.target, item.clone(), &inner)?;
                    if interp.eval(filter, &inner)?.truth() {
                        return Ok(Some(item));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Cursor {
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Empty | Self::Chars(..) | Self::Range(..) => 0,
            Self::Seq(seq, _) => Value::List(seq.clone()).depth(),
            Self::Dict(dict, ..) => dict.depth(),
            Self::Shared(object) => object.depth(),
        }
    }

    /// The next item.
    pub(crate) fn next(&mut self, interp: &mut Interp<'_>) -> Outcome<Option<Value>> {
        interp.budget.work(1)?;
        match self {
            Self::Empty => Ok(None),
            Self::Seq(seq, at) => {
                *at += 1;
                Ok(seq.items().get(*at - 1).cloned())
            }
            Self::Chars(text, at) => {
                let rest = text.as_str().get(*at..).unwrap_or("");
                let Some(c) = rest.chars().next() else { return Ok(None) };
                *at += c.len_utf8();
                interp.new_text(c.encode_utf8(&mut [0; 4])).map(Some)
            }
            Self::Range(range, at) => {
                *at += 1;
                Ok((*at <= range.len).then(|| range.get(*at - 1)))
            }
            Self::Dict(dict, kind, at) => {
                *at += 1;
                let Some((key, value)) = dict.at(*at - 1) else { return Ok(None) };
                Ok(Some(match kind {
                    ViewKind::Keys => key.clone(),
                    ViewKind::Values => value.clone(),
                    ViewKind::Items => interp.new_tuple(vec![key.clone(), value.clone()])?,
                }))
            }
            Self::Shared(object) => match &**object {
                Object::Stream(stream) => {
                    let object = object.clone();
                    let Ok(mut stream) = stream.try_borrow_mut() else {
                        fail!("generator already executing");
                    };
                    let item = interp.nested(|interp| stream.next(interp));
                    drop(stream);
                    drop(object);
                    item
                }
                _ => Ok(None),
            },
        }
    }
}

impl Interp<'_> {
    /// Python's `iter(value)`.
    pub(crate) fn cursor(&self, value: &Value) -> Outcome<Cursor> {
        Ok(match value {
            Value::Undefined(_) => Cursor::Empty,
            Value::Str(text) => Cursor::Chars(text.clone(), 0),
            Value::List(seq) | Value::Tuple(seq) => Cursor::Seq(seq.clone(), 0),
            Value::Dict(dict) => Cursor::Dict(dict.clone(), ViewKind::Keys, 0),
            Value::Range(range) => Cursor::Range(range.clone(), 0),
            Value::Object(object) => match &**object {
                Object::View(view) => Cursor::Dict(view.dict.clone(), view.kind, 0),
                Object::Stream(_) => Cursor::Shared(object.clone()),
                _ => fail!("'{}' object is not iterable", value.type_name()),
            },
            _ => fail!("'{}' object is not iterable", value.type_name()),
        })
    }

    /// Python's `list(value)`, before it is a value.
    pub(crate) fn items(&mut self, value: &Value) -> Outcome<Vec<Value>> {
        if let Value::List(seq) | Value::Tuple(seq) = value {
            self.budget.work(1 + seq.items().len() / 2)?;
            return Ok(seq.items().to_vec());
        }
        let mut cursor = self.cursor(value)?;
        let mut items = Vec::new();
        while let Some(item) = cursor.next(self)? {
            items.push(item);
        }
        Ok(items)
    }

    /// An iterator over items that are there already.
    pub(crate) fn ready(&self, items: Vec<Value>) -> Outcome<Value> {
        Value::stream(Stream::ready(items))
    }

    /// Python's `len(value)`, where it has one.
    pub(crate) fn len_of(&self, value: &Value) -> Option<usize> {
        Some(match value {
            Value::Undefined(_) => 0,
            Value::Str(text) => text.chars_len(),
            Value::List(seq) | Value::Tuple(seq) => seq.items().len(),
            Value::Dict(dict) => dict.len(),
            Value::Range(range) => range.len,
            Value::Object(object) => match &**object {
                Object::View(view) => view.dict.len(),
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// A cell around a stream, for a value.
impl From<Stream> for Object {
    fn from(stream: Stream) -> Self {
        Self::Stream(RefCell::new(stream))
    }
}
