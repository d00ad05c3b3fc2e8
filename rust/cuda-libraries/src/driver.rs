//! The few questions that the driver is asked before anything is computed.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::ptr::{self, NonNull};

use crate::fault::Fault;
use crate::handle::Handle;
use crate::library::Library;
use crate::{KERNELS_CAPABILITY, KERNELS_RELEASE};

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: c_int = 100;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

/// A GPU, as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// What its maker calls it.
    pub product: String,
    /// Its memory, in bytes.
    pub memory: u64,
    /// Its compute capability: major and minor.
    pub capability: (u32, u32),
}

impl Gpu {
    /// Whether the kernels of this build run on it.
    ///
    /// # Errors
    /// `Fault::Capability` where they do not.
    pub fn suits(&self) -> Result<(), Fault> {
        let (found, built) = (self.capability, KERNELS_CAPABILITY);
        // from 9.0 on Candle compiles for one architecture's own instructions, which no other has
        let is_suited = if built >= (9, 0) { found == built } else { found >= built };
        if is_suited { Ok(()) } else { Err(Fault::Capability { found, built }) }
    }
}

type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
type Init = unsafe extern "C" fn(u32) -> c_int;
type GetCount = unsafe extern "C" fn(*mut c_int) -> c_int;
type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetMemory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type GetErrorName = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// The driver, started.
#[derive(Clone, Copy)]
pub(crate) struct Driver {
    get_count: GetCount,
    get: Get,
    get_name: GetName,
    get_memory: GetMemory,
    get_attribute: GetAttribute,
    get_error_name: GetErrorName,
}

impl Driver {
    /// Starts the driver, and finds out whether it is new enough.
    pub(crate) fn start(handle: &Handle) -> Result<Self, Fault> {
        let function = |name: &CStr| {
            let said = || format!("{} has no `{}`", Library::Driver.file(), name.to_string_lossy());
            handle.function(name).ok_or_else(|| Fault::NoDriver { said: said() })
        };
        // SAFETY: in every release the driver's functions of these names have these types.
        let (driver, get_version, init) = unsafe {
            (
                Self {
                    get_count: mem::transmute::<NonNull<c_void>, GetCount>(function(c"cuDeviceGetCount")?),
                    get: mem::transmute::<NonNull<c_void>, Get>(function(c"cuDeviceGet")?),
                    get_name: mem::transmute::<NonNull<c_void>, GetName>(function(c"cuDeviceGetName")?),
                    get_memory: mem::transmute::<NonNull<c_void>, GetMemory>(function(
                        c"cuDeviceTotalMem_v2",
                    )?),
                    get_attribute: mem::transmute::<NonNull<c_void>, GetAttribute>(function(
                        c"cuDeviceGetAttribute",
                    )?),
                    get_error_name: mem::transmute::<NonNull<c_void>, GetErrorName>(function(
                        c"cuGetErrorName",
                    )?),
                },
                mem::transmute::<NonNull<c_void>, GetVersion>(function(c"cuDriverGetVersion")?),
                mem::transmute::<NonNull<c_void>, Init>(function(c"cuInit")?),
            )
        };
        let mut found = 0;
        // SAFETY: it may be asked before the start, and writes one number.
        driver.check(unsafe { get_version(&raw mut found) })?;
        let found = u32::try_from(found).unwrap_or(0);
        if found < KERNELS_RELEASE {
            return Err(Fault::OldDriver { found, needed: KERNELS_RELEASE });
        }
        // SAFETY: there are no flags to give; it may be called any number of times.
        driver.check(unsafe { init(0) })?;
        Ok(driver)
    }

    /// How many GPUs there are.
    pub(crate) fn count(&self) -> Result<u32, Fault> {
        let mut count = 0;
        // SAFETY: it writes one number.
        self.check(unsafe { (self.get_count)(&raw mut count) })?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// What the driver says of a GPU, without taking memory on it.
    pub(crate) fn describe(&self, ordinal: u32) -> Result<Gpu, Fault> {
        let (mut device, mut memory, mut capability) = (0, 0, [0; 2]);
        let mut name = [0_u8; 256];
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: each writes what its pointer points to, the name at most the bytes that are said; the
        // device is one that the driver gave.
        unsafe {
            self.check((self.get)(&raw mut device, ordinal))?;
            self.check((self.get_name)(name.as_mut_ptr().cast(), name.len() as c_int, device))?;
            self.check((self.get_memory)(&raw mut memory, device))?;
            for (value, attribute) in capability.iter_mut().zip(CAPABILITY) {
                self.check((self.get_attribute)(value, attribute, device))?;
            }
        }
        let [major, minor] = capability.map(|value| u32::try_from(value).unwrap_or(0));
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        Ok(Gpu {
            product: name.to_string_lossy().into_owned(),
            memory: memory as u64,
            capability: (major, minor),
        })
    }

    fn check(&self, code: c_int) -> Result<(), Fault> {
        match code {
            0 => Ok(()),
            NO_DEVICE => Err(Fault::NoGpu),
            code => Err(Fault::Driver { code, name: self.error_name(code) }),
        }
    }

    fn error_name(&self, code: c_int) -> Option<String> {
        let mut name = ptr::null();
        // SAFETY: it writes the address of a text that is never freed, or null.
        let answer = unsafe { (self.get_error_name)(code, &raw mut name) };
        if answer != 0 || name.is_null() {
            return None;
        }
        // SAFETY: as above; it is a C string.
        Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }
}
