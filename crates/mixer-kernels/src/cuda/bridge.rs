//! Between Burn and our kernels: an operation that Burn carries out in its turn, on tensors in its memory.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::Cube;
use burn::backend::fusion::ExecutionError;
use burn::backend::fusion::custom::{
    CustomOpIr, HandleContainer, Operation, OperationIr, StreamId, TensorIr,
};
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape};
use burn_cubecl::fusion::{CubeFusionHandle, FusionCubeRuntime};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, kernel};
use cubecl::cuda::CudaRuntime;
use cubecl_runtime::runtime::Runtime;
use cubecl_runtime::server::ServerStorage;
use cubecl_runtime::storage::{ComputeStorage, ManagedResource};

use super::address::Address;
use super::gpu::{Error, Gpu};

type Server = <CudaRuntime as Runtime>::Server;
type Resource = <<Server as ServerStorage>::Storage as ComputeStorage>::Resource;

/// A tensor whose memory stays where it is for as long as this lives.
pub(super) struct Buffer {
    /// The place of its first element.
    pub(super) address: Address,
    pub(super) shape: Shape,
    pub(super) dtype: DType,
    /// True where nobody else will read it, so that it may be written to.
    pub(super) owned: bool,
    tensor: CubeTensor,
    _resource: ManagedResource<Resource>,
}

impl Buffer {
    fn new(tensor: CubeTensor) -> Result<Self, Error> {
        let tensor = kernel::into_contiguous(tensor);
        let owned = tensor.handle.can_mut();
        let resource = tensor
            .client
            .get_resource::<Server>(tensor.handle.clone())
            .map_err(|error| format!("a tensor's memory: {error}"))?;
        // SAFETY: the resource, which is kept beside the address, holds the memory where it is; whatever Burn
        // has do with it later waits for our stream.
        let address = unsafe { Address::new(resource.resource().ptr) };
        Ok(Self {
            address: address.ok_or_else(|| "a tensor has no memory".to_owned())?,
            shape: tensor.meta.shape().clone(),
            dtype: tensor.dtype,
            owned,
            tensor,
            _resource: resource,
        })
    }

    fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> Result<Self, Error> {
        let handle = like.client.empty(shape.num_elements() * dtype.size());
        let (client, device) = (like.client.clone(), like.device.clone());
        Self::new(CubeTensor::new_contiguous(client, device, shape, handle, dtype))
    }
}

/// The memory of an output.
#[derive(Debug, Clone)]
pub(super) enum Output {
    /// Memory of its own.
    New(Shape, DType),
    /// The input of this number, changed; or a copy of it where somebody else will read it.
    Changed(usize),
}

/// The kernels of an operation: inputs, then outputs.
pub(super) trait Body:
    Fn(&mut Gpu, &[Buffer], &[Buffer]) -> Result<(), Error> + Send + Sync
{
}
impl<F: Fn(&mut Gpu, &[Buffer], &[Buffer]) -> Result<(), Error> + Send + Sync> Body for F {}

struct Native<F> {
    description: CustomOpIr,
    outputs: Vec<Output>,
    gpu: Arc<Mutex<Gpu>>,
    body: F,
}

impl<F> fmt::Debug for Native<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Native").field(&self.description.id).finish()
    }
}

impl<F: Body> Native<F> {
    /// On the thread of the device's server, where asking for memory is a call and no message: an
    /// operation has some twenty tensors, and a message there and back takes longer than most kernels.
    fn on_server(&self, inputs: Vec<CubeTensor>) -> Result<Vec<CubeTensor>, Error> {
        let client = inputs.first().map(|input| input.client.clone());
        let client = client.ok_or_else(|| "no input".to_owned())?;
        client.exclusive(move || self.run(inputs)).map_err(|error| error.to_string())?
    }

    fn run(&self, inputs: Vec<CubeTensor>) -> Result<Vec<CubeTensor>, Error> {
        let inputs = inputs.into_iter().map(Buffer::new).collect::<Result<Vec<Buffer>, Error>>()?;
        let like = &inputs[0].tensor;
        let outputs = self
            .outputs
            .iter()
            .map(|output| match output {
                Output::New(shape, dtype) => Buffer::empty(like, shape.clone(), *dtype),
                Output::Changed(input) if inputs[*input].owned => {
                    Buffer::new(inputs[*input].tensor.clone())
                }
                Output::Changed(input) => {
                    let input = &inputs[*input];
                    Buffer::empty(like, input.shape.clone(), input.dtype)
                }
            })
            .collect::<Result<Vec<Buffer>, Error>>()?;
        let mut gpu = self.gpu.lock().unwrap_or_else(PoisonError::into_inner);
        gpu.begin()?;
        for (output, buffer) in self.outputs.iter().zip(&outputs) {
            if let Output::Changed(input) = output
                && inputs[*input].address != buffer.address
            {
                let bytes = buffer.shape.num_elements() * buffer.dtype.size();
                // SAFETY: both are tensors of that many bytes.
                unsafe { gpu.copy(buffer.address, inputs[*input].address, bytes)? };
            }
        }
        (self.body)(&mut gpu, &inputs, &outputs)?;
        gpu.end()?;
        Ok(outputs.into_iter().map(|output| output.tensor).collect())
    }

    fn carry_out(&self, handles: &mut HandleContainer<CubeFusionHandle>) -> Result<(), Error> {
        let inputs = self.description.inputs.iter();
        let inputs = inputs.map(|input| handles.get_float_tensor::<CubeBackend>(input)).collect();
        let outputs = self.on_server(inputs)?;
        for (description, output) in self.description.outputs.iter().zip(outputs) {
            handles.register_float_tensor::<CubeBackend>(&description.id, output);
        }
        Ok(())
    }
}

impl<F: Body> Operation<FusionCubeRuntime> for Native<F> {
    fn execute(
        &self,
        handles: &mut HandleContainer<CubeFusionHandle>,
    ) -> Result<(), ExecutionError> {
        self.carry_out(handles).map_err(|error| ExecutionError::WithContext {
            reason: format!("{}: {error}", self.description.id),
        })
    }
}

/// Asks for an operation; Burn carries it out when its inputs are there.
pub(super) fn register(
    name: &'static str,
    gpu: Arc<Mutex<Gpu>>,
    inputs: Vec<FloatTensor<Cube>>,
    outputs: Vec<Output>,
    body: impl Body + 'static,
) -> Vec<FloatTensor<Cube>> {
    let client = inputs[0].client.clone();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(|tensor| tensor.into_ir()).collect();
    let described: Vec<TensorIr> = outputs
        .iter()
        .map(|output| {
            let (shape, dtype) = match output {
                Output::New(shape, dtype) => (shape.clone(), *dtype),
                Output::Changed(input) => (inputs[*input].shape.clone(), inputs[*input].dtype),
            };
            TensorIr::uninit(client.create_empty_handle(), shape, dtype)
        })
        .collect();
    let description = CustomOpIr::new(name, &inputs, &described);
    client.register(
        StreamId::current(),
        OperationIr::Custom(description.clone()),
        Native { description, outputs, gpu, body },
    )
}
