//! The GPUs that wgpu reaches.

use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use burn::tensor::Device;
use wgpu::{Backend, Backends, DeviceType, Instance, InstanceDescriptor};

/// A GPU that wgpu reaches.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Adapter {
    /// The device, which nothing has opened yet.
    pub device: Device,
    /// The driver's name of it, and the graphics API.
    pub name: String,
    /// It is a program on the CPU that plays a GPU.
    pub is_software: bool,
    /// The reason why its results would be wrong, where they would.
    pub flaw: Option<&'static str>,
}

/// Every GPU that wgpu reaches. They are looked for once.
#[must_use]
pub fn adapters() -> &'static [Adapter] {
    static ADAPTERS: OnceLock<Vec<Adapter>> = OnceLock::new();
    ADAPTERS.get_or_init(api::adapters)
}

/// With shaders in SPIR-V: Vulkan and nothing else.
#[cfg(all(feature = "vulkan", not(target_os = "macos")))]
mod api {
    use std::ffi::CStr;

    use super::*;

    /// CubeCL 0.11.3 writes invalid SPIR-V for memory that threads share where the driver lacks this
    /// (`lower_shared_implicit` exchanges two types). Drivers then crash, or give zeros.
    const NEEDED: &CStr = c"VK_KHR_workgroup_memory_explicit_layout";

    pub(super) fn adapters() -> Vec<Adapter> {
        let mut adapters = adapters_of(Backend::Vulkan);
        // The order in which Burn lists the kinds.
        adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
            DeviceType::DiscreteGpu => 0,
            DeviceType::IntegratedGpu => 1,
            DeviceType::VirtualGpu => 2,
            DeviceType::Cpu => 3,
            DeviceType::Other => 4,
        });
        // Programs have no number, so that Burn lists the first of them alone.
        let is_program =
            |adapter: &wgpu::Adapter| adapter.get_info().device_type == DeviceType::Cpu;
        adapters.dedup_by(|a, b| is_program(a) && is_program(b));
        let devices = Device::enumerate(burn::tensor::DeviceType::Vulkan);
        let pairs = devices.into_iter().zip(adapters);
        pairs.map(|(device, adapter)| describe(device, &adapter, flaw(&adapter))).collect()
    }

    fn flaw(adapter: &wgpu::Adapter) -> Option<&'static str> {
        // SAFETY: the adapter is only asked what it has.
        let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
        let has = adapter.physical_device_capabilities().supports_extension(NEEDED);
        (!has).then_some("its driver lacks VK_KHR_workgroup_memory_explicit_layout")
    }
}

/// With shaders in WGSL: the graphics API that CubeCL settles on.
#[cfg(not(all(feature = "vulkan", not(target_os = "macos"))))]
mod api {
    use super::*;

    /// In the order in which CubeCL looks for a GPU.
    const APIS: &[Backend] = if cfg!(target_os = "macos") {
        &[Backend::Metal]
    } else {
        &[Backend::Vulkan, Backend::Dx12, Backend::Gl]
    };

    pub(super) fn adapters() -> Vec<Adapter> {
        let found: Vec<(Backend, Vec<wgpu::Adapter>)> =
            APIS.iter().map(|&api| (api, adapters_of(api))).collect();
        let is_gpu = |adapter: &wgpu::Adapter| adapter.get_info().device_type != DeviceType::Cpu;
        let with_gpu = found.iter().find(|(_, adapters)| adapters.iter().any(is_gpu));
        let settled = with_gpu.or_else(|| found.iter().find(|(_, adapters)| !adapters.is_empty()));
        match settled {
            // CubeCL on OpenGL ends in a deadlock.
            None | Some((Backend::Gl, _)) => Vec::new(),
            Some((_, adapters)) => {
                let devices = Device::enumerate(burn::tensor::DeviceType::Wgpu);
                let pairs = devices.into_iter().zip(adapters);
                pairs.map(|(device, adapter)| describe(device, adapter, None)).collect()
            }
        }
    }
}

fn adapters_of(api: Backend) -> Vec<wgpu::Adapter> {
    let backends = Backends::from(api);
    let descriptor =
        InstanceDescriptor { backends, ..InstanceDescriptor::new_without_display_handle() };
    let instance = Instance::new(descriptor);
    // Only in a browser would this have to be waited for.
    match pin!(instance.enumerate_adapters(backends)).poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(adapters) => adapters,
        Poll::Pending => Vec::new(),
    }
}

fn describe(device: Device, adapter: &wgpu::Adapter, flaw: Option<&'static str>) -> Adapter {
    let info = adapter.get_info();
    let is_software = info.device_type == DeviceType::Cpu;
    Adapter { device, name: format!("{}, {:?}", info.name, info.backend), is_software, flaw }
}
