//! Any bytes as a GGUF file: an error, or tensors that lie inside the file; then as a model.

#![no_main]

mod scratch;

use std::sync::Arc;

use alloyforge_formats::gguf::GgufFile;
use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = GgufFile::open(&scratch::put("m.gguf", data)) else { return };
    let mut ranges = Vec::new();
    for info in file.tensor_infos() {
        let view = file.tensor(info.name).expect("a listed tensor");
        let elements: usize = view.shape.iter().product();
        assert_eq!(view.data.len(), elements / view.ty.block_len() * view.ty.block_bytes());
        let start = info.offset as usize;
        assert_eq!(view.data, &data[start..start + view.data.len()]);
        ranges.push(start..start + view.data.len());
    }
    ranges.sort_by_key(|r| r.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));

    let file = Arc::new(file);
    if let Ok(model) = resolve(Config::Gguf(file.metadata()), file.clone()) {
        for role in model.spec.roles() {
            let _ = model.weights.weight(role);
        }
    }
});
