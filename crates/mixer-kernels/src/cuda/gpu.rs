//! One GPU as our kernels see it: its context, a stream of their own, scratch memory and the kernels,
//! compiled when first needed.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::result as driver;
use cudarc::driver::sys;
use cudarc::{cublaslt, nvrtc};

use crate::spec::Precision;

use super::address::Address;
use super::nccl::Communicator;
use super::product::{ProductKey, Tuned};

/// The reason why something could not be done, in words: it travels through Burn's own error.
pub(super) type Error = String;

/// The scratch memory that products may use, bytes: what NVIDIA recommends for Hopper.
pub(super) const WORKSPACE: usize = 32 << 20;
/// Alignment of every piece of scratch memory, bytes.
const ALIGNMENT: usize = 512;
/// The driver from which a context can be recorded and waited for as a whole.
const CONTEXT_EVENTS: i32 = 12_050;

const SOURCE: &str = include_str!("kernels.cu");

/// A GPU.
pub(super) struct Gpu {
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    pub(super) before: sys::CUevent,
    pub(super) after: sys::CUevent,
    pub(super) lt: cublaslt::sys::cublasLtHandle_t,
    pub(super) workspace: Address,
    scratch: Option<(Address, usize)>,
    modules: HashMap<(Precision, usize), HashMap<&'static str, sys::CUfunction>>,
    pub(super) products: HashMap<ProductKey, Option<Tuned>>,
    profile: Option<HashMap<String, CudaTime>>,
    /// Its membership of a group of GPUs, where it has one.
    pub(super) communicator: Option<Communicator>,
    context_events: bool,
    capability: (i32, i32),
    pub(super) multiprocessors: u32,
    /// The most that memory moves, bytes per ms.
    pub(super) bandwidth: f32,
}

// SAFETY: the handles in it belong to the driver, which allows any thread to use them; a mutex keeps
// two threads from doing so at once.
unsafe impl Send for Gpu {}

/// The time that one kernel, or one shape of product, took.
#[derive(Debug, Clone, PartialEq)]
pub struct CudaTime {
    /// The kernel, or the shapes of the product.
    pub what: String,
    /// Number of runs.
    pub count: usize,
    /// All runs together, ms.
    pub milliseconds: f64,
    /// Floating-point operations of all runs; 0 of what is no product.
    pub operations: f64,
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg {
    /// An address on the device.
    Pointer(Address),
    /// An address, or none.
    Optional(Option<Address>),
    /// `i64`.
    Long(usize),
    /// `int`.
    Int(usize),
    /// `float`.
    Float(f64),
}

/// The names of all kernels.
const KERNELS: [&str; 19] = [
    "layer_norm",
    "layer_norm_backward",
    "mean_norm",
    "mean_norm_backward",
    "reduce_partials",
    "gelu_forward",
    "fill_rows",
    "gelu_backward",
    "cast",
    "widen",
    "column_sums",
    "add_scaled",
    "pack",
    "reduce_slots",
    "adamw",
    "sgd",
    "average",
    "squares",
    "total",
];

/// The GPU with this index, opened on first use.
///
/// # Errors
/// The library that is missing, or the words of the driver.
pub(super) fn open(index: usize) -> Result<Arc<Mutex<Gpu>>, Error> {
    type Opened = BTreeMap<usize, Result<Arc<Mutex<Gpu>>, Error>>;
    static OPENED: OnceLock<Mutex<Opened>> = OnceLock::new();
    let opened = OPENED.get_or_init(Mutex::default);
    let mut opened = opened.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    opened
        .entry(index)
        .or_insert_with(|| Gpu::new(index).map(|gpu| Arc::new(Mutex::new(gpu))))
        .clone()
}

/// The place of a GPU on its machine, as no other one has it.
pub(super) fn bus_id(index: usize) -> Result<String, Error> {
    // SAFETY: asks the loader for the library's names, and runs nothing of its.
    if !unsafe { sys::is_culib_present() } {
        return Err("the NVIDIA driver was not found".to_owned());
    }
    driver::init().map_err(driver_error("cuInit"))?;
    let device = driver::device::get(index as i32).map_err(driver_error("cuDeviceGet"))?;
    let mut id = [0; 32];
    // SAFETY: the driver writes a text of at most that length, with its end.
    unsafe { sys::cuDeviceGetPCIBusId(id.as_mut_ptr(), id.len() as i32, device) }
        .result()
        .map_err(driver_error("cuDeviceGetPCIBusId"))?;
    let text = id.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0);
    Ok(String::from_utf8_lossy(&text.collect::<Vec<u8>>()).into_owned())
}

/// The driver's name of a GPU, and its memory.
pub(super) fn name(index: usize) -> Result<String, Error> {
    // SAFETY: asks the loader for the library's names, and runs nothing of its.
    if !unsafe { sys::is_culib_present() } {
        return Err("the NVIDIA driver was not found".to_owned());
    }
    driver::init().map_err(driver_error("cuInit"))?;
    let device = driver::device::get(index as i32).map_err(driver_error("cuDeviceGet"))?;
    let name = driver::device::get_name(device).map_err(driver_error("cuDeviceGetName"))?;
    // SAFETY: `device` was given by the driver.
    let memory = unsafe { driver::device::total_mem(device) };
    let memory = memory.map_err(driver_error("cuDeviceTotalMem"))?;
    Ok(format!("{name}, {:.1} GiB", memory as f64 / (1_u64 << 30) as f64))
}

pub(super) fn driver_error(what: &str) -> impl Fn(driver::DriverError) -> Error + '_ {
    move |error| format!("{what}: {error:?}")
}

impl Gpu {
    fn new(index: usize) -> Result<Self, Error> {
        // SAFETY: asks the loader for each library's names, and runs nothing of theirs.
        let present = unsafe {
            [
                ("the NVIDIA driver", sys::is_culib_present()),
                ("NVRTC", nvrtc::sys::is_culib_present()),
                ("cuBLASLt", cublaslt::sys::is_culib_present()),
            ]
        };
        if let Some((missing, _)) = present.iter().find(|(_, present)| !present) {
            return Err(format!("{missing} was not found"));
        }
        use sys::CUdevice_attribute as Attribute;
        driver::init().map_err(driver_error("cuInit"))?;
        let device = driver::device::get(index as i32).map_err(driver_error("cuDeviceGet"))?;
        // SAFETY: `device` was given by the driver. The primary context is the one that CubeCL uses; it
        // is never released, as the GPU is open until the process ends.
        unsafe {
            let attribute = |which| {
                driver::device::get_attribute(device, which)
                    .map_err(driver_error("cuDeviceGetAttribute"))
            };
            let capability = (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            );
            let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
            // kHz and bits; two transfers a cycle.
            let clock = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
            let width = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
            let context = driver::primary_ctx::retain(device)
                .map_err(driver_error("cuDevicePrimaryCtxRetain"))?;
            driver::ctx::set_current(context).map_err(driver_error("cuCtxSetCurrent"))?;
            let event = || {
                driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                    .map_err(driver_error("cuEventCreate"))
            };
            let mut version = 0;
            sys::cuDriverGetVersion(&mut version)
                .result()
                .map_err(driver_error("cuDriverGetVersion"))?;
            let lt =
                cublaslt::result::create_handle().map_err(|e| format!("cublasLtCreate: {e}"))?;
            Ok(Self {
                context,
                stream: driver::stream::create(driver::stream::StreamKind::NonBlocking)
                    .map_err(driver_error("cuStreamCreate"))?,
                before: event()?,
                after: event()?,
                lt,
                workspace: allocate(WORKSPACE)?,
                scratch: None,
                modules: HashMap::new(),
                products: HashMap::new(),
                profile: None,
                communicator: None,
                context_events: version >= CONTEXT_EVENTS,
                capability,
                multiprocessors: multiprocessors.unsigned_abs(),
                bandwidth: 2.0 * clock as f32 * width as f32 / 8.0,
            })
        }
    }

    /// True where it multiplies operands of this precision: f16 since Volta, bf16 since Ampere.
    pub(super) fn multiplies(&self, precision: Precision) -> bool {
        match precision {
            Precision::F32 => true,
            Precision::F16 => self.capability.0 >= 7,
            Precision::Bf16 => self.capability.0 >= 8,
        }
    }

    /// Makes this GPU that of the calling thread.
    pub(super) fn make_current(&self) -> Result<(), Error> {
        // SAFETY: the context is this GPU's own and lives as long as the process.
        unsafe { driver::ctx::set_current(self.context) }.map_err(driver_error("cuCtxSetCurrent"))
    }

    /// Has what follows on our stream wait for everything that Burn has asked of the GPU until now.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        // SAFETY: context, stream and event are this GPU's own and live as long as the process.
        unsafe {
            driver::ctx::set_current(self.context).map_err(driver_error("cuCtxSetCurrent"))?;
            if !self.context_events {
                return driver::ctx::synchronize().map_err(driver_error("cuCtxSynchronize"));
            }
            sys::cuCtxRecordEvent(self.context, self.before)
                .result()
                .map_err(driver_error("cuCtxRecordEvent"))?;
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            driver::stream::wait_event(self.stream, self.before, flags)
                .map_err(driver_error("cuStreamWaitEvent"))
        }
    }

    /// Has everything that Burn asks of the GPU from now on wait for our stream.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        // SAFETY: as in `begin`.
        unsafe {
            if !self.context_events {
                return self.synchronise();
            }
            driver::event::record(self.after, self.stream)
                .map_err(driver_error("cuEventRecord"))?;
            sys::cuCtxWaitEvent(self.context, self.after)
                .result()
                .map_err(driver_error("cuCtxWaitEvent"))
        }
    }

    pub(super) fn synchronise(&self) -> Result<(), Error> {
        // SAFETY: the stream is this GPU's own.
        unsafe { driver::stream::synchronize(self.stream) }
            .map_err(driver_error("cuStreamSynchronize"))
    }

    pub(super) fn memory_in_use(&self) -> Result<usize, Error> {
        // SAFETY: the context was retained and is never released.
        unsafe { driver::ctx::set_current(self.context) }
            .map_err(driver_error("cuCtxSetCurrent"))?;
        let (free, total) = driver::mem_get_info().map_err(driver_error("cuMemGetInfo"))?;
        Ok(total - free)
    }

    /// The times since the last call, the longest first; from the first call on there is an
    /// account.
    pub(super) fn profile(&mut self) -> Vec<CudaTime> {
        let times = self.profile.replace(HashMap::new()).unwrap_or_default();
        let mut times: Vec<CudaTime> = times.into_values().collect();
        times.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
        times
    }

    /// Does something on the stream, and accounts for its time where there is an account.
    pub(super) fn timed(
        &mut self,
        what: impl FnOnce() -> (String, f64),
        work: impl FnOnce(&Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.profile.is_none() {
            return work(self);
        }
        let event = || {
            driver::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(driver_error("cuEventCreate"))
        };
        let (started, ended) = (event()?, event()?);
        // SAFETY: stream and events are alive; the events are destroyed once.
        let milliseconds = unsafe {
            driver::event::record(started, self.stream).map_err(driver_error("cuEventRecord"))?;
            work(self)?;
            driver::event::record(ended, self.stream).map_err(driver_error("cuEventRecord"))?;
            driver::event::synchronize(ended).map_err(driver_error("cuEventSynchronize"))?;
            let milliseconds = driver::event::elapsed(started, ended)
                .map_err(driver_error("cuEventElapsedTime"))?;
            for event in [started, ended] {
                driver::event::destroy(event).map_err(driver_error("cuEventDestroy"))?;
            }
            f64::from(milliseconds)
        };
        let (what, operations) = what();
        if let Some(profile) = &mut self.profile {
            let new = CudaTime { what: what.clone(), count: 0, milliseconds: 0.0, operations: 0.0 };
            let time = profile.entry(what).or_insert(new);
            time.count += 1;
            time.milliseconds += milliseconds;
            time.operations += operations;
        }
        Ok(())
    }

    /// Scratch memory of these sizes in bytes, until the next call. A piece of size 0 has an address, too.
    pub(super) fn scratch<const N: usize>(
        &mut self,
        sizes: [usize; N],
    ) -> Result<[Address; N], Error> {
        let padded = sizes.map(|size| size.next_multiple_of(ALIGNMENT));
        let total = padded.iter().sum::<usize>().max(ALIGNMENT);
        let first = match self.scratch {
            Some((first, size)) if size >= total => first,
            _ => {
                self.synchronise()?;
                if let Some((old, _)) = self.scratch.take() {
                    // SAFETY: it was allocated here, and nothing on the stream uses it any more.
                    unsafe { driver::free_sync(old.get()) }.map_err(driver_error("cuMemFree"))?;
                }
                let first = allocate(total)?;
                self.scratch = Some((first, total));
                first
            }
        };
        let mut next = first;
        Ok(padded.map(|size| {
            let address = next;
            next = next.plus(size);
            address
        }))
    }

    /// Copies bytes from the host.
    ///
    /// # Safety
    /// There must be room for that many bytes.
    pub(super) unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: the caller's promise. From pageable memory, the driver has read the bytes when this
        // returns.
        unsafe { driver::memcpy_htod_async(to.get(), bytes, self.stream) }
            .map_err(driver_error("cuMemcpyHtoDAsync"))
    }

    /// Writes values in [0.5, 1), of either sign: a pattern of a megabyte, again and again.
    ///
    /// # Safety
    /// There must be room for that many bytes.
    pub(super) unsafe fn fill_with_noise(
        &self,
        to: Address,
        bytes: usize,
        element: Precision,
    ) -> Result<(), Error> {
        let mut state = 1_u64;
        let mut pattern = Vec::with_capacity(1 << 20);
        while pattern.len() < 1 << 20 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let random = (state >> 32) as u32;
            // The exponent of 0.5, and the sign and fraction at random.
            match element {
                Precision::F32 => {
                    pattern.extend(((random & 0x807f_ffff) | 0x3f00_0000).to_ne_bytes())
                }
                Precision::Bf16 => {
                    pattern.extend(((random as u16 & 0x807f) | 0x3f00).to_ne_bytes());
                }
                Precision::F16 => {
                    pattern.extend(((random as u16 & 0x83ff) | 0x3800).to_ne_bytes());
                }
            }
        }
        for start in (0..bytes).step_by(pattern.len()) {
            let len = pattern.len().min(bytes - start);
            // SAFETY: the caller's promise.
            unsafe { self.upload(to.plus(start), &pattern[..len])? };
        }
        Ok(())
    }

    /// Copies bytes on the device.
    ///
    /// # Safety
    /// That many bytes must be there, twice.
    pub(super) unsafe fn copy(
        &self,
        to: Address,
        from: Address,
        bytes: usize,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { driver::memcpy_dtod_async(to.get(), from.get(), bytes, self.stream) }
            .map_err(driver_error("cuMemcpyDtoDAsync"))
    }

    /// Starts a kernel on blocks of `block` threads.
    ///
    /// # Safety
    /// `args` must be those that the kernel in `kernels.cu` declares, in its order, and at every address there
    /// must be as much memory as the kernel reaches with such a grid and such sizes.
    pub(super) unsafe fn launch(
        &mut self,
        kernel: Kernel,
        grid: (usize, usize),
        block: (u32, u32),
        shared: usize,
        args: &[Arg],
    ) -> Result<(), Error> {
        let function = self.function(kernel)?;
        let mut slots: Vec<u64> = args
            .iter()
            .map(|arg| match *arg {
                Arg::Pointer(address) => address.get(),
                Arg::Optional(address) => address.map_or(0, Address::get),
                Arg::Long(value) => value as u64,
                Arg::Int(value) => u64::from(value as u32),
                Arg::Float(value) => u64::from((value as f32).to_bits()),
            })
            .collect();
        // Of a slot, the kernel reads as many bytes as its parameter has: the low ones come first.
        let mut params: Vec<*mut c_void> =
            slots.iter_mut().map(|slot| std::ptr::from_mut(slot).cast()).collect();
        let grid = (grid.0 as u32, grid.1 as u32, 1);
        self.timed(
            || (kernel.name.to_owned(), 0.0),
            // SAFETY: the caller's promise; the memory of an [`Address`] lives until the stream has passed
            // this point.
            |gpu| unsafe {
                driver::launch_kernel(
                    function,
                    grid,
                    (block.0, block.1, 1),
                    shared as u32,
                    gpu.stream,
                    &mut params,
                )
                .map_err(|error| format!("kernel `{}`: {error:?}", kernel.name))
            },
        )
    }

    fn function(&mut self, kernel: Kernel) -> Result<sys::CUfunction, Error> {
        let key = (kernel.element, kernel.lanes);
        if !self.modules.contains_key(&key) {
            let module = self.compile(kernel.element, kernel.lanes)?;
            self.modules.insert(key, module);
        }
        let found = self.modules.get(&key).and_then(|module| module.get(kernel.name));
        found.copied().ok_or_else(|| format!("there is no kernel `{}`", kernel.name))
    }

    fn compile(
        &self,
        element: Precision,
        lanes: usize,
    ) -> Result<HashMap<&'static str, sys::CUfunction>, Error> {
        let (major, minor) = self.capability;
        let mut options =
            vec![format!("--gpu-architecture=sm_{major}{minor}"), format!("-DLANES={lanes}")];
        match element {
            Precision::F32 => {}
            Precision::Bf16 => options.push("-DBF16".to_owned()),
            Precision::F16 => options.push("-DF16".to_owned()),
        }
        let source = CString::new(SOURCE).map_err(|error| error.to_string())?;
        let program = nvrtc::result::create_program(&source, Some(c"kernels.cu"))
            .map_err(|error| format!("nvrtcCreateProgram: {error:?}"))?;
        // SAFETY: the program was just made and is destroyed at the end of this block; the image that is
        // loaded from outlives the call.
        unsafe {
            if let Err(error) = nvrtc::result::compile_program(program, &options) {
                let log = nvrtc::result::get_program_log(program).unwrap_or_default();
                let log: Vec<u8> = log.iter().map(|byte| byte.cast_unsigned()).collect();
                return Err(format!("NVRTC: {error:?}: {}", String::from_utf8_lossy(&log)));
            }
            let mut size = 0;
            nvrtc::sys::nvrtcGetCUBINSize(program, &mut size)
                .result()
                .map_err(|error| format!("nvrtcGetCUBINSize: {error:?}"))?;
            let mut image = vec![0u8; size];
            nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast())
                .result()
                .map_err(|error| format!("nvrtcGetCUBIN: {error:?}"))?;
            nvrtc::result::destroy_program(program)
                .map_err(|error| format!("nvrtcDestroyProgram: {error:?}"))?;
            let module = driver::module::load_data(image.as_ptr().cast())
                .map_err(driver_error("cuModuleLoadData"))?;
            KERNELS
                .iter()
                .map(|&name| {
                    let symbol = CString::new(name).map_err(|error| error.to_string())?;
                    let function = driver::module::get_function(module, symbol)
                        .map_err(|error| format!("kernel `{name}`: {error:?}"))?;
                    Ok((name, function))
                })
                .collect()
        }
    }
}

/// A kernel of one compilation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) element: Precision,
    pub(super) lanes: usize,
}

/// Memory that nobody frees but [`Gpu::scratch`].
fn allocate(bytes: usize) -> Result<Address, Error> {
    let megabytes = bytes.div_ceil(1_000_000);
    // SAFETY: a context is current.
    let allocated = unsafe { driver::malloc_sync(bytes) };
    let number = allocated.map_err(|error| {
        format!("{megabytes} MB of GPU memory: {error:?}; a smaller batch may fit")
    })?;
    // SAFETY: it was just allocated, and is freed when the stream has passed all that uses it.
    let address = unsafe { Address::new(number) };
    address.ok_or_else(|| format!("{megabytes} MB of GPU memory: the driver gave none"))
}
