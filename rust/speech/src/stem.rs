//! The two convolutions in front of an audio encoder.
//!
//! With frames one after another and a silent one at each end, the three frames under a kernel are
//! neighbours in memory: a convolution is a product whose input rows overlap.

use alloyforge_interfaces::TensorStore;
use alloyforge_kernels::activation::Activation;
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::Input;
use alloyforge_types::{Error, QuantType, Result};

use crate::linear::{Linear, numbers, vector};

/// Frames under a kernel.
const KERNEL: usize = 3;

/// A convolution of three frames, with GELU behind it.
#[derive(Debug)]
struct Conv {
    linear: Linear,
    channels: usize,
}

/// Both of them.
#[derive(Debug)]
pub(crate) struct Stem {
    first: Conv,
    second: Conv,
}

impl Conv {
    /// The convolution whose tensors are `name.weight`, `[out, in, 3]`, and `name.bias`.
    fn load(store: &dyn TensorStore, name: &str, pool: &Pool, isa: Isa) -> Result<Self> {
        let (weights, ty, shape) = numbers(store, &format!("{name}.weight"))?;
        let &[rows, channels, KERNEL] = &*shape else {
            let fault = format!("has shape {shape:?}, expected three frames");
            return Err(Error::format(store.label(), format!("tensor `{name}.weight`"), fault));
        };
        let bias = Some(vector(store, &format!("{name}.bias"), rows)?);
        // frame by frame, as the input stands
        let mut data = Vec::with_capacity(weights.len() * 4);
        for row in weights.chunks_exact(channels * KERNEL) {
            for tap in 0..KERNEL {
                data.extend((0..channels).flat_map(|channel| row[channel * KERNEL + tap].to_le_bytes()));
            }
        }
        let shape = (rows, KERNEL * channels);
        let matrix = Matrix::pack(pool, isa, name, shape, QuantType::F32, &data, ty)?;
        Ok(Self { linear: Linear { matrix, bias }, channels })
    }

    /// `count` rows of the output, from frames that begin at every `step`-th one of `input`; into `out`,
    /// from its second row on.
    #[allow(clippy::too_many_arguments, reason = "what goes in and where it goes")]
    fn run(
        &self,
        pool: &Pool,
        isa: Isa,
        input: &[f32],
        step: usize,
        count: usize,
        out: &mut [f32],
        first_row: usize,
    ) -> Result<()> {
        let input = Input::first(input, step * self.channels, count);
        self.linear.run(pool, isa, input, Some(Activation::Gelu), out, first_row)
    }
}

impl Stem {
    /// The convolutions of the encoder whose tensors' names begin with `prefix`.
    pub(crate) fn load(store: &dyn TensorStore, prefix: &str, pool: &Pool, isa: Isa) -> Result<Self> {
        let conv = |name: &str| Conv::load(store, &format!("{prefix}.{name}"), pool, isa);
        Ok(Self { first: conv("conv1")?, second: conv("conv2")? })
    }

    /// From a spectrum `[frames, num_mels]` to half as many rows `[frames / 2, width]`.
    pub(crate) fn run(&self, pool: &Pool, isa: Isa, mel: &[f32]) -> Result<Vec<f32>> {
        let (mels, width) = (self.first.channels, self.first.linear.matrix.rows());
        let frames = mel.len() / mels;
        let mut input = vec![0.0; (frames + 2) * mels];
        input[mels..mels + mel.len()].copy_from_slice(mel);
        let mut middle = vec![0.0; (frames + 2) * width];
        self.first.run(pool, isa, &input, 1, frames, &mut middle, 1)?;
        let rows = frames.div_ceil(2);
        let mut out = vec![0.0; rows * self.second.linear.matrix.rows()];
        self.second.run(pool, isa, &middle, 2, rows, &mut out, 0)?;
        Ok(out)
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.first.linear.bytes() + self.second.linear.bytes()
    }
}
