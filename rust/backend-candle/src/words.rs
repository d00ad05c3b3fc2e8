//! The whole numbers of a step, which go to the device in one copy.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};

/// Lists of numbers, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Words {
    numbers: Vec<u32>,
    tensor: Option<Tensor>,
}

impl Words {
    /// Adds a list; where it stands.
    pub(crate) fn put(&mut self, numbers: &[u32]) -> Range<usize> {
        let first = self.numbers.len();
        self.numbers.extend_from_slice(numbers);
        first..self.numbers.len()
    }

    /// Brings all lists to the device.
    pub(crate) fn upload(&mut self, device: &Device) -> Result<()> {
        self.tensor = Some(Tensor::from_slice(&self.numbers, self.numbers.len(), device)?);
        Ok(())
    }

    /// All lists on the device.
    pub(crate) fn tensor(&self) -> Result<&Tensor> {
        match &self.tensor {
            Some(tensor) => Ok(tensor),
            None => bail!("a step's numbers are not on the device"),
        }
    }

    /// One list on the device.
    pub(crate) fn view(&self, range: &Range<usize>) -> Result<Tensor> {
        self.tensor()?.narrow(0, range.start, range.len())
    }

    /// How many numbers there are.
    #[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "asked by the kernels alone"))]
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// One list on the host.
    #[cfg(test)]
    pub(crate) fn get(&self, range: &Range<usize>) -> &[u32] {
        &self.numbers[range.clone()]
    }
}
