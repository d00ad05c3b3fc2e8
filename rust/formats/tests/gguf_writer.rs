//! Writing GGUF: what is written is read again, and faults of the caller are told.

mod common;

use std::sync::Arc;

use alloyforge_formats::gguf::{GgufFile, GgufWriter};
use alloyforge_interfaces::TensorStore;
use alloyforge_types::{Error, MetaArray, MetaValue, QuantType};
use common::{Gguf, array, pair, put, text};
use proptest::collection::vec;
use proptest::prelude::*;

fn any_array() -> impl Strategy<Value = MetaArray> {
    let leaf = prop_oneof![
        vec(any::<u64>(), 0..4).prop_map(|a| MetaArray::U64(a.into())),
        vec(any::<u8>().prop_map(u64::from), 0..4).prop_map(|a| MetaArray::U64(a.into())),
        vec(any::<i64>(), 0..4).prop_map(|a| MetaArray::I64(a.into())),
        vec(any::<i8>().prop_map(i64::from), 0..4).prop_map(|a| MetaArray::I64(a.into())),
        vec(any::<f32>(), 0..4).prop_map(|a| MetaArray::F32(a.into())),
        vec(any::<f64>(), 0..4).prop_map(|a| MetaArray::F64(a.into())),
        vec(any::<bool>(), 0..4).prop_map(|a| MetaArray::Bool(a.into())),
        vec(".{0,6}".prop_map(Box::from), 0..4).prop_map(|a: Vec<Box<str>>| MetaArray::Str(a.into())),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| vec(inner, 0..3).prop_map(|a| MetaArray::Array(a.into())))
}

fn any_value() -> impl Strategy<Value = MetaValue> {
    prop_oneof![
        any::<u64>().prop_map(MetaValue::U64),
        any::<u16>().prop_map(|n| MetaValue::U64(n.into())),
        any::<i64>().prop_map(MetaValue::I64),
        any::<i16>().prop_map(|n| MetaValue::I64(n.into())),
        any::<f64>().prop_map(MetaValue::F64),
        any::<f32>().prop_map(|x| MetaValue::F64(x.into())),
        any::<bool>().prop_map(MetaValue::Bool),
        ".{0,20}".prop_map(|s| MetaValue::Str(s.into())),
        any_array().prop_map(MetaValue::Array),
    ]
}

/// A type, and a shape that it can have.
fn any_tensor() -> impl Strategy<Value = (QuantType, Vec<usize>)> {
    (prop::sample::select(QuantType::ALL), vec(1usize..4, 0..4), 1usize..3).prop_map(
        |(ty, mut shape, blocks)| {
            if !ty.is_plain() || !shape.is_empty() {
                shape.push(blocks * ty.block_len());
                if shape.len() > 4 {
                    shape.remove(0);
                }
            }
            (ty, shape)
        },
    )
}

fn data_of(ty: QuantType, shape: &[usize], seed: u8) -> Vec<u8> {
    let len = shape.iter().product::<usize>() / ty.block_len() * ty.block_bytes();
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        values in vec(("[a-z._]{1,12}", any_value()), 0..6),
        tensors in vec(any_tensor(), 0..5),
        alignment in prop::sample::select(&[None, Some(8u64), Some(32), Some(128)][..]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let mut writer = GgufWriter::new();
        let mut expected: Vec<(String, MetaValue)> = Vec::new();
        for (key, value) in values {
            writer.set(&key, &value).unwrap();
            expected.retain(|(k, _)| *k != key);
            expected.push((key, value));
        }
        if let Some(n) = alignment {
            writer.set("general.alignment", &MetaValue::U64(n)).unwrap();
        }
        for (i, (ty, shape)) in tensors.iter().enumerate() {
            writer.tensor(&format!("t{i}"), *ty, shape).unwrap();
        }
        let mut body = writer.create(&path).unwrap();
        for (i, (ty, shape)) in tensors.iter().enumerate() {
            let data = data_of(*ty, shape, i as u8);
            if i % 2 == 0 {
                body.tensor(&data).unwrap();
            } else {
                body.begin().unwrap();
                data.chunks(7).for_each(|piece| body.piece(piece).unwrap());
            }
        }
        body.finish().unwrap();

        let file = GgufFile::open(&path).unwrap();
        for (key, value) in &expected {
            // Compared as text: a NaN is not equal to itself.
            prop_assert_eq!(format!("{:?}", file.metadata().get(key)), format!("{:?}", Some(value)));
        }
        prop_assert_eq!(file.names().len(), tensors.len());
        for (i, (ty, shape)) in tensors.iter().enumerate() {
            let view = file.tensor(&format!("t{i}")).unwrap();
            prop_assert_eq!((view.ty, &view.shape), (*ty, shape));
            prop_assert_eq!(view.data, data_of(*ty, shape, i as u8));
        }
        for info in file.tensor_infos() {
            prop_assert_eq!(info.offset % alignment.unwrap_or(32), 0);
        }
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

/// llama.cpp takes a key's value only in the width that it expects: copies keep widths, and new values
/// have the 32-bit forms.
#[test]
fn widths_are_kept_or_32_bit() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = vec![
        pair("a.u8s", 9, &array(0, 2, &[1, 2])),
        pair("a.u16", 2, &[7, 0]),
        pair("a.f64", 12, &0.5f64.to_le_bytes()),
        pair("split.no", 2, &[0, 0]),
        pair("split.count", 2, &[1, 0]),
        pair("a.text", 8, &text("x")),
    ];
    let source =
        GgufFile::open(&put(dir.path(), "a.gguf", Gguf { pairs, ..Gguf::default() }.bytes())).unwrap();
    let mut writer = GgufWriter::new();
    writer.copy_metadata(&source);
    writer.remove("a.text");
    writer.set("a.u16", &MetaValue::U64(9)).unwrap();
    writer.set("a.new", &MetaValue::F64(0.1f32.into())).unwrap();
    let path = dir.path().join("b.gguf");
    writer.create(&path).unwrap().finish().unwrap();
    let want = Gguf {
        pairs: vec![
            pair("a.u8s", 9, &array(0, 2, &[1, 2])),
            pair("a.u16", 4, &9u32.to_le_bytes()),
            pair("a.f64", 12, &0.5f64.to_le_bytes()),
            pair("a.new", 6, &0.1f32.to_le_bytes()),
        ],
        ..Gguf::default()
    };
    let mut want = want.bytes();
    want.resize(want.len().next_multiple_of(32), 0);
    assert_eq!(std::fs::read(&path).unwrap(), want);
}

#[test]
fn the_callers_faults_are_told() {
    let mut writer = GgufWriter::new();
    let fault = |result: Result<(), Error>, want: &str| match result {
        Err(Error::InvalidRequest { fault, .. }) => assert!(fault.contains(want), "{fault} lacks {want:?}"),
        other => panic!("{other:?}, wanted {want:?}"),
    };
    writer.tensor("t", QuantType::Q4_0, &[2, 32]).unwrap();
    fault(writer.tensor("t", QuantType::F32, &[1]), "twice");
    fault(writer.tensor("", QuantType::F32, &[1]), "0 bytes");
    fault(writer.tensor(&"x".repeat(64), QuantType::F32, &[1]), "64 bytes");
    fault(writer.tensor("u", QuantType::F32, &[1; 5]), "over 4 dimensions");
    fault(writer.tensor("u", QuantType::F32, &[3, 0]), "or one of 0");
    fault(writer.tensor("u", QuantType::Q4_0, &[33]), "whole blocks");
    fault(writer.tensor("u", QuantType::Q4_0, &[]), "whole blocks");
    fault(writer.tensor("u", QuantType::F32, &[usize::MAX, 2]), "too large");
    fault(writer.set("", &MetaValue::Bool(true)), "0 bytes");
    fault(writer.set("general.alignment", &MetaValue::U64(13)), "power of two");
    fault(writer.set("general.alignment", &MetaValue::Bool(true)), "power of two");
    let deep = (0..9).fold(MetaArray::U64([].into()), |inner, _| MetaArray::Array(Arc::from([inner])));
    fault(writer.set("deep", &MetaValue::Array(deep)), "more than 8 deep");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    fault(writer.clone().create(&path).unwrap().finish(), "missing");
    let mut body = writer.clone().create(&path).unwrap();
    body.begin().unwrap();
    body.piece(&[0; 20]).unwrap();
    fault(body.piece(&[0; 17]), "17 bytes are more than the 16");
    fault(body.begin(), "lacks 16 bytes");
    fault(body.finish(), "lacks 16 bytes");
    let mut body = writer.create(&path).unwrap();
    fault(body.tensor(&[0; 35]), "36 bytes, 35 were given");
    fault(body.tensor(&[0; 36]), "all announced tensors are written");
    drop(body);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing half-written is left");
    assert!(matches!(GgufWriter::new().create(&dir.path().join("none/m.gguf")), Err(Error::Io { .. })));
}
