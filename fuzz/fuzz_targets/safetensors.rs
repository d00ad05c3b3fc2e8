//! Any bytes as a safetensors file: an error, or tensors that cover the data. The same bytes as an index.

#![no_main]

mod scratch;

use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_interfaces::TensorStore;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = scratch::put("m.safetensors", data);
    if let Ok(store) = SafetensorsStore::open(&path) {
        let mut covered = 0;
        for raw in store.raw_tensors() {
            assert_eq!(raw.data.len() * 8, raw.shape.iter().product::<usize>() * raw.dtype.bits());
            let start = raw.offset as usize;
            assert_eq!(raw.data, &data[start..start + raw.data.len()]);
            assert_eq!(store.tensor(raw.name).is_some(), raw.dtype.quant_type().is_some());
            covered += raw.data.len();
        }
        let header = u64::from_le_bytes(data[..8].try_into().expect("8 bytes"));
        assert_eq!(covered as u64 + 8 + header, data.len() as u64);
    }
    if let Ok(store) = SafetensorsStore::open(&scratch::put("m.safetensors.index.json", data)) {
        assert!(store.files().all(|file| file.parent() == path.parent()));
    }
});
