//! What is neither a number nor a string nor a container of data.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Dict, Value};
use crate::eval::{Cursor, Scope, Stream};
use crate::globals::Function;
use crate::syntax::{Block, ForLoop, MacroDef};

/// A value with behaviour.
pub(crate) enum Object {
    View(View),
    Stream(RefCell<Stream>),
    Namespace(Namespace),
    Macro(MacroValue),
    /// Boxed, for it is several times as large as the others.
    Loop(Box<LoopState>),
    Cycler(Cycler),
    Joiner(Joiner),
    Function(Function),
    Method(Method),
    /// `self`, whose attributes are the template's blocks.
    Blocks,
    Block(BlockRef),
}

/// What of a dictionary a view shows.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ViewKind {
    Keys,
    Values,
    Items,
}

/// `dict.keys()` and its like.
pub(crate) struct View {
    pub(crate) dict: Rc<Dict>,
    pub(crate) kind: ViewKind,
}

/// `namespace(...)`: the one thing that a template can write into.
pub(crate) struct Namespace {
    pub(crate) attrs: RefCell<IndexMap<Box<str>, Value>>,
}

/// A macro, or the `caller` of a call block, with the scope that it was made in.
pub(crate) struct MacroValue {
    pub(crate) def: Arc<MacroDef>,
    pub(crate) scope: Rc<Scope>,
}

/// The `loop` variable.
pub(crate) struct LoopState {
    pub(crate) items: RefCell<Cursor>,
    pub(crate) index0: Cell<i64>,
    pub(crate) len: Cell<Option<usize>>,
    pub(crate) before: RefCell<Option<Value>>,
    pub(crate) current: RefCell<Option<Value>>,
    /// The next item, where somebody looked ahead; the inner `None`: there is no next one.
    pub(crate) after: RefCell<Option<Option<Value>>>,
    pub(crate) last_changed: RefCell<Option<Vec<Value>>>,
    pub(crate) depth0: usize,
    /// What a call of the loop renders again.
    pub(crate) recursive: Option<(Arc<ForLoop>, Rc<Scope>)>,
}

/// `cycler(...)`.
pub(crate) struct Cycler {
    pub(crate) items: Vec<Value>,
    pub(crate) at: Cell<usize>,
}

/// `joiner(...)`.
pub(crate) struct Joiner {
    pub(crate) separator: Value,
    pub(crate) is_used: Cell<bool>,
}

/// A method bound to its receiver.
pub(crate) struct Method {
    pub(crate) receiver: Value,
    pub(crate) name: &'static str,
}

/// A block as `self.name`.
pub(crate) struct BlockRef {
    pub(crate) body: Arc<Block>,
}

impl Object {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::View(view) => match view.kind {
                ViewKind::Keys => "dict_keys",
                ViewKind::Values => "dict_values",
                ViewKind::Items => "dict_items",
            },
            Self::Stream(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
            Self::Function(_) => "function",
            Self::Method(_) => "builtin_function_or_method",
            Self::Blocks => "TemplateReference",
            Self::Block(_) => "BlockReference",
        }
    }

    /// As [`Value::depth`]. A namespace counts as flat: the interpreter keeps them all, so that
    /// dropping one never recurses through another.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::View(view) => view.dict.depth() + 1,
            // A stream that is being read cannot be looked into; the reader's own depth bounds it.
            Self::Stream(stream) => stream.try_borrow().map_or(1, |stream| stream.depth()),
            Self::Method(method) => method.receiver.depth() + 1,
            Self::Loop(state) => state.items.try_borrow().map_or(1, |items| items.depth()) + 1,
            Self::Cycler(cycler) => cycler.items.iter().map(Value::depth).max().unwrap_or(0) + 1,
            Self::Joiner(joiner) => joiner.separator.depth() + 1,
            _ => 0,
        }
    }

    pub(crate) fn is_callable(&self) -> bool {
        !matches!(self, Self::View(_) | Self::Stream(_) | Self::Namespace(_) | Self::Cycler(_) | Self::Blocks)
    }
}
