//! An encoder of texts.

use alloyforge_interfaces::{TensorStore, TextEncoder, TowerLayers};
use alloyforge_types::{EncoderActivation, Error, HeadThen, Pooling, Result, TextSpec};
use candle_core::Tensor;

use super::ops;
use super::tower::{Rows, Tower};
use super::weights::{Linear, Norm, Weights};
use crate::device;
use crate::fault::Place;
use crate::threads::Threads;

/// Rows that are computed at a time on a processor: enough for every product to be a large one, few enough
/// that what passes from one phase to the next stays in the cache.
const CPU_ROWS: usize = 1024;

/// The same on a GPU, which wants more work at once.
const GPU_ROWS: usize = 4096;

/// An encoder of texts on a device that Candle drives.
#[derive(Debug)]
pub struct CandleTextEncoder {
    threads: Threads,
    place: Place,
    spec: TextSpec,
    embedding: Tensor,
    positions: Tensor,
    /// `[segments, width]`.
    segments: Option<Tensor>,
    norm: Option<Norm>,
    tower: Tower,
    head: Vec<Linear>,
    bytes: u64,
}

impl CandleTextEncoder {
    /// Loads the weights of `spec`, by this room's names, onto `device`. The blocks are computed by
    /// `layers`, where they are given: on the processor by faster kernels.
    ///
    /// # Errors
    /// `Format` for a tensor that is missing or of another shape, `OutOfMemory`, `Device`.
    pub fn load(
        spec: &TextSpec,
        store: &dyn TensorStore,
        device: &str,
        threads: Option<usize>,
        layers: Option<Box<dyn TowerLayers>>,
    ) -> Result<Self> {
        let place = device::open(device)?;
        let weights = Weights::new(store, &place);
        let width = spec.tower.width;
        let rows = spec.max_len.checked_add(spec.first_position);
        let rows = rows.ok_or_else(|| Error::internal("a table of positions that overflows"))?;
        let mut cols = width;
        let mut head = Vec::with_capacity(spec.head.len());
        for (i, part) in spec.head.iter().enumerate() {
            head.push(weights.linear(&format!("head.{i}"), part.dim, cols, part.has_bias)?);
            cols = part.dim;
        }
        let segments = spec.has_segments.then(|| {
            let rows = weights.num_rows("segment_embd.weight").unwrap_or(1);
            weights.tensor("segment_embd.weight", &[rows, width])
        });
        let segments = segments.transpose()?;
        let norm = spec
            .has_embedding_norm
            .then(|| weights.norm("embd_norm", spec.tower.norm, width, spec.tower.norm_eps));
        Ok(Self {
            embedding: weights.tensor("token_embd.weight", &[spec.vocab_size, width])?,
            positions: weights.tensor("position_embd.weight", &[rows, width])?,
            segments,
            norm: norm.transpose()?,
            tower: Tower::load(&spec.tower, &weights, layers)?,
            head,
            bytes: weights.bytes(),
            threads: Threads::new(&place.device, threads)?,
            spec: spec.clone(),
            place,
        })
    }

    /// The embeddings of texts that fit one pass, their rows one after another; the second segment begins
    /// at token `split` of each.
    fn pass(&self, texts: &[&[u32]], split: usize) -> Result<Vec<f32>> {
        let padded = |text: &[u32]| match self.spec.padded_with {
            Some(pad) => [text, &vec![pad; self.spec.max_len - text.len()]].concat(),
            None => text.to_vec(),
        };
        let texts: Vec<Vec<u32>> = texts.iter().map(|text| padded(text)).collect();
        let lens: Vec<usize> = texts.iter().map(Vec::len).collect();
        let fault = |e| self.place.fault(e);
        let values = self.rows(&texts, &lens, split).map_err(fault)?;
        let rows = Rows { values, turn: None, places: Vec::new() };
        let (x, _) = self.tower.run(&self.place, rows, |_| &lens, &[])?;
        self.pool(&texts, &x).map_err(fault)
    }

    /// The blocks' input.
    fn rows(&self, texts: &[Vec<u32>], lens: &[usize], split: usize) -> candle_core::Result<Tensor> {
        let device = &self.place.device;
        let rows: usize = lens.iter().sum();
        let ids = Tensor::from_vec(texts.concat(), rows, device)?;
        let first = self.spec.first_position as u32;
        let places = lens.iter().flat_map(|&len| first..first + len as u32).collect::<Vec<u32>>();
        let places = self.positions.index_select(&Tensor::from_vec(places, rows, device)?, 0)?;
        let mut x = (self.embedding.index_select(&ids, 0)? + places)?;
        if let Some(segments) = &self.segments {
            let longest = lens.iter().max().copied().unwrap_or(0);
            x = match split < longest && segments.dim(0)? > 1 {
                false => ops::add_row(&x, &segments.get(0)?)?,
                true => {
                    let ids = lens.iter().flat_map(|&len| (0..len).map(move |i| u32::from(i >= split)));
                    let ids = Tensor::from_vec(ids.collect::<Vec<u32>>(), rows, device)?;
                    (x + segments.index_select(&ids, 0)?)?
                }
            };
        }
        match &self.norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }

    /// From the blocks' rows to embeddings.
    fn pool(&self, texts: &[Vec<u32>], x: &Tensor) -> candle_core::Result<Vec<f32>> {
        let mut at = 0;
        let mut pooled = Vec::with_capacity(texts.len());
        for text in texts {
            let own = x.narrow(0, at, text.len())?;
            at += text.len();
            let row = |i: usize| own.narrow(0, i, 1);
            pooled.push(match self.spec.pooling {
                Pooling::Mean => own.mean_keepdim(0)?,
                Pooling::Max => own.max_keepdim(0)?,
                Pooling::First => row(0)?,
                Pooling::Last => row(text.len() - 1)?,
                Pooling::HighestId => {
                    let highest = text.iter().max();
                    row(text.iter().position(|id| Some(id) == highest).unwrap_or(0))?
                }
                Pooling::Token(end) => row(text.iter().position(|&id| id == end).unwrap_or(text.len() - 1))?,
            });
        }
        let mut y = Tensor::cat(&pooled, 0)?;
        for (product, part) in self.head.iter().zip(&self.spec.head) {
            y = product.forward(&y)?;
            y = match part.then {
                HeadThen::Nothing => y,
                HeadThen::Tanh => y.tanh()?,
                HeadThen::Relu => y.relu()?,
                HeadThen::Gelu => ops::activation(&y, EncoderActivation::Gelu)?,
            };
        }
        y.flatten_all()?.to_vec1()
    }
}

impl TextEncoder for CandleTextEncoder {
    fn max_len(&self) -> usize {
        self.spec.max_len
    }

    fn dim(&self) -> usize {
        self.spec.out_dim
    }

    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        self.embed_pairs(texts, usize::MAX)
    }

    fn embed_pairs(&self, texts: &[Vec<u32>], split: usize) -> Result<Vec<f32>> {
        for text in texts {
            if text.is_empty() {
                return Err(Error::invalid("texts", "holds a text without tokens"));
            }
            if text.len() > self.spec.max_len {
                return Err(Error::ContextLength { tokens: text.len(), limit: self.spec.max_len });
            }
            if let Some(id) = text.iter().find(|&&id| id as usize >= self.spec.vocab_size) {
                return Err(Error::invalid("texts", format!("token id {id} is outside the vocabulary")));
            }
        }
        // texts of one length are one product, so they go together
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].len());
        let most = if self.place.device.is_cpu() { CPU_ROWS } else { GPU_ROWS };
        let dim = self.spec.out_dim;
        let mut all = vec![0.0; texts.len() * dim];
        let mut first = 0;
        while first < order.len() {
            let mut rows = 0;
            let fits = |&&i: &&usize| {
                rows += if self.spec.padded_with.is_some() { self.spec.max_len } else { texts[i].len() };
                rows <= most
            };
            let count = order[first..].iter().take_while(fits).count().max(1);
            let group = &order[first..first + count];
            let given: Vec<&[u32]> = group.iter().map(|&i| texts[i].as_slice()).collect();
            let made = self.threads.run(|| self.pass(&given, split))?;
            for (row, &i) in made.chunks_exact(dim).zip(group) {
                all[i * dim..(i + 1) * dim].copy_from_slice(row);
            }
            first += count;
        }
        Ok(all)
    }

    fn bytes(&self) -> u64 {
        self.bytes + self.tower.given_bytes()
    }
}
