//! Clipping of gradients by their norm.

use burn::tensor::Tensor;

/// A largest norm of gradients, over all of them; those with a larger one are scaled down to it.
#[derive(Debug, Clone)]
pub struct Clip {
    /// `Σ g²` over all gradients, `[1]`: [`squared_norm`](crate::squared_norm).
    pub squared_norm: Tensor<1>,
    /// The largest norm that is left as it is.
    pub limit: f64,
}

impl Clip {
    /// The factor that gradients are multiplied by. Waits for the device.
    ///
    /// PARITY: optax's rule, `limit / norm`; PyTorch adds 1e-6 to the norm.
    #[must_use]
    pub fn factor(&self) -> f64 {
        // SYNC: one number.
        let squared = self.squared_norm.clone().into_data().iter::<f32>().next();
        let norm = squared.map_or(f64::NAN, f64::from).sqrt();
        if norm > self.limit { self.limit / norm } else { 1.0 }
    }
}
