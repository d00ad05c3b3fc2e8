//! Statements, after jinja2's grammar and the two extensions that transformers switches on: loop
//! controls and `generation`.

use std::sync::Arc;

use super::tokens::{Parser, Token};
use super::tree::{Assign, Block, Expr, ForLoop, If, MacroDef, Source, Stmt, Target, With};
use crate::fault::Outcome;

/// Reads a whole template; `source` has no newline but `\n`.
pub(super) fn parse_template(source: &str) -> Outcome<Source> {
    let mut parser = Parser::new(source)?;
    let (body, _) = parser.body(&[])?;
    parser.refuse_unknown(0)?;
    Ok(Source { body, names: parser.name_list, literals: parser.literals, blocks: parser.blocks })
}

impl<'s> Parser<'s> {
    /// Statements up to a tag named in `ends`, whose name becomes the current token; with no `ends`,
    /// up to the end of the template. The name that ended it is returned too.
    fn body(&mut self, ends: &[&'static str]) -> Outcome<(Vec<Stmt>, &'static str)> {
        self.enter()?;
        let mut body = Vec::new();
        loop {
            match self.advance()? {
                Token::Data("") => {}
                Token::Data(text) => body.push(Stmt::Text(text.into())),
                Token::VariableStart => {
                    body.push(Stmt::Emit(self.tuple(true, &[], false)?));
                    self.expect(Token::VariableEnd)?;
                }
                Token::BlockStart => {
                    if let Token::Name(name) = self.current
                        && let Some(end) = ends.iter().find(|end| **end == name)
                    {
                        self.advance()?;
                        self.leave();
                        return Ok((body, end));
                    }
                    self.statement(&mut body, ends)?;
                    self.expect(Token::BlockEnd)?;
                }
                Token::End if ends.is_empty() => {
                    self.leave();
                    return Ok((body, ""));
                }
                Token::End => {
                    return Err(self.fault(format_args!(
                        "unexpected end of template, looking for the tag {}",
                        ends.iter().map(|end| format!("'{end}'")).collect::<Vec<_>>().join(" or ")
                    )));
                }
                other => return Err(self.fault(format_args!("unexpected {}", other.describe()))),
            }
        }
    }

    /// The end of a tag, then statements up to a tag named in `ends`.
    fn block_body(&mut self, ends: &[&'static str]) -> Outcome<(Vec<Stmt>, &'static str)> {
        self.skip_op(":")?;
        self.expect(Token::BlockEnd)?;
        self.body(ends)
    }

    /// As [`Parser::block_body`], for a body with a scope of its own.
    fn inner_body(&mut self, ends: &[&'static str]) -> Outcome<(Vec<Stmt>, &'static str)> {
        let num_unknown = self.unknown.len();
        let body = self.block_body(ends)?;
        self.refuse_unknown(num_unknown)?;
        Ok(body)
    }

    /// Faults where more unknown filters and tests than the first `num_spared` were met.
    fn refuse_unknown(&mut self, num_spared: usize) -> Outcome<()> {
        if self.unknown.len() <= num_spared {
            return Ok(());
        }
        Err(self.unknown.swap_remove(num_spared))
    }

    /// As [`Parser::inner_body`], where `break` cannot reach a loop outside.
    fn closed_body(&mut self, end: &'static str) -> Outcome<Vec<Stmt>> {
        let loops = std::mem::replace(&mut self.loops, 0);
        let (body, _) = self.inner_body(&[end])?;
        self.loops = loops;
        Ok(body)
    }

    fn statement(&mut self, body: &mut Vec<Stmt>, ends: &[&'static str]) -> Outcome<()> {
        let Token::Name(tag) = self.current else {
            return Err(self.fault("tag name expected"));
        };
        self.advance()?;
        body.push(match tag {
            "for" => self.for_loop()?,
            "if" => self.if_chain()?,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => self.macro_definition()?,
            "call" => self.call_block()?,
            "filter" => {
                let num_unknown = self.unknown.len();
                let filters = self.filter_chain()?;
                self.refuse_unknown(num_unknown)?;
                Stmt::Filter(Box::new((filters, self.inner_body(&["endfilter"])?.0)))
            }
            "generation" => Stmt::Scoped(self.closed_body("endgeneration")?),
            "autoescape" => {
                let is_on = self.expression()?;
                Stmt::AutoEscape(Box::new((is_on, self.inner_body(&["endautoescape"])?.0)))
            }
            "block" => self.block()?,
            "print" => {
                let mut is_first = true;
                while self.current != Token::BlockEnd {
                    if !is_first {
                        self.expect_op(",")?;
                    }
                    is_first = false;
                    body.push(Stmt::Emit(self.expression()?));
                }
                return Ok(());
            }
            "break" | "continue" if self.loops == 0 => {
                return Err(self.fault(format_args!("'{tag}' outside loop")));
            }
            "break" => Stmt::Break,
            "continue" => Stmt::Continue,
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.current, Token::BlockEnd | Token::End) {
                    self.advance()?;
                }
                Stmt::Load
            }
            _ => {
                let looking_for = match ends {
                    [] => String::new(),
                    ends => format!(" while looking for the tag '{}'", ends.join("' or '")),
                };
                return Err(self.fault(format_args!("encountered unknown tag '{tag}'{looking_for}")));
            }
        });
        Ok(())
    }

    fn for_loop(&mut self) -> Outcome<Stmt> {
        let target = self.target(&["in"], false)?;
        if target.binds("loop", &self.name_list) {
            return Err(self.fault("can't assign to special loop variable in for-loop target"));
        }
        if !self.skip_name("in")? {
            return Err(self.fault(format_args!("expected 'in', got {}", self.current.describe())));
        }
        let iter = self.tuple(false, &["recursive"], false)?;
        let num_unknown = self.unknown.len();
        let filter = if self.skip_name("if")? { Some(self.expression()?) } else { None };
        self.refuse_unknown(num_unknown)?;
        let is_recursive = self.skip_name("recursive")?;
        self.loops += 1;
        let (body, end) = self.inner_body(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = match end {
            "else" => self.inner_body(&["endfor"])?.0,
            _ => Vec::new(),
        };
        Ok(Stmt::For(Arc::new(ForLoop { target, iter, filter, is_recursive, body, otherwise })))
    }

    fn if_chain(&mut self) -> Outcome<Stmt> {
        let num_unknown = self.unknown.len();
        let node = self.branches()?;
        self.unknown.truncate(num_unknown);
        Ok(Stmt::If(Box::new(node)))
    }

    fn branches(&mut self) -> Outcome<If> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false, &[], false)?;
            let (body, end) = self.block_body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match end {
                "elif" => {}
                "else" => {
                    let otherwise = self.block_body(&["endif"])?.0;
                    return Ok(If { branches, otherwise });
                }
                _ => return Ok(If { branches, otherwise: Vec::new() }),
            }
        }
    }

    fn set(&mut self) -> Outcome<Stmt> {
        let target = self.target(&[], true)?;
        if self.skip_op("=")? {
            return Ok(Stmt::Set(target, self.tuple(true, &[], false)?));
        }
        let num_unknown = self.unknown.len();
        let filters = if self.skip_op("|")? { self.filter_chain()? } else { Vec::new() };
        let (body, _) = self.block_body(&["endset"])?;
        self.refuse_unknown(num_unknown)?;
        Ok(Stmt::SetBlock(Box::new(Assign { target, filters, body })))
    }

    fn with(&mut self) -> Outcome<Stmt> {
        let mut assigned = Vec::new();
        while self.current != Token::BlockEnd {
            if !assigned.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_op("=")?;
            assigned.push((target, self.expression()?));
        }
        let (body, _) = self.inner_body(&["endwith"])?;
        Ok(Stmt::With(Box::new(With { assigned, body })))
    }

    fn filter_chain(&mut self) -> Outcome<Vec<super::Filter>> {
        let mut filters = vec![self.filter()?];
        while self.skip_op("|")? {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn macro_definition(&mut self) -> Outcome<Stmt> {
        let name = self.expect_name()?;
        self.macro_uses.push([false; 3]);
        let params = self.signature()?;
        let def = self.macro_body(Some(name.into()), params, "endmacro")?;
        Ok(Stmt::Macro(self.name_id(name), def))
    }

    fn call_block(&mut self) -> Outcome<Stmt> {
        self.macro_uses.push([false; 3]);
        let params = if self.is_op("(") { self.signature()? } else { Vec::new() };
        let own_uses = self.macro_uses.pop();
        let Expr::Call(call) = self.expression()? else {
            return Err(self.fault("expected call"));
        };
        self.macro_uses.extend(own_uses);
        let def = self.macro_body(None, params, "endcall")?;
        Ok(Stmt::Call(call, def))
    }

    /// The body of a macro whose uses lie on top of [`Parser::macro_uses`].
    fn macro_body(
        &mut self,
        name: Option<Arc<str>>,
        params: Vec<(u32, Option<Expr>)>,
        end: &'static str,
    ) -> Outcome<Arc<MacroDef>> {
        let body = self.closed_body(end)?;
        let [caller, kwargs, varargs] = self.macro_uses.pop().unwrap_or_default();
        let mut special = |is_used: bool, name: &str| is_used.then(|| self.name_id(name));
        let (caller, kwargs, varargs) =
            (special(caller, "caller"), special(kwargs, "kwargs"), special(varargs, "varargs"));
        Ok(Arc::new(MacroDef { name, params, body, caller, kwargs, varargs }))
    }

    fn signature(&mut self) -> Outcome<Vec<(u32, Option<Expr>)>> {
        let mut params: Vec<(u32, Option<Expr>)> = Vec::new();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.assigned_name()?;
            let id = self.name_id(name);
            if params.iter().any(|(other, _)| *other == id) {
                return Err(self.fault(format_args!("duplicate argument '{name}'")));
            }
            let default = if self.skip_op("=")? { Some(self.expression()?) } else { None };
            if default.is_none() && params.last().is_some_and(|(_, default)| default.is_some()) {
                return Err(self.fault("non-default argument follows default argument"));
            }
            params.push((id, default));
        }
        self.expect_op(")")?;
        Ok(params)
    }

    fn block(&mut self) -> Outcome<Stmt> {
        let name: Arc<str> = self.expect_name()?.into();
        let is_scoped = self.skip_name("scoped")?;
        let is_required = self.skip_name("required")?;
        let body = self.closed_body("endblock")?;
        self.skip_name(&name)?;
        if is_required {
            // jinja2 wants another template to fill it, and there is none.
            return Err(self.fault(format_args!("required block '{name}' not found")));
        }
        if self.blocks.iter().any(|block| block.name == name) {
            return Err(self.fault(format_args!("block '{name}' defined twice")));
        }
        let block = Arc::new(Block { name, is_scoped, body });
        self.blocks.push(block.clone());
        Ok(Stmt::Block(block))
    }

    /// A name that may be assigned to.
    fn assigned_name(&mut self) -> Outcome<&'s str> {
        let name = self.expect_name()?;
        if matches!(name, "true" | "false" | "none" | "True" | "False" | "None") {
            return Err(self.fault(format_args!("can't assign to '{name}'")));
        }
        Ok(name)
    }

    /// Something to assign to: a name, a namespace's attribute where `has_attrs`, or several with
    /// commas between.
    fn target(&mut self, ends: &[&str], has_attrs: bool) -> Outcome<Target> {
        self.enter()?;
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            let is_end = match &self.current {
                Token::BlockEnd | Token::Op(")") => true,
                Token::Name(name) => ends.contains(name),
                _ => false,
            };
            if is_end {
                break;
            }
            items.push(if self.skip_op("(")? {
                let inner = self.target(&[], has_attrs)?;
                self.expect_op(")")?;
                inner
            } else {
                let name = self.assigned_name()?;
                let id = self.name_id(name);
                if has_attrs && self.skip_op(".")? {
                    Target::Attr(id, self.expect_name()?.into())
                } else {
                    Target::Name(id)
                }
            });
            if !self.is_op(",") {
                break;
            }
            is_tuple = true;
        }
        self.leave();
        match items.pop() {
            None => Err(self.fault(format_args!("expected a name, got {}", self.current.describe()))),
            Some(only) if !is_tuple => Ok(only),
            last => {
                items.extend(last);
                Ok(Target::Tuple(items))
            }
        }
    }
}

impl Target {
    fn binds(&self, wanted: &str, names: &[Arc<str>]) -> bool {
        match self {
            Self::Name(id) => names.get(*id as usize).is_some_and(|name| &**name == wanted),
            Self::Attr(..) => false,
            Self::Tuple(items) => items.iter().any(|item| item.binds(wanted, names)),
        }
    }
}
