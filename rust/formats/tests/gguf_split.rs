//! GGUF models in several files.

mod common;

use std::path::{Path, PathBuf};

use alloyforge_formats::gguf::GgufFile;
use alloyforge_interfaces::TensorStore;
use common::{Gguf, format_error, info, pair, put};

/// Shard `no` of `count`, with one tensor `t{no}` of two floats, both `no`.
fn shard(no: u16, count: u16, num_tensors: i32) -> Gguf {
    Gguf {
        pairs: vec![
            pair("split.no", 2, &no.to_le_bytes()),
            pair("split.count", 2, &count.to_le_bytes()),
            pair("split.tensors.count", 5, &num_tensors.to_le_bytes()),
        ],
        infos: vec![info(&format!("t{no}"), &[2], 0, 0)],
        data: [f32::from(no).to_le_bytes(), f32::from(no).to_le_bytes()].concat(),
        ..Gguf::default()
    }
}

fn name(no: u16, count: u16) -> String {
    format!("m-{:05}-of-{count:05}.gguf", no + 1)
}

fn three(dir: &Path) -> PathBuf {
    for no in (0..3).rev() {
        put(dir, &name(no, 3), shard(no, 3, 3).bytes());
    }
    dir.join(name(0, 3))
}

#[test]
fn all_shards_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = GgufFile::open(&three(dir.path())).unwrap();
    assert_eq!(file.names(), ["t0", "t1", "t2"]);
    assert_eq!(file.files().len(), 3);
    for no in 0..3u16 {
        let tensor = file.tensor(&format!("t{no}")).unwrap();
        assert_eq!(tensor.data[..4], f32::from(no).to_le_bytes());
    }
    assert!(file.tensor_infos().nth(2).unwrap().file.ends_with(name(2, 3)));
}

#[test]
fn a_missing_shard_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let first = three(dir.path());
    std::fs::remove_file(dir.path().join(name(1, 3))).unwrap();
    let error = GgufFile::open(&first).unwrap_err();
    let (file, _, fault, _) = format_error(&error);
    assert!(file.ends_with(&name(0, 3)) && fault.contains(&name(1, 3)), "{error}");
}

#[test]
fn a_later_shard_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    three(dir.path());
    let error = GgufFile::open(&dir.path().join(name(2, 3))).unwrap_err();
    assert!(format_error(&error).2.contains(&name(0, 3)), "{error}");
}

/// What replaces one shard, and what the error must say.
#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let cases = [
        (1, shard(2, 3, 3), name(1, 3), "says shard 3, its name says 2"),
        (1, shard(1, 4, 3), name(1, 3), "says 4 shards"),
        (1, Gguf::sound(), name(1, 3), "missing from a shard"),
        (0, shard(0, 3, 5), name(0, 3), "says 5 tensors, the shards hold 3"),
        (0, shard(9, 3, 3), name(0, 3), "shard number 9"),
        (2, Gguf { infos: shard(1, 3, 3).infos, ..shard(2, 3, 3) }, name(2, 3), "twice"),
        (2, Gguf { data: vec![0; 7], ..shard(2, 3, 3) }, name(2, 3), "needs 8 bytes"),
    ];
    for (no, replaced, want_file, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        let first = three(dir.path());
        put(dir.path(), &name(no, 3), replaced.bytes());
        let error = GgufFile::open(&first).unwrap_err();
        let (file, _, fault, _) = format_error(&error);
        assert!(file.ends_with(&want_file) && fault.contains(want), "{error} lacks {want:?}");
    }
}

#[test]
fn a_renamed_shard_says_why_the_others_are_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "other.gguf", shard(0, 3, 3).bytes());
    let error = GgufFile::open(&path).unwrap_err();
    assert!(format_error(&error).2.contains("-00001-of-00003.gguf"), "{error}");
}

#[test]
fn one_shard_of_one_needs_no_special_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "other.gguf", shard(0, 1, 1).bytes());
    assert_eq!(GgufFile::open(&path).unwrap().names(), ["t0"]);
}
