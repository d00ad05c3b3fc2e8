//! The phases of a decoder.

use alloyforge_interfaces::{Backend, LoadOptions, MemoryUse, WeightSource};
use alloyforge_types::{Batch, BlockId, DType, Error, KvType, MlpSpec, ModelSpec, QkNorm, Result};
use candle_core::Tensor;

use crate::attention::{Attention, SCORE_VALUES};
use crate::cache::Cache;
use crate::fault::Place;
use crate::layer::{Mlp, Weights};
use crate::loader::Loaded;
use crate::states::States;
use crate::step::Step;
use crate::threads::Threads;
use crate::{activation, check, device, experts, formats, loader, norm};

/// Logits that are computed at a time: 64 MiB of f32.
const LOGIT_VALUES: usize = 1 << 24;

/// A decoder on a device that Candle drives.
#[derive(Debug)]
pub struct CandleBackend {
    threads: Threads,
    decoder: Decoder,
}

/// What the threads work on.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) place: Place,
    pub(crate) spec: ModelSpec,
    pub(crate) weights: Weights,
    kv_type: KvType,
    cache: Option<Cache>,
    pub(crate) states: Option<States>,
    stage: Stage,
    pub(crate) state: State,
    memory: MemoryUse,
}

/// Where the decoder stands.
#[derive(Debug, Default)]
enum Stage {
    /// No step has begun, or one was given up.
    #[default]
    Idle,
    /// In a step without rows: its phases have nothing to do.
    Empty,
    /// In a step.
    Running(Box<Step>),
}

/// What one phase leaves for the next.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The residual stream, f32 `[rows, hidden]`.
    pub(crate) residual: Option<Tensor>,
    /// Queries, `[rows, heads, head_dim]`.
    queries: Option<Tensor>,
    /// Attention's output, `[rows, heads * head_dim]`.
    attended: Option<Tensor>,
    /// The rows whose logits are asked for, after the last norm.
    finished: Option<Tensor>,
}

impl CandleBackend {
    /// Loads the weights of `spec` onto `device`: `cpu`, `cuda`, `cuda:N` or `metal`.
    ///
    /// # Errors
    /// `Device` for a device that is missing, `OutOfMemory` with the figures before anything is taken,
    /// `InvalidRequest` for an option that Candle cannot honour, `Unsupported` for a spec that the
    /// forward pass has no form for, `Format` from the weights.
    pub fn load(
        spec: &ModelSpec,
        weights: &dyn WeightSource,
        device: &str,
        options: &LoadOptions,
    ) -> Result<Self> {
        let place = device::open(device)?;
        check::spec(spec)?;
        options.kv_type.map(formats::cached).transpose()?;
        let threads = Threads::new(&place.device, options.threads)?;
        let workspace = workspace(spec, options);
        let Loaded { weights, bytes, half } =
            threads.run(|| loader::load(&place, spec, weights, options, workspace))?;
        let kv_type = options.kv_type.unwrap_or(match half {
            DType::BF16 => KvType::BF16,
            _ => KvType::F16,
        });
        let decoder = Decoder {
            place,
            spec: spec.clone(),
            weights,
            kv_type,
            cache: None,
            states: None,
            stage: Stage::Idle,
            state: State::default(),
            memory: MemoryUse { weights: bytes, kv: 0, workspace },
        };
        Ok(Self { threads, decoder })
    }
}

/// Bytes that the tensors between phases take at the most.
fn workspace(spec: &ModelSpec, options: &LoadOptions) -> u64 {
    let widest = spec.layers.iter().map(|layer| {
        let a = &layer.attention;
        let attention = 3 * (a.num_heads + 2 * a.num_kv_heads) * a.head_dim;
        let mlp = match &layer.mlp {
            MlpSpec::Dense { ff_dim, .. } | MlpSpec::Plain { ff_dim, .. } => 3 * ff_dim,
            MlpSpec::Moe(moe) => 3 * moe.ff_dim,
            _ => 0,
        };
        attention.max(mlp)
    });
    let row = 4 * spec.hidden_dim + widest.max().unwrap_or(0);
    let rows = (options.max_rows as u64).saturating_mul(row as u64);
    let logits =
        (options.max_logit_rows.saturating_mul(spec.vocab_size)).min(LOGIT_VALUES.max(spec.vocab_size));
    // scores live thrice: before the softmax, in it and after it
    let values = rows.saturating_add(3 * SCORE_VALUES as u64).saturating_add(logits as u64);
    values.saturating_mul(4)
}

impl Backend for CandleBackend {
    fn device(&self) -> &str {
        &self.decoder.place.name
    }

    fn kv_type(&self) -> KvType {
        self.decoder.kv_type
    }

    fn threads(&self) -> usize {
        self.threads.count()
    }

    fn memory(&self) -> MemoryUse {
        self.decoder.memory
    }

    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()> {
        let decoder = &mut self.decoder;
        if decoder.cache.is_some() {
            return Err(Error::internal("the KV cache was reserved before"));
        }
        let cache = Cache::reserve(&decoder.place, &decoder.spec, decoder.kv_type, blocks)?;
        decoder.memory.kv = cache.bytes();
        decoder.cache = Some(cache);
        Ok(())
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        let decoder = &mut self.decoder;
        decoder.state = State::default();
        decoder.stage = Stage::Idle;
        let cache = decoder.cache.as_ref().ok_or_else(|| Error::internal("no KV cache was reserved"))?;
        decoder.stage = if batch.tokens.is_empty() && batch.sequences.is_empty() {
            Stage::Empty
        } else {
            let slots = decoder.states.as_ref().map_or(0, |states| states.slots);
            Stage::Running(Box::new(Step::new(&decoder.place, &decoder.spec, cache, slots, batch)?))
        };
        Ok(())
    }

    fn embed(&mut self) -> Result<()> {
        self.phase(|decoder, step| decoder.embed(step))
    }

    fn qkv(&mut self, layer: usize) -> Result<()> {
        self.phase(|decoder, step| decoder.qkv(step, layer))
    }

    fn attend(&mut self, layer: usize) -> Result<()> {
        self.phase(|decoder, step| decoder.attend(step, layer))
    }

    fn output(&mut self, layer: usize) -> Result<()> {
        self.phase(|decoder, _| decoder.output(layer))
    }

    fn cross(&mut self, layer: usize) -> Result<()> {
        self.phase(|decoder, step| decoder.cross(step, layer))
    }

    fn reserve_states(&mut self, slots: usize, len: usize) -> Result<()> {
        let decoder = &mut self.decoder;
        if !decoder.spec.has_cross() || decoder.states.is_some() {
            return Err(Error::internal("the model has no cross attention, or has its slots"));
        }
        let states = States::reserve(&decoder.place, &decoder.spec, decoder.kv_type, slots, len)?;
        decoder.memory.kv += states.bytes;
        decoder.states = Some(states);
        Ok(())
    }

    fn put_states(&mut self, slot: usize, states: &[f32]) -> Result<()> {
        let Self { threads, decoder } = self;
        threads.run(|| decoder.put_states(slot, states))
    }

    fn watched(&mut self) -> Result<Vec<f32>> {
        let states = self.decoder.states.as_mut();
        Ok(states.map(|states| std::mem::take(&mut states.watched)).unwrap_or_default())
    }

    fn hidden(&mut self, out: &mut [f32]) -> Result<()> {
        self.phase(|decoder, step| decoder.hidden(step, out))
    }

    fn mlp(&mut self, layer: usize) -> Result<()> {
        self.phase(|decoder, step| {
            decoder.mlp(layer)?;
            decoder.add_deeper(step, layer)
        })
    }

    fn final_norm(&mut self) -> Result<()> {
        self.phase(|decoder, step| decoder.final_norm(step))
    }

    fn logits(&mut self, out: &mut [f32]) -> Result<()> {
        self.phase(|decoder, step| decoder.logits(step, out))
    }

    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        let Decoder { spec, cache, place, .. } = &self.decoder;
        let (Some(cache), Some(group_spec)) = (cache, spec.kv_groups.get(group)) else {
            return Err(Error::internal(format!("no KV cache of group {group}")));
        };
        let blocks = cache.blocks(group);
        if let Some(pair) = pairs.iter().find(|(from, to)| (*from).max(*to) as usize >= blocks) {
            return Err(Error::internal(format!("blocks {pair:?} of {blocks} in group {group}")));
        }
        cache.copy(&group_spec.layers, pairs).map_err(|e| place.fault(e))
    }

    fn read_block(&self, group: usize, block: BlockId, out: &mut Vec<u8>) -> Result<()> {
        let Decoder { spec, cache, place, .. } = &self.decoder;
        let (Some(cache), Some(group_spec)) = (cache, spec.kv_groups.get(group)) else {
            return Err(Error::internal(format!("no KV cache of group {group}")));
        };
        if block as usize >= cache.blocks(group) {
            return Err(Error::internal(format!(
                "block {block} of {} in group {group}",
                cache.blocks(group)
            )));
        }
        cache.read_block(&group_spec.layers, block, out).map_err(|e| place.fault(e))
    }

    fn write_block(&mut self, group: usize, block: BlockId, bytes: &[u8]) -> Result<()> {
        let Decoder { spec, cache, place, .. } = &self.decoder;
        let (Some(cache), Some(group_spec)) = (cache, spec.kv_groups.get(group)) else {
            return Err(Error::internal(format!("no KV cache of group {group}")));
        };
        if block as usize >= cache.blocks(group) {
            return Err(Error::internal(format!(
                "block {block} of {} in group {group}",
                cache.blocks(group)
            )));
        }
        let wanted = cache.block_bytes(&group_spec.layers);
        if bytes.len() != wanted {
            return Err(Error::invalid("block", format!("has {} bytes, a block has {wanted}", bytes.len())));
        }
        cache.write_block(&group_spec.layers, block, bytes).map_err(|e| place.fault(e))
    }
}

impl CandleBackend {
    /// Runs a phase of the step that has begun, on the threads. A phase that fails gives the step up.
    fn phase(&mut self, work: impl FnOnce(&mut Decoder, &mut Step) -> Result<()> + Send) -> Result<()> {
        let Self { threads, decoder } = self;
        match std::mem::take(&mut decoder.stage) {
            Stage::Idle => Err(out_of_order()),
            Stage::Empty => {
                decoder.stage = Stage::Empty;
                Ok(())
            }
            Stage::Running(mut step) => {
                threads.run(|| work(decoder, &mut step))?;
                decoder.stage = Stage::Running(step);
                Ok(())
            }
        }
    }
}

impl Decoder {
    fn embed(&mut self, step: &Step) -> Result<()> {
        let fault = |e| self.place.fault(e);
        let hidden = self.spec.hidden_dim;
        let rows = self.weights.embedding.rows(&step.tokens);
        let rows = rows.and_then(|rows| rows * f64::from(self.spec.embedding_scale)).map_err(fault)?;
        let rows = match (&self.weights.positions, &step.places) {
            (Some(table), Some(places)) => {
                table.index_select(places, 0).and_then(|positions| rows + positions).map_err(fault)?
            }
            _ => rows,
        };
        for span in &step.embeds {
            let values = &span.values[span.rows.start * hidden..span.rows.end * hidden];
            if !values.is_empty() {
                Tensor::from_slice(values, (span.rows.len(), hidden), &self.place.device)
                    .and_then(|values| rows.slice_set(&values, 0, span.first_row))
                    .map_err(fault)?;
            }
        }
        self.state.residual = Some(rows);
        Ok(())
    }

    fn qkv(&mut self, step: &Step, layer: usize) -> Result<()> {
        let residual = left(&mut self.state.residual)?;
        let result = self.project(step, layer, &residual);
        self.state.residual = Some(residual);
        self.state.queries = Some(result.map_err(|e| self.place.fault(e))?);
        Ok(())
    }

    /// Queries of `layer`; keys and values go into the cache.
    fn project(&self, step: &Step, layer: usize, residual: &Tensor) -> candle_core::Result<Tensor> {
        let (spec, weights) = (&self.spec.layers[layer], &self.weights.layers[layer]);
        let a = &spec.attention;
        let x = match &weights.attention_norm {
            Some(norm) => norm.forward(residual, self.spec.norm_eps)?,
            None => residual.clone(),
        };
        let heads = |x: &Tensor, heads: usize, weight: Option<&Tensor>| {
            let split = |x: &Tensor| x.reshape((step.rows, heads, a.head_dim));
            let x = match weight {
                None => split(x)?,
                Some(w) if a.qk_norm == QkNorm::PerHead => norm::rms(&split(x)?, w, self.spec.norm_eps)?,
                Some(w) => split(&norm::rms(x, w, self.spec.norm_eps)?)?,
            };
            match a.rope {
                Some(rope) => step.turns[rope].apply(&x),
                None => Ok(x),
            }
        };
        let q = heads(&weights.q.forward(&x)?, a.num_heads, weights.q_norm.as_ref())?;
        let k = heads(&weights.k.forward(&x)?, a.num_kv_heads, weights.k_norm.as_ref())?;
        let v = weights.v.forward(&x)?;
        if let Some(cache) = &self.cache {
            cache.write(layer, &step.slots[spec.kv_group], &k.flatten_from(1)?, &v)?;
        }
        Ok(q)
    }

    fn attend(&mut self, step: &mut Step, layer: usize) -> Result<()> {
        let queries = left(&mut self.state.queries)?;
        let Some(cache) = &self.cache else { return Err(Error::internal("no KV cache was reserved")) };
        let spec = &self.spec.layers[layer];
        let attention = Attention {
            spec: &spec.attention,
            sinks: self.weights.layers[layer].sinks.as_ref(),
            cache,
            layer,
            group: spec.kv_group,
        };
        self.state.attended = Some(attention.run(&queries, step).map_err(|e| self.place.fault(e))?);
        Ok(())
    }

    fn output(&mut self, layer: usize) -> Result<()> {
        let attended = left(&mut self.state.attended)?;
        let weights = &self.weights.layers[layer];
        let out = weights.o.forward(&attended).map_err(|e| self.place.fault(e))?;
        self.state.residual = Some(self.add(&out, weights.attention_post_norm.as_ref())?);
        Ok(())
    }

    fn mlp(&mut self, layer: usize) -> Result<()> {
        let (spec, weights) = (&self.spec.layers[layer], &self.weights.layers[layer]);
        let residual = self.state.residual.as_ref().ok_or_else(out_of_order)?;
        let x = match &weights.mlp_norm {
            Some(norm) => norm.forward(residual, self.spec.norm_eps).map_err(|e| self.place.fault(e))?,
            None => residual.clone(),
        };
        let out = match (&weights.mlp, &spec.mlp) {
            (Mlp::Dense(mlp), _) => mlp.forward(&self.place, &x)?,
            (Mlp::Plain { up, down, activation: kind }, _) => {
                let inner = up.forward(&x).map_err(|e| self.place.fault(e))?;
                let inner = activation::plain(&self.place, *kind, &inner)?;
                down.forward(&inner).map_err(|e| self.place.fault(e))?
            }
            (Mlp::Moe { router, experts }, MlpSpec::Moe(moe)) => {
                experts::forward(&self.place, moe, router, experts, &x)?
            }
            _ => return Err(Error::internal("a mixture of experts was loaded for a dense MLP")),
        };
        self.state.residual = Some(self.add(&out, weights.mlp_post_norm.as_ref())?);
        Ok(())
    }

    /// What spliced rows add to the residual stream behind `layer`.
    fn add_deeper(&self, step: &Step, layer: usize) -> Result<()> {
        let residual = self.state.residual.as_ref().ok_or_else(out_of_order)?;
        let hidden = self.spec.hidden_dim;
        for span in &step.embeds {
            let Some(values) = span.deeper.get(layer) else { continue };
            let values = &values[span.rows.start * hidden..span.rows.end * hidden];
            let add = || {
                let values = Tensor::from_slice(values, (span.rows.len(), hidden), &self.place.device)?;
                let rows = residual.narrow(0, span.first_row, span.rows.len())?;
                residual.slice_set(&(rows + values)?, 0, span.first_row)
            };
            if !values.is_empty() {
                add().map_err(|e| self.place.fault(e))?;
            }
        }
        Ok(())
    }

    /// The residual stream plus what a block adds to it.
    pub(crate) fn add(&self, out: &Tensor, post_norm: Option<&Tensor>) -> Result<Tensor> {
        let residual = self.state.residual.as_ref().ok_or_else(out_of_order)?;
        let sum = || {
            let out = match post_norm {
                Some(norm) => norm::rms(out, norm, self.spec.norm_eps)?,
                None => out.clone(),
            };
            match self.spec.residual_scale {
                1.0 => residual + out,
                scale => residual + (out * f64::from(scale))?,
            }
        };
        sum().map_err(|e| self.place.fault(e))
    }

    fn final_norm(&mut self, step: &Step) -> Result<()> {
        let residual = left(&mut self.state.residual)?;
        if let Some(wanted) = &step.logit_rows {
            let rows = residual.index_select(wanted, 0);
            let rows = rows.and_then(|rows| self.weights.final_norm.forward(&rows, self.spec.norm_eps));
            self.state.finished = Some(rows.map_err(|e| self.place.fault(e))?);
        }
        Ok(())
    }

    /// The residual stream of the asked rows, on the host.
    fn hidden(&mut self, step: &Step, out: &mut [f32]) -> Result<()> {
        let residual = left(&mut self.state.residual)?;
        let Some(wanted) = &step.logit_rows else { return Ok(()) };
        let rows = residual.index_select(wanted, 0).and_then(|rows| rows.flatten_all()?.to_vec1::<f32>());
        let rows = rows.map_err(|e| self.place.fault(e))?;
        if rows.len() != out.len() {
            return Err(Error::internal(format!("room for {} numbers of {}", out.len(), rows.len())));
        }
        out.copy_from_slice(&rows);
        Ok(())
    }

    fn logits(&mut self, step: &Step, out: &mut [f32]) -> Result<()> {
        let vocab = self.spec.vocab_size;
        if out.len() != step.num_logit_rows * vocab {
            return Err(Error::internal(format!(
                "room for {} logits of {}",
                out.len(),
                step.num_logit_rows * vocab
            )));
        }
        if step.logit_rows.is_none() {
            return Ok(());
        }
        let rows = left(&mut self.state.finished)?;
        let piece = (LOGIT_VALUES / vocab).max(1);
        for (i, out) in out.chunks_mut(piece * vocab).enumerate() {
            let rows = rows.narrow(0, i * piece, out.len() / vocab);
            let logits = rows.and_then(|rows| self.head(&rows)).map_err(|e| self.place.fault(e))?;
            out.copy_from_slice(&logits);
        }
        Ok(())
    }

    /// The logits of `rows`, on the host.
    fn head(&self, rows: &Tensor) -> candle_core::Result<Vec<f32>> {
        let mut logits = self.weights.head.product(rows)?;
        if let Some(bias) = &self.weights.head_bias {
            logits = logits.broadcast_add(bias)?;
        }
        if self.spec.logit_scale != 1.0 {
            logits = (logits * f64::from(self.spec.logit_scale))?;
        }
        if let Some(cap) = self.spec.logit_softcap.map(f64::from) {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        logits.flatten_all()?.to_vec1()
    }
}

/// What an earlier phase left.
pub(crate) fn left(slot: &mut Option<Tensor>) -> Result<Tensor> {
    slot.take().ok_or_else(out_of_order)
}

fn out_of_order() -> Error {
    Error::internal("a phase was called out of its order")
}
