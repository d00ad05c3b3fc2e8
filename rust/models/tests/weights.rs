//! What the weights of a role hold, number by number, where the file stores them otherwise.

mod support;

use std::borrow::Cow;

use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, Resolved};
use alloyforge_types::{ExpertRole, LayerRole, QuantType, Role, Weight};
use half::{bf16, f16};
use serde_json::{Value, json};
use support::FakeStore;

fn numbers(weight: &Weight<'_>) -> Vec<f32> {
    assert_eq!(weight.ty, QuantType::F32);
    weight.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// 0, 1, 2, … from `first` on.
fn count(first: usize, len: usize) -> Vec<f32> {
    (first..first + len).map(|i| i as f32).collect()
}

/// A reference checkpoint copied, so that tensors can be replaced.
fn copied(case: &str) -> (FakeStore, Value) {
    let folder = support::reference(case);
    let real = alloyforge_formats::safetensors::SafetensorsStore::open(&folder).unwrap();
    let mut store = FakeStore::default();
    for name in real.names() {
        let view = real.tensor(name).unwrap();
        store.typed(name, view.ty, &view.shape, view.data.to_vec());
    }
    (store, support::json(folder.join("config.json")))
}

fn resolved(store: &FakeStore, config: &Value) -> Resolved {
    store.resolve(Config::HuggingFace(config)).unwrap_or_else(|e| panic!("{e}"))
}

fn layer(role: LayerRole) -> Role {
    Role::Layer(0, role)
}

#[test]
fn fused_rows_are_borrowed_in_order() {
    let (mut store, config) = copied("phi3");
    // 4 heads and 2 key heads of 16, a width of 64
    store.floats("model.layers.0.self_attn.qkv_proj.weight", &[128, 64], &count(0, 128 * 64));
    store.floats("model.layers.0.mlp.gate_up_proj.weight", &[224, 64], &count(0, 224 * 64));
    let resolved = resolved(&store, &config);
    let cases = [
        (LayerRole::Q, 0, 64),
        (LayerRole::K, 64, 32),
        (LayerRole::V, 96, 32),
        (LayerRole::Gate, 0, 112),
        (LayerRole::Up, 112, 112),
    ];
    for (role, first, rows) in cases {
        let weight = resolved.weights.weight(layer(role)).unwrap();
        assert!(matches!(weight.data, Cow::Borrowed(_)), "{role:?}");
        assert_eq!((weight.rows, weight.cols), (rows, 64), "{role:?}");
        assert_eq!(numbers(&weight), count(first * 64, rows * 64), "{role:?}");
    }
}

#[test]
fn quantised_rows_are_cut_between_blocks() {
    let (mut store, config) = copied("phi3");
    let row = QuantType::Q8_0.row_bytes(64).unwrap();
    let data: Vec<u8> = (0..128).flat_map(|r| vec![r as u8; row]).collect();
    store.typed("model.layers.0.self_attn.qkv_proj.weight", QuantType::Q8_0, &[128, 64], data);
    let resolved = resolved(&store, &config);
    let v = resolved.weights.weight(layer(LayerRole::V)).unwrap();
    assert_eq!((v.ty, v.rows, v.data.len()), (QuantType::Q8_0, 32, 32 * row));
    assert_eq!((v.data[0], v.data[32 * row - 1]), (96, 127));
}

#[test]
fn gpt_oss_experts_are_turned_and_parted() {
    let (mut store, config) = copied("gpt_oss");
    let (experts, hidden, ff) = (4, 64, 48);
    let prefix = "model.layers.0.mlp.experts";
    store.floats(format!("{prefix}.gate_up_proj"), &[4, 64, 96], &count(0, experts * hidden * 2 * ff));
    store.floats(format!("{prefix}.down_proj"), &[4, 48, 64], &count(0, experts * ff * hidden));
    store.floats(format!("{prefix}.gate_up_proj_bias"), &[4, 96], &count(0, experts * 2 * ff));
    store.floats(format!("{prefix}.down_proj_bias"), &[4, 64], &count(0, experts * hidden));
    let resolved = resolved(&store, &config);
    let expert = |e, part| numbers(&resolved.weights.weight(layer(LayerRole::Expert(e, part))).unwrap());
    for e in 0..experts {
        let (gate, up, down) =
            (expert(e, ExpertRole::Gate), expert(e, ExpertRole::Up), expert(e, ExpertRole::Down));
        for row in 0..ff {
            for col in 0..hidden {
                let stored = (e * hidden + col) * 2 * ff + 2 * row;
                assert_eq!(gate[row * hidden + col], stored as f32);
                assert_eq!(up[row * hidden + col], (stored + 1) as f32);
                assert_eq!(down[col * ff + row], ((e * ff + row) * hidden + col) as f32);
            }
        }
        let by_twos = |first: usize| (0..ff).map(|i| (e * 2 * ff + first + 2 * i) as f32).collect::<Vec<_>>();
        assert_eq!(expert(e, ExpertRole::GateBias), by_twos(0));
        assert_eq!(expert(e, ExpertRole::UpBias), by_twos(1));
        assert_eq!(expert(e, ExpertRole::DownBias), count(e * hidden, hidden));
    }
}

/// The numbers of FP4 by code, as the checkpoint's own reader has them.
const FP4: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// ggml's block: a scale, then sixteen bytes of which the low halves come first.
fn mxfp4_numbers(weight: &Weight<'_>) -> Vec<f32> {
    assert_eq!(weight.ty, QuantType::MXFP4);
    let block = |b: &[u8]| {
        let scale = 2f32.powi(i32::from(b[0]) - 127);
        let low = b[1..].iter().map(move |q| FP4[usize::from(q & 15)] * scale);
        let high = b[1..].iter().map(move |q| FP4[usize::from(q >> 4)] * scale);
        low.chain(high).collect::<Vec<_>>()
    };
    weight.data.chunks_exact(17).flat_map(block).collect()
}

#[test]
fn gpt_oss_blocks_become_ggmls() {
    let (mut store, mut config) = copied("gpt_oss");
    // rows of 64: two blocks; the reference's experts of 48 are no whole blocks
    config["intermediate_size"] = json!(32);
    config["quantization_config"] = json!({"quant_method": "mxfp4"});
    let (experts, hidden, ff) = (4usize, 64usize, 32usize);
    let bytes = |len: usize, by: usize| (0..len).map(|i| (i * by % 251) as u8).collect::<Vec<_>>();
    for i in 0..2 {
        let prefix = format!("model.layers.{i}.mlp.experts");
        store.remove(&format!("{prefix}.gate_up_proj")).remove(&format!("{prefix}.down_proj"));
        store.floats(format!("{prefix}.gate_up_proj_bias"), &[4, 64], &count(0, 256));
        store.packed(format!("{prefix}.gate_up_proj_blocks"), &[4, 64, 2, 16], bytes(4 * 64 * 32, 7));
        store.packed(format!("{prefix}.gate_up_proj_scales"), &[4, 64, 2], vec![120; 4 * 64 * 2]);
        store.packed(format!("{prefix}.down_proj_blocks"), &[4, 64, 1, 16], bytes(4 * 64 * 16, 11));
        let scales = (0..4 * 64).map(|i| 120 + (i % 9) as u8).collect();
        store.packed(format!("{prefix}.down_proj_scales"), &[4, 64, 1], scales);
    }
    let resolved = resolved(&store, &config);
    let name = "model.layers.0.mlp.experts";
    let stored = |name: &str| store.bytes(name).unwrap().data;
    let (blocks, scales) =
        (stored(&format!("{name}.down_proj_blocks")), stored(&format!("{name}.down_proj_scales")));
    let gate_blocks = stored(&format!("{name}.gate_up_proj_blocks"));
    // element `i` of a row: the low half of byte `i / 2` for an even one, the high half for an odd one
    let number = |blocks: &[u8], scale: u8, row: usize, cols: usize, i: usize| {
        let byte = blocks[row * cols / 2 + i / 2];
        FP4[usize::from(if i & 1 == 0 { byte & 15 } else { byte >> 4 })] * 2f32.powi(i32::from(scale) - 127)
    };
    for e in 0..experts {
        let expert =
            |part| mxfp4_numbers(&resolved.weights.weight(layer(LayerRole::Expert(e, part))).unwrap());
        let (gate, up, down) = (expert(ExpertRole::Gate), expert(ExpertRole::Up), expert(ExpertRole::Down));
        for row in 0..hidden {
            let at = e * hidden + row;
            let expected: Vec<_> = (0..ff).map(|i| number(blocks, scales[at], at, ff, i)).collect();
            assert_eq!(down[row * ff..(row + 1) * ff], expected);
        }
        for row in 0..ff {
            for (found, turn) in [(&gate, 0), (&up, 1)] {
                let at = e * 2 * ff + 2 * row + turn;
                let expected: Vec<_> = (0..hidden).map(|i| number(gate_blocks, 120, at, hidden, i)).collect();
                assert_eq!(found[row * hidden..(row + 1) * hidden], expected);
            }
        }
    }

    store.packed(format!("{name}.down_proj_scales"), &[4, 63, 1], vec![120; 252]);
    let error = store.resolve(Config::HuggingFace(&config)).unwrap_err().to_string();
    assert!(error.contains("down_proj_scales") && error.contains("63"), "{error}");
}

#[test]
fn gemma_norms_have_one_added_in_single_precision() {
    let (mut store, config) = copied("gemma3_text");
    let values = [0.25f32, -1.0, 3.0e-4];
    let name = "model.layers.0.self_attn.q_norm.weight";
    let filled: Vec<f32> = values.iter().copied().chain(count(0, 13)).collect();
    let expected: Vec<f32> = filled.iter().map(|v| v + 1.0).collect();

    store.floats(name, &[16], &filled);
    let q_norm = |store: &FakeStore| {
        numbers(&resolved(store, &config).weights.weight(layer(LayerRole::QNorm)).unwrap())
    };
    assert_eq!(q_norm(&store), expected);
    let halves: Vec<u8> = filled.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    store.typed(name, QuantType::BF16, &[16], halves);
    let rounded: Vec<f32> = filled.iter().map(|v| bf16::from_f32(*v).to_f32() + 1.0).collect();
    assert_eq!(q_norm(&store), rounded);
    let halves: Vec<u8> = filled.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    store.typed(name, QuantType::F16, &[16], halves);
    let rounded: Vec<f32> = filled.iter().map(|v| f16::from_f32(*v).to_f32() + 1.0).collect();
    assert_eq!(q_norm(&store), rounded);

    // all seven norms of a layer and the last one, and nothing else
    let resolved = resolved(&store, &config);
    for role in resolved.spec.roles() {
        let weight = resolved.weights.weight(role).unwrap();
        let is_norm = weight.rows == 1;
        assert_eq!(matches!(weight.data, Cow::Owned(_)), is_norm, "{role:?}");
    }
}

#[test]
fn a_tied_head_is_the_embedding() {
    let (store, config) = copied("llama3_rope");
    let resolved = resolved(&store, &config);
    let (embedding, head) = (resolved.weights.weight(Role::Embedding), resolved.weights.weight(Role::Head));
    assert_eq!(embedding.unwrap(), head.unwrap());
}

#[test]
fn a_role_that_the_model_lacks_is_an_error() {
    let (store, config) = copied("llama");
    let resolved = resolved(&store, &config);
    for role in [Role::HeadBias, layer(LayerRole::Sinks), Role::Layer(9, LayerRole::Q)] {
        assert!(resolved.weights.weight(role).is_err(), "{role:?}");
    }
}
