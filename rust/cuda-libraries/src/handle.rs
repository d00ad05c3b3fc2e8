//! An open library, and where one is found.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// Where a toolkit of the system, or Windows' subsystem for Linux, has its libraries if the loader was not told.
const USUAL_FOLDERS: [&str; 3] = ["/usr/local/cuda/lib64", "/opt/cuda/lib64", "/usr/lib/wsl/lib"];

/// An open library. It is never closed: what was found in it is kept for good.
pub(crate) struct Handle(NonNull<c_void>);

impl Handle {
    /// Opens `file` from the given folders, else from where the loader looks, else from the usual folders.
    ///
    /// # Errors
    /// What the loader said: of one that is there and does not open, before one that is not there.
    pub(crate) fn find(file: &str, folders: &[PathBuf]) -> Result<Self, String> {
        let there = |folder: &Path| Some(folder.join(file)).filter(|path| path.exists());
        let beside = folders.iter().filter_map(|folder| there(folder));
        let usual = USUAL_FOLDERS.iter().filter_map(|folder| there(Path::new(folder)));
        let mut fault = None;
        let mut by_name = String::new();
        for path in beside.chain([PathBuf::from(file)]).chain(usual) {
            match Self::open(&path) {
                Ok(handle) => return Ok(handle),
                Err(said) if path.as_os_str() == file => by_name = said,
                Err(said) => fault = fault.or(Some(said)),
            }
        }
        Err(fault.unwrap_or(by_name))
    }

    fn open(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: the name is a C string. What runs when the library is opened is its own start, as it
        // would run if the module were linked with it.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(Self).ok_or_else(|| {
            // SAFETY: after a failure this is a message, which stays until the thread's next call.
            let said = unsafe { libc::dlerror() };
            if said.is_null() {
                return format!("{} does not open", path.display());
            }
            // SAFETY: as above; it is a C string.
            unsafe { CStr::from_ptr(said) }.to_string_lossy().into_owned()
        })
    }

    /// The address of a function, where the library has it.
    pub(crate) fn function(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the library is open, and the name is a C string.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}
