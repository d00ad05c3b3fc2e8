//! Expressions, after jinja2's grammar.

use std::sync::Arc;

use super::tokens::{MAX_CHAIN, Parser, Token};
use super::tree::{Arithmetic, Call, Comparison, Expr, Filter, Literal, Slice, Test};
use crate::fault::Outcome;
use crate::filters::filter_by_name;
use crate::predicates::test_by_name;

/// What a call's brackets hold.
type Arguments = (Vec<Expr>, Vec<(Arc<str>, Expr)>, Option<Expr>, Option<Expr>);

impl<'s> Parser<'s> {
    /// An expression with `x if y else z`.
    pub(super) fn expression(&mut self) -> Outcome<Expr> {
        self.enter()?;
        let num_unknown = self.unknown.len();
        let mut value = self.or()?;
        let mut chain = 0;
        while self.skip_name("if")? {
            self.link(&mut chain)?;
            let condition = self.or()?;
            let other = if self.skip_name("else")? { Some(self.expression()?) } else { None };
            value = Expr::If(Box::new((condition, value, other)));
            self.unknown.truncate(num_unknown);
        }
        self.leave();
        Ok(value)
    }

    /// An expression, or several with commas between, which are a tuple. `ends` are names that end it.
    pub(super) fn tuple(&mut self, has_condition: bool, ends: &[&str], in_brackets: bool) -> Outcome<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            let is_end = match &self.current {
                Token::VariableEnd | Token::BlockEnd | Token::Op(")") => true,
                Token::Name(name) => ends.contains(name),
                _ => false,
            };
            if is_end {
                break;
            }
            items.push(if has_condition { self.expression()? } else { self.plain_expression()? });
            if !self.is_op(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            None if !in_brackets => {
                Err(self.fault(format_args!("expected an expression, got {}", self.current.describe())))
            }
            last => {
                items.extend(last);
                Ok(Expr::Tuple(items))
            }
        }
    }

    /// An expression without `x if y`.
    fn plain_expression(&mut self) -> Outcome<Expr> {
        self.enter()?;
        let value = self.or()?;
        self.leave();
        Ok(value)
    }

    /// Counts one more operator of a chain.
    fn link(&self, chain: &mut usize) -> Outcome<()> {
        *chain += 1;
        if *chain > MAX_CHAIN {
            return Err(self.fault(format_args!("a chain of more than {MAX_CHAIN} operators")));
        }
        Ok(())
    }

    fn or(&mut self) -> Outcome<Expr> {
        let mut left = self.and()?;
        let mut chain = 0;
        while self.skip_name("or")? {
            self.link(&mut chain)?;
            left = Expr::Or(Box::new((left, self.and()?)));
        }
        Ok(left)
    }

    fn and(&mut self) -> Outcome<Expr> {
        let mut left = self.not()?;
        let mut chain = 0;
        while self.skip_name("and")? {
            self.link(&mut chain)?;
            left = Expr::And(Box::new((left, self.not()?)));
        }
        Ok(left)
    }

    fn not(&mut self) -> Outcome<Expr> {
        let mut count = 0;
        while self.skip_name("not")? {
            self.link(&mut count)?;
        }
        let mut value = self.compare()?;
        for _ in 0..count {
            value = Expr::Not(Box::new(value));
        }
        Ok(value)
    }

    fn compare(&mut self) -> Outcome<Expr> {
        let left = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let is_not_in = self.is_name("not") && *self.look()? == Token::Name("in");
            let comparison = match self.current {
                Token::Op("==") => Comparison::Eq,
                Token::Op("!=") => Comparison::Ne,
                Token::Op("<") => Comparison::Lt,
                Token::Op("<=") => Comparison::Le,
                Token::Op(">") => Comparison::Gt,
                Token::Op(">=") => Comparison::Ge,
                Token::Name("in") => Comparison::In,
                _ if is_not_in => {
                    self.advance()?;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.advance()?;
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { left } else { Expr::Compare(Box::new((left, rest))) })
    }

    fn sum(&mut self) -> Outcome<Expr> {
        let mut left = self.concat()?;
        let mut chain = 0;
        loop {
            let op = match self.current {
                Token::Op("+") => Arithmetic::Add,
                Token::Op("-") => Arithmetic::Sub,
                _ => return Ok(left),
            };
            self.link(&mut chain)?;
            self.advance()?;
            left = Expr::Arithmetic(op, Box::new((left, self.concat()?)));
        }
    }

    fn concat(&mut self) -> Outcome<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~")? {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Outcome<Expr> {
        let mut left = self.power()?;
        let mut chain = 0;
        loop {
            let op = match self.current {
                Token::Op("*") => Arithmetic::Mul,
                Token::Op("/") => Arithmetic::Div,
                Token::Op("//") => Arithmetic::FloorDiv,
                Token::Op("%") => Arithmetic::Rem,
                _ => return Ok(left),
            };
            self.link(&mut chain)?;
            self.advance()?;
            left = Expr::Arithmetic(op, Box::new((left, self.power()?)));
        }
    }

    fn power(&mut self) -> Outcome<Expr> {
        let mut left = self.filtered()?;
        let mut chain = 0;
        while self.skip_op("**")? {
            self.link(&mut chain)?;
            left = Expr::Arithmetic(Arithmetic::Pow, Box::new((left, self.filtered()?)));
        }
        Ok(left)
    }

    /// A signed operand with its filters and tests.
    fn filtered(&mut self) -> Outcome<Expr> {
        let mut value = self.signed()?;
        let mut chain = 0;
        loop {
            if self.is_op("|") {
                self.advance()?;
                let filter = self.filter()?;
                value = Expr::Filter(Box::new((value, filter)));
            } else if self.skip_name("is")? {
                value = self.test(value)?;
            } else if self.is_op("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
            self.link(&mut chain)?;
        }
    }

    /// An operand with its signs: a sign takes the operand's attributes and calls with it.
    fn signed(&mut self) -> Outcome<Expr> {
        let mut signs = Vec::new();
        let mut chain = 0;
        loop {
            let is_minus = self.is_op("-");
            if !is_minus && !self.is_op("+") {
                break;
            }
            self.link(&mut chain)?;
            signs.push(is_minus);
            self.advance()?;
        }
        let value = self.primary()?;
        let mut value = self.postfix(value)?;
        for is_minus in signs.into_iter().rev() {
            value = if is_minus { Expr::Negate(Box::new(value)) } else { Expr::Plus(Box::new(value)) };
        }
        Ok(value)
    }

    fn primary(&mut self) -> Outcome<Expr> {
        let literal = match self.advance()? {
            Token::Name("true" | "True") => Literal::Bool(true),
            Token::Name("false" | "False") => Literal::Bool(false),
            Token::Name("none" | "None") => Literal::None,
            Token::Name(name) => return Ok(Expr::Name(self.used_name(name))),
            Token::Str(mut text) => {
                while let Token::Str(more) = &self.current {
                    text.push_str(more);
                    self.advance()?;
                }
                Literal::Str(text.into())
            }
            Token::Int(value) => Literal::Int(value),
            Token::Float(value) => Literal::Float(value),
            Token::Op("(") => {
                let value = self.tuple(true, &[], true)?;
                self.expect_op(")")?;
                return Ok(value);
            }
            Token::Op("[") => return self.list(),
            Token::Op("{") => return self.dict(),
            other => return Err(self.fault(format_args!("unexpected {}", other.describe()))),
        };
        Ok(Expr::Literal(self.literal(literal)))
    }

    /// A name that is read; macros must know when it is one of their special three.
    fn used_name(&mut self, name: &str) -> u32 {
        let special = ["caller", "kwargs", "varargs"].iter().position(|special| *special == name);
        if let Some(special) = special {
            self.macro_uses.iter_mut().for_each(|uses| uses[special] = true);
        }
        self.name_id(name)
    }

    fn list(&mut self) -> Outcome<Expr> {
        let mut items = Vec::new();
        while !self.is_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("]") {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        self.expect_op("]")?;
        Ok(Expr::List(items))
    }

    fn dict(&mut self) -> Outcome<Expr> {
        let mut entries = Vec::new();
        while !self.is_op("}") {
            if !entries.is_empty() {
                self.expect_op(",")?;
                if self.is_op("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_op(":")?;
            entries.push((key, self.expression()?));
        }
        self.expect_op("}")?;
        Ok(Expr::Dict(entries))
    }

    fn postfix(&mut self, mut value: Expr) -> Outcome<Expr> {
        let mut chain = 0;
        loop {
            value = if self.skip_op(".")? {
                self.attribute(value)?
            } else if self.skip_op("[")? {
                self.subscript(value)?
            } else if self.is_op("(") {
                self.call(value)?
            } else {
                return Ok(value);
            };
            self.link(&mut chain)?;
        }
    }

    fn attribute(&mut self, value: Expr) -> Outcome<Expr> {
        match self.advance()? {
            Token::Name(name) => Ok(Expr::Attr(Box::new(value), name.into())),
            Token::Int(index) => {
                let index = self.literal(Literal::Int(index));
                Ok(Expr::Item(Box::new((value, Expr::Literal(index)))))
            }
            _ => Err(self.fault("expected name or number")),
        }
    }

    fn subscript(&mut self, value: Expr) -> Outcome<Expr> {
        let mut items = Vec::new();
        while !self.is_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            let start = if self.is_op(":") { None } else { Some(self.expression()?) };
            if !self.skip_op(":")? {
                items.extend(start);
                continue;
            }
            let stop = self.slice_part()?;
            let step = if self.skip_op(":")? { self.slice_part()? } else { None };
            if !items.is_empty() || !self.is_op("]") {
                return Err(self.fault("a slice beside other subscripts"));
            }
            self.advance()?;
            return Ok(Expr::Slice(Box::new(Slice { of: value, start, stop, step })));
        }
        self.expect_op("]")?;
        let item = match items.pop() {
            Some(only) if items.is_empty() => only,
            last => {
                items.extend(last);
                Expr::Tuple(items)
            }
        };
        Ok(Expr::Item(Box::new((value, item))))
    }

    fn slice_part(&mut self) -> Outcome<Option<Expr>> {
        let is_empty = self.is_op(":") || self.is_op("]") || self.is_op(",");
        if is_empty { Ok(None) } else { self.expression().map(Some) }
    }

    fn call(&mut self, function: Expr) -> Outcome<Expr> {
        let (args, kwargs, more_args, more_kwargs) = self.arguments()?;
        Ok(Expr::Call(Box::new(Call { function, args, kwargs, more_args, more_kwargs })))
    }

    fn arguments(&mut self) -> Outcome<Arguments> {
        let (mut args, mut kwargs, mut more_args, mut more_kwargs) = (Vec::new(), Vec::new(), None, None);
        self.expect_op("(")?;
        let mut is_first = true;
        while !self.is_op(")") {
            if !is_first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            is_first = false;
            let is_sound = if self.skip_op("*")? {
                let is_sound = more_args.is_none() && more_kwargs.is_none();
                more_args = Some(self.expression()?);
                is_sound
            } else if self.skip_op("**")? {
                let is_sound = more_kwargs.is_none();
                more_kwargs = Some(self.expression()?);
                is_sound
            } else if let Token::Name(name) = self.current
                && *self.look()? == Token::Op("=")
            {
                self.advance()?;
                self.advance()?;
                kwargs.push((name.into(), self.expression()?));
                more_kwargs.is_none()
            } else {
                args.push(self.expression()?);
                more_args.is_none() && more_kwargs.is_none() && kwargs.is_empty()
            };
            if !is_sound {
                return Err(self.fault("invalid syntax for function call expression"));
            }
        }
        self.expect_op(")")?;
        Ok((args, kwargs, more_args, more_kwargs))
    }

    /// A name with dots in it, of a filter or test.
    fn dotted_name(&mut self) -> Outcome<String> {
        let mut name = self.expect_name()?.to_owned();
        while self.skip_op(".")? {
            name.push('.');
            name.push_str(self.expect_name()?);
        }
        Ok(name)
    }

    /// A filter, after its `|`.
    pub(super) fn filter(&mut self) -> Outcome<Filter> {
        let name = self.dotted_name()?;
        let (args, kwargs, more_args, more_kwargs) =
            if self.is_op("(") { self.arguments()? } else { Default::default() };
        let function = (name.as_str().into(), filter_by_name(&name));
        if function.1.is_none() {
            self.unknown.push(self.fault(format_args!("No filter named '{name}'.")));
        }
        Ok(Call { function, args, kwargs, more_args, more_kwargs })
    }

    /// A test of `value`, after its `is`.
    fn test(&mut self, value: Expr) -> Outcome<Expr> {
        let is_negated = self.skip_name("not")?;
        let name = self.dotted_name()?;
        let takes_operand = match self.current {
            Token::Name("else" | "or" | "and") => false,
            Token::Name("is") => return Err(self.fault("You cannot chain multiple tests with is")),
            Token::Name(_) | Token::Str(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(op) => matches!(op, "[" | "{"),
            _ => false,
        };
        let (args, kwargs, more_args, more_kwargs) = if self.is_op("(") {
            self.arguments()?
        } else if takes_operand {
            let operand = self.primary()?;
            (vec![self.postfix(operand)?], Vec::new(), None, None)
        } else {
            Default::default()
        };
        let function = (name.as_str().into(), test_by_name(&name));
        if function.1.is_none() {
            self.unknown.push(self.fault(format_args!("No test named '{name}'.")));
        }
        let test: Test = Call { function, args, kwargs, more_args, more_kwargs };
        let test = Expr::Test(Box::new((value, test)));
        Ok(if is_negated { Expr::Not(Box::new(test)) } else { test })
    }
}
