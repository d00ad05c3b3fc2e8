//! An encoder of pictures.

use alloyforge_interfaces::{Encoder, TensorStore, TowerLayers};
use alloyforge_types::{Error, MediaItem, MediaRows, Result, VisionHead, VisionSpec};
use candle_core::Tensor;

use super::head::{Head, Made};
use super::patches::{self, Grid};
use super::tower::{Rows, Tower};
use super::weights::{Linear, Weights};
use crate::device;
use crate::fault::Place;
use crate::threads::Threads;

/// An encoder of pictures, and of videos as pictures one after another, on a device that Candle drives.
#[derive(Debug)]
pub struct CandleVisionEncoder {
    threads: Threads,
    place: Place,
    spec: VisionSpec,
    patch: Linear,
    class: Option<Tensor>,
    table: Option<Tensor>,
    tower: Tower,
    head: Head,
    bytes: u64,
}

impl CandleVisionEncoder {
    /// Loads the weights of `spec`, by this room's names, onto `device`. The blocks are computed by
    /// `layers`, where they are given: on the processor by faster kernels.
    ///
    /// # Errors
    /// `Format` for a tensor that is missing or of another shape, `OutOfMemory`, `Device`.
    pub fn load(
        spec: &VisionSpec,
        store: &dyn TensorStore,
        device: &str,
        threads: Option<usize>,
        layers: Option<Box<dyn TowerLayers>>,
    ) -> Result<Self> {
        check(spec)?;
        let place = device::open(device)?;
        let weights = Weights::new(store, &place);
        let tower = &spec.tower;
        let row_len = 3 * spec.frames * spec.patch_size * spec.patch_size;
        let patch = match weights.has("patch_embd.weight.1") {
            // llama.cpp stores a patch's two frames apart
            true => frames_apart(spec, &weights, &place)?,
            false => weights.linear("patch_embd", tower.width, row_len, spec.has_patch_bias)?,
        };
        let rows = usize::from(spec.has_class_token) + side(spec).map_or(0, |side| side * side);
        let table = side(spec).map(|_| weights.tensor("position_embd.weight", &[rows, tower.width]));
        let class = spec.has_class_token.then(|| weights.tensor("class_embd", &[1, tower.width]));
        let (class, table) = (class.transpose()?, table.transpose()?);
        let (head, tower) = (Head::load(spec, &weights)?, Tower::load(tower, &weights, layers)?);
        let bytes = weights.bytes();
        let threads = Threads::new(&place.device, threads)?;
        Ok(Self { threads, spec: spec.clone(), patch, class, table, tower, head, bytes, place })
    }

    /// The tower's input for patches at `grid`: products, class tokens, positions.
    fn embed(&self, item: &MediaItem, values: Vec<f32>, grid: &Grid) -> Result<Tensor> {
        let fault = |e| self.place.fault(e);
        let device = &self.place.device;
        let row_len = values.len() / grid.len();
        let x = Tensor::from_vec(values, (grid.len(), row_len), device).and_then(|x| self.patch.forward(&x));
        let mut x = x.map_err(fault)?;
        let (tiles, width) = (grid.tiles, self.spec.tower.width);
        let num_class = usize::from(self.class.is_some());
        if let (Some(table), Some(taps)) = (&self.table, patches::taps(item, self.spec.positions, grid)?) {
            let add = || {
                let ids = Tensor::from_vec(taps.indices, grid.tile_len() * taps.per_patch, device)?;
                let rows = table.narrow(0, num_class, table.dim(0)? - num_class)?.contiguous()?;
                let rows = rows.index_select(&ids, 0)?;
                let rows = match taps.per_patch {
                    1 => rows,
                    n => {
                        let weights = Tensor::from_vec(taps.weights, (grid.tile_len(), n, 1), device)?;
                        rows.reshape((grid.tile_len(), n, width))?.broadcast_mul(&weights)?.sum(1)?
                    }
                };
                x.reshape((tiles, grid.tile_len(), width))?.broadcast_add(&rows)?.reshape((grid.len(), width))
            };
            x = add().map_err(fault)?;
        }
        let Some(class) = &self.class else { return Ok(x) };
        let with_class = || {
            let class = match &self.table {
                Some(table) => (class + table.narrow(0, 0, 1)?)?,
                None => class.clone(),
            };
            let class = class.reshape((1, 1, width))?.broadcast_as((tiles, 1, width))?;
            let x = x.reshape((tiles, grid.tile_len(), width))?;
            Tensor::cat(&[class.contiguous()?, x], 1)?.reshape((tiles * (grid.tile_len() + 1), width))
        };
        with_class().map_err(fault)
    }

    fn run(&self, item: &MediaItem) -> Result<MediaRows> {
        let fault = |e| self.place.fault(e);
        let merge = match self.spec.head {
            VisionHead::Merger { merge, .. } => merge,
            _ => 1,
        };
        let (values, grid) = patches::read(item, self.spec.patch_size, self.spec.frames, merge)?;
        let mut x = self.embed(item, values, &grid)?;
        let turned_by = self.spec.tower.rope;
        let turn = turned_by
            .filter(|_| !self.tower.takes_places())
            .map(|rope| patches::turn(rope, self.spec.tower.head_dim, &grid, &self.place.device));
        let mut turn = turn.transpose().map_err(fault)?;
        let mut places = match turned_by {
            Some(_) if self.tower.takes_places() => {
                let one = grid.places().into_iter().map(|(line, column)| [0, line as u32, column as u32]);
                one.collect::<Vec<_>>().repeat(grid.tiles)
            }
            _ => Vec::new(),
        };

        let per_tile = grid.tile_len() + usize::from(self.class.is_some());
        let whole = vec![per_tile; grid.tiles];
        let edge = self.spec.windows.iter().flatten().next().copied();
        let windows = edge.map(|edge| grid.windows(edge));
        let unit = merge * merge;
        if let Some((order, _)) = &windows {
            let arrange = |x: &Tensor| gather(x, order, unit);
            x = arrange(&x).map_err(fault)?;
            if let Some((cos, sin)) = &turn {
                turn = Some((arrange(cos).map_err(fault)?, arrange(sin).map_err(fault)?));
            }
            if !places.is_empty() {
                let units = order.iter().map(|&at| &places[at as usize * unit..][..unit]);
                places = units.flatten().copied().collect();
            }
        }
        let segments = |layer: usize| match (self.spec.windows.get(layer), &windows) {
            (Some(Some(_)), Some((_, lens))) => lens.as_slice(),
            _ => whole.as_slice(),
        };
        let wanted: &[usize] = match &self.spec.head {
            VisionHead::Merger { deepstack, .. } => deepstack,
            _ => &self.spec.taps,
        };
        let rows = Rows { values: x, turn: turn.as_ref(), places };
        let (mut x, tapped) = self.tower.run(&self.place, rows, segments, wanted)?;
        if !self.spec.taps.is_empty() {
            x = Tensor::cat(&tapped, 1).map_err(fault)?;
        }
        let made = self.head.forward(item, &x, &tapped, &self.tower, &grid)?.map_err(fault)?;
        self.collect(made, windows.map(|(order, _)| order)).map_err(fault)
    }

    /// The rows on the host, in the order of the picture.
    fn collect(&self, made: Made, order: Option<Vec<u32>>) -> candle_core::Result<MediaRows> {
        let rows = |x: Tensor| -> candle_core::Result<std::sync::Arc<[f32]>> {
            let x = match &order {
                Some(order) => {
                    let mut back = vec![0u32; order.len()];
                    order.iter().enumerate().for_each(|(i, &at)| back[at as usize] = i as u32);
                    gather(&x, &back, 1)?
                }
                None => x,
            };
            Ok(x.contiguous()?.flatten_all()?.to_vec1::<f32>()?.into())
        };
        let width = made.rows.dim(candle_core::D::Minus1)?;
        let deeper = made.deeper.into_iter().map(rows).collect::<candle_core::Result<_>>()?;
        Ok(MediaRows { width, rows: rows(made.rows)?, deeper })
    }
}

impl Encoder for CandleVisionEncoder {
    fn encode(&self, item: &MediaItem) -> Result<MediaRows> {
        self.threads.run(|| self.run(item))
    }

    fn bytes(&self) -> u64 {
        self.bytes + self.tower.given_bytes()
    }
}

/// Groups of `unit` rows in another order.
fn gather(x: &Tensor, order: &[u32], unit: usize) -> candle_core::Result<Tensor> {
    let shape = x.dims().to_vec();
    let rest: usize = shape[1..].iter().product();
    let ids = Tensor::from_slice(order, order.len(), x.device())?;
    x.contiguous()?.reshape((order.len(), unit * rest))?.index_select(&ids, 0)?.reshape(shape)
}

fn side(spec: &VisionSpec) -> Option<usize> {
    use alloyforge_types::GridPositions as P;
    match spec.positions {
        P::None => None,
        P::Table { side } | P::Bicubic { side } | P::Buckets { side } | P::Bilinear { side } => Some(side),
    }
}

/// The product that makes patches of two frames from two tensors, one a frame.
fn frames_apart(spec: &VisionSpec, weights: &Weights<'_>, place: &Place) -> Result<Linear> {
    let (width, size) = (spec.tower.width, spec.patch_size);
    let shape = [width, 3, 1, size * size];
    let parts = ["patch_embd.weight", "patch_embd.weight.1"].map(|name| weights.tensor(name, &shape));
    let [first, second] = parts;
    let weight = Tensor::cat(&[first?, second?], 2)
        .and_then(|w| w.reshape((width, 3 * spec.frames * size * size)))
        .map_err(|e| place.fault(e))?;
    let bias = spec.has_patch_bias.then(|| weights.tensor("patch_embd.bias", &[width])).transpose()?;
    Ok(Linear::new(weight, bias))
}

/// # Errors
/// `Internal` for a spec that the pass has no form for.
fn check(spec: &VisionSpec) -> Result<()> {
    let tower = &spec.tower;
    let sizes = [
        tower.width,
        tower.num_heads,
        tower.head_dim,
        tower.ff_dim,
        tower.num_layers,
        spec.patch_size,
        spec.frames,
        spec.out_dim,
    ];
    let edges = spec.windows.iter().flatten();
    let mut edges: Vec<usize> = edges.copied().collect();
    edges.dedup();
    let has_zero =
        sizes.iter().any(|&n| n == 0 || n > 1 << 20) || side(spec).is_some_and(|s| s == 0 || s > 4096);
    let turns = tower.rope.is_some() && !tower.head_dim.is_multiple_of(4);
    if has_zero || turns || edges.len() > 1 || edges.first() == Some(&0) {
        return Err(Error::internal(format!("an encoder of sizes {sizes:?} with windows {edges:?}")));
    }
    Ok(())
}
