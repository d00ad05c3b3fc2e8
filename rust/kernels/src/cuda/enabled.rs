//! The CUDA kernels of `cuda/`, compiled to PTX.

/// Each module's name with its PTX: a file of `cuda/`, and where it is made for each width of heads, the
/// width behind it.
pub const MODULES: &[(&str, &str)] = &[
    ("prefill_64", include_str!(concat!(env!("OUT_DIR"), "/prefill_64.ptx"))),
    ("prefill_96", include_str!(concat!(env!("OUT_DIR"), "/prefill_96.ptx"))),
    ("prefill_128", include_str!(concat!(env!("OUT_DIR"), "/prefill_128.ptx"))),
    ("prefill_256", include_str!(concat!(env!("OUT_DIR"), "/prefill_256.ptx"))),
    ("decode_64", include_str!(concat!(env!("OUT_DIR"), "/decode_64.ptx"))),
    ("decode_96", include_str!(concat!(env!("OUT_DIR"), "/decode_96.ptx"))),
    ("decode_128", include_str!(concat!(env!("OUT_DIR"), "/decode_128.ptx"))),
    ("decode_256", include_str!(concat!(env!("OUT_DIR"), "/decode_256.ptx"))),
    ("rope", include_str!(concat!(env!("OUT_DIR"), "/rope.ptx"))),
    ("norm", include_str!(concat!(env!("OUT_DIR"), "/norm.ptx"))),
    ("gate", include_str!(concat!(env!("OUT_DIR"), "/gate.ptx"))),
    ("product", include_str!(concat!(env!("OUT_DIR"), "/product.ptx"))),
    ("route", include_str!(concat!(env!("OUT_DIR"), "/route.ptx"))),
    ("draw", include_str!(concat!(env!("OUT_DIR"), "/draw.ptx"))),
];
