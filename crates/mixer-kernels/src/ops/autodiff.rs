//! The operations as nodes of Burn's autodiff graph, each with one hand-written backward pass.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::functions::mixing::MixingSpec;
use crate::ops::MixerOps;
use crate::ops::default;
use crate::spec::Precision;

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

impl<B: MixerOps, C: CheckpointStrategy> MixerOps for Autodiff<B, C> {
    elementwise_node!(gelu_erf, gelu_erf_backward);
    elementwise_node!(gelu_tanh, gelu_tanh_backward);

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
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
                let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
                let gamma: FloatTensor<B> = checkpointer.retrieve_node_output(gamma);
                let [parent_x, parent_gamma, parent_beta] = ops.parents;
                let grad = grads.consume::<B>(&ops.node);
                let (dx, dgamma, dbeta) = B::fused_layer_norm_backward(x, gamma, grad, epsilon);
                for (parent, grad) in [(parent_x, dx), (parent_gamma, dgamma), (parent_beta, dbeta)]
                {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, grad);
                    }
                }
            }
        }
        match Node.prepare::<C>([x.node(), gamma.node(), beta.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), epsilon);
                prep.finish(
                    state,
                    B::fused_layer_norm(
                        x.into_primitive(),
                        gamma.into_primitive(),
                        beta.into_primitive(),
                        epsilon,
                    ),
                )
            }
            OpsKind::UnTracked(prep) => prep.finish(B::fused_layer_norm(
                x.into_primitive(),
                gamma.into_primitive(),
                beta.into_primitive(),
                epsilon,
            )),
        }
    }

    fn mean_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
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
                let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
                let gamma: FloatTensor<B> = checkpointer.retrieve_node_output(gamma);
                let grad = grads.consume::<B>(&ops.node);
                let (dx, dgamma, dbeta) = B::mean_layer_norm_backward(x, gamma, grad, epsilon);
                for (parent, grad) in ops.parents.into_iter().zip([dx, dgamma, dbeta]) {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, grad);
                    }
                }
            }
        }
        match Node.prepare::<C>([x.node(), gamma.node(), beta.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), epsilon);
                let [x, gamma, beta] = [x, gamma, beta].map(|t| t.into_primitive());
                prep.finish(state, B::mean_layer_norm(x, gamma, beta, epsilon))
            }
            OpsKind::UnTracked(prep) => {
                let [x, gamma, beta] = [x, gamma, beta].map(|t| t.into_primitive());
                prep.finish(B::mean_layer_norm(x, gamma, beta, epsilon))
            }
        }
    }

    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
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
                let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
                let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
                let [parent_x, parent_weight, parent_bias] = ops.parents;
                let grad = grads.consume::<B>(&ops.node);
                // Nobody wants the gradient of a network's input, which is as large as the input.
                let (dweight, dbias) = match parent_x {
                    Some(parent) => {
                        let (dx, dweight, dbias) = B::dense_backward(x, weight, grad, precision);
                        grads.register::<B>(parent.id, dx);
                        (dweight, dbias)
                    }
                    None => B::dense_parameters_backward(x, weight, grad, precision),
                };
                for (parent, grad) in [(parent_weight, dweight), (parent_bias, dbias)] {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, grad);
                    }
                }
            }
        }
        match Node.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&weight), precision);
                let [x, weight, bias] = [x, weight, bias].map(|t| t.into_primitive());
                prep.finish(state, B::dense(x, weight, bias, precision))
            }
            OpsKind::UnTracked(prep) => {
                let [x, weight, bias] = [x, weight, bias].map(|t| t.into_primitive());
                prep.finish(B::dense(x, weight, bias, precision))
            }
        }
    }

    fn mix_tokens(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> FloatTensor<Self> {
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
                let [x, gamma, beta, weight1, bias1, weight2, bias2] =
                    inputs.map(|node| checkpointer.retrieve_node_output(node));
                let grad = grads.consume::<B>(&node);
                let gradients = B::mix_tokens_backward(
                    x, gamma, beta, weight1, bias1, weight2, bias2, scale, grad, spec,
                );
                register::<B>(parents.map(|parent| parent.map(|node| node.id)), gradients, grads);
            }
        }
        let scale = branch_scale.into_primitive();
        let nodes = [&x, &gamma, &beta, &weight1, &bias1, &weight2, &bias2].map(|t| t.node());
        match Node.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [&x, &gamma, &beta, &weight1, &bias1, &weight2, &bias2]
                    .map(|tensor| prep.checkpoint(tensor));
                let [x, gamma, beta, weight1, bias1, weight2, bias2] =
                    [x, gamma, beta, weight1, bias1, weight2, bias2].map(|t| t.into_primitive());
                let y = B::mix_tokens(
                    x,
                    gamma,
                    beta,
                    weight1,
                    bias1,
                    weight2,
                    bias2,
                    scale.clone(),
                    spec,
                );
                prep.finish((inputs, scale, spec), y)
            }
            OpsKind::UnTracked(prep) => {
                let [x, gamma, beta, weight1, bias1, weight2, bias2] =
                    [x, gamma, beta, weight1, bias1, weight2, bias2].map(|t| t.into_primitive());
                let y = B::mix_tokens(x, gamma, beta, weight1, bias1, weight2, bias2, scale, spec);
                prep.finish(y)
            }
        }
    }

    fn mix_channels(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        weight1: FloatTensor<Self>,
        bias1: FloatTensor<Self>,
        weight2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        branch_scale: FloatTensor<Self>,
        spec: MixingSpec,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Node;
        impl<B: MixerOps> Backward<B, 7> for Node {
            type State = ([NodeId; 7], FloatTensor<B>, Option<FloatTensor<B>>, MixingSpec);

            fn backward(
                self,
                ops: Ops<Self::State, 7>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                // Moved out of the node, so that the hidden units may be written over.
                let Ops { parents, node, state: (inputs, scale, hidden, spec) } = ops;
                let [x, gamma, beta, weight1, bias1, weight2, bias2] =
                    inputs.map(|node| checkpointer.retrieve_node_output(node));
                let grad = grads.consume::<B>(&node);
                let gradients = match hidden {
                    Some(hidden) => B::mix_channels_backward_kept(
                        x, gamma, beta, weight1, bias1, weight2, bias2, scale, hidden, grad, spec,
                    ),
                    None => B::mix_channels_backward(
                        x, gamma, beta, weight1, bias1, weight2, bias2, scale, grad, spec,
                    ),
                };
                register::<B>(parents.map(|parent| parent.map(|node| node.id)), gradients, grads);
            }
        }
        let scale = branch_scale.into_primitive();
        let nodes = [&x, &gamma, &beta, &weight1, &bias1, &weight2, &bias2].map(|t| t.node());
        match Node.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [&x, &gamma, &beta, &weight1, &bias1, &weight2, &bias2]
                    .map(|tensor| prep.checkpoint(tensor));
                let [x, gamma, beta, weight1, bias1, weight2, bias2] =
                    [x, gamma, beta, weight1, bias1, weight2, bias2].map(|t| t.into_primitive());
                let kept_scale = scale.clone();
                let (y, hidden) = if spec.recompute {
                    let y = B::mix_channels(
                        x, gamma, beta, weight1, bias1, weight2, bias2, scale, spec,
                    );
                    (y, None)
                } else {
                    let (y, hidden) = B::mix_channels_keeping(
                        x, gamma, beta, weight1, bias1, weight2, bias2, scale, spec,
                    );
                    (y, Some(hidden))
                };
                prep.finish((inputs, kept_scale, hidden, spec), y)
            }
            OpsKind::UnTracked(prep) => {
                let [x, gamma, beta, weight1, bias1, weight2, bias2] =
                    [x, gamma, beta, weight1, bias1, weight2, bias2].map(|t| t.into_primitive());
                let y =
                    B::mix_channels(x, gamma, beta, weight1, bias1, weight2, bias2, scale, spec);
                prep.finish(y)
            }
        }
    }
}

/// Hands each parent that is to have it its gradient.
fn register<B: MixerOps>(
    parents: [Option<NodeId>; 7],
    (x, gamma, beta, weight1, bias1, weight2, bias2): default::BranchGradients<B>,
    grads: &mut Gradients,
) {
    let gradients = [x, gamma, beta, weight1, bias1, weight2, bias2];
    for (parent, gradient) in parents.into_iter().zip(gradients) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, gradient);
        }
    }
}
