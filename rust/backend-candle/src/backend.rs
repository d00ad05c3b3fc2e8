//! The phases of a decoder.

use alloyforge_interfaces::{Backend, LoadOptions, MemoryUse, WeightSource};
use alloyforge_types::{
    Batch, BlockId, DrawnToken, Error, KvType, MlpSpec, ModelSpec, QkNorm, Result, TokenDraw,
};
use candle_core::{DType as CandleType, Tensor};

use crate::attention::{Attention, SCORE_VALUES};
use crate::cache::Cache;
use crate::fault::Place;
use crate::fused::{AddNorm, Attend, Fused, Turned, Vectors};
use crate::layer::{Linear, Mlp, Weights};
use crate::loader::Loaded;
use crate::matrix::Matrix;
use crate::norm::Norm;
use crate::rope::Known;
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
    /// Dropped behind the tensors.
    _release: device::Release,
}

/// What the threads work on.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) place: Place,
    pub(crate) spec: ModelSpec,
    pub(crate) weights: Weights,
    /// Our own kernels, where the device runs them.
    fused: Option<Fused>,
    /// The type of rows between products.
    compute: CandleType,
    /// What is known of each rotary embedding of the spec.
    known: Vec<Known>,
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
    /// Its norm before the next block, where the phase before has made it.
    normed: Option<Tensor>,
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
        let Loaded { weights, bytes, kv_type, compute } =
            threads.run(|| loader::load(&place, spec, weights, options, workspace))?;
        let fused = Fused::new(&place, spec, formats::cached(kv_type)?)?;
        let release = device::Release(place.device.clone());
        let decoder = Decoder {
            place,
            fused,
            compute: formats::plain(compute),
            known: spec.ropes.iter().map(|_| Known::default()).collect(),
            spec: spec.clone(),
            weights,
            kv_type,
            cache: None,
            states: None,
            stage: Stage::Idle,
            state: State::default(),
            memory: MemoryUse { weights: bytes, kv: 0, workspace },
        };
        Ok(Self { threads, decoder, _release: release })
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

    fn free_memory(&self) -> Option<u64> {
        if self.decoder.place.device.is_cpu() { None } else { self.decoder.room() }
    }

    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()> {
        let decoder = &mut self.decoder;
        if decoder.cache.is_some() {
            return Err(Error::internal("the KV cache was reserved before"));
        }
        let cache = Cache::reserve(&decoder.place, &decoder.spec, decoder.kv_type, blocks, decoder.room())?;
        decoder.memory.kv = cache.bytes();
        decoder.cache = Some(cache);
        Ok(())
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        let decoder = &mut self.decoder;
        decoder.state = State::default();
        decoder.stage = Stage::Idle;
        let Decoder { place, spec, cache, states, known, fused, .. } = decoder;
        let cache = cache.as_ref().ok_or_else(|| Error::internal("no KV cache was reserved"))?;
        decoder.stage = if batch.tokens.is_empty() && batch.sequences.is_empty() {
            Stage::Empty
        } else {
            let slots = states.as_ref().map_or(0, |states| states.slots);
            let step = Step::new(place, spec, cache, slots, known, fused.is_some(), batch)?;
            Stage::Running(Box::new(step))
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
        let states = States::reserve(&decoder.spec, decoder.kv_type, slots, len, decoder.room())?;
        decoder.memory.kv += states.bytes;
        decoder.states = Some(states);
        Ok(())
    }

    fn put_states(&mut self, slot: usize, states: &[f32]) -> Result<()> {
        let Self { threads, decoder, .. } = self;
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

    fn can_draw(&self) -> bool {
        self.decoder.fused.is_some()
    }

    fn draw(&mut self, draws: &[TokenDraw]) -> Result<Vec<DrawnToken>> {
        let mut tokens = Vec::new();
        self.phase(|decoder, step| {
            tokens = decoder.draw(step, draws)?;
            Ok(())
        })?;
        Ok(tokens)
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
        let Self { threads, decoder, .. } = self;
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
    /// Bytes that may still be taken for good, where that is known: what passes between phases keeps its
    /// room.
    fn room(&self) -> Option<u64> {
        Some(device::available(&self.place.device)?.saturating_sub(self.memory.workspace))
    }

    fn embed(&mut self, step: &Step) -> Result<()> {
        let fault = |e| self.place.fault(e);
        let hidden = self.spec.hidden_dim;
        let tokens = step.words.view(&step.tokens).map_err(fault)?;
        let ours = match (&self.fused, &self.weights.embedding) {
            (Some(fused), Matrix::Dense(table)) => fused.rows(table, &tokens, self.spec.embedding_scale),
            _ => Ok(None),
        };
        let rows = match ours.map_err(fault)? {
            Some(rows) => rows,
            None => {
                let rows = self.weights.embedding.rows(&tokens);
                rows.and_then(|rows| rows * f64::from(self.spec.embedding_scale)).map_err(fault)?
            }
        };
        let rows = match (&self.weights.positions, &step.places) {
            (Some(table), Some(places)) => {
                let positions = step.words.view(places).and_then(|places| table.index_select(&places, 0));
                positions.and_then(|positions| rows + positions).map_err(fault)?
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

    fn qkv(&mut self, step: &mut Step, layer: usize) -> Result<()> {
        let norm = self.weights.layers[layer].attention_norm.as_ref();
        let x = match self.state.normed.take() {
            Some(x) => x,
            None => self.normed(self.residual()?, norm)?,
        };
        self.state.queries = Some(self.project(step, layer, &x).map_err(|e| self.place.fault(e))?);
        Ok(())
    }

    fn residual(&self) -> Result<&Tensor> {
        self.state.residual.as_ref().ok_or_else(out_of_order)
    }

    /// The norm of `rows` of the residual stream, of the type of products.
    fn normed(&self, rows: &Tensor, norm: Option<&Norm>) -> Result<Tensor> {
        let (eps, out) = (self.spec.norm_eps, self.compute);
        let normed = || {
            if let (Some(fused), Some(Norm::Rms(weight))) = (&self.fused, norm) {
                let weight = Some(weight);
                let x = AddNorm { residual: rows, added: None, post: None, scale: 1.0, weight, out, eps };
                if let Some(normed) = fused.add_norm(&x)? {
                    return Ok(normed);
                }
            }
            match norm {
                Some(norm) => norm.forward(rows, eps)?.to_dtype(out),
                None => rows.to_dtype(out),
            }
        };
        normed().map_err(|e| self.place.fault(e))
    }

    /// Queries of `layer`; keys and values go into the cache.
    fn project(&self, step: &mut Step, layer: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        let (spec, weights) = (&self.spec.layers[layer], &self.weights.layers[layer]);
        let a = &spec.attention;
        let fused = self.fused.as_ref().filter(|fused| fused.attends(spec));
        if let (Some(fused), Some(cache)) = (fused, &self.cache)
            && a.qk_norm != QkNorm::FullWidth
        {
            let product = |linear: &Linear| linear.product_with(Some(fused), x);
            let (q, k, v) = (product(&weights.q)?, product(&weights.k)?, product(&weights.v)?);
            let (keys, values) = cache.pools(layer);
            let slots = step.slots[spec.kv_group].column(&step.words)?;
            let angles = match a.rope {
                Some(rope) => Some(step.words.view(step.turns[rope].told().2)?),
                None => None,
            };
            let turn = a.rope.zip(angles.as_ref()).map(|(rope, angles)| {
                let (cos, sin, _, dim, layout) = step.turns[rope].told();
                Turned { cos, sin, angles, dim, layout }
            });
            return fused.vectors(&Vectors {
                spec: a,
                products: [&q, &k, &v],
                biases: [weights.q.bias.as_ref(), weights.k.bias.as_ref(), weights.v.bias.as_ref()],
                norms: [weights.q_norm.as_ref(), weights.k_norm.as_ref()],
                turn,
                eps: self.spec.norm_eps,
                keys,
                values,
                slots: &slots,
            });
        }
        let rows = step.rows;
        let mut heads = |x: &Tensor, heads: usize, weight: Option<&Tensor>| {
            let x = &x.to_dtype(CandleType::F32)?;
            let split = |x: &Tensor| x.reshape((rows, heads, a.head_dim));
            let x = match weight {
                None => split(x)?,
                Some(w) if a.qk_norm == QkNorm::PerHead => norm::rms(&split(x)?, w, self.spec.norm_eps)?,
                Some(w) => split(&norm::rms(x, w, self.spec.norm_eps)?)?,
            };
            match a.rope {
                Some(rope) => step.turns[rope].apply(&x, &step.words),
                None => Ok(x),
            }
        };
        let q = heads(&weights.q.forward(x)?, a.num_heads, weights.q_norm.as_ref())?;
        let k = heads(&weights.k.forward(x)?, a.num_kv_heads, weights.k_norm.as_ref())?;
        let v = weights.v.forward(x)?;
        if let Some(cache) = &self.cache {
            cache.write(layer, &step.slots[spec.kv_group], &k.flatten_from(1)?, &v, &step.words)?;
        }
        Ok(q)
    }

    fn attend(&mut self, step: &mut Step, layer: usize) -> Result<()> {
        let queries = left(&mut self.state.queries)?;
        let Some(cache) = &self.cache else { return Err(Error::internal("no KV cache was reserved")) };
        let spec = &self.spec.layers[layer];
        let sinks = self.weights.layers[layer].sinks.as_ref();
        let fused = self.fused.as_ref().filter(|fused| fused.attends(spec));
        if let (Some(fused), Some(plan)) = (fused, &step.plan) {
            let (keys, values) = cache.pools(layer);
            let attend = || {
                let queries = &queries.to_dtype(keys.dtype())?.contiguous()?;
                let (group, out) = (spec.kv_group, self.compute);
                let x = Attend { spec: &spec.attention, group, queries, keys, values, sinks, out };
                fused.attend(&x, plan, &step.words)
            };
            self.state.attended = Some(attend().map_err(|e| self.place.fault(e))?);
            return Ok(());
        }
        let attention =
            Attention { spec: &spec.attention, sinks, cache, layer, group: spec.kv_group, out: self.compute };
        self.state.attended = Some(attention.run(&queries, step).map_err(|e| self.place.fault(e))?);
        Ok(())
    }

    fn output(&mut self, layer: usize) -> Result<()> {
        let attended = left(&mut self.state.attended)?;
        let weights = &self.weights.layers[layer];
        let out = weights.o.forward_with(self.fused.as_ref(), &attended).map_err(|e| self.place.fault(e))?;
        // another block stands between where a layer attends to an encoder's states
        let next = if weights.cross.is_some() { None } else { weights.mlp_norm.as_ref() };
        let sum = self.add_then(&out, weights.attention_post_norm.as_ref(), next)?;
        (self.state.residual, self.state.normed) = sum;
        Ok(())
    }

    fn mlp(&mut self, layer: usize) -> Result<()> {
        let (spec, weights) = (&self.spec.layers[layer], &self.weights.layers[layer]);
        let x = match self.state.normed.take() {
            Some(x) => x,
            None => self.normed(self.residual()?, weights.mlp_norm.as_ref())?,
        };
        let fused = self.fused.as_ref();
        let out = match (&weights.mlp, &spec.mlp) {
            (Mlp::Dense(mlp), _) => mlp.forward(&self.place, fused, &x)?,
            (Mlp::Plain { up, down, activation: kind }, _) => {
                let inner = up.forward(&x).map_err(|e| self.place.fault(e))?;
                let inner = activation::plain(&self.place, *kind, &inner)?;
                down.forward(&inner).map_err(|e| self.place.fault(e))?
            }
            (Mlp::Moe { router, experts }, MlpSpec::Moe(moe)) => {
                experts::forward(&self.place, fused, moe, router, experts, &x)?
            }
            _ => return Err(Error::internal("a mixture of experts was loaded for a dense MLP")),
        };
        let next = self.weights.layers.get(layer + 1).and_then(|layer| layer.attention_norm.as_ref());
        (self.state.residual, self.state.normed) =
            self.add_then(&out, weights.mlp_post_norm.as_ref(), next)?;
        Ok(())
    }

    /// What spliced rows add to the residual stream behind `layer`.
    fn add_deeper(&mut self, step: &Step, layer: usize) -> Result<()> {
        if step.embeds.iter().any(|span| span.deeper.len() > layer) {
            // the norm was that of the stream before
            self.state.normed = None;
        }
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

    /// The residual stream plus what a block adds to it, and where our kernels make both at once, the norm
    /// of the sum before the next block.
    fn add_then(
        &self,
        out: &Tensor,
        post: Option<&Tensor>,
        next: Option<&Norm>,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let weight = match next {
            Some(Norm::Rms(weight)) => Some(weight),
            _ => None,
        };
        if let Some(fused) = self.fused.as_ref().filter(|_| out.dtype() == self.compute) {
            let residual = self.residual()?;
            let scale = self.spec.residual_scale;
            let (added, eps) = (Some(out), self.spec.norm_eps);
            let x = AddNorm { residual, added, post, scale, weight, out: self.compute, eps };
            if let Some(normed) = fused.add_norm(&x).map_err(|e| self.place.fault(e))? {
                return Ok((Some(residual.clone()), weight.map(|_| normed)));
            }
        }
        Ok((Some(self.add(out, post)?), None))
    }

    /// The residual stream plus what a block adds to it.
    pub(crate) fn add(&self, out: &Tensor, post_norm: Option<&Tensor>) -> Result<Tensor> {
        let residual = self.state.residual.as_ref().ok_or_else(out_of_order)?;
        let sum = || {
            let out = out.to_dtype(CandleType::F32)?;
            let out = match post_norm {
                Some(norm) => norm::rms(&out, norm, self.spec.norm_eps)?,
                None => out,
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
            let rows = step.words.view(wanted).and_then(|wanted| residual.index_select(&wanted, 0));
            let rows = rows.map_err(|e| self.place.fault(e))?;
            self.state.finished = Some(self.normed(&rows, Some(&self.weights.final_norm))?);
        }
        Ok(())
    }

    /// The residual stream of the asked rows, on the host.
    fn hidden(&mut self, step: &Step, out: &mut [f32]) -> Result<()> {
        let residual = left(&mut self.state.residual)?;
        let Some(wanted) = &step.logit_rows else { return Ok(()) };
        let rows = step.words.view(wanted).and_then(|wanted| residual.index_select(&wanted, 0));
        let rows = rows.and_then(|rows| rows.flatten_all()?.to_vec1::<f32>());
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
            let logits = rows
                .and_then(|rows| self.head(&rows)?.flatten_all()?.to_vec1())
                .map_err(|e| self.place.fault(e))?;
            out.copy_from_slice(&logits);
        }
        Ok(())
    }

    /// Tokens drawn from the logits of the asked rows, where those are.
    fn draw(&mut self, step: &Step, draws: &[TokenDraw]) -> Result<Vec<DrawnToken>> {
        let Some(fused) = &self.fused else { return Err(Error::internal("this device draws no tokens")) };
        if draws.iter().any(|draw| draw.row >= step.num_logit_rows) {
            return Err(Error::internal("a draw from a row that was not asked for"));
        }
        let rows = left(&mut self.state.finished)?;
        let piece = (LOGIT_VALUES / self.spec.vocab_size).max(1);
        let mut tokens = vec![DrawnToken::NoToken; draws.len()];
        for first in (0..step.num_logit_rows).step_by(piece) {
            let len = piece.min(step.num_logit_rows - first);
            let here = (0..draws.len()).filter(|&i| (first..first + len).contains(&draws[i].row));
            let here: Vec<usize> = here.collect();
            if here.is_empty() {
                continue;
            }
            let mine: Vec<TokenDraw> =
                here.iter().map(|&i| TokenDraw { row: draws[i].row - first, ..draws[i] }).collect();
            let drawn = rows.narrow(0, first, len).and_then(|rows| fused.draw(&self.head(&rows)?, &mine));
            for (i, token) in here.into_iter().zip(drawn.map_err(|e| self.place.fault(e))?) {
                tokens[i] = token;
            }
        }
        Ok(tokens)
    }

    /// The logits of `rows`, f32.
    fn head(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let ours = match (&self.fused, &self.weights.head) {
            (Some(fused), Matrix::Dense(head)) => fused.product(rows, head, CandleType::F32)?,
            _ => None,
        };
        let mut logits = match ours {
            Some(logits) => logits,
            None => self.weights.head.product(rows)?.to_dtype(CandleType::F32)?,
        };
        if let Some(bias) = &self.weights.head_bias {
            logits = logits.broadcast_add(bias)?;
        }
        if self.spec.logit_scale != 1.0 {
            logits = (logits * f64::from(self.spec.logit_scale))?;
        }
        if let Some(cap) = self.spec.logit_softcap.map(f64::from) {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        Ok(logits)
    }
}

/// What an earlier phase left.
pub(crate) fn left(slot: &mut Option<Tensor>) -> Result<Tensor> {
    slot.take().ok_or_else(out_of_order)
}

fn out_of_order() -> Error {
    Error::internal("a phase was called out of its order")
}
