//! A template as a tree. It is made once, shared by threads and never changed.

use std::sync::Arc;

use crate::filters::FilterFn;
use crate::predicates::TestFn;

/// The number of a variable's name in [`Source::names`].
pub(crate) type NameId = u32;

/// A template.
pub(crate) struct Source {
    pub(crate) body: Vec<Stmt>,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) literals: Vec<Literal>,
    /// The blocks by name, for `self`.
    pub(crate) blocks: Vec<Arc<Block>>,
}

/// A constant.
#[derive(Clone, PartialEq)]
pub(crate) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Box<str>),
}

pub(crate) enum Stmt {
    Text(Box<str>),
    Emit(Expr),
    If(Box<If>),
    For(Arc<ForLoop>),
    Break,
    Continue,
    Set(Target, Expr),
    SetBlock(Box<Assign>),
    With(Box<With>),
    /// A filter block: the filters, innermost first.
    Filter(Box<(Vec<Filter>, Vec<Stmt>)>),
    Macro(NameId, Arc<MacroDef>),
    /// A call block: what is called, and the body as its `caller`.
    Call(Box<Call>, Arc<MacroDef>),
    /// A body with a scope of its own: `generation`, `autoescape false`.
    Scoped(Vec<Stmt>),
    AutoEscape(Box<(Expr, Vec<Stmt>)>),
    Block(Arc<Block>),
    /// `include` and its like, which need a loader.
    Load,
}

/// A `with` block: what it sets, and where that is seen.
pub(crate) struct With {
    pub(crate) assigned: Vec<(Target, Expr)>,
    pub(crate) body: Vec<Stmt>,
}

pub(crate) struct If {
    /// The `if` and its `elif`s.
    pub(crate) branches: Vec<(Expr, Vec<Stmt>)>,
    pub(crate) otherwise: Vec<Stmt>,
}

pub(crate) struct ForLoop {
    pub(crate) target: Target,
    pub(crate) iter: Expr,
    pub(crate) filter: Option<Expr>,
    pub(crate) is_recursive: bool,
    pub(crate) body: Vec<Stmt>,
    pub(crate) otherwise: Vec<Stmt>,
}

/// A set block.
pub(crate) struct Assign {
    pub(crate) target: Target,
    pub(crate) filters: Vec<Filter>,
    pub(crate) body: Vec<Stmt>,
}

pub(crate) struct MacroDef {
    /// `None` for the body of a call block.
    pub(crate) name: Option<Arc<str>>,
    /// The parameters, each with its default where it has one.
    pub(crate) params: Vec<(NameId, Option<Expr>)>,
    pub(crate) body: Vec<Stmt>,
    /// The names of these, where the body uses them: only then does a call accept such arguments.
    pub(crate) caller: Option<NameId>,
    pub(crate) kwargs: Option<NameId>,
    pub(crate) varargs: Option<NameId>,
}

pub(crate) struct Block {
    pub(crate) name: Arc<str>,
    pub(crate) is_scoped: bool,
    pub(crate) body: Vec<Stmt>,
}

/// What can be assigned to.
pub(crate) enum Target {
    Name(NameId),
    /// An attribute of a namespace.
    Attr(NameId, Box<str>),
    Tuple(Vec<Target>),
}

pub(crate) enum Expr {
    Literal(u32),
    Name(NameId),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, Arc<str>),
    Item(Box<(Expr, Expr)>),
    Slice(Box<Slice>),
    Call(Box<Call>),
    Filter(Box<(Expr, Filter)>),
    Test(Box<(Expr, Test)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Plus(Box<Expr>),
    Arithmetic(Arithmetic, Box<(Expr, Expr)>),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    Concat(Vec<Expr>),
    Compare(Box<(Expr, Vec<(Comparison, Expr)>)>),
    /// Condition, value, other value.
    If(Box<(Expr, Expr, Option<Expr>)>),
}

pub(crate) struct Slice {
    pub(crate) of: Expr,
    pub(crate) start: Option<Expr>,
    pub(crate) stop: Option<Expr>,
    pub(crate) step: Option<Expr>,
}

/// A call's parts; `function` of a filter's or test's call is not there.
pub(crate) struct Call<F = Expr> {
    pub(crate) function: F,
    pub(crate) args: Vec<Expr>,
    pub(crate) kwargs: Vec<(Arc<str>, Expr)>,
    pub(crate) more_args: Option<Expr>,
    pub(crate) more_kwargs: Option<Expr>,
}

/// A filter's or test's name, what it stands for if there is such a one, and the arguments.
pub(crate) type Filter = Call<(Arc<str>, Option<FilterFn>)>;
/// As [`Filter`].
pub(crate) type Test = Call<(Arc<str>, Option<TestFn>)>;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}
