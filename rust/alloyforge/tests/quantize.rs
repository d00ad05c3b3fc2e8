//! Files written in other types, read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloyforge::{QuantizeOptions, Quantized, quantize};
use alloyforge_formats::gguf::{GgufFile, GgufWriter};
use alloyforge_interfaces::TensorStore;
use alloyforge_kernels::dequant::dequantize;
use alloyforge_kernels::quantize as blocks;
use alloyforge_types::{Error, MetaArray, MetaValue, QuantMix, QuantType};
use tempfile::TempDir;

/// Numbers from -1 to 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| draw()).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Tensors of a small model: names with shapes.
const TENSORS: &[(&str, &[usize])] = &[
    ("token_embd.weight", &[300, 512]),
    ("blk.0.attn_norm.weight", &[512]),
    ("blk.0.attn_q.weight", &[512, 512]),
    ("blk.0.attn_v.weight", &[128, 512]),
    ("blk.0.attn_q_norm.weight", &[4, 512]),
    ("blk.0.ffn_gate_inp.weight", &[4, 512]),
    ("blk.0.ffn_down_exps.weight", &[4, 512, 96]),
    ("blk.0.odd.weight", &[7, 40]),
];

fn write(path: &Path, change: impl Fn(&str, &mut Vec<f32>)) {
    let mut writer = GgufWriter::new();
    let text = |text: &str| MetaValue::Str(text.into());
    writer.set("general.architecture", &text("llama")).unwrap();
    writer.set("general.file_type", &MetaValue::U64(0)).unwrap();
    writer.set("llama.block_count", &MetaValue::U64(1)).unwrap();
    writer.set("llama.expert_count", &MetaValue::U64(4)).unwrap();
    let tokens: Vec<Box<str>> = (0..300).map(|i| format!("t{i}").into()).collect();
    writer.set("tokenizer.ggml.tokens", &MetaValue::Array(MetaArray::Str(tokens.into()))).unwrap();
    writer.set("tokenizer.chat_template", &text("{{ messages }}")).unwrap();
    for (name, shape) in TENSORS {
        writer.tensor(name, QuantType::F32, shape).unwrap();
    }
    let mut body = writer.create(path).unwrap();
    for (i, (name, shape)) in TENSORS.iter().enumerate() {
        let mut values = numbers(shape.iter().product(), i as u32);
        change(name, &mut values);
        body.tensor(&bytes(&values)).unwrap();
    }
    body.finish().unwrap();
}

fn model() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.gguf");
    write(&path, |_, _| {});
    (dir, path)
}

fn options(name: &str) -> QuantizeOptions {
    let mix = QuantMix::from_name(name).unwrap();
    QuantizeOptions { mix, threads: Some(1), progress: None, cancel: Arc::default() }
}

fn names_in(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_mix_gives_each_tensor_its_type_and_its_numbers() {
    let (dir, source) = model();
    let before = GgufFile::open(&source).unwrap();
    for name in QuantMix::names() {
        let target = dir.path().join("out.gguf");
        let report = quantize(&source, &target, &options(name)).unwrap();
        let after = GgufFile::open(&target).unwrap();
        let mix = QuantMix::from_name(name).unwrap();
        assert_eq!(report.file_type, mix.name());
        assert_eq!(after.metadata().u64("general.file_type"), mix.file_type().map(u64::from));
        assert_eq!(after.metadata().u64("general.quantization_version"), Some(2));
        for key in ["tokenizer.ggml.tokens", "tokenizer.chat_template", "llama.block_count"] {
            assert_eq!(after.metadata().get(key), before.metadata().get(key));
        }
        assert_eq!(after.names(), before.names());
        for (tensor, shape) in TENSORS {
            let (old, new) = (before.tensor(tensor).unwrap(), after.tensor(tensor).unwrap());
            assert_eq!(new.shape, *shape);
            let is_kept = shape.len() == 1 || tensor.contains("norm") || tensor.contains("inp");
            if is_kept || mix.base() == QuantType::F32 {
                assert_eq!((new.ty, new.data), (QuantType::F32, old.data), "{name} {tensor}");
                continue;
            }
            // the same blocks as from the numbers at once
            let values: Vec<f32> =
                old.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            let mut expected = vec![0; new.data.len()];
            blocks::quantize(new.ty, &values, &mut expected).unwrap();
            assert!(new.data == expected, "{name} {tensor} {}", new.ty.name());
            let wanted = match (*tensor, name) {
                ("blk.0.odd.weight", "bf16") => "bf16",
                ("blk.0.odd.weight", _) => "f16",
                ("token_embd.weight", "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q2_k" | "int4") => "q6_k",
                ("blk.0.attn_q.weight", "int4" | "q4_k" | "q4_k_m" | "q4_k_s") => "q4_k",
                ("blk.0.ffn_down_exps.weight", "q4_k_s") => "q5_0",
                ("blk.0.ffn_down_exps.weight", "q4_k_m" | "q5_k_m" | "int8") => "q8_0",
                ("blk.0.ffn_down_exps.weight", "mxfp4") => "mxfp4",
                _ => new.ty.name(),
            };
            assert_eq!(new.ty.name(), wanted, "{name} {tensor}");
        }
    }
    assert_eq!(names_in(&dir), ["in.gguf", "out.gguf"]);
}

#[test]
fn the_report_counts() {
    let (dir, source) = model();
    let (once, twice) = (dir.path().join("q8.gguf"), dir.path().join("q4.gguf"));
    let first = quantize(&source, &once, &options("q8_0")).unwrap();
    assert_eq!((first.tensors, first.converted, first.requantized, first.fallbacks), (8, 5, 0, 1));
    let size = |path: &Path| GgufFile::open(path).unwrap().tensor_infos().map(|t| t.len).sum::<u64>();
    assert_eq!((first.bytes_before, first.bytes), (size(&source), size(&once)));
    let second = quantize(&once, &twice, &options("q4_k_m")).unwrap();
    // the embeddings, the queries and the values; the experts' rows are too narrow and stay q8_0
    assert_eq!((second.converted, second.requantized, second.fallbacks), (3, 3, 2));
    // and back to f32, which loses nothing more
    let wide = dir.path().join("f32.gguf");
    quantize(&once, &wide, &options("f32")).unwrap();
    let (once, wide) = (GgufFile::open(&once).unwrap(), GgufFile::open(&wide).unwrap());
    let (narrow, wide) = (once.tensor(TENSORS[2].0).unwrap(), wide.tensor(TENSORS[2].0).unwrap());
    let mut values = vec![0.0; 512 * 512];
    dequantize(narrow.ty, narrow.data, &mut values).unwrap();
    assert!(wide.data == bytes(&values));
}

#[test]
fn threads_make_no_difference() {
    let (dir, source) = model();
    let of = |threads: usize| {
        let target = dir.path().join(format!("{threads}.gguf"));
        quantize(&source, &target, &QuantizeOptions { threads: Some(threads), ..options("q4_k_m") }).unwrap();
        std::fs::read(target).unwrap()
    };
    let one = of(1);
    assert!([2, 3, 16].into_iter().all(|threads| of(threads) == one));
}

#[test]
fn the_source_is_never_the_target() {
    let (dir, source) = model();
    let before = std::fs::read(&source).unwrap();
    let hard = dir.path().join("hard.gguf");
    std::fs::hard_link(&source, &hard).unwrap();
    let mut targets = vec![source.clone(), dir.path().join("./in.gguf"), hard];
    #[cfg(unix)]
    {
        let soft = dir.path().join("soft.gguf");
        std::os::unix::fs::symlink(&source, &soft).unwrap();
        targets.push(soft);
    }
    for target in targets {
        let result = quantize(&source, &target, &options("q8_0"));
        assert!(matches!(&result, Err(Error::InvalidRequest { name, .. }) if name == "target"), "{result:?}");
    }
    assert!(std::fs::read(&source).unwrap() == before);
}

#[test]
fn faults_are_told_and_leave_nothing_behind() {
    let (dir, good) = model();
    let bad = dir.path().join("bad.gguf");
    let target = dir.path().join("out.gguf");
    for (number, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e9, "1000000000")] {
        write(&bad, |name, values| {
            if name == "blk.0.attn_q.weight" {
                values[77_777] = number;
            }
        });
        match quantize(&bad, &target, &options("q4_0")) {
            Err(Error::Format { file, item, fault, .. }) => {
                assert_eq!(file, bad.display().to_string());
                assert_eq!(item, "tensor `blk.0.attn_q.weight`");
                assert!(fault.contains(shown), "{fault}");
            }
            other => panic!("{other:?}"),
        }
    }
    // what has its range takes a large number
    quantize(&bad, &target, &options("bf16")).unwrap();
    std::fs::remove_file(&target).unwrap();

    let mut cut = std::fs::read(&good).unwrap();
    cut.truncate(cut.len() / 2);
    std::fs::write(&bad, cut).unwrap();
    assert!(matches!(quantize(&bad, &target, &options("q8_0")), Err(Error::Format { .. })));
    GgufWriter::new().create(&bad).unwrap().finish().unwrap();
    assert!(matches!(quantize(&bad, &target, &options("q8_0")), Err(Error::Unsupported { .. })));
    let nowhere = dir.path().join("nowhere");
    let missing = |result: Result<Quantized, Error>| match result {
        Err(Error::Io { kind, .. }) => assert_eq!(kind, std::io::ErrorKind::NotFound),
        other => panic!("{other:?}"),
    };
    missing(quantize(&nowhere, &target, &options("q8_0")));
    missing(quantize(&good, &nowhere.join("out.gguf"), &options("q8_0")));
    let none = QuantizeOptions { threads: Some(0), ..options("q8_0") };
    assert!(
        matches!(quantize(&good, &target, &none), Err(Error::InvalidRequest { name, .. }) if name == "threads")
    );
    let mix = QuantMix::from(QuantType::IQ2XS);
    let read_only = QuantizeOptions { mix, ..options("q8_0") };
    assert!(
        matches!(quantize(&good, &target, &read_only), Err(Error::InvalidRequest { name, .. }) if name == "type")
    );
    assert_eq!(names_in(&dir), ["bad.gguf", "in.gguf"]);
}

#[test]
fn it_tells_how_far_it_is_and_ends_when_told() {
    let (dir, source) = model();
    let target = dir.path().join("out.gguf");
    std::fs::write(&target, "what was there").unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let options = QuantizeOptions {
        progress: Some({
            let cancel = Arc::clone(&cancel);
            Arc::new(move |done| cancel.store(done > 0.3, Ordering::Relaxed))
        }),
        cancel,
        ..options("q8_0")
    };
    match quantize(&source, &target, &options) {
        Err(Error::Io { kind, .. }) => assert_eq!(kind, std::io::ErrorKind::Interrupted),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"what was there");
    assert_eq!(names_in(&dir), ["in.gguf", "out.gguf"]);
}
