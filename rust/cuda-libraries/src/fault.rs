//! Why no GPU can be used.

use std::error::Error;
use std::fmt;

use crate::library::Library;

/// What is missing, in the order in which it is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// There is no driver.
    NoDriver {
        /// What the loader said.
        said: String,
    },
    /// The driver is older than the kernels of this build.
    OldDriver {
        /// The release of CUDA that it is for, as CUDA writes it: 12080 is 12.8.
        found: u32,
        /// The release that the kernels were compiled with.
        needed: u32,
    },
    /// The driver answers, and knows no GPU.
    NoGpu,
    /// The driver does not start.
    Driver {
        /// The number of its error.
        code: i32,
        /// The name of its error, where it has one.
        name: Option<String>,
    },
    /// The kernels of this build do not run on the GPU.
    Capability {
        /// The GPU's: major and minor.
        found: (u32, u32),
        /// The kernels'.
        built: (u32, u32),
    },
    /// A library that is not the driver's is missing.
    NoLibrary {
        /// The library.
        library: Library,
        /// What the loader said.
        said: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = |number: u32| format!("{}.{}", number / 1000, number % 1000 / 10);
        match self {
            Self::NoDriver { said } => write!(f, "the NVIDIA driver is not installed ({said})"),
            Self::OldDriver { found, needed } => write!(
                f,
                "the NVIDIA driver is for CUDA {}, and this build needs one for CUDA {} or newer",
                release(*found),
                release(*needed)
            ),
            Self::NoGpu => f.write_str("the NVIDIA driver finds no GPU"),
            Self::Driver { code, name } => {
                let name = name.as_deref().unwrap_or("unknown");
                write!(f, "the NVIDIA driver does not start: error {code} ({name})")
            }
            Self::Capability { found, built } => {
                let or_newer = if *built >= (9, 0) { "" } else { " or newer" };
                write!(
                    f,
                    "the GPU's compute capability is {}.{}, and the kernels of this build are for ",
                    found.0, found.1
                )?;
                write!(f, "{}.{}{or_newer}; CUDA_COMPUTE_CAP says for which to build", built.0, built.1)
            }
            Self::NoLibrary { library, said } => write!(
                f,
                "`{}` is missing; `pip install 'alloyforge[cuda]'` brings it ({said})",
                library.file()
            ),
        }
    }
}

impl Error for Fault {}
