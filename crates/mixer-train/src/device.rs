//! The backends: the one file of this crate that names them. Everything else takes a [`Device`].

use burn::tensor::Device;
#[cfg(feature = "cuda")]
use burn::tensor::DeviceType;

use crate::error::TrainError;
use crate::group::Place;
use crate::update::optimizer::FirstMomentDtype;
use mixer_model::Precision;

/// The kinds of devices, by backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU, with kernels of our own.
    Flex,
    /// The CPU, as Burn's second implementation.
    Ndarray,
    /// A GPU through the graphics interface.
    Graphics,
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
}

/// A device that this binary can use, as `mixer devices` lists it.
#[derive(Debug, Clone)]
pub struct DeviceEntry {
    /// Its kind.
    pub kind: DeviceKind,
    /// Name, as `--device` takes it.
    pub name: String,
    /// Description for people.
    pub description: String,
    /// The device.
    pub device: Device,
    /// `true` for a program on the CPU that plays a GPU, many times slower than the CPU backend.
    pub is_software_gpu: bool,
    /// Reason for which its results would be wrong, where they would.
    pub flaw: Option<&'static str>,
}

impl DeviceEntry {
    /// A device of which nothing is to be said but what it is.
    #[must_use]
    pub fn new(kind: DeviceKind, name: String, description: String, device: Device) -> Self {
        Self { kind, name, description, device, is_software_gpu: false, flaw: None }
    }

    /// `true` where it computes by itself what it is asked, while the program goes on.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        !matches!(self.kind, DeviceKind::Flex | DeviceKind::Ndarray)
    }

    /// Its number among the CUDA devices, where it is one.
    #[must_use]
    pub fn cuda_index(&self) -> Option<usize> {
        if let DeviceKind::Cuda(index) = self.kind { Some(index) } else { None }
    }

    /// The place of a CUDA device on its machine, whatever number it has in this process; absent where it is not
    /// known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        #[cfg(feature = "cuda")]
        return self.cuda_index().and_then(mixer_kernels::cuda_bus_id);
        #[cfg(not(feature = "cuda"))]
        None
    }

    /// `true` where equal values have equal sums in every process: with kernels of our own. Burn's are chosen by
    /// measurement, in each process by itself.
    #[must_use]
    pub fn sums_alike(&self) -> bool {
        match self.kind {
            DeviceKind::Flex => true,
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(index) => mixer_kernels::cuda_fallback_reason(index).is_none(),
            _ => false,
        }
    }

    /// `true` where it multiplies operands of this precision, and not more slowly than f32.
    #[must_use]
    pub fn multiplies(&self, precision: Precision) -> bool {
        if precision == Precision::F32 {
            return true;
        }
        #[cfg(feature = "flex")]
        if self.kind == DeviceKind::Flex {
            return precision == Precision::Bf16 && mixer_kernels::bf16_is_native();
        }
        #[cfg(feature = "cuda")]
        if self.cuda_index().is_some_and(|i| mixer_kernels::cuda_multiplies(i, precision)) {
            return true;
        }
        self.is_gpu() && self.device.supports_dtype(precision.dtype())
    }

    /// Refuses a precision that it does not multiply in.
    ///
    /// # Errors
    /// [`TrainError::Device`] with what would be needed.
    pub fn check(&self, precision: Precision) -> Result<(), TrainError> {
        if self.multiplies(precision) {
            return Ok(());
        }
        let needs = match precision {
            Precision::F16 => "it needs a GPU that computes in f16",
            _ => {
                "it needs a GPU that computes in bf16 (NVIDIA: compute capability 8.0), or `flex` on a CPU \
                 with AVX512-BF16 (Intel Sapphire Rapids, AMD Zen 4 and later)"
            }
        };
        let (precision, device) = (precision.name(), &self.name);
        let message = format!("precision `{precision}` is not supported on device `{device}`");
        Err(unusable(message, format!("{needs}; elsewhere use precision `f32`")))
    }

    /// Refuses a type that it cannot keep an optimizer's first moment in.
    ///
    /// # Errors
    /// [`TrainError::Device`] with what would be needed.
    pub fn check_first_moment(&self, dtype: FirstMomentDtype) -> Result<(), TrainError> {
        if dtype == FirstMomentDtype::F32 || !self.is_gpu() {
            return Ok(());
        }
        let message = format!(
            "`optimizer.first_moment_dtype` is \"bf16\" on device `{}`, expected \"f32\": only CPUs keep it \
             in bf16",
            self.name
        );
        Err(unusable(
            message,
            "`--set optimizer.first_moment_dtype=f32`, or `--device flex`".to_owned(),
        ))
    }
}

/// Name of the devices of wgpu, by what their shaders are written in: SPIR-V or WGSL.
#[cfg(feature = "wgpu")]
const GRAPHICS: &str = if cfg!(feature = "vulkan") { "vulkan" } else { "wgpu" };

/// Every backend: its name, the cargo feature that adds it, and whether it is compiled in.
pub(crate) const BACKENDS: [(&str, &str, bool); 5] = [
    ("cuda", "cuda", cfg!(feature = "cuda")),
    ("vulkan", "vulkan", cfg!(feature = "wgpu")),
    ("wgpu", "wgpu", cfg!(feature = "wgpu")),
    ("flex", "flex", cfg!(feature = "flex")),
    ("ndarray", "ndarray", cfg!(feature = "ndarray")),
];

/// `true` where tensors lie in the program's own memory: on the CPU.
#[must_use]
pub fn is_host(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    #[cfg(feature = "ndarray")]
    if *device == ndarray() {
        return true;
    }
    false
}

#[cfg(feature = "ndarray")]
#[expect(deprecated, reason = "kept for as long as it is there")]
fn ndarray() -> Device {
    Device::ndarray()
}

/// The devices that are really there, best first. GPUs are enumerated, never constructed blindly: a
/// missing driver would panic on another thread.
#[must_use]
pub fn available() -> Vec<DeviceEntry> {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    mixer_kernels::keep_gpu_kernels();
    let mut entries = Vec::new();
    #[cfg(feature = "cuda")]
    for (index, device) in Device::enumerate(DeviceType::Cuda).into_iter().enumerate() {
        let found = mixer_kernels::cuda_device_name(index);
        let description = found.unwrap_or_else(|| "NVIDIA GPU".to_owned());
        let kind = DeviceKind::Cuda(index);
        entries.push(DeviceEntry::new(kind, format!("cuda:{index}"), description, device));
    }
    #[cfg(feature = "wgpu")]
    for (index, adapter) in mixer_kernels::adapters().iter().enumerate() {
        let (description, device) = (adapter.name.clone(), adapter.device.clone());
        let name = format!("{GRAPHICS}:{index}");
        let entry = DeviceEntry::new(DeviceKind::Graphics, name, description, device);
        entries.push(DeviceEntry {
            is_software_gpu: adapter.is_software,
            flaw: adapter.flaw,
            ..entry
        });
    }
    let mut push = |kind, name: &str, description: &str, device| {
        entries.push(DeviceEntry::new(kind, name.to_owned(), description.to_owned(), device));
    };
    #[cfg(feature = "flex")]
    push(DeviceKind::Flex, "flex", "CPU (also called `cpu`)", Device::flex());
    #[cfg(feature = "ndarray")]
    // The second CPU backend.
    push(DeviceKind::Ndarray, "ndarray", "CPU, second implementation for cross-checks", ndarray());
    entries
}

/// The device that `auto` takes of those that are there.
#[must_use]
pub fn best(entries: &[DeviceEntry]) -> Option<&DeviceEntry> {
    entries.iter().find(|entry| !entry.is_software_gpu && entry.flaw.is_none())
}

/// Opens the device of `--device`: `auto` (the best that is there, software GPUs left aside), `cpu`, `flex`, `ndarray`,
/// `vulkan[:N]`, `wgpu[:N]`, `cuda[:N]`.
///
/// # Errors
/// [`TrainError::Device`] when it is unknown, not compiled in or not there.
pub fn open(requested: &str) -> Result<DeviceEntry, TrainError> {
    let entries = available();
    let sound = entries.iter().filter(|entry| entry.flaw.is_none());
    let names: Vec<&str> = sound.map(|entry| entry.name.as_str()).collect();
    let listed = format!("available here: {}", names.join(", "));
    if requested == "auto" {
        return best(&entries)
            .cloned()
            .ok_or_else(|| unusable("no device is available on this machine".to_owned(), listed));
    }
    let name = match requested {
        "cpu" if cfg!(feature = "flex") => "flex",
        "cpu" => "ndarray",
        other => other,
    };
    let (backend, index) = match name.split_once(':') {
        Some((backend, index)) => (backend, index.parse::<usize>().ok()),
        None => (name, Some(0)),
    };
    let known = BACKENDS.iter().find(|(known, ..)| *known == backend);
    let (Some((_, feature, compiled)), Some(index)) = (known, index) else {
        let message = format!(
            "unknown device `{requested}`, expected auto, cpu, flex, ndarray, vulkan[:N], wgpu[:N] or cuda[:N]"
        );
        return Err(unusable(message, listed));
    };
    if !compiled {
        let message = format!("device `{requested}` is not compiled into this binary");
        return Err(unusable(message, format!("build with `--features {feature}`; {listed}")));
    }
    let wanted = match backend {
        // A CPU has no index.
        "flex" | "ndarray" => name.to_owned(),
        #[cfg(feature = "wgpu")]
        "vulkan" | "wgpu" => format!("{GRAPHICS}:{index}"),
        gpu => format!("{gpu}:{index}"),
    };
    let entry = entries.into_iter().find(|entry| entry.name == wanted).ok_or_else(|| {
        unusable(format!("device `{requested}` was not found on this machine"), listed)
    })?;
    match entry.flaw {
        None => Ok(entry),
        Some(flaw) => {
            let message = format!(
                "device `{requested}` ({}) would compute wrong results: {flaw}",
                entry.description
            );
            let hint = "update its driver, or build with `--features wgpu` and without `vulkan`"
                .to_owned();
            Err(unusable(message, hint))
        }
    }
}

/// Opens the device of one of several processes on a machine: a GPU that is asked for without a number is that
/// of the process's place. Where a process sees one GPU only, it is that.
///
/// # Errors
/// Those of [`open`], and [`TrainError::Device`] where there are fewer GPUs than processes.
pub fn open_as(requested: &str, place: Place) -> Result<DeviceEntry, TrainError> {
    let entry = open(requested)?;
    if place.size == 1 || !entry.is_gpu() || requested.contains(':') {
        return Ok(entry);
    }
    let backend = entry.name.split(':').next().unwrap_or_default();
    let gpus = available().into_iter().filter(|other| {
        other.flaw.is_none()
            && !other.is_software_gpu
            && other.name.split(':').next() == Some(backend)
    });
    let mut gpus: Vec<DeviceEntry> = gpus.collect();
    match gpus.len() {
        0 | 1 => Ok(entry),
        found if place.rank < found => Ok(gpus.swap_remove(place.rank)),
        found => {
            let message = format!("{} processes and {found} GPUs are on this machine", place.size);
            Err(unusable(message, "start one process for each GPU".to_owned()))
        }
    }
}

/// A note to somebody who expects a GPU about the device that was opened for `requested`.
#[must_use]
pub fn note(requested: &str, entry: &DeviceEntry) -> Option<String> {
    let for_gpus = cfg!(any(feature = "wgpu", feature = "cuda"));
    if requested == "auto" && for_gpus && !entry.is_gpu() {
        let message = format!("no usable GPU was found; computing on the CPU (`{}`)", entry.name);
        return Some(message);
    }
    #[cfg(feature = "cuda")]
    if let Some(reason) = entry.cuda_index().and_then(mixer_kernels::cuda_fallback_reason) {
        return Some(format!("`{}` uses Burn's kernels, which are slower: {reason}", entry.name));
    }
    None
}

fn unusable(message: String, hint: String) -> TrainError {
    TrainError::device(message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_in_the_place_of_a_gpu_is_said_in_builds_for_gpus_alone() {
        let opened = open("cpu").unwrap();
        assert_eq!(note("cpu", &opened), None);
        let expected = cfg!(any(feature = "wgpu", feature = "cuda"));
        assert_eq!(note("auto", &opened).is_some(), expected);
    }

    #[test]
    fn auto_and_cpu_open_a_device_that_is_listed() {
        for requested in ["auto", "cpu"] {
            let opened = open(requested).unwrap();
            assert!(available().iter().any(|entry| entry.name == opened.name), "{opened:?}");
        }
    }

    #[test]
    fn a_device_that_is_unknown_or_not_compiled_in_says_what_is_there() {
        let unknown = open("tpu").unwrap_err();
        assert_eq!(unknown.exit_code(), 7);
        assert!(unknown.hint().unwrap().contains("flex"), "{unknown}");
        assert_eq!(open("cuda:x").unwrap_err().exit_code(), 7);
        if !cfg!(feature = "cuda") {
            let error = open("cuda:0").unwrap_err();
            assert_eq!(error.to_string(), "device `cuda:0` is not compiled into this binary");
            assert!(error.hint().unwrap().contains("--features cuda"));
        }
    }
}
