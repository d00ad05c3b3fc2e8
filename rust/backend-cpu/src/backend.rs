//! The backend itself: what is loaded, and the phases in their order.

use std::sync::Arc;

use alloyforge_interfaces::{Backend, LoadOptions, MemoryUse, WeightSource};
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::topology;
use alloyforge_types::{Batch, BlockId, Error, KvType, ModelSpec, Result};

use crate::cache::Cache;
use crate::check;
use crate::layer::Layer;
use crate::loader::{self, Weights};
use crate::phases::{Context, attention, cross, ends, mlp};
use crate::rope::Rope;
use crate::states::States;
use crate::step::{Limits, Step};
use crate::workspace::Workspace;

/// A decoder on the processor.
#[derive(Debug)]
pub struct CpuBackend {
    spec: ModelSpec,
    isa: Isa,
    pool: Arc<Pool>,
    limits: Limits,
    weights: Weights,
    ropes: Vec<Rope>,
    cache: Cache,
    states: States,
    step: Step,
    workspace: Workspace,
}

impl CpuBackend {
    /// Loads the model that `spec` describes. What `weights` lends is copied, so its file may be
    /// closed afterwards.
    ///
    /// The cache is f16 where the options do not say; matrices stay as the file has them.
    ///
    /// # Errors
    /// `Unsupported` for what the spec asks and this backend does not know; `InvalidRequest` for a count
    /// of threads or a type to quantise to that cannot be; `OutOfMemory`; what `weights` gives;
    /// `Internal` for a spec that contradicts itself.
    pub fn load(spec: &ModelSpec, weights: &dyn WeightSource, options: &LoadOptions) -> Result<Self> {
        Self::load_for(spec, weights, options, Isa::detect())
    }

    /// As [`load`](Self::load), on an instruction set of the caller's choice.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(
        spec: &ModelSpec,
        weights: &dyn WeightSource,
        options: &LoadOptions,
        isa: Isa,
    ) -> Result<Self> {
        check::spec(spec)?;
        let pool = Pool::shared(options.threads.unwrap_or_else(topology::physical_cores))?;
        let kv_type = options.kv_type.unwrap_or(KvType::F16);
        // first, because afterwards every width of the spec is one that the file really has
        let weights = loader::load(spec, weights, options, kv_type, &pool, isa)?;
        let ropes: Vec<Rope> = spec.ropes.iter().map(Rope::new).collect();
        if let Some(i) = ropes.iter().position(|rope| !rope.is_complete()) {
            return Err(Error::internal(format!("model spec: rope {i} lacks frequencies")));
        }
        let limits = Limits { max_rows: options.max_rows, max_logit_rows: options.max_logit_rows };
        let workspace = Workspace::new(spec, limits, &ropes, pool.threads())?;
        Ok(Self {
            spec: spec.clone(),
            isa,
            pool,
            limits,
            weights,
            ropes,
            cache: Cache::new(spec, kv_type)?,
            states: States::new(spec, kv_type)?,
            step: Step::default(),
            workspace,
        })
    }

    /// The instruction set that the kernels use, by name.
    pub fn instruction_set(&self) -> &'static str {
        self.isa.name()
    }

    /// A layer with everything that its phases touch.
    fn parts(&mut self, layer: usize) -> Result<(&Layer, Context<'_>)> {
        let layer = self
            .weights
            .layers
            .get(layer)
            .ok_or_else(|| Error::internal(format!("layer {layer} of {}", self.spec.layers.len())))?;
        let context = Context {
            spec: &self.spec,
            isa: self.isa,
            pool: &self.pool,
            ropes: &self.ropes,
            cache: &mut self.cache,
            states: &mut self.states,
            step: &self.step,
            work: &mut self.workspace,
        };
        Ok((layer, context))
    }

    /// Everything that a phase outside the layers touches.
    fn whole(&mut self) -> (&Weights, Context<'_>) {
        let context = Context {
            spec: &self.spec,
            isa: self.isa,
            pool: &self.pool,
            ropes: &self.ropes,
            cache: &mut self.cache,
            states: &mut self.states,
            step: &self.step,
            work: &mut self.workspace,
        };
        (&self.weights, context)
    }
}

impl Backend for CpuBackend {
    fn device(&self) -> &str {
        "cpu"
    }

    fn kv_type(&self) -> KvType {
        self.cache.ty()
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse {
            weights: self.weights.bytes,
            kv: self.cache.bytes() + self.states.cache.bytes(),
            workspace: self.workspace.bytes(),
        }
    }

    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()> {
        self.cache.reserve(blocks)
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        if self.pool.is_stale() {
            // this is a child of the process that loaded the model
            self.pool = Pool::shared(self.pool.threads())?;
        }
        self.states.watched.clear();
        self.step.set(&self.spec, &self.cache, self.states.slots, self.limits, batch)?;
        ends::angles(&mut self.whole().1)
    }

    fn regroup(&mut self, batch: &Batch) -> Result<()> {
        if batch.tokens.len() != self.step.num_rows {
            return Err(Error::internal(format!(
                "{} rows for a step of {}",
                batch.tokens.len(),
                self.step.num_rows
            )));
        }
        self.begin(batch)
    }

    fn reserve_rows(&mut self, max_rows: usize, max_logit_rows: usize) -> Result<()> {
        let limits = Limits { max_rows, max_logit_rows };
        self.workspace = Workspace::new(&self.spec, limits, &self.ropes, self.pool.threads())?;
        self.limits = limits;
        // what was begun was computed in the old buffers
        self.step = Step::default();
        Ok(())
    }

    fn embed(&mut self) -> Result<()> {
        let (weights, mut context) = self.whole();
        ends::embed(&weights.embedding, weights.positions.as_deref(), &mut context)
    }

    fn qkv(&mut self, layer: usize) -> Result<()> {
        let (layer, mut context) = self.parts(layer)?;
        attention::qkv(layer, &mut context)
    }

    fn attend(&mut self, layer: usize) -> Result<()> {
        let (layer, mut context) = self.parts(layer)?;
        attention::attend(layer, &mut context)
    }

    fn output(&mut self, layer: usize) -> Result<()> {
        let (layer, mut context) = self.parts(layer)?;
        attention::output(layer, &mut context)
    }

    fn cross(&mut self, layer: usize) -> Result<()> {
        let (weights, mut context) = self.parts(layer)?;
        match &weights.cross {
            Some(weights) => cross::cross(weights, layer, &mut context),
            None => Err(Error::internal(format!("layer {layer} has no cross attention"))),
        }
    }

    fn reserve_states(&mut self, slots: usize, len: usize) -> Result<()> {
        if !self.spec.has_cross() {
            return Err(Error::internal("the model has no cross attention"));
        }
        self.states.reserve(slots, len)
    }

    fn put_states(&mut self, slot: usize, states: &[f32]) -> Result<()> {
        let wanted = self.states.len.checked_mul(self.spec.hidden_dim);
        if slot >= self.states.slots || wanted != Some(states.len()) {
            return Err(Error::internal(format!("{} numbers for slot {slot}", states.len())));
        }
        if self.pool.is_stale() {
            self.pool = Pool::shared(self.pool.threads())?;
        }
        let max_rows = self.limits.max_rows;
        for layer in 0..self.spec.layers.len() {
            let (weights, mut context) = self.parts(layer)?;
            if let Some(weights) = &weights.cross {
                cross::put(weights, slot, states, max_rows, &mut context)?;
            }
        }
        Ok(())
    }

    fn watched(&mut self) -> Result<Vec<f32>> {
        Ok(std::mem::take(&mut self.states.watched))
    }

    fn hidden(&mut self, out: &mut [f32]) -> Result<()> {
        ends::hidden(&mut self.whole().1, out)
    }

    fn mlp(&mut self, layer: usize) -> Result<()> {
        let (weights, mut context) = self.parts(layer)?;
        mlp::mlp(weights, &mut context)?;
        ends::add_deeper(layer, &mut context);
        Ok(())
    }

    fn final_norm(&mut self) -> Result<()> {
        let (weights, mut context) = self.whole();
        ends::final_norm(&weights.final_norm, &mut context)
    }

    fn logits(&mut self, out: &mut [f32]) -> Result<()> {
        let (weights, mut context) = self.whole();
        let head = weights.head.as_ref().unwrap_or(&weights.embedding);
        ends::logits(head, weights.head_bias.as_deref(), &mut context, out)
    }

    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        self.cache.copy(group, pairs)
    }

    fn read_block(&self, group: usize, block: BlockId, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(self.cache.block(group, block)?);
        Ok(())
    }

    fn write_block(&mut self, group: usize, block: BlockId, bytes: &[u8]) -> Result<()> {
        self.cache.fill_block(group, block, bytes)
    }
}
