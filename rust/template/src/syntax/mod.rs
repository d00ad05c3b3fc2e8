//! From source to tree: minijinja's tokenizer, and jinja2's grammar on top of it.
//!
//! minijinja's own parser accepts another language: no tuples without parentheses, no empty or
//! multiple subscripts, no unary plus, no `print`, no `generation`; and it nests one box in another
//! for every operator of a chain without counting them, which overflows the stack when the tree is
//! dropped. So only its tokenizer is used, which knows jinja2's whitespace control.

mod expression;
mod literal;
mod statement;
mod tokens;
mod tree;

pub(crate) use tree::{
    Arithmetic, Assign, Block, Call, Comparison, Expr, Filter, ForLoop, If, Literal, MacroDef, NameId, Slice,
    Source, Stmt, Target, Test,
};

use crate::budget::{MAX_LINE, MAX_SOURCE};
use crate::fault::{Fault, Outcome};

/// Reads a template.
///
/// # Errors
/// What jinja2 would call a syntax error; a source longer or more deeply nested than the bounds.
pub(crate) fn parse(source: &str) -> Outcome<Source> {
    if source.len() > MAX_SOURCE {
        return Err(Fault::new(format!("the template is longer than {MAX_SOURCE} bytes")));
    }
    // jinja2 knows one kind of newline, in text and in strings.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.split('\n').any(|line| line.len() > MAX_LINE && line.chars().count() > MAX_LINE) {
        return Err(Fault::new(format!("a line of the template is longer than {MAX_LINE} characters")));
    }
    statement::parse_template(&source)
}
