//! Python's operators.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::eval::Interp;
use crate::fault::{Fault, Outcome, fail};
use crate::filters::escaped;
use crate::format::percent;
use crate::syntax::{Arithmetic, Comparison};
use crate::value::{Object, Seq, Value, ViewKind};

impl Arithmetic {
    fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::FloorDiv => "//",
            Self::Rem => "%",
            Self::Pow => "** or pow()",
        }
    }
}

/// A number, as arithmetic sees it.
enum Number {
    Int(i128),
    Float(f64),
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Bool(value) => Some(Number::Int((*value).into())),
        Value::Int(value) => Some(Number::Int(*value)),
        Value::Float(value) => Some(Number::Float(*value)),
        _ => None,
    }
}

fn too_large() -> Fault {
    Fault::new("the result does not fit 128 bits")
}

pub(crate) fn negate(value: Value) -> Outcome<Value> {
    match (number(&value), &value) {
        (Some(Number::Int(value)), _) => value.checked_neg().map(Value::Int).ok_or_else(too_large),
        (Some(Number::Float(value)), _) => Ok(Value::Float(-value)),
        (None, Value::Undefined(missing)) => Err(missing.fault()),
        (None, other) => fail!("bad operand type for unary -: '{}'", other.type_name()),
    }
}

pub(crate) fn plus(value: Value) -> Outcome<Value> {
    match (number(&value), &value) {
        (Some(Number::Int(value)), _) => Ok(Value::Int(value)),
        (Some(Number::Float(value)), _) => Ok(Value::Float(value)),
        (None, Value::Undefined(missing)) => Err(missing.fault()),
        (None, other) => fail!("bad operand type for unary +: '{}'", other.type_name()),
    }
}

impl Interp<'_> {
    pub(crate) fn arithmetic(&mut self, op: Arithmetic, left: &Value, right: &Value) -> Outcome<Value> {
        // `str % value` formats an undefined value, as empty.
        if let (Arithmetic::Rem, Value::Str(text)) = (op, left) {
            return Ok(Value::Str(percent(self, text, right)?));
        }
        if let Value::Undefined(missing) = left {
            return Err(missing.fault());
        }
        if let Value::Undefined(missing) = right {
            return Err(missing.fault());
        }
        match (number(left), number(right)) {
            (Some(Number::Int(a)), Some(Number::Int(b))) => return int_arithmetic(op, a, b),
            (Some(a), Some(b)) => return float_arithmetic(op, as_float(&a), as_float(&b)),
            _ => {}
        }
        match (op, left, right) {
            (Arithmetic::Add, Value::Str(a), Value::Str(b)) => {
                let mut buf = self.buf();
                if a.is_markup() || b.is_markup() {
                    buf.push(&escaped(self, left)?)?;
                    buf.push(&escaped(self, right)?)?;
                    return Ok(Value::Str(buf.finish()?.with_markup(true)));
                }
                buf.push(a)?;
                buf.push(b)?;
                Ok(Value::Str(buf.finish()?))
            }
            (Arithmetic::Add, Value::List(a), Value::List(b)) => {
                let items = self.joined(a, b)?;
                self.new_list(items)
            }
            (Arithmetic::Add, Value::Tuple(a), Value::Tuple(b)) => {
                let items = self.joined(a, b)?;
                self.new_tuple(items)
            }
            (Arithmetic::Add, Value::Str(_) | Value::List(_) | Value::Tuple(_), other) => {
                fail!("can only concatenate {0} (not \"{1}\") to {0}", left.type_name(), other.type_name())
            }
            (Arithmetic::Mul, sequence, Value::Int(_) | Value::Bool(_)) if is_sequence(sequence) => {
                self.repeat(sequence, right.as_index()?)
            }
            (Arithmetic::Mul, Value::Int(_) | Value::Bool(_), sequence) if is_sequence(sequence) => {
                self.repeat(sequence, left.as_index()?)
            }
            _ => fail!(
                "unsupported operand type(s) for {}: '{}' and '{}'",
                op.symbol(),
                left.type_name(),
                right.type_name()
            ),
        }
    }

    fn joined(&self, a: &Seq, b: &Seq) -> Outcome<Vec<Value>> {
        self.budget.work(1 + (a.items().len() + b.items().len()) / 2)?;
        let mut items = Vec::with_capacity(a.items().len() + b.items().len());
        items.extend_from_slice(a.items());
        items.extend_from_slice(b.items());
        Ok(items)
    }

    fn repeat(&mut self, sequence: &Value, count: i128) -> Outcome<Value> {
        let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
        if let Value::Str(text) = sequence {
            let mut buf = self.buf();
            buf.push_times(text, count)?;
            return Ok(Value::Str(buf.finish()?.with_markup(text.is_markup())));
        }
        let items = self.items(sequence)?;
        let len = items.len().saturating_mul(count);
        self.budget.work(len / 2)?;
        // Counted before the list is there, then again by the list itself.
        self.budget.take(len.saturating_mul(size_of::<Value>()))?;
        let mut repeated = Vec::with_capacity(len);
        if !items.is_empty() {
            (0..count).for_each(|_| repeated.extend_from_slice(&items));
        }
        self.budget.give(len * size_of::<Value>());
        if matches!(sequence, Value::List(_)) { self.new_list(repeated) } else { self.new_tuple(repeated) }
    }

    pub(crate) fn holds(&mut self, comparison: Comparison, left: &Value, right: &Value) -> Outcome<bool> {
        match comparison {
            Comparison::Eq => self.equal(left, right),
            Comparison::Ne => self.equal(left, right).map(|equal| !equal),
            Comparison::In => self.contains(right, left),
            Comparison::NotIn => self.contains(right, left).map(|found| !found),
            Comparison::Lt => Ok(self.order(left, right, "<")? == Some(Ordering::Less)),
            Comparison::Gt => Ok(self.order(left, right, ">")? == Some(Ordering::Greater)),
            Comparison::Le => {
                let order = self.order(left, right, "<=")?;
                Ok(matches!(order, Some(Ordering::Less | Ordering::Equal)))
            }
            Comparison::Ge => {
                let order = self.order(left, right, ">=")?;
                Ok(matches!(order, Some(Ordering::Greater | Ordering::Equal)))
            }
        }
    }

    /// `left == right`, its work counted.
    pub(crate) fn equal(&self, left: &Value, right: &Value) -> Outcome<bool> {
        self.budget.work(left.weight().min(right.weight()))?;
        Ok(equal(left, right))
    }

    /// How `left` stands to `right`; `None` where a NaN is involved. `symbol` is for the fault.
    pub(crate) fn order(&self, left: &Value, right: &Value, symbol: &str) -> Outcome<Option<Ordering>> {
        self.budget.work(left.weight().min(right.weight()))?;
        order(left, right, symbol)
    }

    /// `item in container`.
    pub(crate) fn contains(&mut self, container: &Value, item: &Value) -> Outcome<bool> {
        match container {
            Value::Str(text) => match item {
                Value::Str(part) => {
                    self.budget.touch(text.len())?;
                    Ok(text.contains(part.as_str()))
                }
                Value::Undefined(_) => fail!("'in <string>' requires string as left operand, not Undefined"),
                other => {
                    fail!("'in <string>' requires string as left operand, not {}", other.type_name())
                }
            },
            Value::Dict(dict) => Ok(dict.get(item)?.is_some()),
            Value::Object(object) => match &**object {
                Object::View(view) if view.kind == ViewKind::Keys => Ok(view.dict.get(item)?.is_some()),
                Object::View(_) | Object::Stream(_) => self.contains_slowly(container, item),
                _ => fail!("argument of type '{}' is not iterable", container.type_name()),
            },
            Value::List(_) | Value::Tuple(_) | Value::Range(_) | Value::Undefined(_) => {
                self.contains_slowly(container, item)
            }
            _ => fail!("argument of type '{}' is not iterable", container.type_name()),
        }
    }

    fn contains_slowly(&mut self, container: &Value, item: &Value) -> Outcome<bool> {
        let mut cursor = self.cursor(container)?;
        while let Some(other) = cursor.next(self)? {
            if other.same(item) || self.equal(&other, item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_sequence(value: &Value) -> bool {
    matches!(value, Value::Str(_) | Value::List(_) | Value::Tuple(_))
}

fn as_float(number: &Number) -> f64 {
    match number {
        Number::Int(value) => *value as f64,
        Number::Float(value) => *value,
    }
}

fn int_arithmetic(op: Arithmetic, a: i128, b: i128) -> Outcome<Value> {
    let result = match op {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Sub => a.checked_sub(b),
        Arithmetic::Mul => a.checked_mul(b),
        Arithmetic::Div => {
            if b == 0 {
                fail!("division by zero");
            }
            return Ok(Value::Float(a as f64 / b as f64));
        }
        Arithmetic::FloorDiv | Arithmetic::Rem if b == 0 => {
            fail!("integer division or modulo by zero")
        }
        Arithmetic::FloorDiv => floor_div(a, b),
        Arithmetic::Rem => floor_div(a, b).and_then(|quotient| a.checked_sub(quotient.checked_mul(b)?)),
        Arithmetic::Pow if b < 0 => {
            if a == 0 {
                fail!("0.0 cannot be raised to a negative power");
            }
            return float_arithmetic(op, a as f64, b as f64);
        }
        Arithmetic::Pow => match a {
            0 | 1 => Some(if b == 0 { 1 } else { a }),
            -1 => Some(if b % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        },
    };
    result.map(Value::Int).ok_or_else(too_large)
}

/// Rounds towards minus infinity, as Python does.
fn floor_div(a: i128, b: i128) -> Option<i128> {
    let quotient = a.checked_div(b)?;
    let is_inexact = quotient.checked_mul(b)? != a;
    if is_inexact && (a < 0) != (b < 0) { quotient.checked_sub(1) } else { Some(quotient) }
}

fn float_arithmetic(op: Arithmetic, a: f64, b: f64) -> Outcome<Value> {
    Ok(Value::Float(match op {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div if b == 0.0 => fail!("float division by zero"),
        Arithmetic::Div => a / b,
        Arithmetic::FloorDiv if b == 0.0 => fail!("float floor division by zero"),
        Arithmetic::Rem if b == 0.0 => fail!("float modulo"),
        Arithmetic::FloorDiv => ((a - float_rem(a, b)) / b).round(),
        Arithmetic::Rem => float_rem(a, b),
        Arithmetic::Pow if a == 0.0 && b < 0.0 => fail!("0.0 cannot be raised to a negative power"),
        Arithmetic::Pow if a < 0.0 && b.fract() != 0.0 => fail!("complex numbers are not supported"),
        Arithmetic::Pow => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                fail!("(34, 'Numerical result out of range')");
            }
            power
        }
    }))
}

/// The remainder with the divisor's sign.
fn float_rem(a: f64, b: f64) -> f64 {
    let rem = a % b;
    if rem == 0.0 {
        0f64.copysign(b)
    } else if (rem < 0.0) != (b < 0.0) {
        rem + b
    } else {
        rem
    }
}

/// Python's `==`. Values are never nested deep enough for this to exhaust the stack.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (number(left), number(right)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => return a == b,
        (Some(a), Some(b)) => return compare_numbers(&a, &b) == Some(Ordering::Equal),
        _ => {}
    }
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => a.as_str() == b.as_str(),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            Rc::ptr_eq(a, b)
                || (a.items().len() == b.items().len()
                    && a.items().iter().zip(b.items()).all(|(a, b)| a.same(b) || equal(a, b)))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            Rc::ptr_eq(a, b)
                || (a.len() == b.len()
                    && a.entries().iter().all(|(key, value)| {
                        b.entries().get(key).is_some_and(|other| value.same(other) || equal(value, other))
                    }))
        }
        (Value::Range(a), Value::Range(b)) => {
            a.len == b.len && (a.len == 0 || a.start == b.start && (a.len == 1 || a.step == b.step))
        }
        (Value::Object(a), Value::Object(b)) => {
            Rc::ptr_eq(a, b)
                || match (&**a, &**b) {
                    (Object::View(a), Object::View(b)) => {
                        a.kind == b.kind
                            && a.kind != ViewKind::Values
                            && equal(&Value::Dict(a.dict.clone()), &Value::Dict(b.dict.clone()))
                    }
                    _ => false,
                }
        }
        _ => false,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(b),
        (Number::Int(a), Number::Float(b)) => compare_int_float(*a, *b),
        (Number::Float(a), Number::Int(b)) => compare_int_float(*b, *a).map(Ordering::reverse),
    }
}

/// Exactly, where turning the integer into a float would round.
fn compare_int_float(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Beyond the range of 128 bits the cast saturates, which keeps the order.
    let whole = b.trunc() as i128;
    Some(a.cmp(&whole).then_with(|| 0.0.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal)))
}

fn order(left: &Value, right: &Value, symbol: &str) -> Outcome<Option<Ordering>> {
    if let (Some(a), Some(b)) = (number(left), number(right)) {
        return Ok(compare_numbers(&a, &b));
    }
    match (left, right) {
        (Value::Undefined(missing), _) | (_, Value::Undefined(missing)) => Err(missing.fault()),
        (Value::Str(a), Value::Str(b)) => Ok(Some(a.as_str().cmp(b.as_str()))),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.items().iter().zip(b.items()) {
                if !a.same(b) && !equal(a, b) {
                    return order(a, b, symbol);
                }
            }
            Ok(Some(a.items().len().cmp(&b.items().len())))
        }
        _ => fail!(
            "'{symbol}' not supported between instances of '{}' and '{}'",
            left.type_name(),
            right.type_name()
        ),
    }
}
