//! Kernels of our own: what they are told, and their launches.
//!
//! The only unsafe code of the crate beside the opening of a device. Each structure mirrors the one of
//! the same name in `kernels/cuda`. A launch is sound where every address in it is that of memory on the
//! device of at least the size that the kernel touches, which each function checks of its tensors, and
//! where that memory lives until the kernel has run: the device has one stream, on which memory is given
//! back in order too.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use alloyforge_kernels::cuda::MODULES;
use alloyforge_types::{
    Activation, DrawnToken, LayerSpec, MlpSpec, ModelSpec, MoeSpec, Result, RopeLayout, RouterOrder,
    TokenDraw,
};
use candle_core::cuda_backend::cudarc::cublas::{result as cublas, sys as cublas_sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute_enum as DeviceAttribute;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::{CudaDevice, DType, Device, Result as CandleResult, Storage, Tensor, bail};
use half::{bf16, f16};

use super::plan::MAX_SHARING;
use super::{AddNorm, Attend, Plan, Vectors, Words};
use crate::fault::Place;

/// Widths of heads that attention is compiled for.
const HEAD_DIMS: [usize; 4] = [64, 96, 128, 256];

/// Rows up to which a product reads its matrix once, with our kernel.
const PRODUCT_ROWS: usize = 4;

/// Experts that a router's lanes have room for, and choices of a row.
const MAX_EXPERTS: usize = 512;
const MAX_CHOSEN: usize = 32;

/// Most blocks of threads in the second direction of a grid.
const MAX_GRID: usize = 65_535;

/// Tokens of a stretch of logits.
const STRETCH: usize = 1024;

/// An address on the device; 0: none.
type Address = u64;

/// What a kernel is told.
///
/// # Safety
/// It is laid out as C lays out the structure of the same name in `kernels/cuda`, and is plain data.
unsafe trait Told: Copy {}

macro_rules! told {
    ($name:ident, $bytes:literal { $($field:ident: $ty:ty),* $(,)? }) => {
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        struct $name { $($field: $ty),* }
        // SAFETY: `repr(C)`, the same fields in the same order, numbers alone; the size is checked on
        // both sides
        unsafe impl Told for $name {}
        // SAFETY: plain data that a kernel takes by value
        unsafe impl DeviceRepr for $name {}
        const _: () = assert!(size_of::<$name>() == $bytes);
    };
}

told!(Attention, 112 {
    queries: Address, keys: Address, values: Address, out: Address, sinks: Address, tables: Address,
    sequences: Address, ends: Address, work: Address, partial_values: Address, partial_sums: Address,
    scale: f32, softcap: f32, window: u32, heads: u32, kv_heads: u32, head_dim: u32,
});
told!(Rope, 160 {
    q: Address, k: Address, v: Address, queries: Address, keys: Address, values: Address,
    q_bias: Address, k_bias: Address, v_bias: Address, q_norm: Address, k_norm: Address,
    cos: Address, sin: Address, angles: Address, slots: Address,
    q_stride: u32, k_stride: u32, v_stride: u32, heads: u32, kv_heads: u32, head_dim: u32,
    dim: u32, is_interleaved: u32, eps: f32, unused: u32,
});
told!(Norm, 56 {
    residual: Address, added: Address, post: Address, weight: Address, out: Address,
    hidden: u32, eps: f32, scale: f32, unused: u32,
});
told!(Gate, 48 {
    gate: Address, up: Address, out: Address,
    stride: u32, width: u32, kind: u32, alpha: f32, limit: f32, unused: u32,
});
told!(Embed, 32 { table: Address, ids: Address, out: Address, width: u32, scale: f32 });
told!(Product, 48 {
    x: Address, matrix: Address, out: Address, which: Address,
    num_rows: u32, outputs: u32, cols: u32, repeats: u32,
});
told!(Route, 40 {
    logits: Address, ids: Address, weights: Address,
    rows: u32, experts: u32, chosen: u32, is_share_of_all: u32,
});
told!(Draw, 72 {
    logits: Address, rows: Address, temperatures: Address, numbers: Address, tokens: Address,
    highest: Address, places: Address, sums: Address, vocab: u32, num_stretches: u32,
});

/// A GPU that runs the kernels.
#[derive(Debug)]
pub(crate) struct Fused {
    device: CudaDevice,
    /// The cache's type.
    cached: DType,
    /// Shared memory that a block of threads may have, in bytes.
    shared_limit: usize,
    /// By module and name: the driver is asked once for each.
    functions: Mutex<HashMap<String, HashMap<String, CudaFunction>>>,
}

/// Blocks of threads and their shape.
#[derive(Debug, Clone, Copy)]
struct Launch {
    grid: (usize, usize),
    threads: usize,
    shared_bytes: usize,
}

impl Fused {
    /// The kernels on a CUDA device, for a model whose cache is of type `cached`.
    ///
    /// # Errors
    /// `Device` where the driver cannot compile them.
    pub(crate) fn new(place: &Place, spec: &ModelSpec, cached: DType) -> Result<Option<Self>> {
        let Device::Cuda(device) = &place.device else { return Ok(None) };
        let context = device.cuda_stream().context().clone();
        let limit = context.attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let asked = context.compute_capability().and_then(|capability| Ok((capability, limit?)));
        let (capability, limit) = asked.map_err(|e| place.fault(candle_core::Error::wrap(e)))?;
        // the kernels are written in what came with 8.0
        if capability < (8, 0) {
            return Ok(None);
        }
        let fused = Self {
            device: device.clone(),
            cached,
            shared_limit: limit.max(0) as usize,
            functions: Mutex::default(),
        };
        // what the driver compiles, it compiles now and not in somebody's first answer
        let has_experts = spec.layers.iter().any(|layer| matches!(layer.mlp, MlpSpec::Moe(_)));
        let always = [
            ("norm", "norm_float"),
            ("gate", "gate_float"),
            ("product", "product_f16_f16"),
            ("draw", "draw_choose"),
        ];
        for (module, function) in always.into_iter().chain(has_experts.then_some(("route", "route"))) {
            fused.function(module, function).map_err(|e| place.fault(e))?;
        }
        let mut dims: Vec<usize> =
            spec.layers.iter().filter(|l| fused.attends(l)).map(|l| l.attention.head_dim).collect();
        dims.sort_unstable();
        dims.dedup();
        if !dims.is_empty() {
            fused.function("rope", "rope_float_f16").map_err(|e| place.fault(e))?;
        }
        for dim in dims {
            for name in ["prefill", "decode"] {
                let function = format!("{name}_{0}_{0}_{dim}", name_of(cached).map_err(|e| place.fault(e))?);
                fused.function(&format!("{name}_{dim}"), &function).map_err(|e| place.fault(e))?;
            }
        }
        Ok(Some(fused))
    }

    /// Whether `layer`'s vectors and attention are computed here: all of them or none.
    pub(crate) fn attends(&self, layer: &LayerSpec) -> bool {
        let a = &layer.attention;
        matches!(self.cached, DType::F16 | DType::BF16)
            && HEAD_DIMS.contains(&a.head_dim)
            && prefill_bytes(a.head_dim).max(decode_bytes(a.head_dim)) <= self.shared_limit
            && a.num_heads / a.num_kv_heads <= MAX_SHARING
    }

    /// Adds to the residual stream and gives the sum's norm; `None`, and nothing was done, where rows are
    /// no multiple of four. Without a weight, the residual stream itself.
    pub(crate) fn add_norm(&self, x: &AddNorm<'_>) -> CandleResult<Option<Tensor>> {
        let (rows, hidden) = x.residual.dims2()?;
        if !hidden.is_multiple_of(4) {
            return Ok(None);
        }
        let vector = |w: Option<&Tensor>| w.map_or(Ok(0), |w| address(w, hidden, DType::F32));
        let out = match x.weight {
            Some(_) => self.uninit((rows, hidden), x.out)?,
            None => x.residual.clone(),
        };
        let told = Norm {
            residual: address(x.residual, rows * hidden, DType::F32)?,
            added: x.added.map_or(Ok(0), |added| address(added, rows * hidden, x.out))?,
            post: vector(x.post)?,
            weight: vector(x.weight)?,
            out: if x.weight.is_some() { address(&out, rows * hidden, x.out)? } else { 0 },
            hidden: number(hidden)?,
            eps: x.eps,
            scale: x.scale,
            unused: 0,
        };
        let launch = Launch { grid: (rows, 1), threads: 256, shared_bytes: 4 * (hidden + 8) };
        self.launch("norm", &format!("norm_{}", name_of(x.out)?), launch, told)?;
        Ok(Some(out))
    }

    /// Biases, norms and turns of q, k and v; keys and values go into the cache. Gives the queries,
    /// `[rows, heads, head_dim]` of the cache's type.
    pub(crate) fn vectors(&self, x: &Vectors<'_>) -> CandleResult<Tensor> {
        let (a, [q, k, v]) = (x.spec, x.products);
        let (rows, dim, ty) = (q.dim(0)?, a.head_dim, q.dtype());
        let (q_width, kv_width) = (a.num_heads * dim, a.num_kv_heads * dim);
        let queries = self.uninit((rows, a.num_heads, dim), self.cached)?;
        let vector = |w: Option<&Tensor>, width: usize| w.map_or(Ok(0), |w| address(w, width, DType::F32));
        let pool = |pool: &Tensor| address(pool, pool.elem_count(), self.cached);
        if x.keys.dims().last() != Some(&kv_width) || x.keys.shape() != x.values.shape() {
            bail!("pools {:?} for keys of width {kv_width}", x.keys.shape());
        }
        let (cos, sin, angles, turning) = match &x.turn {
            None => (0, 0, 0, 0),
            Some(turn) => {
                let len = turn.cos.elem_count();
                let tables = (address(turn.cos, len, DType::F32)?, address(turn.sin, len, DType::F32)?);
                (tables.0, tables.1, address(turn.angles, rows, DType::U32)?, turn.dim)
            }
        };
        let told = Rope {
            q: address(q, rows * q_width, ty)?,
            k: address(k, rows * kv_width, ty)?,
            v: address(v, rows * kv_width, ty)?,
            queries: address(&queries, rows * q_width, self.cached)?,
            keys: pool(x.keys)?,
            values: pool(x.values)?,
            q_bias: vector(x.biases[0], q_width)?,
            k_bias: vector(x.biases[1], kv_width)?,
            v_bias: vector(x.biases[2], kv_width)?,
            q_norm: vector(x.norms[0], dim)?,
            k_norm: vector(x.norms[1], dim)?,
            cos,
            sin,
            angles,
            slots: address(x.slots, rows, DType::U32)?,
            q_stride: number(q_width)?,
            k_stride: number(kv_width)?,
            v_stride: number(kv_width)?,
            heads: number(a.num_heads)?,
            kv_heads: number(a.num_kv_heads)?,
            head_dim: number(dim)?,
            dim: number(turning)?,
            is_interleaved: u32::from(x.turn.is_some_and(|t| t.layout == RopeLayout::Interleaved)),
            eps: x.eps,
            unused: 0,
        };
        let vectors = a.num_heads + 2 * a.num_kv_heads;
        let launch = Launch { grid: (rows, vectors.div_ceil(4)), threads: 128, shared_bytes: 0 };
        self.launch("rope", &format!("rope_{}_{}", name_of(ty)?, name_of(self.cached)?), launch, told)?;
        Ok(queries)
    }

    /// Attention over the cache, `[rows, heads * head_dim]`.
    pub(crate) fn attend(&self, x: &Attend<'_>, plan: &Plan, words: &Words) -> CandleResult<Tensor> {
        let a = x.spec;
        let (rows, heads, dim) = x.queries.dims3()?;
        let Some(group) = plan.groups.get(x.group) else { bail!("no KV group {}", x.group) };
        let Some(tiles) = plan.tiles(heads / a.num_kv_heads) else { bail!("{heads} heads have no tiles") };
        let base = address(words.tensor()?, words.len(), DType::U32)?;
        let at = |range: &std::ops::Range<usize>| base + 4 * range.start as u64;
        let out = self.uninit((rows, heads * dim), x.out)?;
        let partials = group.num_partials * heads;
        let partial_values = self.uninit(partials.max(1) * dim, DType::F32)?;
        let partial_sums = self.uninit(partials.max(1) * 2, DType::F32)?;
        let mut told = Attention {
            queries: address(x.queries, rows * heads * dim, self.cached)?,
            keys: address(x.keys, x.keys.elem_count(), self.cached)?,
            values: address(x.values, x.keys.elem_count(), self.cached)?,
            out: address(&out, rows * heads * dim, x.out)?,
            sinks: x.sinks.map_or(Ok(0), |sinks| address(sinks, heads, DType::F32))?,
            tables: at(&group.tables),
            sequences: at(&group.sequences),
            ends: at(&plan.ends),
            work: at(tiles),
            partial_values: address(&partial_values, partials.max(1) * dim, DType::F32)?,
            partial_sums: address(&partial_sums, partials.max(1) * 2, DType::F32)?,
            scale: a.scale,
            softcap: a.softcap.unwrap_or(0.0),
            window: number(a.window.unwrap_or(0))?,
            heads: number(heads)?,
            kv_heads: number(a.num_kv_heads)?,
            head_dim: number(dim)?,
        };
        let types = format!("{}_{}", name_of(self.cached)?, name_of(x.out)?);
        if !tiles.is_empty() {
            let launch = Launch {
                grid: (tiles.len() / 2, a.num_kv_heads),
                threads: 128,
                shared_bytes: prefill_bytes(dim),
            };
            self.launch(&format!("prefill_{dim}"), &format!("prefill_{types}_{dim}"), launch, told)?;
        }
        if !group.splits.is_empty() {
            told.work = at(&group.splits);
            let launch = Launch {
                grid: (group.splits.len() / 4, a.num_kv_heads),
                threads: 128,
                shared_bytes: decode_bytes(dim),
            };
            self.launch(&format!("decode_{dim}"), &format!("decode_{types}_{dim}"), launch, told)?;
        }
        if !group.joins.is_empty() {
            told.work = at(&group.joins);
            let launch = Launch { grid: (group.joins.len() / 2, heads), threads: 128, shared_bytes: 0 };
            self.launch(&format!("decode_{dim}"), &format!("join_{}", name_of(x.out)?), launch, told)?;
        }
        Ok(out)
    }

    /// `activation(gate, up)`; `None` where rows are no multiple of four or it is none of the kernel's.
    pub(crate) fn gated(&self, kind: Activation, gate: &Tensor, up: &Tensor) -> CandleResult<Option<Tensor>> {
        let (rows, width) = gate.dims2()?;
        let (kind, alpha, limit) = match kind {
            Activation::Silu => (0, 0.0, 0.0),
            Activation::GeluTanh => (1, 0.0, 0.0),
            Activation::Gelu => (2, 0.0, 0.0),
            Activation::ClampedSwiglu { alpha, limit } => (3, alpha, limit),
            _ => return Ok(None),
        };
        if !width.is_multiple_of(4) {
            return Ok(None);
        }
        let ty = gate.dtype();
        let out = self.uninit((rows, width), ty)?;
        let len = rows * width;
        let (gate, up) = (address(gate, len, ty)?, address(up, len, ty)?);
        let told = Gate {
            gate,
            up,
            out: address(&out, len, ty)?,
            stride: number(width)?,
            width: number(width)?,
            kind,
            alpha,
            limit,
            unused: 0,
        };
        let launch = Launch { grid: (rows, (width / 4).div_ceil(256)), threads: 256, shared_bytes: 0 };
        self.launch("gate", &format!("gate_{}", name_of(ty)?), launch, told)?;
        Ok(Some(out))
    }

    /// The rows `ids` of `table` times `scale`, f32; `None` where rows are no multiple of four. The ids
    /// have been checked.
    pub(crate) fn rows(&self, table: &Tensor, ids: &Tensor, scale: f32) -> CandleResult<Option<Tensor>> {
        let (_, width) = table.dims2()?;
        let rows = ids.elem_count();
        if !width.is_multiple_of(4) {
            return Ok(None);
        }
        let out = self.uninit((rows, width), DType::F32)?;
        let told = Embed {
            table: address(table, table.elem_count(), table.dtype())?,
            ids: address(ids, rows, DType::U32)?,
            out: address(&out, rows * width, DType::F32)?,
            width: number(width)?,
            scale,
        };
        let launch = Launch { grid: (rows, (width / 4).div_ceil(256)), threads: 256, shared_bytes: 0 };
        self.launch("gate", &format!("embed_{}", name_of(table.dtype())?), launch, told)?;
        Ok(Some(out))
    }

    /// `x` `[n, cols]` times `w` `[rows, cols]` transposed, where both are of one two-byte type, as type
    /// `out`: few rows with our kernel, many with cuBLAS where `out` is f32. `None` elsewhere.
    pub(crate) fn product(&self, x: &Tensor, w: &Tensor, out: DType) -> CandleResult<Option<Tensor>> {
        let ((n, cols), (outputs, _)) = (x.dims2()?, w.dims2()?);
        let ty = w.dtype();
        let is_ours =
            matches!(ty, DType::F16 | DType::BF16) && x.dtype() == ty && (out == ty || out == DType::F32);
        if !is_ours || n == 0 || w.dim(1)? != cols {
            return Ok(None);
        }
        let is_few = n <= PRODUCT_ROWS && cols.is_multiple_of(8);
        if !is_few && out != DType::F32 {
            return Ok(None);
        }
        let product = self.uninit((n, outputs), out)?;
        let told = Product {
            x: address(x, n * cols, ty)?,
            matrix: address(w, outputs * cols, ty)?,
            out: address(&product, n * outputs, out)?,
            which: 0,
            num_rows: number(n)?,
            outputs: number(outputs)?,
            cols: number(cols)?,
            repeats: 1,
        };
        if is_few {
            let launch = Launch { grid: (outputs.div_ceil(8), 1), threads: 128, shared_bytes: 0 };
            self.launch("product", &format!("product_{}_{}", name_of(ty)?, name_of(out)?), launch, told)?;
        } else {
            self.widening_product(&told, ty)?;
        }
        Ok(Some(product))
    }

    /// The matrices out of `w`, `[experts, outputs, cols]`, that the choices `ids`, `[n, chosen]`, name, each
    /// times its row of `x`: one row for all choices of a row, `[n, cols]`, or one for each, `[n * chosen,
    /// cols]`. Gives `[n * chosen, outputs]`; `None` where the types are not the kernel's or a row is no
    /// multiple of eight. The ids are below the number of experts, as those of [`route`](Self::route) are.
    pub(crate) fn stack_product(&self, x: &Tensor, w: &Tensor, ids: &Tensor) -> CandleResult<Option<Tensor>> {
        let ((rows, cols), (_, outputs, width), num) = (x.dims2()?, w.dims3()?, ids.elem_count());
        let ty = w.dtype();
        let is_ours = matches!(ty, DType::F16 | DType::BF16) && x.dtype() == ty && cols.is_multiple_of(8);
        if !is_ours || num == 0 || num > MAX_GRID {
            return Ok(None);
        }
        if width != cols || rows == 0 || !num.is_multiple_of(rows) {
            bail!("{num} choices for rows {:?} over matrices {:?}", x.shape(), w.shape());
        }
        let product = self.uninit((num, outputs), ty)?;
        let told = Product {
            x: address(x, rows * cols, ty)?,
            matrix: address(w, w.elem_count(), ty)?,
            out: address(&product, num * outputs, ty)?,
            which: address(ids, num, DType::U32)?,
            num_rows: number(num)?,
            outputs: number(outputs)?,
            cols: number(cols)?,
            repeats: number(num / rows)?,
        };
        let launch = Launch { grid: (outputs.div_ceil(8), num), threads: 128, shared_bytes: 0 };
        let name = name_of(ty)?;
        self.launch("product", &format!("product_{name}_{name}"), launch, told)?;
        Ok(Some(product))
    }

    /// The experts that each row of `logits`, f32 `[rows, experts]`, chooses, u32 `[rows, chosen]`, and their
    /// weights, f32 of the same shape; `None` for more than the kernel has room for.
    pub(crate) fn route(&self, logits: &Tensor, spec: &MoeSpec) -> CandleResult<Option<(Tensor, Tensor)>> {
        let (rows, experts) = logits.dims2()?;
        let chosen = spec.experts_per_token;
        if experts > MAX_EXPERTS || chosen > MAX_CHOSEN.min(experts) {
            return Ok(None);
        }
        let (ids, weights) =
            (self.uninit((rows, chosen), DType::U32)?, self.uninit((rows, chosen), DType::F32)?);
        let is_share_of_all = spec.order == RouterOrder::SoftmaxThenTopK { renormalise: false };
        let told = Route {
            logits: address(logits, rows * experts, DType::F32)?,
            ids: address(&ids, rows * chosen, DType::U32)?,
            weights: address(&weights, rows * chosen, DType::F32)?,
            rows: number(rows)?,
            experts: number(experts)?,
            chosen: number(chosen)?,
            is_share_of_all: u32::from(is_share_of_all),
        };
        let launch = Launch { grid: (rows.div_ceil(4), 1), threads: 128, shared_bytes: 0 };
        self.launch("route", "route", launch, told)?;
        Ok(Some((ids, weights)))
    }

    /// `out = x * matrix^T` in f32 from two-byte numbers, which Candle's own products do not offer.
    fn widening_product(&self, told: &Product, ty: DType) -> CandleResult<()> {
        let int = |n: u32| i32::try_from(n).map_err(candle_core::Error::wrap);
        let (n, outputs, cols) = (int(told.num_rows)?, int(told.outputs)?, int(told.cols)?);
        let (one, zero) = (1.0f32, 0.0f32);
        let kind = match ty {
            DType::BF16 => cublas_sys::cudaDataType_t::CUDA_R_16BF,
            _ => cublas_sys::cudaDataType_t::CUDA_R_16F,
        };
        let blas = self.device.cublas_handle();
        // a handle is used with its context at hand, which each launch of a kernel sees to by itself
        self.device.cuda_stream().context().bind_to_thread().map_err(candle_core::Error::wrap)?;
        // SAFETY: column by column, as cuBLAS reads, the matrix is [cols, outputs] and taken transposed, x
        // is [cols, n] and the result [outputs, n]; `product` has checked that all three are that large,
        // and the handle is that of the device's stream
        let done = unsafe {
            cublas::gemm_ex(
                *blas.handle(),
                cublas_sys::cublasOperation_t::CUBLAS_OP_T,
                cublas_sys::cublasOperation_t::CUBLAS_OP_N,
                outputs,
                n,
                cols,
                (&raw const one).cast(),
                told.matrix as *const _,
                kind,
                cols,
                told.x as *const _,
                kind,
                cols,
                (&raw const zero).cast(),
                told.out as *mut _,
                cublas_sys::cudaDataType_t::CUDA_R_32F,
                outputs,
                cublas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        };
        done.map_err(candle_core::Error::wrap)
    }

    /// A token for each of `draws` from `logits`, f32 `[rows, vocab]`.
    pub(crate) fn draw(&self, logits: &Tensor, draws: &[TokenDraw]) -> CandleResult<Vec<DrawnToken>> {
        let (num_rows, vocab) = logits.dims2()?;
        if draws.iter().any(|draw| draw.row >= num_rows) {
            bail!("a draw from a row that is not there");
        }
        let (num, stretches) = (draws.len(), vocab.div_ceil(STRETCH));
        let device = logits.device();
        let rows: Vec<u32> = draws.iter().map(|draw| draw.row as u32).collect();
        let temperatures: Vec<f32> = draws.iter().map(|draw| draw.temperature).collect();
        let numbers: Vec<f64> = draws.iter().map(|draw| draw.number).collect();
        let rows = Tensor::from_vec(rows, num, device)?;
        let temperatures = Tensor::from_vec(temperatures, num, device)?;
        let numbers = Tensor::from_vec(numbers, num, device)?;
        let tokens = self.uninit(num, DType::U32)?;
        let highest = self.uninit(num * stretches, DType::F32)?;
        let places = self.uninit(num * stretches, DType::U32)?;
        let sums = self.uninit(num * stretches, DType::F64)?;
        let told = Draw {
            logits: address(logits, num_rows * vocab, DType::F32)?,
            rows: address(&rows, num, DType::U32)?,
            temperatures: address(&temperatures, num, DType::F32)?,
            numbers: address(&numbers, num, DType::F64)?,
            tokens: address(&tokens, num, DType::U32)?,
            highest: address(&highest, num * stretches, DType::F32)?,
            places: address(&places, num * stretches, DType::U32)?,
            sums: address(&sums, num * stretches, DType::F64)?,
            vocab: number(vocab)?,
            num_stretches: number(stretches)?,
        };
        let shared_bytes = 2 * 4 * STRETCH;
        for (function, grid) in
            [("draw_highest", (stretches, num)), ("draw_weigh", (stretches, num)), ("draw_choose", (1, num))]
        {
            self.launch("draw", function, Launch { grid, threads: STRETCH, shared_bytes }, told)?;
        }
        let token = |token: u32| match token {
            u32::MAX => DrawnToken::NotNumbers,
            token if token as usize >= vocab => DrawnToken::NoToken,
            token => DrawnToken::Token(token),
        };
        Ok(tokens.to_vec1::<u32>()?.into_iter().map(token).collect())
    }

    /// A tensor whose every number the next kernel writes.
    fn uninit<S: Into<candle_core::Shape>>(&self, shape: S, ty: DType) -> CandleResult<Tensor> {
        // SAFETY: numbers of any bits are valid, and nothing reads them before a kernel has written them:
        // each caller hands the tensor to one that writes all of it, or reads only what it wrote
        unsafe { Tensor::empty(shape, ty, &Device::Cuda(self.device.clone())) }
    }

    fn function(&self, module: &str, function: &str) -> CandleResult<CudaFunction> {
        let mut known = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(module).and_then(|functions| functions.get(function)) {
            return Ok(found.clone());
        }
        let Some((_, ptx)) = MODULES.iter().find(|(name, _)| *name == module) else {
            bail!("no kernels called `{module}`");
        };
        let kernel = self.device.get_or_load_custom_func(function, &format!("alloyforge_{module}"), ptx)?;
        let found = kernel.into_cuda_function();
        known.entry(module.to_owned()).or_default().insert(function.to_owned(), found.clone());
        Ok(found)
    }

    fn launch<T: Told + DeviceRepr>(
        &self,
        module: &str,
        function: &str,
        shape: Launch,
        told: T,
    ) -> CandleResult<()> {
        let kernel = self.function(module, function)?;
        if shape.shared_bytes > 48 << 10 {
            let bytes = i32::try_from(shape.shared_bytes).map_err(candle_core::Error::wrap)?;
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.set_attribute(attribute, bytes).map_err(candle_core::Error::wrap)?;
        }
        let config = LaunchConfig {
            grid_dim: (number(shape.grid.0)?, number(shape.grid.1)?, 1),
            block_dim: (number(shape.threads)?, 1, 1),
            shared_mem_bytes: number(shape.shared_bytes)?,
        };
        let stream = self.device.cuda_stream();
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&told);
        // SAFETY: the kernel takes one structure of this layout, and its caller above has checked that
        // each address in it is that of as much memory as the kernel touches; see the first lines
        let done = unsafe { launch.launch(config) };
        done.map(|_| ()).map_err(candle_core::Error::wrap)
    }
}

/// Shared memory of a block of `prefill`, in bytes: two strips of keys and of values, wide queries beside
/// them.
fn prefill_bytes(dim: usize) -> usize {
    let (strip, staged) = if dim <= 128 { (64, 0) } else { (32, 64) };
    2 * (dim + 8) * (4 * strip + staged)
}

/// Likewise of `decode`: the queries, and for each of four warps two pieces of 16 keys and of values.
fn decode_bytes(dim: usize) -> usize {
    2 * (dim + 8) * (16 + 4 * 2 * 2 * 16)
}

/// The name of a type in the names of kernels.
fn name_of(ty: DType) -> CandleResult<&'static str> {
    match ty {
        DType::F32 => Ok("float"),
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => bail!("no kernels for {other:?}"),
    }
}

fn number(n: usize) -> CandleResult<u32> {
    u32::try_from(n).map_err(candle_core::Error::wrap)
}

/// Where the `len` numbers of type `ty` of a contiguous tensor on the device begin.
fn address(x: &Tensor, len: usize, ty: DType) -> CandleResult<Address> {
    if x.elem_count() != len || x.dtype() != ty || !x.is_contiguous() {
        bail!("a kernel wants {len} of {ty:?} in a row, not {:?} of {:?}", x.shape(), x.dtype());
    }
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a kernel wants what is on a GPU") };
    let stream = storage.device.cuda_stream();
    macro_rules! of {
        ($ty:ty) => {
            storage.as_cuda_slice::<$ty>()?.device_ptr(&stream).0
        };
    }
    let base = match ty {
        DType::F32 => of!(f32),
        DType::F16 => of!(f16),
        DType::BF16 => of!(bf16),
        DType::U32 => of!(u32),
        DType::F64 => of!(f64),
        other => bail!("no kernels for {other:?}"),
    };
    let address = base + (layout.start_offset() * ty.size_in_bytes()) as u64;
    // rows of a view may begin where a kernel cannot read several numbers at once
    if ty != DType::U32 && !address.is_multiple_of(16) {
        bail!("a kernel wants what begins at a multiple of 16 bytes");
    }
    Ok(address)
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod gpu_tests;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kernel that is launched is in its module.
    #[test]
    fn kernels_are_in_their_modules() {
        let mut wanted: Vec<(String, String)> = Vec::new();
        let halves = ["f16", "bf16"];
        for dim in HEAD_DIMS {
            for cached in halves {
                for out in [cached, "float"] {
                    wanted.push((format!("prefill_{dim}"), format!("prefill_{cached}_{out}_{dim}")));
                    wanted.push((format!("decode_{dim}"), format!("decode_{cached}_{out}_{dim}")));
                    wanted.push((format!("decode_{dim}"), format!("join_{out}")));
                }
            }
        }
        for ty in ["float", "f16", "bf16"] {
            wanted.push(("norm".into(), format!("norm_{ty}")));
            wanted.push(("gate".into(), format!("gate_{ty}")));
            wanted.push(("gate".into(), format!("embed_{ty}")));
            wanted.extend(halves.map(|cached| ("rope".into(), format!("rope_{ty}_{cached}"))));
        }
        for ty in halves {
            wanted.extend([ty, "float"].map(|out| ("product".into(), format!("product_{ty}_{out}"))));
        }
        wanted.push(("route".into(), "route".into()));
        wanted.extend(["highest", "weigh", "choose"].map(|f| ("draw".into(), format!("draw_{f}"))));
        for (module, function) in wanted {
            let found = MODULES.iter().find(|(name, _)| **name == *module).expect("a module");
            assert!(found.1.contains(&format!(".entry {function}(")), "{function} in {module}");
        }
    }
}
