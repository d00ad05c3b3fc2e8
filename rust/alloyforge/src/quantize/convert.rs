//! Numbers from one type to another, on several threads.

use std::sync::{Mutex, PoisonError};
use std::thread;

use alloyforge_kernels::dequant::dequantize;
use alloyforge_kernels::quantize::quantize;
use alloyforge_types::{Error, QuantType, Result};

/// Numbers that a thread converts at a time: whole blocks of every type, 128 KiB as f32.
const CHUNK: usize = 1 << 15;

/// Numbers that all threads convert before they are written.
const BATCH: usize = 1 << 22;

/// The largest number that f16, and so the scale of a block, can hold.
const MOST: f32 = 65504.0;

/// What is turned into what.
pub(super) struct Turn<'a> {
    /// The tensor's name.
    pub(super) name: &'a str,
    pub(super) from: QuantType,
    pub(super) to: QuantType,
}

/// Converts tensors, keeping its buffers between them.
pub(super) struct Converter {
    threads: usize,
    out: Vec<u8>,
}

impl Converter {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), out: Vec::new() }
    }

    /// Converts `data` of a tensor, a file's whose name is `label`; `emit` takes bytes of the new type
    /// and how many numbers they are, in order.
    ///
    /// # Errors
    /// `Format` where a number is not finite or too large for the type; what `emit` fails with.
    pub(super) fn run(
        &mut self,
        turn: &Turn<'_>,
        label: &str,
        data: &[u8],
        mut emit: impl FnMut(&[u8], usize) -> Result<()>,
    ) -> Result<()> {
        let (from, to) = (turn.from, turn.to);
        let fault = |fault: String| Error::format(label, format!("tensor `{}`", turn.name), fault);
        for batch in data.chunks(bytes(from, BATCH)) {
            let numbers = batch.len() / from.block_bytes() * from.block_len();
            if from == to {
                emit(batch, numbers)?;
                continue;
            }
            self.out.resize(bytes(to, numbers), 0);
            self.convert(from, batch, to).map_err(fault)?;
            emit(&self.out, numbers)?;
        }
        Ok(())
    }

    /// Converts one batch into `out`.
    fn convert(&mut self, from: QuantType, data: &[u8], to: QuantType) -> std::result::Result<(), String> {
        let chunks = data.chunks(bytes(from, CHUNK)).zip(self.out.chunks_mut(bytes(to, CHUNK)));
        let threads = self.threads.min(chunks.len());
        let (chunks, first_fault) = (Mutex::new(chunks), Mutex::new(None));
        let work = || {
            let mut values = vec![0.0; CHUNK];
            loop {
                // nothing panics while it is held
                let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((data, out)) = next else { return };
                if let Err(fault) = chunk(from, data, to, out, &mut values) {
                    first_fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        match first_fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

/// The bytes of `numbers` numbers, which are whole blocks.
fn bytes(ty: QuantType, numbers: usize) -> usize {
    numbers / ty.block_len() * ty.block_bytes()
}

fn chunk(
    from: QuantType,
    data: &[u8],
    to: QuantType,
    out: &mut [u8],
    values: &mut [f32],
) -> std::result::Result<(), String> {
    let values = &mut values[..data.len() / from.block_bytes() * from.block_len()];
    dequantize(from, data, values).map_err(|fault| fault.to_string())?;
    if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
        return Err(format!("holds {bad}"));
    }
    let has_range = matches!(to, QuantType::F32 | QuantType::BF16);
    if let Some(bad) = values.iter().find(|x| !has_range && x.abs() > MOST) {
        return Err(format!("holds {bad}, which {} cannot", to.name()));
    }
    quantize(to, values, out).map_err(|fault| fault.to_string())
}
