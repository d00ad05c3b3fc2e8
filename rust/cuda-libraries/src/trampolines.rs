//! The functions that Candle's bindings are linked with.
//!
//! Each is one jump through its slot. A slot first holds a function that answers with an error code of its
//! library, whatever the arguments; [`open`](crate::open) puts the real one there. The names are local to
//! the module that is linked, so that real libraries of the same process, PyTorch's say, do not meet them.

use std::ffi::{CStr, c_int};
use std::sync::atomic::AtomicPtr;

use crate::library::Library;

/// Where one function is found.
pub(crate) struct Slot {
    pub(crate) library: Library,
    pub(crate) name: &'static CStr,
    pub(crate) target: &'static AtomicPtr<()>,
}

// Each `extern "C"` function here takes no arguments and is called with some: in the calling conventions of
// the machines below the caller alone places and removes them, and results of the libraries are integers.

/// `CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND`.
extern "C" fn no_driver() -> c_int {
    302
}

/// `CUBLAS_STATUS_NOT_INITIALIZED`.
extern "C" fn no_cublas() -> c_int {
    1
}

/// `CURAND_STATUS_INITIALIZATION_FAILED`.
extern "C" fn no_curand() -> c_int {
    203
}

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    () => {
        "jmp qword ptr [rip + {slot}]"
    };
}

// x16 is free between a call and the first instruction of what is called
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    () => {
        "adrp x16, {slot}\n ldr x16, [x16, :lo12:{slot}]\n br x16"
    };
}

macro_rules! trampolines {
    ($($library:ident, $missing:ident: $($name:ident)*;)*) => {
        /// Every slot.
        pub(crate) static SLOTS: &[Slot] = &[$($(Slot {
            library: Library::$library,
            name: match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            },
            target: &$name,
        },)*)*];

        $($(
            #[allow(non_upper_case_globals, reason = "named after the function")]
            static $name: AtomicPtr<()> = AtomicPtr::new($missing as *mut ());

            std::arch::global_asm!(
                concat!(".pushsection .text.", stringify!($name), ",\"ax\",@progbits"),
                concat!(".globl ", stringify!($name)),
                concat!(".hidden ", stringify!($name)),
                concat!(".type ", stringify!($name), ",@function"),
                concat!(stringify!($name), ":"),
                jump!(),
                concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
                ".popsection",
                slot = sym $name,
            );
        )*)*
    };
}

// All that cudarc calls, for any release of CUDA. A function that is missing here is an undefined symbol of
// the module, which `make cuda` looks for.
trampolines! {
    Driver, no_driver:
        cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxGetCurrent cuCtxGetLimit
        cuCtxGetStreamPriorityRange cuCtxSetCacheConfig cuCtxSetCurrent cuCtxSetFlags cuCtxSetLimit
        cuCtxSynchronize cuDestroyExternalMemory cuDeviceCanAccessPeer cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
        cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2
        cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDeviceSetMemPool cuDeviceTotalMem_v2
        cuDriverGetVersion cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventQuery
        cuEventRecord cuEventSynchronize cuExternalMemoryGetMappedBuffer cuFuncGetAttribute cuFuncSetAttribute
        cuFuncSetCacheConfig cuGetErrorName cuGetErrorString cuGraphClone cuGraphDestroy cuGraphExecDestroy
        cuGraphExecUpdate_v2 cuGraphInstantiate cuGraphInstantiateWithFlags cuGraphLaunch cuGraphUpload
        cuImportExternalMemory cuInit cuLaunchCooperativeKernel cuLaunchHostFunc cuLaunchKernel cuLaunchKernelEx
        cuMemAdvise_v2 cuMemAllocAsync cuMemAllocFromPoolAsync cuMemAllocHost_v2 cuMemAllocManaged cuMemAlloc_v2
        cuMemFreeAsync cuMemFreeHost cuMemFree_v2 cuMemGetInfo_v2 cuMemHostAlloc cuMemHostRegister_v2
        cuMemHostUnregister cuMemPoolCreate cuMemPoolDestroy cuMemPoolGetAttribute cuMemPoolSetAttribute
        cuMemPoolTrimTo cuMemPrefetchAsync_v2 cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2
        cuMemcpyDtoH_v2 cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemcpyPeerAsync cuMemsetD8Async cuMemsetD8_v2
        cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleUnload
        cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxActiveClusters
        cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags
        cuOccupancyMaxPotentialClusterSize cuProfilerStart cuProfilerStop cuStreamAttachMemAsync
        cuStreamBeginCapture_v2 cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamEndCapture
        cuStreamGetCaptureInfo_v2 cuStreamGetCaptureInfo_v3 cuStreamIsCapturing cuStreamQuery cuStreamSynchronize
        cuStreamWaitEvent;
    Cublas, no_cublas:
        cublasCreate_v2 cublasDasum_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2 cublasDgemv_v2
        cublasGemmEx cublasGemmGroupedBatchedEx cublasGemmStridedBatchedEx cublasGetPointerMode_v2
        cublasGetStream_v2 cublasSasum_v2 cublasSetMathMode cublasSetPointerMode_v2 cublasSetStream_v2
        cublasSetWorkspace_v2 cublasSgemmStridedBatched cublasSgemm_v2 cublasSgemv_v2;
    Curand, no_curand:
        curandCreateGenerator curandDestroyGenerator curandGenerate curandGenerateLogNormal
        curandGenerateLogNormalDouble curandGenerateLongLong curandGenerateNormal curandGenerateNormalDouble
        curandGeneratePoisson curandGenerateUniform curandGenerateUniformDouble curandSetGeneratorOffset
        curandSetPseudoRandomGeneratorSeed curandSetStream;
}
