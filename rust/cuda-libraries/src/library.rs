//! The libraries, by the names that a loader knows.

/// A library of NVIDIA's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// The driver's, which comes with the driver alone.
    Driver,
    /// Products of matrices.
    Cublas,
    /// Random numbers: Candle makes a generator for each device that it opens.
    Curand,
}

impl Library {
    /// The file that is looked for. Its number is that of the interface.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Driver => "libcuda.so.1",
            Self::Cublas => concat!("libcublas.so.", env!("CUDA_MAJOR")),
            Self::Curand => "libcurand.so.10",
        }
    }

    /// Files of other releases that serve as well, where the first is not there: what is called of cuBLAS is
    /// the same in 12 and 13, and PyTorch may have brought either.
    pub const fn others(self) -> &'static [&'static str] {
        match self {
            Self::Cublas => &["libcublas.so.13", "libcublas.so.12"],
            Self::Driver | Self::Curand => &[],
        }
    }
}
