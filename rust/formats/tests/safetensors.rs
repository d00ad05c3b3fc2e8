//! Reading safetensors: against the reference crate's writer, and each fault with what is said of it.

mod common;

use alloyforge_formats::safetensors::{Dtype, SafetensorsStore};
use alloyforge_interfaces::TensorStore;
use alloyforge_types::{Error, QuantType};
use common::{format_error, put, safetensors};

fn open(bytes: &[u8]) -> Result<SafetensorsStore, Error> {
    let dir = tempfile::tempdir().unwrap();
    SafetensorsStore::open(&put(dir.path(), "case.safetensors", bytes))
}

#[test]
fn what_the_reference_writes_is_read() {
    use safetensors::tensor::{Dtype as Theirs, TensorView, serialize};
    let data: Vec<u8> = (0..=255).collect();
    let view = |ty, shape: &[usize], len| TensorView::new(ty, shape.to_vec(), &data[..len]).unwrap();
    let tensors = [
        ("f32", view(Theirs::F32, &[2, 3], 24)),
        ("f16", view(Theirs::F16, &[5], 10)),
        ("bf16", view(Theirs::BF16, &[1, 2, 1, 2, 2], 16)),
        ("scalar", view(Theirs::F32, &[], 4)),
        ("empty", view(Theirs::F32, &[0, 7], 0)),
        ("ids", view(Theirs::I64, &[2], 16)),
        ("half bytes", view(Theirs::F4, &[4, 3], 6)),
    ];
    let metadata = Some([("format".to_owned(), "pt \"quoted\" \n".to_owned())].into());
    let store = open(&serialize(tensors.clone(), metadata).unwrap()).unwrap();
    for (name, theirs) in &tensors {
        let ours = store.raw_tensor(name).unwrap();
        assert_eq!(ours.dtype.name(), theirs.dtype().to_string());
        assert_eq!((ours.shape, ours.data), (theirs.shape(), theirs.data()));
        match store.tensor(name) {
            Some(view) => assert_eq!((&view.shape[..], view.data), (theirs.shape(), theirs.data())),
            None => assert_eq!(store.foreign_type(name), Some(ours.dtype.name())),
        }
    }
    assert_eq!(store.tensor("bf16").unwrap().ty, QuantType::BF16);
    assert_eq!(store.foreign_type("ids"), Some("I64"));
    assert_eq!(store.foreign_type("f32"), None);
    let mut names = store.names();
    names.sort_unstable();
    assert_eq!(names, ["bf16", "empty", "f16", "f32", "scalar"]);
    assert_eq!(store.raw_tensors().len(), tensors.len());
}

#[test]
fn the_reference_knows_the_same_types() {
    for dtype in Dtype::ALL {
        let json = format!("\"{}\"", dtype.name());
        let theirs: safetensors::Dtype = serde_json::from_str(&json).unwrap();
        assert_eq!(theirs.bitsize(), dtype.bits(), "{json}");
    }
}

fn entry(name: &str, dtype: &str, shape: &str, range: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{range}}}"#)
}

#[test]
fn order_of_the_header_and_spaces_do_not_matter() {
    let header =
        format!("{{{}, {}}}   ", entry("b", "F32", "[1]", "[8,12]"), entry("a", "F32", "[2]", "[0,8]"));
    let store = open(&safetensors(&header, &[1; 12])).unwrap();
    assert_eq!(store.names(), ["b", "a"]);
    assert_eq!(store.tensor("b").unwrap().data.len(), 4);
}

/// A header, its data, and the item and a part of the text that the error must have.
#[test]
fn faults_are_named() {
    let a = |shape: &str, range: &str| format!("{{{}}}", entry("a", "F32", shape, range));
    let two = |first: &str, second: &str| {
        format!("{{{},{}}}", entry("a", "F32", "[2]", first), entry("b", "F32", "[2]", second))
    };
    let nested = format!(r#"{{"a":{}}}"#, "[".repeat(100_000));
    let cases: Vec<(String, usize, &str, &str)> = vec![
        ("[]".into(), 0, "header", "an object of tensors"),
        ("".into(), 0, "header", "EOF"),
        ("{} {}".into(), 0, "header", "trailing"),
        (nested, 0, "tensor `a`", "invalid type"),
        (format!(r#"{{"a":{{"x":{}"#, "[".repeat(100_000)), 0, "tensor `a`", "EOF while parsing a list"),
        (a("[2]", "[0,8]"), 7, "tensor `a`", "needs 8 bytes"),
        (a("[2]", "[8,0]"), 8, "tensor `a`", "before its start"),
        (a("[2]", "[0,18446744073709551616]"), 8, "tensor `a`", "expected usize"),
        (a("[2]", "[18446744073709551607,18446744073709551615]"), 8, "tensor `a`", "hole"),
        (a("[18446744073709551615]", "[0,8]"), 8, "tensor `a`", "more elements"),
        (a("[3]", "[0,8]"), 8, "tensor `a`", "96 bits"),
        (a("[2.5]", "[0,8]"), 8, "tensor `a`", "floating point"),
        (a("[-2]", "[0,8]"), 8, "tensor `a`", "-2"),
        (a("[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "tensor `a`", "more than 8 dimensions"),
        (a("[2]", "[0,8,9]"), 8, "tensor `a`", "trailing characters"),
        (format!("{{{}}}", entry("a", "F33", "[2]", "[0,8]")), 8, "tensor `a`", "`F33` is unknown"),
        (format!("{{{}}}", entry("a", "F4", "[3]", "[0,1]")), 1, "tensor `a`", "12 bits"),
        (r#"{"a":{"dtype":"F32","shape":[2]}}"#.into(), 0, "tensor `a`", "data_offsets"),
        (two("[0,8]", "[0,8]"), 8, "tensor `b`", "overlaps"),
        (two("[0,8]", "[4,12]"), 12, "tensor `b`", "overlaps"),
        (two("[0,8]", "[12,20]"), 20, "tensor `b`", "hole"),
        (two("[4,12]", "[12,20]"), 20, "tensor `a`", "hole"),
        (two("[0,8]", "[8,16]"), 20, "data", "4 bytes after the last tensor"),
        (two("[0,8]", "[8,16]").replace("\"b\"", "\"a\""), 16, "tensor `a`", "twice"),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, "header", "expected"),
    ];
    for (header, data_len, want_item, want_fault) in cases {
        let error = open(&safetensors(&header, &vec![0; data_len])).unwrap_err();
        let (file, item, fault, _) = format_error(&error);
        assert!(file.ends_with("case.safetensors"), "{error}");
        assert_eq!(item, want_item, "{error}");
        assert!(fault.contains(want_fault), "{error} lacks {want_fault:?}");
    }
}

#[test]
fn the_header_must_fit() {
    let sound = safetensors(&format!("{{{}}}", entry("a", "F32", "[2]", "[0,8]")), &[0; 8]);
    for len in 0..sound.len() {
        assert!(matches!(open(&sound[..len]), Err(Error::Format { .. })), "{len}");
    }
    for len in [u64::MAX, 100_000_001, sound.len() as u64] {
        let mut bytes = sound.clone();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        assert_eq!(format_error(&open(&bytes).unwrap_err()).1, "header", "{len}");
    }
    let mut bytes = sound;
    bytes[9] = 0xff;
    assert!(format_error(&open(&bytes).unwrap_err()).2.contains("UTF-8"));
}

/// A checkpoint of two files: `a` in the first, `b` and `c` in the second.
fn sharded(dir: &std::path::Path) {
    let single = |name: &str| format!("{{{}}}", entry(name, "F32", "[1]", "[0,4]"));
    put(dir, "model-1.safetensors", safetensors(&single("a"), &[1; 4]));
    let second = format!("{{{},{}}}", entry("b", "F32", "[1]", "[0,4]"), entry("c", "F32", "[1]", "[4,8]"));
    put(dir, "model-2.safetensors", safetensors(&second, &[2; 8]));
    put_index(
        dir,
        &[("a", "model-1.safetensors"), ("b", "model-2.safetensors"), ("c", "model-2.safetensors")],
    );
}

fn put_index(dir: &std::path::Path, map: &[(&str, &str)]) {
    let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k:?}:{v:?}")).collect();
    let text = format!(r#"{{"metadata":{{"total_size":12}},"weight_map":{{{}}}}}"#, pairs.join(","));
    put(dir, "model.safetensors.index.json", text);
}

#[test]
fn shards_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    sharded(dir.path());
    for path in [dir.path().to_owned(), dir.path().join("model.safetensors.index.json")] {
        let store = SafetensorsStore::open(&path).unwrap();
        assert_eq!(store.label(), path.display().to_string());
        assert_eq!(store.names(), ["a", "b", "c"]);
        assert_eq!(store.tensor("c").unwrap().data, [2; 4]);
        assert_eq!(store.files().len(), 2);
    }
}

/// What the index says instead, and what the error must say.
#[test]
fn a_wrong_index_is_refused() {
    let first = "model-1.safetensors";
    let cases = [
        (vec![("a", "model-3.safetensors")], "shard `model-3.safetensors` is missing"),
        (vec![("a", first), ("x", first)], "is not in shard `model-1.safetensors`"),
        (vec![("a", first), ("b", first)], "is not in shard `model-1.safetensors`"),
        (vec![("a", first), ("a", first)], "twice"),
        (vec![("a", "../model-1.safetensors")], "not the name of a file in this folder"),
        (vec![("a", "/etc/passwd")], "not the name of a file in this folder"),
        (vec![("a", "sub/model-1.safetensors")], "not the name of a file in this folder"),
        (vec![("a", "..\\model-1.safetensors")], "not the name of a file in this folder"),
        (vec![("a", "C:model-1.safetensors")], "not the name of a file in this folder"),
        (vec![("a", "./model-1.safetensors")], "not the name of a file in this folder"),
        (vec![("a", "..")], "not the name of a file in this folder"),
        (vec![("a", "")], "not the name of a file in this folder"),
        (vec![], "lists no tensor"),
    ];
    for (map, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        sharded(dir.path());
        put_index(dir.path(), &map);
        let error = SafetensorsStore::open(dir.path()).unwrap_err();
        let (file, _, fault, _) = format_error(&error);
        assert!(file.ends_with("index.json") && fault.contains(want), "{error} lacks {want:?}");
    }
    for text in
        ["", "[]", "{}", r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#, "{\"weight_map\":\n{x}}"]
    {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "model.safetensors.index.json", text);
        let error = SafetensorsStore::open(dir.path()).unwrap_err();
        assert_eq!(format_error(&error).1, "index", "{text}");
    }
}

#[test]
fn the_same_tensor_in_two_shards_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    sharded(dir.path());
    std::fs::copy(dir.path().join("model-1.safetensors"), dir.path().join("copy.safetensors")).unwrap();
    put_index(dir.path(), &[("a", "model-1.safetensors"), ("b", "copy.safetensors")]);
    let error = SafetensorsStore::open(dir.path()).unwrap_err();
    assert!(format_error(&error).0.ends_with("copy.safetensors"), "{error}");
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn a_folder_is_searched() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |name| safetensors(&format!("{{{}}}", entry(name, "F32", "[1]", "[0,4]")), &[1; 4]);
    assert!(matches!(SafetensorsStore::open(dir.path()), Err(Error::Io { .. })));
    put(dir.path(), "other.safetensors", bytes("lone"));
    assert_eq!(SafetensorsStore::open(dir.path()).unwrap().names(), ["lone"]);
    put(dir.path(), "more.safetensors", bytes("second"));
    let error = SafetensorsStore::open(dir.path()).unwrap_err();
    assert!(format_error(&error).2.contains("2 safetensors files"), "{error}");
    sharded(dir.path());
    assert_eq!(SafetensorsStore::open(dir.path()).unwrap().names(), ["a", "b", "c"]);
    put(dir.path(), "model.safetensors", bytes("single"));
    assert_eq!(SafetensorsStore::open(dir.path()).unwrap().names(), ["single"]);
}
