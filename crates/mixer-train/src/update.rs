//! One update: the gradient of a batch, and the weights after it. `batch_gradient` computes loss and
//! gradient a microbatch at a time, with `sam` a second time elsewhere; `optimizer` applies them at the rate of `schedule`. A `teacher` says what it makes of the same pictures, and `distillation` how that counts. What belongs
//! to one update and needs no run around it lives here.

pub(crate) mod batch_gradient;
pub mod distillation;
pub(crate) mod drop_path;
pub mod loss;
pub(crate) mod loss_scale;
pub mod optimizer;
pub mod parameter_rates;
pub mod sam;
pub mod schedule;
pub mod teacher;
