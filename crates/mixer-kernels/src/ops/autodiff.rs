//! The operations as nodes of Burn's autodiff graph, each with one hand-written backward pass.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::MixerOps;
use super::branch::{Branch, Hidden, Keeping};
use super::dense::{Dense, DenseBackward};
use super::norm::{Norm, NormBackward};
use crate::spec::{MixingSpec, Precision};

/// One elementwise node: the forward and backward operations of the trait, by name.
macro_rules! elementwise_node {
    ($forward:ident, $backward:ident) => {
        fn $forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
            #[derive(Debug)]
            struct Node;
            impl<B: MixerOps> Backward<B, 1> for Node {
                type State = NodeId;

                fn backward(
                    self,
                    ops: Ops<Self::State, 1>,
                    grads: &mut Gradients,
                    checkpointer: &mut Checkpointer,
                ) {
                    let x: FloatTensor<B> = checkpointer.retrieve_node_output(ops.state);
                    let [parent] = ops.parents;
                    let grad = grads.consume::<B>(&ops.node);
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, B::$backward(x, grad));
                    }
                }
            }
            match Node.prepare::<C>([x.node()]).compute_bound().stateful() {
                OpsKind::Tracked(mut prep) => {
                    let state = prep.checkpoint(&x);
                    prep.finish(state, B::$forward(x.into_primitive()))
                }
                OpsKind::UnTracked(prep) => prep.finish(B::$forward(x.into_primitive())),
            }
        }
    };
}

/// One node of a normalisation: the forward and backward operations of the trait, by name.
macro_rules! norm_node {
    ($forward:ident, $backward:ident) => {
        fn $forward(norm: Norm<Self>, epsilon: f64) -> FloatTensor<Self> {
            #[derive(Debug)]
            struct Node;
            impl<B: MixerOps> Backward<B, 3> for Node {
                type State = (NodeId, NodeId, f64);

                fn backward(
                    self,
                    ops: Ops<Self::State, 3>,
                    grads: &mut Gradients,
                    checkpointer: &mut Checkpointer,
                ) {
                    let (x, gamma, epsilon) = ops.state;
                    let x = checkpointer.retrieve_node_output(x);
                    let gamma = checkpointer.retrieve_node_output(gamma);
                    let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                    let grad = grads.consume::<B>(&ops.node);
                    let dnorm = B::$backward(NormBackward { x, gamma, grad }, epsilon);
                    register::<B, 3>(parents, [dnorm.x, dnorm.gamma, dnorm.beta], grads);
                }
            }
            let Norm { x, gamma, beta } = norm;
            let prepared = Node.prepare::<C>([x.node(), gamma.node(), beta.node()]);
            let forward =
                |x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>| {
                    let (x, gamma) = (x.into_primitive(), gamma.into_primitive());
                    B::$forward(Norm { x, gamma, beta: beta.into_primitive() }, epsilon)
                };
            match prepared.compute_bound().stateful() {
                OpsKind::Tracked(mut prep) => {
                    let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), epsilon);
                    prep.finish(state, forward(x, gamma, beta))
                }
                OpsKind::UnTracked(prep) => prep.finish(forward(x, gamma, beta)),
            }
        }
    };
}

impl<B: MixerOps, C: CheckpointStrategy> MixerOps for Autodiff<B, C> {
    elementwise_node!(gelu_erf, gelu_erf_backward);
    elementwise_node!(gelu_tanh, gelu_tanh_backward);

    norm_node!(fused_layer_norm, fused_layer_norm_backward);
    norm_node!(mean_layer_norm, mean_layer_norm_backward);

    fn dense(layer: Dense<Self>, precision: Precision) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Node;
        impl<B: MixerOps> Backward<B, 3> for Node {
            type State = (NodeId, NodeId, Precision);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let (x, weight, precision) = ops.state;
                let x = checkpointer.retrieve_node_output(x);
                let weight = checkpointer.retrieve_node_output(weight);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                let [parent_x, parent_weight, parent_bias] = parents;
                let grad = grads.consume::<B>(&ops.node);
                let layer = DenseBackward { x, weight, grad };
                // Nobody wants the gradient of a network's input, which is as large as the input.
                let parameters = match parent_x {
                    Some(parent) => {
                        let gradients = B::dense_backward(layer, precision);
                        grads.register::<B>(parent, gradients.x);
                        gradients.parameters
                    }
                    None => B::dense_parameters_backward(layer, precision),
                };
                let gradients = [parameters.weight, parameters.bias];
                register::<B, 2>([parent_weight, parent_bias], gradients, grads);
            }
        }
        let Dense { x, weight, bias } = layer;
        let prepared = Node.prepare::<C>([x.node(), weight.node(), bias.node()]);
        let forward = |x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>| {
            let (x, weight) = (x.into_primitive(), weight.into_primitive());
            B::dense(Dense { x, weight, bias: bias.into_primitive() }, precision)
        };
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&weight), precision);
                prep.finish(state, forward(x, weight, bias))
            }
            OpsKind::UnTracked(prep) => prep.finish(forward(x, weight, bias)),
        }
    }

    fn mix_tokens(branch: Branch<Self>, spec: MixingSpec) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Node;
        impl<B: MixerOps> Backward<B, 7> for Node {
            type State = ([NodeId; 7], FloatTensor<B>, MixingSpec);

            fn backward(
                self,
                ops: Ops<Self::State, 7>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let Ops { parents, node, state: (inputs, scale, spec) } = ops;
                let inputs = inputs.map(|node| checkpointer.retrieve_node_output(node));
                let branch = Branch::<B>::from_array(inputs, scale);
                let grad = grads.consume::<B>(&node);
                let gradients = B::mix_tokens_backward(branch, grad, spec);
                let parents = parents.map(|parent| parent.map(|node| node.id));
                register::<B, 7>(parents, gradients.into_array(), grads);
            }
        }
        let (inputs, scale) = branch.into_array();
        let scale = scale.into_primitive();
        let nodes = inputs.each_ref().map(|tensor| tensor.node());
        match Node.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let nodes = inputs.each_ref().map(|tensor| prep.checkpoint(tensor));
                let inputs = inputs.map(|tensor| tensor.into_primitive());
                let y = B::mix_tokens(Branch::from_array(inputs, scale.clone()), spec);
                prep.finish((nodes, scale, spec), y)
            }
            OpsKind::UnTracked(prep) => {
                let inputs = inputs.map(|tensor| tensor.into_primitive());
                prep.finish(B::mix_tokens(Branch::from_array(inputs, scale), spec))
            }
        }
    }

    fn mix_channels(branch: Branch<Self>, spec: MixingSpec) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Node;
        impl<B: MixerOps> Backward<B, 7> for Node {
            type State = ([NodeId; 7], FloatTensor<B>, Hidden<B>, MixingSpec);

            fn backward(
                self,
                ops: Ops<Self::State, 7>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                // Moved out of the node, so that the hidden units may be written over.
                let Ops { parents, node, state: (inputs, scale, hidden, spec) } = ops;
                let inputs = inputs.map(|node| checkpointer.retrieve_node_output(node));
                let branch = Branch::<B>::from_array(inputs, scale);
                let grad = grads.consume::<B>(&node);
                let gradients = B::mix_channels_backward(branch, hidden, grad, spec);
                let parents = parents.map(|parent| parent.map(|node| node.id));
                register::<B, 7>(parents, gradients.into_array(), grads);
            }
        }
        let (inputs, scale) = branch.into_array();
        let scale = scale.into_primitive();
        let nodes = inputs.each_ref().map(|tensor| tensor.node());
        match Node.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let nodes = inputs.each_ref().map(|tensor| prep.checkpoint(tensor));
                let inputs = inputs.map(|tensor| tensor.into_primitive());
                let branch = Branch::from_array(inputs, scale.clone());
                let (y, hidden) = if spec.recompute {
                    (B::mix_channels(branch, spec), Hidden::Again)
                } else {
                    let Keeping { y, hidden } = B::mix_channels_keeping(branch, spec);
                    (y, Hidden::Kept(hidden))
                };
                prep.finish((nodes, scale, hidden, spec), y)
            }
            OpsKind::UnTracked(prep) => {
                let inputs = inputs.map(|tensor| tensor.into_primitive());
                prep.finish(B::mix_channels(Branch::from_array(inputs, scale), spec))
            }
        }
    }
}

/// Hands each parent that is to have it its gradient.
fn register<B: MixerOps, const N: usize>(
    parents: [Option<NodeId>; N],
    gradients: [FloatTensor<B>; N],
    grads: &mut Gradients,
) {
    for (parent, gradient) in parents.into_iter().zip(gradients) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, gradient);
        }
    }
}
