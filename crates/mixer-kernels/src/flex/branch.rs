//! The tensors of a half of a block as the kernels see them: slices of floats.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape};

use super::contiguous::{from_vec, values};
use super::panel::Matrix;
use crate::ops::branch::{Branch, BranchGradients};
use crate::spec::{Gelu, MixingSpec, Precision};

/// The floats that a mixing operation reads.
pub(super) struct View<'a> {
    /// Examples, tokens, channels.
    pub(super) dims: [usize; 3],
    pub(super) x: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
    pub(super) weight1: Matrix<'a>,
    pub(super) bias1: &'a [f32],
    pub(super) weight2: Matrix<'a>,
    pub(super) bias2: &'a [f32],
    pub(super) branch_scale: &'a [f32],
    pub(super) gelu: Gelu,
    pub(super) epsilon: f32,
}

/// The gradients that its backward pass gives.
pub(super) struct Gradients {
    pub(super) x: FlexTensor,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
    pub(super) weight1: FlexTensor,
    pub(super) bias1: Vec<f32>,
    pub(super) weight2: FlexTensor,
    pub(super) bias2: Vec<f32>,
}

impl Gradients {
    pub(super) fn into_tensors(self) -> BranchGradients<Flex> {
        let vector = |values: Vec<f32>| {
            let shape = Shape::from(vec![values.len()]);
            from_vec(values, shape)
        };
        BranchGradients {
            x: self.x,
            gamma: vector(self.gamma),
            beta: vector(self.beta),
            weight1: self.weight1,
            bias1: vector(self.bias1),
            weight2: self.weight2,
            bias2: vector(self.bias2),
        }
    }
}

/// The tensors of a mixing operation, contiguous, or of a weight its transpose.
pub(super) struct Contiguous {
    tensors: Branch<Flex>,
    pub(super) spec: MixingSpec,
}

impl Contiguous {
    /// `None` unless there are kernels for the precision and every tensor is f32.
    pub(super) fn new(branch: &Branch<Flex>, spec: MixingSpec) -> Option<Self> {
        let (tensors, branch_scale) = branch.clone().into_array();
        let is_f32 = |tensor: &FlexTensor| tensor.dtype() == DType::F32;
        let has_kernels = spec.precision != Precision::F16;
        (has_kernels && tensors.iter().all(is_f32) && is_f32(&branch_scale)).then(|| {
            let tensors = tensors.each_ref().map(readable);
            Self { tensors: Branch::from_array(tensors, branch_scale.to_contiguous()), spec }
        })
    }

    pub(super) fn view(&self) -> View<'_> {
        let Branch { x, gamma, beta, weight1, bias1, weight2, bias2, branch_scale } = &self.tensors;
        let shape = x.shape();
        View {
            dims: [shape[0], shape[1], shape[2]],
            x: values(x),
            gamma: values(gamma),
            beta: values(beta),
            weight1: matrix(weight1),
            bias1: values(bias1),
            weight2: matrix(weight2),
            bias2: values(bias2),
            branch_scale: values(branch_scale),
            gelu: self.spec.gelu,
            epsilon: self.spec.epsilon as f32,
        }
    }
}

/// The tensor as kernels read it: contiguous, unless it is a matrix whose transpose is.
fn readable(tensor: &FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    if layout.num_dims() == 2 && layout.transpose(0, 1).is_contiguous() {
        return tensor.clone();
    }
    tensor.to_contiguous()
}

/// A weight that is [`readable`].
fn matrix(weight: &FlexTensor) -> Matrix<'_> {
    let shape = weight.shape();
    let dims = [shape[0], shape[1]];
    if weight.is_contiguous() {
        return Matrix::new(values(weight), dims);
    }
    let (start, end) = weight
        .layout()
        .transpose(0, 1)
        .contiguous_offsets()
        .unwrap_or_else(|| unreachable!("the weight or its transpose is contiguous"));
    Matrix::new(&weight.storage::<f32>()[start..end], [dims[1], dims[0]]).transposed()
}
