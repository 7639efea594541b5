//! The operations as nodes of Burn's autodiff graph, each with one hand-written backward pass.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::MixerOps;

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
}
