//! Metadata values as bytes.

use alloyforge_types::{MetaArray, MetaValue};

use super::value::MAX_DEPTH;
use super::value_type as ty;

/// A length and the bytes of a string.
pub(super) fn str(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The number of the type and the value, in the narrowest of 32 and 64 bits that holds it.
///
/// # Errors
/// A text, where arrays nest too deep to be read again.
pub(super) fn value(value: &MetaValue, out: &mut Vec<u8>) -> Result<(), String> {
    let mut put = |id: u32, bytes: &[u8]| {
        out.extend(id.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        &MetaValue::U64(n) => match u32::try_from(n) {
            Ok(n) => put(ty::U32, &n.to_le_bytes()),
            Err(_) => put(ty::U64, &n.to_le_bytes()),
        },
        &MetaValue::I64(n) => match i32::try_from(n) {
            Ok(n) => put(ty::I32, &n.to_le_bytes()),
            Err(_) => put(ty::I64, &n.to_le_bytes()),
        },
        &MetaValue::F64(x) if f64::from(x as f32).to_bits() == x.to_bits() => {
            put(ty::F32, &(x as f32).to_le_bytes());
        }
        &MetaValue::F64(x) => put(ty::F64, &x.to_le_bytes()),
        &MetaValue::Bool(b) => put(ty::BOOL, &[b.into()]),
        MetaValue::Str(text) => {
            put(ty::STRING, &[]);
            str(text, out);
        }
        MetaValue::Array(items) => {
            put(ty::ARRAY, &[]);
            array(items, 1, out)?;
        }
        _ => return Err("the value is of a kind that the format lacks".to_owned()),
    }
    Ok(())
}

fn array(items: &MetaArray, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("arrays nest more than {MAX_DEPTH} deep"));
    }
    let mut head = |id: u32| {
        out.extend(id.to_le_bytes());
        out.extend((items.len() as u64).to_le_bytes());
    };
    match items {
        MetaArray::U64(a) if a.iter().all(|&n| u32::try_from(n).is_ok()) => {
            head(ty::U32);
            out.extend(a.iter().flat_map(|&n| (n as u32).to_le_bytes()));
        }
        MetaArray::U64(a) => {
            head(ty::U64);
            out.extend(a.iter().flat_map(|n| n.to_le_bytes()));
        }
        MetaArray::I64(a) if a.iter().all(|&n| i32::try_from(n).is_ok()) => {
            head(ty::I32);
            out.extend(a.iter().flat_map(|&n| (n as i32).to_le_bytes()));
        }
        MetaArray::I64(a) => {
            head(ty::I64);
            out.extend(a.iter().flat_map(|n| n.to_le_bytes()));
        }
        MetaArray::F32(a) => {
            head(ty::F32);
            out.extend(a.iter().flat_map(|x| x.to_le_bytes()));
        }
        MetaArray::F64(a) => {
            head(ty::F64);
            out.extend(a.iter().flat_map(|x| x.to_le_bytes()));
        }
        MetaArray::Bool(a) => {
            head(ty::BOOL);
            out.extend(a.iter().map(|&b| u8::from(b)));
        }
        MetaArray::Str(a) => {
            head(ty::STRING);
            a.iter().for_each(|text| str(text, out));
        }
        MetaArray::Array(a) => {
            head(ty::ARRAY);
            a.iter().try_for_each(|inner| array(inner, depth + 1, out))?;
        }
        _ => return Err("the array is of a kind that the format lacks".to_owned()),
    }
    Ok(())
}
