//! Damaged and invented files: reading them ends in an error or in tensors that lie inside the file.

mod common;

use std::path::Path;

use alloyforge_formats::gguf::GgufFile;
use alloyforge_formats::hf::HfFolder;
use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_interfaces::TensorStore;
use common::{Gguf, array, info, pair, put, safetensors, text};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Opens the file and holds what it says against its bytes.
fn check_gguf(path: &Path, bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(file) = GgufFile::open(path) else { return Ok(()) };
    let mut ranges = Vec::new();
    for tensor in file.tensor_infos() {
        let view = file.tensor(tensor.name).unwrap();
        prop_assert_eq!(view.shape.as_slice(), tensor.shape);
        prop_assert!(view.shape.len() <= 4);
        let elements: usize = view.shape.iter().product();
        prop_assert_eq!(view.data.len(), elements / view.ty.block_len() * view.ty.block_bytes());
        prop_assert_eq!(elements % view.ty.block_len(), 0);
        let start = tensor.offset as usize;
        prop_assert_eq!(view.data, &bytes[start..start + view.data.len()]);
        ranges.push(start..start + view.data.len());
    }
    ranges.sort_by_key(|r| r.start);
    prop_assert!(ranges.windows(2).all(|p| p[0].end <= p[1].start));
    Ok(())
}

fn check_safetensors(path: &Path, bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(store) = SafetensorsStore::open(path) else { return Ok(()) };
    let mut covered = 0;
    for raw in store.raw_tensors() {
        prop_assert_eq!(raw.data.len() * 8, raw.shape.iter().product::<usize>() * raw.dtype.bits());
        let start = raw.offset as usize;
        prop_assert_eq!(raw.data, &bytes[start..start + raw.data.len()]);
        prop_assert_eq!(store.tensor(raw.name).is_some(), raw.dtype.quant_type().is_some());
        covered += raw.data.len();
    }
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    prop_assert_eq!(covered, bytes.len() - 8 - header);
    Ok(())
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Word(Index, u64),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let words =
        select(&[0, 1, 2, 7, 32, 255, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 40, 1 << 63, u64::MAX][..]);
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::Set(i, b)),
        4 => (any::<Index>(), words).prop_map(|(i, w)| Mutation::Word(i, w)),
        1 => (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(i, b)| Mutation::Insert(i, b)),
        1 => (any::<Index>(), 1usize..9).prop_map(|(i, n)| Mutation::Remove(i, n)),
        1 => any::<Index>().prop_map(Mutation::Cut),
    ]
}

fn apply(mutation: &Mutation, bytes: &mut Vec<u8>) {
    let len = bytes.len();
    if len == 0 {
        return;
    }
    match mutation {
        Mutation::Set(at, value) => bytes[at.index(len)] = *value,
        Mutation::Word(at, word) => {
            let at = at.index(len);
            for (byte, new) in bytes[at..].iter_mut().zip(word.to_le_bytes()) {
                *byte = new;
            }
        }
        Mutation::Insert(at, new) => {
            let at = at.index(len);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Remove(at, count) => {
            let at = at.index(len);
            bytes.drain(at..(at + count).min(len));
        }
        Mutation::Cut(at) => bytes.truncate(at.index(len)),
    }
}

/// A file with every kind of value and several tensors.
fn rich() -> Vec<u8> {
    let pairs = vec![
        pair("general.alignment", 4, &32u32.to_le_bytes()),
        pair("a.text", 8, &text("hello")),
        pair("a.flag", 7, &[1]),
        pair("a.ints", 9, &array(5, 2, &[1, 0, 0, 0, 2, 0, 0, 0])),
        pair("a.texts", 9, &array(8, 2, &[text("x"), text("yz")].concat())),
        pair("a.nested", 9, &array(9, 1, &array(0, 1, &[3]))),
    ];
    let infos = vec![info("a", &[3, 2], 0, 0), info("b", &[32, 2], 2, 32), info("c", &[256], 12, 96)];
    Gguf { pairs, infos, data: vec![5; 240], ..Gguf::default() }.bytes()
}

fn rich_safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"e":{"dtype":"I8","shape":[0],"data_offsets":[22,22]}}"#;
    safetensors(header, &[9; 22])
}

proptest! {
    #[test]
    fn mutated_gguf_is_refused_or_sound(mutations in vec(any_mutation(), 1..6)) {
        let mut bytes = rich();
        mutations.iter().for_each(|m| apply(m, &mut bytes));
        let dir = tempfile::tempdir().unwrap();
        check_gguf(&put(dir.path(), "m.gguf", &bytes), &bytes)?;
    }

    #[test]
    fn invented_gguf_tables_are_refused_or_sound(
        tensors in vec((0u32..42, vec(0u64..70, 0..6), 0u64..8, "[ab]{1,2}"), 0..5),
        alignment in select(&[0u32, 1, 8, 16, 24, 32][..]),
        data_len in 0usize..600,
        version in 0u32..5,
    ) {
        let infos = tensors.iter().map(|(ty, dims, at, name)| info(name, dims, *ty, at * u64::from(alignment))).collect();
        let pairs = vec![pair("general.alignment", 4, &alignment.to_le_bytes())];
        let case = Gguf { version, pairs, infos, alignment: alignment.max(1) as usize, data: vec![1; data_len], ..Gguf::default() };
        let bytes = case.bytes();
        let dir = tempfile::tempdir().unwrap();
        check_gguf(&put(dir.path(), "m.gguf", &bytes), &bytes)?;
    }

    #[test]
    fn random_bytes_after_the_magic_are_refused_or_sound(rest in vec(any::<u8>(), 0..200), counts: bool) {
        let mut bytes = Gguf { num_tensors: Some(1), num_pairs: Some(1), ..Gguf::default() }.bytes();
        bytes.truncate(if counts { 24 } else { 4 });
        bytes.extend(rest);
        let dir = tempfile::tempdir().unwrap();
        check_gguf(&put(dir.path(), "m.gguf", &bytes), &bytes)?;
    }

    #[test]
    fn mutated_safetensors_are_refused_or_sound(mutations in vec(any_mutation(), 1..6)) {
        let mut bytes = rich_safetensors();
        mutations.iter().for_each(|m| apply(m, &mut bytes));
        let dir = tempfile::tempdir().unwrap();
        check_safetensors(&put(dir.path(), "m.safetensors", &bytes), &bytes)?;
    }

    #[test]
    fn invented_safetensors_are_refused_or_sound(
        tensors in vec((select(&["F32", "F16", "U8", "F4", "F6_E2M3", "X"][..]), vec(0usize..5, 0..10), 0usize..30), 0..5),
        in_order: bool,
        data_len in 0usize..80,
    ) {
        let (mut entries, mut at) = (Vec::new(), 0);
        for (i, (dtype, shape, len)) in tensors.iter().enumerate() {
            let start = if in_order { at } else { len / 2 };
            at += len;
            entries.push(format!(r#""t{i}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{}]}}"#, start + len));
        }
        let len = if in_order { at } else { data_len };
        let bytes = safetensors(&format!("{{{}}}", entries.join(",")), &vec![1; len]);
        let dir = tempfile::tempdir().unwrap();
        check_safetensors(&put(dir.path(), "m.safetensors", &bytes), &bytes)?;
    }

    /// Neither the index nor the configuration takes the process down, and nothing outside is opened.
    #[test]
    fn mutated_json_is_refused_or_read(mutations in vec(any_mutation(), 1..5)) {
        let dir = tempfile::tempdir().unwrap();
        let mutated = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            mutations.iter().for_each(|m| apply(m, &mut bytes));
            bytes
        };
        put(dir.path(), "config.json", mutated(r#"{"model_type":"llama","x":[1,2.5,null,true]}"#));
        put(dir.path(), "tokenizer_config.json", mutated(r#"{"chat_template":[{"name":"default","template":"t"}]}"#));
        put(dir.path(), "a.safetensors", rich_safetensors());
        put(dir.path(), "model.safetensors.index.json", mutated(r#"{"weight_map":{"a":"a.safetensors","b":"a.safetensors"}}"#));
        let _ = HfFolder::open(dir.path());
        if let Ok(store) = SafetensorsStore::open(dir.path()) {
            prop_assert!(store.files().all(|f| f.parent() == Some(dir.path())));
        }
    }
}

/// The unmutated files open, so that the properties above are about something.
#[test]
fn the_seeds_are_sound() {
    let dir = tempfile::tempdir().unwrap();
    let gguf = GgufFile::open(&put(dir.path(), "m.gguf", rich())).unwrap();
    assert_eq!(gguf.names(), ["a", "b", "c"]);
    let store = SafetensorsStore::open(&put(dir.path(), "m.safetensors", rich_safetensors())).unwrap();
    assert_eq!(store.names(), ["a", "b"]);
}
