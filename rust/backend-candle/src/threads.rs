//! The threads that Candle's products run on, on the CPU.

use alloyforge_kernels::topology::physical_cores;
use alloyforge_types::{Error, Result};
use candle_core::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool of our own for products, because Candle's is sized by environment variables alone; none on a
/// GPU. Candle runs long element-wise operations on yet another pool, which cannot be told.
#[derive(Debug)]
pub(crate) struct Threads(Option<ThreadPool>);

impl Threads {
    /// `count` threads where `device` is the CPU; `None`: one a physical core
    /// that the process may use.
    pub(crate) fn new(device: &Device, count: Option<usize>) -> Result<Self> {
        if !device.is_cpu() {
            return Ok(Self(None));
        }
        let count = count.unwrap_or_else(physical_cores).max(1);
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("candle-{i}"))
            .build()
            .map_err(|e| Error::internal(format!("{count} threads cannot be started: {e}")))?;
        Ok(Self(Some(pool)))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.as_ref().map_or(0, ThreadPool::current_num_threads)
    }

    /// Runs `work` on them.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}
