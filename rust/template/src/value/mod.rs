//! Python's values, as far as a template can make them.
//!
//! A rendering runs on one thread and its values never leave it, so they are counted with `Rc`.
//! Lists and dictionaries never change once made: the sandbox forbids the methods that would. Only a
//! namespace, a scope that a macro captured, and iterators change, and the first two are the only
//! ones through which a value could come to hold itself; the interpreter empties them at the end.

mod dict;
mod object;
mod repr;
mod text;

use std::cell::RefCell;
use std::rc::Rc;

pub(crate) use dict::{Dict, Key};
pub(crate) use object::{
    BlockRef, Cycler, Joiner, LoopState, MacroValue, Method, Namespace, Object, View, ViewKind,
};
pub(crate) use repr::{float_repr, str_repr, write_repr, write_str};
pub(crate) use text::{Buf, Text};

use crate::budget::{Budget, MAX_NESTING};
use crate::eval::Stream;
use crate::fault::{Fault, Outcome, fail};

/// A value.
#[derive(Clone)]
pub(crate) enum Value {
    /// jinja2's `Undefined`: empty when printed, a fault when used.
    Undefined(Rc<Missing>),
    None,
    Bool(bool),
    /// Python's integers have no bound; here a result beyond 128 bits is a fault.
    Int(i128),
    Float(f64),
    Str(Text),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    Range(Rc<Range>),
    /// Everything that is no plain data.
    Object(Rc<Object>),
}

/// What an undefined value would have been.
#[derive(Debug)]
pub(crate) enum Missing {
    /// A variable.
    Name(Box<str>),
    /// An attribute of an object, described as jinja2 does.
    Attr { owner: &'static str, name: Box<str> },
    /// An item that is not named by a string: the owner and the item's repr.
    Item { owner: &'static str, item: Box<str> },
    /// Something with its own message.
    Hint(Box<str>),
}

impl Missing {
    pub(crate) fn fault(&self) -> Fault {
        Fault::new(match self {
            Self::Name(name) => format!("{} is undefined", quoted(name)),
            Self::Attr { owner, name } => {
                let owner = if *owner == "None" { "'None'".into() } else { format!("'{owner} object'") };
                format!("{owner} has no attribute {}", quoted(name))
            }
            Self::Item { owner: "None", item } => format!("None has no element {item}"),
            Self::Item { owner, item } => format!("{owner} object has no element {item}"),
            Self::Hint(hint) => hint.to_string(),
        })
    }
}

/// The beginning of a name, for a message: a template may look for one as long as it likes.
fn shortened(name: &str) -> Box<str> {
    name.char_indices().nth(100).map_or(name, |(at, _)| &name[..at]).into()
}

/// A short name in Python's quotes.
pub(crate) fn quoted(name: &str) -> String {
    let mut out = String::new();
    str_repr(name, &mut |piece| {
        out.push_str(piece);
        Ok(())
    })
    .unwrap_or(());
    out
}

/// The items of a list or tuple.
pub(crate) struct Seq {
    items: Vec<Value>,
    depth: usize,
    weight: usize,
    /// What was counted for it.
    bytes: usize,
    /// Whether it is one of `groupby`'s pairs, which have attributes.
    is_group: bool,
    budget: Rc<Budget>,
}

impl Seq {
    /// What one item is counted as, in bytes.
    const ITEM: usize = size_of::<Value>();
    /// What a sequence is counted as beside its items.
    const SELF: usize = 112;

    pub(crate) fn new(budget: &Rc<Budget>, items: Vec<Value>) -> Outcome<Rc<Self>> {
        Self::build(budget, items, false)
    }

    /// One of `groupby`'s pairs: the group's key and its items.
    pub(crate) fn group(budget: &Rc<Budget>, key: Value, items: Value) -> Outcome<Rc<Self>> {
        Self::build(budget, vec![key, items], true)
    }

    fn build(budget: &Rc<Budget>, items: Vec<Value>, is_group: bool) -> Outcome<Rc<Self>> {
        let bytes = items.iter().fold(Self::SELF, |sum, item| sum + Self::ITEM + item.uncounted_bytes());
        budget.take(bytes)?;
        let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
        let weight = items.iter().fold(1, |sum: usize, item| sum.saturating_add(item.weight()));
        let seq = Rc::new(Self { items, depth, weight, bytes, is_group, budget: budget.clone() });
        check_depth(depth)?;
        Ok(seq)
    }

    pub(crate) fn items(&self) -> &[Value] {
        &self.items
    }

    /// The attribute of one of `groupby`'s pairs.
    pub(crate) fn group_attr(&self, name: &str) -> Option<&Value> {
        match name {
            "grouper" if self.is_group => self.items.first(),
            "list" if self.is_group => self.items.get(1),
            _ => None,
        }
    }
}

impl Drop for Seq {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

/// Faults where a value is nested too deep: whatever recurses over values relies on it.
pub(crate) fn check_depth(depth: usize) -> Outcome<()> {
    if depth > MAX_NESTING {
        fail!("values are nested more than {MAX_NESTING} deep");
    }
    Ok(())
}

/// Python's `range`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Range {
    pub(crate) start: i128,
    pub(crate) stop: i128,
    pub(crate) step: i128,
    pub(crate) len: usize,
}

impl Range {
    pub(crate) fn get(&self, index: usize) -> Value {
        Value::Int(self.start.saturating_add((index as i128).saturating_mul(self.step)))
    }
}

impl Value {
    pub(crate) fn undefined(name: &str) -> Self {
        Self::Undefined(Rc::new(Missing::Name(shortened(name))))
    }

    pub(crate) fn hint(hint: impl AsRef<str>) -> Self {
        Self::Undefined(Rc::new(Missing::Hint(shortened(hint.as_ref()))))
    }

    /// The item that the value lacks, by its `repr`.
    pub(crate) fn lacks_item(&self, repr: &str) -> Self {
        let missing = Missing::Item { owner: self.owner_name(), item: shortened(repr) };
        Self::Undefined(Rc::new(missing))
    }

    pub(crate) fn object(object: Object) -> Self {
        Self::Object(Rc::new(object))
    }

    /// A generator or another iterator that can be read once.
    pub(crate) fn stream(stream: Stream) -> Outcome<Self> {
        check_depth(stream.depth())?;
        Ok(Self::object(Object::Stream(RefCell::new(stream))))
    }

    pub(crate) fn text(budget: &Rc<Budget>, text: &str) -> Outcome<Self> {
        Ok(Self::Str(Text::new(budget, text)?))
    }

    pub(crate) fn list(budget: &Rc<Budget>, items: Vec<Value>) -> Outcome<Self> {
        Ok(Self::List(Seq::new(budget, items)?))
    }

    /// How deep the value is nested; 0 where it holds no other.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::List(seq) | Self::Tuple(seq) => seq.depth,
            Self::Dict(dict) => dict.depth(),
            Self::Object(object) => object.depth(),
            _ => 0,
        }
    }

    /// What a container counts for holding the value: the memory of values that do not count their
    /// own. Most of them live only as long as an expression.
    fn uncounted_bytes(&self) -> usize {
        match self {
            Self::Undefined(_) | Self::Range(_) | Self::Object(_) => 192,
            _ => 0,
        }
    }

    /// The work of walking the whole value. It is spent before a walk: a value may hold another one
    /// many times over, so that a small one takes very long to compare with its copy.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Str(text) => 1 + text.len() / 64,
            Self::List(seq) | Self::Tuple(seq) => seq.weight,
            Self::Dict(dict) => dict.weight(),
            _ => 1,
        }
    }

    /// Python's `bool(value)`.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(seq) | Self::Tuple(seq) => !seq.items.is_empty(),
            Self::Dict(dict) => dict.len() > 0,
            Self::Range(range) => range.len > 0,
            Self::Object(object) => match &**object {
                Object::View(view) => view.dict.len() > 0,
                _ => true,
            },
        }
    }

    /// Python's name for the type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(text) if text.is_markup() => "Markup",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::Object(object) => object.type_name(),
        }
    }

    /// As jinja2 names the owner of what is undefined.
    pub(crate) fn owner_name(&self) -> &'static str {
        if matches!(self, Self::None) { "None" } else { self.type_name() }
    }

    /// The attribute or item `name` that the value lacks.
    pub(crate) fn lacks(&self, name: &str) -> Self {
        Self::Undefined(Rc::new(Missing::Attr { owner: self.owner_name(), name: shortened(name) }))
    }

    /// Whether this is an attribute that the sandbox hides, as an undefined value that says so.
    pub(crate) fn unsafe_attr(&self, name: &str) -> Self {
        Self::hint(format!(
            "access to attribute {} of '{}' object is unsafe.",
            quoted(name),
            self.type_name()
        ))
    }

    /// The text, or a fault naming what wanted one.
    pub(crate) fn as_text(&self, wanted_by: &str) -> Outcome<&Text> {
        match self {
            Self::Str(text) => Ok(text),
            Self::Undefined(missing) => Err(missing.fault()),
            other => fail!("{wanted_by} must be str, not {}", other.type_name()),
        }
    }

    /// The integer that Python would take for an index: an int or a bool.
    pub(crate) fn as_index(&self) -> Outcome<i128> {
        match self {
            Self::Int(value) => Ok(*value),
            Self::Bool(value) => Ok(i128::from(*value)),
            Self::Undefined(missing) => Err(missing.fault()),
            other => fail!("'{}' object cannot be interpreted as an integer", other.type_name()),
        }
    }

    /// Marks a string, or each string of a sequence, as `Markup`.
    pub(crate) fn marked(self, budget: &Rc<Budget>) -> Outcome<Self> {
        let mark = |item: &Value| match item {
            Self::Str(text) => Self::Str(text.with_markup(true)),
            other => other.clone(),
        };
        match &self {
            Self::Str(_) => Ok(mark(&self)),
            Self::List(seq) => Self::list(budget, seq.items.iter().map(mark).collect()),
            Self::Tuple(seq) => Ok(Self::Tuple(Seq::new(budget, seq.items.iter().map(mark).collect())?)),
            _ => Ok(self),
        }
    }

    /// Whether two names stand for one object, as far as a template can tell.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined(a), Self::Undefined(b)) => Rc::ptr_eq(a, b),
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Str(a), Self::Str(b)) => a.as_str() == b.as_str(),
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => Rc::ptr_eq(a, b),
            (Self::Dict(a), Self::Dict(b)) => Rc::ptr_eq(a, b),
            (Self::Range(a), Self::Range(b)) => Rc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }
}
