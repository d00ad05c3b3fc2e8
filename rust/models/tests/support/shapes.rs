//! The tensors of published models by name and shape, written down without the code under test.
#![allow(dead_code, reason = "each test file uses its part")]

use super::FakeStore;

/// The sizes of a decoder.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub ff: usize,
    pub vocab: usize,
    pub is_tied: bool,
}

impl Sizes {
    fn q(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// A Hugging Face checkpoint with Llama's names.
pub fn hf(sizes: &Sizes, prefix: &str) -> FakeStore {
    let mut store = hf_without_mlp(sizes, prefix);
    for i in 0..sizes.layers {
        let mlp = format!("{prefix}layers.{i}.mlp");
        store.shape(format!("{mlp}.gate_proj.weight"), &[sizes.ff, sizes.hidden]);
        store.shape(format!("{mlp}.up_proj.weight"), &[sizes.ff, sizes.hidden]);
        store.shape(format!("{mlp}.down_proj.weight"), &[sizes.hidden, sizes.ff]);
    }
    store
}

/// Likewise without the MLPs.
pub fn hf_without_mlp(sizes: &Sizes, prefix: &str) -> FakeStore {
    let mut store = FakeStore::default();
    let h = sizes.hidden;
    store.shape(format!("{prefix}embed_tokens.weight"), &[sizes.vocab, h]);
    store.shape(format!("{prefix}norm.weight"), &[h]);
    if !sizes.is_tied {
        store.shape("lm_head.weight", &[sizes.vocab, h]);
    }
    for i in 0..sizes.layers {
        let layer = format!("{prefix}layers.{i}");
        store.shape(format!("{layer}.input_layernorm.weight"), &[h]);
        store.shape(format!("{layer}.post_attention_layernorm.weight"), &[h]);
        store.shape(format!("{layer}.self_attn.q_proj.weight"), &[sizes.q(), h]);
        store.shape(format!("{layer}.self_attn.k_proj.weight"), &[sizes.kv(), h]);
        store.shape(format!("{layer}.self_attn.v_proj.weight"), &[sizes.kv(), h]);
        store.shape(format!("{layer}.self_attn.o_proj.weight"), &[h, sizes.q()]);
    }
    store
}

/// Adds to every layer of a Hugging Face checkpoint.
pub fn hf_layers(store: &mut FakeStore, layers: usize, prefix: &str, tensors: &[(&str, &[usize])]) {
    for i in 0..layers {
        for (name, shape) in tensors {
            store.shape(format!("{prefix}layers.{i}.{name}"), shape);
        }
    }
}

/// A GGUF file with llama.cpp's names and a dense MLP.
pub fn gguf(sizes: &Sizes) -> FakeStore {
    let mut store = gguf_without_mlp(sizes);
    let (h, ff) = (sizes.hidden, sizes.ff);
    let mlp: [(&str, &[usize]); 3] =
        [("ffn_gate.weight", &[ff, h]), ("ffn_up.weight", &[ff, h]), ("ffn_down.weight", &[h, ff])];
    gguf_layers(&mut store, sizes.layers, &mlp);
    store
}

/// Likewise without the MLPs.
pub fn gguf_without_mlp(sizes: &Sizes) -> FakeStore {
    let mut store = FakeStore::default();
    let (h, q, kv) = (sizes.hidden, sizes.q(), sizes.kv());
    store.shape("token_embd.weight", &[sizes.vocab, h]).shape("output_norm.weight", &[h]);
    if !sizes.is_tied {
        store.shape("output.weight", &[sizes.vocab, h]);
    }
    let tensors: [(&str, &[usize]); 6] = [
        ("attn_norm.weight", &[h]),
        ("ffn_norm.weight", &[h]),
        ("attn_q.weight", &[q, h]),
        ("attn_k.weight", &[kv, h]),
        ("attn_v.weight", &[kv, h]),
        ("attn_output.weight", &[h, q]),
    ];
    gguf_layers(&mut store, sizes.layers, &tensors);
    store
}

/// Adds to every layer of a GGUF file.
pub fn gguf_layers(store: &mut FakeStore, layers: usize, tensors: &[(&str, &[usize])]) {
    for i in 0..layers {
        for (name, shape) in tensors {
            store.shape(format!("blk.{i}.{name}"), shape);
        }
    }
}
