//! Opening the libraries once for the process.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use crate::driver::{Driver, Gpu};
use crate::fault::Fault;
use crate::handle::Handle;
use crate::library::Library;
use crate::trampolines::SLOTS;

struct State {
    folders: Vec<PathBuf>,
    driver: Option<Driver>,
}

static STATE: Mutex<State> = Mutex::new(State { folders: Vec::new(), driver: None });

/// Says in which folders to look before anywhere else: where pip put NVIDIA's packages.
pub fn seek_in(folders: Vec<PathBuf>) {
    STATE.lock().unwrap_or_else(PoisonError::into_inner).folders = folders;
}

/// Opens the driver and the libraries, once, and gives the GPUs by their ordinals. After a failure the
/// next call tries again.
///
/// # Errors
/// The first [`Fault`] in the order of its variants.
pub fn open() -> Result<Vec<Gpu>, Fault> {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = match state.driver {
        Some(driver) => driver,
        None => open_all(&state.folders)?,
    };
    state.driver = Some(driver);
    (0..driver.count()?).map(|ordinal| driver.describe(ordinal)).collect()
}

fn open_all(folders: &[PathBuf]) -> Result<Driver, Fault> {
    let handle = Handle::find(Library::Driver.file(), folders).map_err(|said| Fault::NoDriver { said })?;
    let driver = Driver::start(&handle)?;
    if driver.count()? == 0 {
        return Err(Fault::NoGpu);
    }
    fill(Library::Driver, &handle);
    for library in [Library::Cublas, Library::Curand] {
        let found = Handle::find(library.file(), folders).or_else(|said| {
            let mut others = library.others().iter();
            others.find_map(|file| Handle::find(file, folders).ok()).ok_or(Fault::NoLibrary { library, said })
        });
        fill(library, &found?);
    }
    Ok(driver)
}

/// Puts the library's functions into their slots. What an older library lacks keeps answering with an error.
fn fill(library: Library, handle: &Handle) {
    for slot in SLOTS.iter().filter(|slot| slot.library == library) {
        if let Some(function) = handle.function(slot.name) {
            slot.target.store(function.as_ptr().cast(), Ordering::Release);
        }
    }
}
