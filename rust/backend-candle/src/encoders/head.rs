//! What becomes of a tower's rows.

use alloyforge_types::{
    EncoderActivation, EncoderNorm, Error, MediaItem, Result, TileLayout, VisionHead, VisionSpec,
};
use candle_core::{D, Tensor};

use super::ops;
use super::patches::Grid;
use super::tower::Tower;
use super::weights::{Linear, Norm, Weights};

/// Added to the variance in the norms of Qwen-VL's mergers.
const MERGER_EPS: f32 = 1e-6;

/// One of Qwen-VL's mergers.
#[derive(Debug)]
struct Merger {
    norm: Norm,
    /// Whether the norm stands behind the joining of patches.
    is_late: bool,
    fc1: Linear,
    fc2: Linear,
}

/// SigLIP's query with what it attends through.
#[derive(Debug)]
struct Pool {
    probe: Tensor,
    q: Linear,
    kv: Linear,
    out: Linear,
    norm: Norm,
    fc1: Linear,
    fc2: Linear,
}

#[derive(Debug)]
enum Parts {
    Mlp { fc1: Linear, fc2: Linear, newline: Option<Tensor> },
    PixelShuffle(Linear),
    Merger { main: Merger, deep: Vec<Merger> },
    Pool { norm: Norm, product: Linear },
    Merge { norm: Option<(Norm, Linear)>, fc1: Linear, fc2: Linear },
    Class(Option<Linear>),
    AttentionPool(Box<Pool>),
}

/// The head of an encoder of pictures.
#[derive(Debug)]
pub(super) struct Head {
    spec: VisionHead,
    parts: Parts,
    width: usize,
    heads: usize,
}

/// What a head makes: rows, and further ones for the decoder's first layers.
pub(super) struct Made {
    pub(super) rows: Tensor,
    pub(super) deeper: Vec<Tensor>,
}

impl Head {
    pub(super) fn load(spec: &VisionSpec, weights: &Weights<'_>) -> Result<Self> {
        let (width, out) = (spec.tower.width, spec.out_dim);
        let input = width * spec.taps.len().max(1);
        let linear = |name: &str, rows: usize, cols: usize| {
            weights.linear(name, rows, cols, weights.has(&format!("{name}.bias")))
        };
        let parts = match &spec.head {
            VisionHead::Mlp { tiles, .. } => Parts::Mlp {
                fc1: linear("mm.1", out, input)?,
                fc2: linear("mm.2", out, out)?,
                newline: match tiles {
                    TileLayout::Unpadded => Some(weights.tensor("newline", &[1, out])?),
                    TileLayout::Plain => None,
                },
            },
            VisionHead::PixelShuffle { scale } => {
                Parts::PixelShuffle(linear("mm.1", out, scale * scale * width)?)
            }
            VisionHead::Merger { merge, norm, deepstack } => {
                let joined = merge * merge * width;
                let merger = |name: &str, norm: EncoderNorm, is_late: bool| -> Result<Merger> {
                    let normed = if is_late { joined } else { width };
                    Ok(Merger {
                        norm: weights.norm(&format!("{name}.norm"), norm, normed, MERGER_EPS)?,
                        is_late,
                        fc1: linear(&format!("{name}.1"), joined, joined)?,
                        fc2: linear(&format!("{name}.2"), out, joined)?,
                    })
                };
                Parts::Merger {
                    main: merger("mm", *norm, false)?,
                    deep: (0..deepstack.len())
                        .map(|i| merger(&format!("deep.{i}"), EncoderNorm::Layer, true))
                        .collect::<Result<_>>()?,
                }
            }
            VisionHead::Pool { norm_eps, .. } => {
                let internal = |e: candle_core::Error| Error::internal(e.to_string());
                let norm = weights.norm("mm.norm", EncoderNorm::Rms, width, *norm_eps)?;
                let norm = if weights.has("mm.1.turned") { norm.plus_one().map_err(internal)? } else { norm };
                // stored as rows of inputs, beside a norm that lacks its one or has it
                let turned = ["mm.1.turned", "mm.1.stored"].into_iter().find(|name| weights.has(name));
                let product = match turned {
                    Some(name) => {
                        let turned = weights.tensor(name, &[width, out])?;
                        let turned = turned.t().and_then(|t| t.contiguous()).map_err(internal)?;
                        Linear::plain(turned)
                    }
                    None => linear("mm.1", out, width)?,
                };
                Parts::Pool { norm, product }
            }
            VisionHead::Merge { merge, norm_eps, .. } => Parts::Merge {
                norm: match norm_eps {
                    Some(eps) => Some((
                        weights.norm("mm.norm", EncoderNorm::Rms, width, *eps)?,
                        linear("mm.merge", width, merge * merge * width)?,
                    )),
                    None => None,
                },
                fc1: linear("mm.1", out, input)?,
                fc2: linear("mm.2", out, out)?,
            },
            VisionHead::Class { has_projection, has_bias, dim } => Parts::Class(match has_projection {
                true => Some(weights.linear("head", *dim, width, *has_bias)?),
                false => None,
            }),
            VisionHead::AttentionPool => {
                let ff_dim = spec.tower.ff_dim;
                let kv = ["pool.k", "pool.v"].map(str::to_owned);
                Parts::AttentionPool(Box::new(Pool {
                    probe: weights.tensor("pool.probe", &[1, width])?,
                    q: weights.linear("pool.q", width, width, true)?,
                    kv: weights.joined(&kv, width, width, true)?,
                    out: weights.linear("pool.out", width, width, true)?,
                    norm: weights.norm("pool.norm", EncoderNorm::Layer, width, spec.tower.norm_eps)?,
                    fc1: weights.linear("pool.1", ff_dim, width, true)?,
                    fc2: weights.linear("pool.2", width, ff_dim, true)?,
                }))
            }
        };
        Ok(Self { spec: spec.head.clone(), parts, width, heads: spec.tower.num_heads })
    }

    /// From the tower's rows `x` `[tiles * (class + patches), width]`, and what was `tapped`, to rows.
    pub(super) fn forward(
        &self,
        item: &MediaItem,
        x: &Tensor,
        tapped: &[Tensor],
        tower: &Tower,
        grid: &Grid,
    ) -> Result<candle_core::Result<Made>> {
        let plain = |rows: candle_core::Result<Tensor>| rows.map(|rows| Made { rows, deeper: Vec::new() });
        let per_tile = x.dim(0).map_or(0, |n| n / grid.tiles.max(1));
        let has_class = per_tile > grid.tile_len();
        Ok(match (&self.spec, &self.parts) {
            (VisionHead::Mlp { activation, keeps_class, tiles }, Parts::Mlp { fc1, fc2, newline }) => {
                let made = (|| {
                    let x = if *keeps_class { x.clone() } else { patches_of(x, grid, has_class)? };
                    fc2.forward(&ops::activation(&fc1.forward(&x)?, *activation)?)
                })();
                match (tiles, newline) {
                    (TileLayout::Unpadded, Some(newline)) => {
                        let layout = Unpadded::of(item, grid)?;
                        plain(made.and_then(|x| layout.arrange(&x, newline, grid)))
                    }
                    _ => plain(made),
                }
            }
            (VisionHead::PixelShuffle { scale }, Parts::PixelShuffle(product)) => {
                plain((|| product.forward(&squares(x, grid, *scale, false)?))())
            }
            (VisionHead::Merger { merge, .. }, Parts::Merger { main, deep }) => {
                let joined = merge * merge * self.width;
                let merged = || -> candle_core::Result<Made> {
                    let rows = main.forward(x, joined)?;
                    let deeper = deep.iter().zip(tapped).map(|(m, x)| m.forward(x, joined));
                    Ok(Made { rows, deeper: deeper.collect::<candle_core::Result<_>>()? })
                };
                merged()
            }
            (VisionHead::Pool { side, .. }, Parts::Pool { norm, product }) => plain((|| {
                let edge = grid.height / side;
                let joined = squares(x, grid, edge, false)?;
                let rows = joined.dim(0)?;
                let means = joined.reshape((rows, edge * edge, self.width))?.mean(1)?;
                product.forward(&norm.forward(&means)?)
            })()),
            (VisionHead::Merge { merge, activation, .. }, Parts::Merge { norm, fc1, fc2 }) => plain((|| {
                let x = match norm {
                    Some((norm, product)) => {
                        product.forward(&squares(&norm.forward(x)?, grid, *merge, true)?)?
                    }
                    None => x.clone(),
                };
                fc2.forward(&ops::activation(&fc1.forward(&x)?, *activation)?)
            })(
            )),
            (VisionHead::Class { .. }, Parts::Class(product)) => plain((|| {
                let class = x.reshape((grid.tiles, per_tile, self.width))?.narrow(1, 0, 1)?.squeeze(1)?;
                let class = class.contiguous()?;
                product.as_ref().map_or(Ok(class.clone()), |p| p.forward(&class))
            })()),
            (VisionHead::AttentionPool, Parts::AttentionPool(pool)) => {
                plain(pool.forward(x, grid, self.heads, tower.activation()))
            }
            _ => return Err(Error::internal("a head was loaded for another")),
        })
    }
}

impl Merger {
    fn forward(&self, x: &Tensor, joined: usize) -> candle_core::Result<Tensor> {
        let rows = x.elem_count() / joined;
        let x = match self.is_late {
            true => self.norm.forward(&x.reshape((rows, joined))?)?,
            false => self.norm.forward(x)?.reshape((rows, joined))?,
        };
        self.fc2.forward(&ops::activation(&self.fc1.forward(&x)?, EncoderActivation::Gelu)?)
    }
}

impl Pool {
    fn forward(
        &self,
        x: &Tensor,
        grid: &Grid,
        heads: usize,
        kind: EncoderActivation,
    ) -> candle_core::Result<Tensor> {
        let (tiles, len) = (grid.tiles, grid.tile_len());
        let width = x.dim(D::Minus1)?;
        let dim = width / heads;
        let q = self.q.forward(&self.probe)?.reshape((1, heads, 1, dim))?;
        let q = q.broadcast_as((tiles, heads, 1, dim))?.contiguous()?.reshape((tiles * heads, 1, dim))?;
        let kv = self.kv.forward(x)?;
        let part = |i: usize| {
            let x = kv.narrow(1, i * width, width)?.reshape((tiles, len, heads, dim))?;
            x.permute((0, 2, 1, 3))?.contiguous()?.reshape((tiles * heads, len, dim))
        };
        let scores = q.matmul(&part(0)?.transpose(1, 2)?)?;
        let shares = ops::softmax(&scores, 1.0 / (dim as f32).sqrt(), None)?;
        let seen = shares.matmul(&part(1)?)?.reshape((tiles, width))?;
        let seen = self.out.forward(&seen)?;
        let inner = ops::activation(&self.fc1.forward(&self.norm.forward(&seen)?)?, kind)?;
        seen + self.fc2.forward(&inner)?
    }
}

/// The rows of patches, without the class tokens'.
fn patches_of(x: &Tensor, grid: &Grid, has_class: bool) -> candle_core::Result<Tensor> {
    if !has_class {
        return Ok(x.clone());
    }
    let (len, width) = (grid.tile_len(), x.dim(D::Minus1)?);
    let x = x.reshape((grid.tiles, len + 1, width))?.narrow(1, 1, len)?;
    x.contiguous()?.reshape((grid.tiles * len, width))
}

/// Squares of `edge` by `edge` patches, which come line by line, as one row each: patch after patch, or
/// coordinate after coordinate where `by_coordinate`.
fn squares(x: &Tensor, grid: &Grid, edge: usize, by_coordinate: bool) -> candle_core::Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    let (rows, cols) = (grid.height / edge, grid.width / edge);
    let x = match (rows * edge, cols * edge) == (grid.height, grid.width) {
        true => x.clone(),
        // what does not fill a square is left out
        false => {
            let x = x.reshape((grid.tiles, grid.height, grid.width, width))?;
            x.narrow(1, 0, rows * edge)?.narrow(2, 0, cols * edge)?.contiguous()?
        }
    };
    let x = x.reshape(&[grid.tiles, rows, edge, cols, edge, width][..])?;
    let order: [usize; 6] = if by_coordinate { [0, 1, 3, 5, 2, 4] } else { [0, 1, 3, 2, 4, 5] };
    x.permute(order)?.contiguous()?.reshape((grid.tiles * rows * cols, edge * edge * width))
}

/// LLaVA-NeXT's joining of tiles: the small picture's rows, then those of the large one, without its
/// padding and with a learned row behind each line.
struct Unpadded {
    /// Tiles down and across.
    tiles: (usize, usize),
    /// The lines and columns of patches that hold the picture.
    lines: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

impl Unpadded {
    /// From the `tiles` and the `padding` that the processor found: lines above and columns to the left
    /// that hold nothing, as many as below and to the right.
    fn of(item: &MediaItem, grid: &Grid) -> Result<Self> {
        let wrong = |fault: &str| Error::Media { item: item.kind.noun().to_owned(), fault: fault.to_owned() };
        let pair = |name: &str| match item.fact(name) {
            Some(&[a, b]) if a >= 0.0 && b >= 0.0 && a < 1e6 && b < 1e6 => Ok((a as usize, b as usize)),
            _ => Err(wrong("lacks its tiles or its padding")),
        };
        let (tiles, padding) = (pair("tiles")?, pair("padding")?);
        let (height, width) = (tiles.0 * grid.height, tiles.1 * grid.width);
        let fits = tiles.0.checked_mul(tiles.1).and_then(|n| n.checked_add(1)) == Some(grid.tiles);
        if !fits || 2 * padding.0 >= height.max(1) || 2 * padding.1 >= width.max(1) {
            return Err(wrong("has tiles that do not fit its size"));
        }
        Ok(Self {
            tiles,
            lines: padding.0..height.saturating_sub(padding.0),
            columns: padding.1..width.saturating_sub(padding.1),
        })
    }

    fn arrange(&self, x: &Tensor, newline: &Tensor, grid: &Grid) -> candle_core::Result<Tensor> {
        let (len, width) = (grid.tile_len(), x.dim(D::Minus1)?);
        let small = x.narrow(0, 0, len)?;
        let (down, across) = self.tiles;
        if down * across == 0 {
            return Tensor::cat(&[&small, newline], 0);
        }
        let large = x.narrow(0, len, down * across * len)?;
        let large = large.reshape(&[down, across, grid.height, grid.width, width][..])?;
        let large = large.permute([0, 2, 1, 3, 4])?.contiguous()?;
        let large = large.reshape((down * grid.height, across * grid.width, width))?;
        let large = large.narrow(0, self.lines.start, self.lines.len())?;
        let large = large.narrow(1, self.columns.start, self.columns.len())?;
        let ends = newline.reshape((1, 1, width))?.broadcast_as((self.lines.len(), 1, width))?;
        let large =
            Tensor::cat(&[large, ends], 1)?.reshape((self.lines.len() * (self.columns.len() + 1), width))?;
        Tensor::cat(&[small, large], 0)
    }
}
