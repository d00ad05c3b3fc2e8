//! Metadata values.

use std::sync::Arc;

use alloyforge_types::{MetaArray, MetaValue, Result};

use super::cursor::Cursor;
use super::value_type as ty;

/// How deep arrays may nest. Files in use do not nest them at all.
pub(super) const MAX_DEPTH: usize = 8;

/// Most bytes that a file's metadata may take once decoded. The vocabularies in use take below 64 MiB;
/// without a bound a file could make each of its bytes cost eight.
const MAX_DECODED: usize = 128 << 20;

/// What an allocation costs over its bytes, about.
const ALLOCATION: usize = 24;

/// What is left of [`MAX_DECODED`].
pub(super) struct Budget(usize);

impl Budget {
    /// All of it.
    pub(super) fn new() -> Self {
        Self(MAX_DECODED)
    }

    /// Takes `count` times `size` bytes, before they are allocated.
    pub(super) fn spend(&mut self, count: usize, size: usize, cursor: &Cursor<'_>, item: &str) -> Result<()> {
        match count.checked_mul(size).and_then(|n| self.0.checked_sub(n)) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(cursor.fault(
                item,
                cursor.pos(),
                format!("the metadata takes more than {} MiB of memory", MAX_DECODED >> 20),
            )),
        }
    }
}

/// Reads a value of the type numbered `id`; `key` names it in errors.
pub(super) fn read(cursor: &mut Cursor<'_>, id: u32, key: &str, budget: &mut Budget) -> Result<MetaValue> {
    let at = cursor.pos();
    Ok(match id {
        ty::U8 => MetaValue::U64(u8::from_le_bytes(cursor.array(key)?).into()),
        ty::I8 => MetaValue::I64(i8::from_le_bytes(cursor.array(key)?).into()),
        ty::U16 => MetaValue::U64(u16::from_le_bytes(cursor.array(key)?).into()),
        ty::I16 => MetaValue::I64(i16::from_le_bytes(cursor.array(key)?).into()),
        ty::U32 => MetaValue::U64(cursor.u32(key)?.into()),
        ty::I32 => MetaValue::I64(i32::from_le_bytes(cursor.array(key)?).into()),
        ty::U64 => MetaValue::U64(cursor.u64(key)?),
        ty::I64 => MetaValue::I64(i64::from_le_bytes(cursor.array(key)?)),
        ty::F32 => MetaValue::F64(f32::from_le_bytes(cursor.array(key)?).into()),
        ty::F64 => MetaValue::F64(f64::from_le_bytes(cursor.array(key)?)),
        ty::BOOL => match cursor.array::<1>(key)? {
            [0] => MetaValue::Bool(false),
            [1] => MetaValue::Bool(true),
            [n] => return Err(cursor.fault(key, at, format!("{n} is not a boolean"))),
        },
        ty::STRING => {
            let text = cursor.str(key)?;
            budget.spend(text.len(), 1, cursor, key)?;
            MetaValue::Str(text.into())
        }
        ty::ARRAY => MetaValue::Array(read_array(cursor, key, budget, 1)?),
        _ => return Err(cursor.fault(key, at.saturating_sub(4), format!("value type {id} is unknown"))),
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, budget: &mut Budget, depth: usize) -> Result<MetaArray> {
    let at = cursor.pos();
    if depth > MAX_DEPTH {
        return Err(cursor.fault(key, at, format!("arrays nest more than {MAX_DEPTH} deep")));
    }
    let id = cursor.u32(key)?;
    Ok(match id {
        ty::U8 => MetaArray::U64(numbers(cursor, key, budget, |b: [u8; 1]| b[0].into())?),
        ty::I8 => MetaArray::I64(numbers(cursor, key, budget, |b| i8::from_le_bytes(b).into())?),
        ty::U16 => MetaArray::U64(numbers(cursor, key, budget, |b| u16::from_le_bytes(b).into())?),
        ty::I16 => MetaArray::I64(numbers(cursor, key, budget, |b| i16::from_le_bytes(b).into())?),
        ty::U32 => MetaArray::U64(numbers(cursor, key, budget, |b| u32::from_le_bytes(b).into())?),
        ty::I32 => MetaArray::I64(numbers(cursor, key, budget, |b| i32::from_le_bytes(b).into())?),
        ty::U64 => MetaArray::U64(numbers(cursor, key, budget, u64::from_le_bytes)?),
        ty::I64 => MetaArray::I64(numbers(cursor, key, budget, i64::from_le_bytes)?),
        ty::F32 => MetaArray::F32(numbers(cursor, key, budget, f32::from_le_bytes)?),
        ty::F64 => MetaArray::F64(numbers(cursor, key, budget, f64::from_le_bytes)?),
        ty::BOOL => {
            let count = cursor.count(1, key)?;
            budget.spend(count, 1, cursor, key)?;
            let at = cursor.pos();
            let bytes = cursor.take(count as u64, key)?;
            if let Some(i) = bytes.iter().position(|&b| b > 1) {
                return Err(cursor.fault(key, at + i, format!("{} is not a boolean", bytes[i])));
            }
            MetaArray::Bool(bytes.iter().map(|&b| b == 1).collect())
        }
        ty::STRING => {
            let count = cursor.count(8, key)?;
            budget.spend(count, size_of::<Box<str>>() + ALLOCATION, cursor, key)?;
            let mut strings: Vec<Box<str>> = Vec::with_capacity(count);
            for _ in 0..count {
                let text = cursor.str(key)?;
                budget.spend(text.len(), 1, cursor, key)?;
                strings.push(text.into());
            }
            MetaArray::Str(strings.into())
        }
        ty::ARRAY => {
            let count = cursor.count(12, key)?;
            budget.spend(count, size_of::<MetaArray>() + ALLOCATION, cursor, key)?;
            let mut arrays = Vec::with_capacity(count);
            for _ in 0..count {
                arrays.push(read_array(cursor, key, budget, depth + 1)?);
            }
            MetaArray::Array(arrays.into())
        }
        _ => return Err(cursor.fault(key, at, format!("array element type {id} is unknown"))),
    })
}

/// An array of numbers of `N` bytes each in the file.
fn numbers<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    key: &str,
    budget: &mut Budget,
    decode: impl Fn([u8; N]) -> T,
) -> Result<Arc<[T]>> {
    let count = cursor.count(N, key)?;
    budget.spend(count, size_of::<T>(), cursor, key)?;
    let bytes = cursor.take((count * N) as u64, key)?;
    let (chunks, _) = bytes.as_chunks::<N>();
    Ok(chunks.iter().map(|&b| decode(b)).collect())
}
