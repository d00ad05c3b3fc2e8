//! Reading GGUF: sound files, and each fault with what is said of it.

mod common;

use alloyforge_formats::gguf::GgufFile;
use alloyforge_interfaces::TensorStore;
use alloyforge_types::{Error, MetaArray, MetaValue, QuantType};
use common::{Gguf, array, format_error, info, pair, put, text};

fn open(bytes: &[u8]) -> Result<GgufFile, Error> {
    let dir = tempfile::tempdir().unwrap();
    GgufFile::open(&put(dir.path(), "case.gguf", bytes))
}

#[test]
fn tensors_are_slices_of_the_file() {
    for version in [2, 3] {
        let file = open(&Gguf { version, ..Gguf::sound() }.bytes()).unwrap();
        assert_eq!(file.version(), version);
        assert_eq!(file.names(), ["a", "b"]);
        let a = file.tensor("a").unwrap();
        assert_eq!((a.ty, &a.shape[..]), (QuantType::F32, &[2, 3][..]));
        assert_eq!(a.data, (0..24).collect::<Vec<u8>>());
        let b = file.tensor("b").unwrap();
        assert_eq!((b.ty, &b.shape[..]), (QuantType::Q4_0, &[32][..]));
        assert_eq!(b.data, (32..50).collect::<Vec<u8>>());
        assert_eq!(file.tensor("c"), None);
        let infos: Vec<_> = file.tensor_infos().map(|i| (i.name, i.offset % 32, i.len)).collect();
        assert_eq!(infos, [("a", 0, 24), ("b", 0, 18)]);
    }
}

#[test]
fn every_value_type_is_read() {
    let numbers: [(u32, Vec<u8>, MetaValue); 12] = [
        (0, vec![200], MetaValue::U64(200)),
        (1, vec![200], MetaValue::I64(-56)),
        (2, 60000u16.to_le_bytes().into(), MetaValue::U64(60000)),
        (3, (-7i16).to_le_bytes().into(), MetaValue::I64(-7)),
        (4, u32::MAX.to_le_bytes().into(), MetaValue::U64(u32::MAX.into())),
        (5, i32::MIN.to_le_bytes().into(), MetaValue::I64(i32::MIN.into())),
        (6, 0.1f32.to_le_bytes().into(), MetaValue::F64(0.1f32.into())),
        (7, vec![1], MetaValue::Bool(true)),
        (8, text("Ärger"), MetaValue::Str("Ärger".into())),
        (10, u64::MAX.to_le_bytes().into(), MetaValue::U64(u64::MAX)),
        (11, i64::MIN.to_le_bytes().into(), MetaValue::I64(i64::MIN)),
        (12, 0.1f64.to_le_bytes().into(), MetaValue::F64(0.1)),
    ];
    let mut pairs: Vec<_> =
        numbers.iter().map(|(ty, bytes, _)| pair(&format!("n{ty}"), *ty, bytes)).collect();
    let nested = array(9, 2, &[array(0, 2, &[1, 2]), array(8, 1, &text("x"))].concat());
    pairs.push(pair("nested", 9, &nested));
    pairs.push(pair("flags", 9, &array(7, 3, &[1, 0, 1])));
    pairs.push(pair("floats", 9, &array(6, 1, &2.5f32.to_le_bytes())));
    let file = open(&Gguf { pairs, ..Gguf::default() }.bytes()).unwrap();
    let metadata = file.metadata();
    for (ty, _, value) in &numbers {
        assert_eq!(metadata.get(&format!("n{ty}")), Some(value), "type {ty}");
    }
    let inner = [MetaArray::U64([1, 2].into()), MetaArray::Str(["x".into()].into())];
    assert_eq!(metadata.array("nested"), Some(&MetaArray::Array(inner.into())));
    assert_eq!(metadata.array("flags"), Some(&MetaArray::Bool([true, false, true].into())));
    assert_eq!(metadata.array("floats"), Some(&MetaArray::F32([2.5].into())));
    assert_eq!(metadata.iter().next().unwrap().0, "n0");
}

#[test]
fn alignment_moves_the_data() {
    let pairs = vec![pair("general.alignment", 4, &128u32.to_le_bytes())];
    let infos = vec![info("a", &[3, 2], 0, 0), info("b", &[32], 2, 128)];
    let case = Gguf { pairs, infos, alignment: 128, data: (0..146u8).collect(), ..Gguf::default() };
    let file = open(&case.bytes()).unwrap();
    assert_eq!(file.tensor("b").unwrap().data, (128..146).collect::<Vec<u8>>());
}

#[test]
fn vocabulary_alone_opens() {
    let file = open(&Gguf { infos: Vec::new(), data: Vec::new(), ..Gguf::sound() }.bytes()).unwrap();
    assert_eq!(file.names(), [""; 0]);
    assert_eq!(file.metadata().str("general.architecture"), Some("llama"));
}

#[test]
fn bytes_after_the_data_are_ignored() {
    let mut bytes = Gguf::sound().bytes();
    bytes.extend([7; 100]);
    assert_eq!(open(&bytes).unwrap().names(), ["a", "b"]);
}

/// Every fault: its file, the item and a part of the text that the error must have.
#[test]
fn faults_are_named() {
    let sound = Gguf::sound;
    let one = |info: Vec<u8>| Gguf { infos: vec![info], ..sound() };
    let with = |pair: Vec<u8>| Gguf { pairs: vec![pair], ..sound() };
    let key = "metadata `k`";
    let cases: Vec<(Gguf, &str, &str)> = vec![
        (Gguf { magic: *b"GGML", ..sound() }, "magic", "\"GGML\""),
        (Gguf { version: 0, ..sound() }, "version", "0 is no version"),
        (Gguf { num_tensors: Some(1 << 32), ..sound() }, "tensor count", "counts 4294967296"),
        (Gguf { num_pairs: Some(u64::MAX), ..sound() }, "metadata count", "counts 18446744073709551615"),
        (with(pair("", 0, &[1])), "metadata key 0", "0 bytes"),
        (with(pair(&"k".repeat(65536), 0, &[1])), "metadata key 0", "65536 bytes"),
        (with([&u64::MAX.to_le_bytes()[..], &[0; 60]].concat()), "metadata key 0", "18446744073709551615"),
        (with(pair("k", 13, &[1; 16])), key, "value type 13"),
        (with(pair("k", u32::MAX, &[1; 16])), key, "value type 4294967295"),
        (with(pair("k", 7, &[2])), key, "2 is not a boolean"),
        (with(pair("k", 8, &[&1u64.to_le_bytes()[..], &[0xff]].concat())), key, "UTF-8"),
        (with(pair("k", 9, &array(13, 1, &[0; 8]))), key, "element type 13"),
        (with(pair("k", 9, &array(0, u64::MAX, &[]))), key, "counts 18446744073709551615"),
        (with(pair("k", 9, &array(7, 2, &[1, 5]))), key, "5 is not a boolean"),
        (with(pair("k", 9, &array(9, 1, &[]).repeat(9))), key, "more than 8 deep"),
        (Gguf { pairs: vec![pair("k", 0, &[1]), pair("k", 0, &[1])], ..sound() }, key, "twice"),
        (with(pair("general.alignment", 4, &[0; 4])), "metadata `general.alignment`", "alignment 0"),
        (with(pair("general.alignment", 4, &[13, 0, 0, 0])), "metadata `general.alignment`", "alignment 13"),
        (with(pair("general.alignment", 4, &[0, 0, 0, 0x80])), "metadata `general.alignment`", "2147483648"),
        (with(pair("general.alignment", 8, &text("32"))), "metadata `general.alignment`", "integer"),
        (one(info(&"n".repeat(64), &[3], 0, 0)), "tensor 0", "64 bytes"),
        (one(info("", &[3], 0, 0)), "tensor 0", "0 bytes"),
        (one(info("t", &[1, 1, 1, 1, 3], 0, 0)), "tensor `t`", "5 dimensions"),
        (one(info("t", &[3, 0], 0, 0)), "tensor `t`", "dimension of 0"),
        (one(info("t", &[1 << 40, 1 << 40], 0, 0)), "tensor `t`", "more elements"),
        (one(info("t", &[u64::MAX], 0, 0)), "tensor `t`", "more elements"),
        (one(info("t", &[1 << 62], 0, 0)), "tensor `t`", "more bytes"),
        (one(info("t", &[3], u32::MAX, 0)), "tensor `t`", "type 4294967295"),
        (one(info("t", &[32], 4, 0)), "tensor `t`", "type 4"),
        (one(info("t", &[33], 2, 0)), "tensor `t`", "rows of 33"),
        (one(info("t", &[3], 0, 8)), "tensor `t`", "offset 8"),
        (one(info("t", &[3], 0, u64::MAX - 31)), "tensor `t`", "needs 12 bytes"),
        (one(info("t", &[13], 0, 0)), "tensor `t`", "needs 52 bytes"),
        (one(info("t", &[3], 0, 64)), "tensor `t`", "needs 12 bytes"),
        (
            Gguf { infos: vec![info("t", &[12], 0, 0), info("u", &[2], 0, 32)], ..sound() },
            "tensor `u`",
            "overlaps tensor `t`",
        ),
        (
            Gguf { infos: vec![info("t", &[2], 0, 0), info("t", &[2], 0, 32)], ..sound() },
            "tensor `t`",
            "twice",
        ),
    ];
    for (case, want_item, want_fault) in cases {
        let error = open(&case.bytes()).unwrap_err();
        let (file, item, fault, _) = format_error(&error);
        assert!(file.ends_with("case.gguf"), "{error}");
        assert_eq!(item, want_item, "{error}");
        assert!(fault.contains(want_fault), "{error} lacks {want_fault:?}");
    }
}

#[test]
fn unknown_but_sound_is_unsupported() {
    let cases = [
        (Gguf { version: 1, ..Gguf::sound() }, "version 1"),
        (Gguf { version: 4, ..Gguf::sound() }, "version 4"),
        (Gguf { version: 3 << 24, ..Gguf::sound() }, "big-endian"),
        (Gguf { infos: vec![info("t", &[3], 26, 0)], ..Gguf::sound() }, "tensor `t` of type I32"),
    ];
    for (case, want) in cases {
        match open(&case.bytes()).unwrap_err() {
            Error::Unsupported { file, what } => {
                assert!(file.ends_with("case.gguf") && what.contains(want), "{file}: {what}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_cut_is_refused() {
    let bytes = Gguf::sound().bytes();
    for len in 0..bytes.len() {
        let error = open(&bytes[..len]).unwrap_err();
        let (file, _, _, offset) = format_error(&error);
        assert!(file.ends_with("case.gguf") && offset.is_some_and(|o| o <= len as u64), "{len}: {error}");
    }
}

/// An array of bytes widens eightfold: a large file may not make a reader take gigabytes.
#[test]
fn decoded_metadata_is_bounded() {
    let count = 32 << 20;
    let bytes =
        Gguf { pairs: vec![pair("k", 9, &array(0, count, &vec![0; count as usize]))], ..Gguf::default() };
    let error = open(&bytes.bytes()).unwrap_err();
    assert!(format_error(&error).2.contains("128 MiB"), "{error}");
}

#[test]
fn a_missing_file_and_a_folder_are_io_errors() {
    let dir = tempfile::tempdir().unwrap();
    match GgufFile::open(&dir.path().join("none.gguf")).unwrap_err() {
        Error::Io { kind, path, .. } => {
            assert_eq!(kind, std::io::ErrorKind::NotFound);
            assert!(path.ends_with("none.gguf"));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(GgufFile::open(dir.path()), Err(Error::Io { .. })));
}
