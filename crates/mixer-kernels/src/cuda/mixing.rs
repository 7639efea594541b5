//! The two halves of a block and what comes before and after them, as sequences of kernels and products.
//!
//! Activations are bf16 or f32, parameters and their gradients f32. With S tokens of C channels, token
//! mixing keeps a bias as one more column of its weight, and the row of ones that it multiplies as one
//! more row of its input: `W X + b 1ᵀ = [W b] [X; 1]`. So its bias costs nothing forwards, and its
//! gradient falls out of that of the weight. Rows are filled up to a multiple of eight, which is what
//! tensor cores want of a row in bytes.

use crate::spec::{Gelu, MixingSpec, Precision};

use super::address::Address;
use super::gpu::{Arg, Error, Gpu, Kernel};
use super::product::{Epilogue, Matrix, Product};

/// Rows of a block of threads in kernels with a warp per row.
const ROWS_PER_BLOCK: usize = 8;
/// Most memory that gradients of single examples take before they are summed, bytes.
const SLOT_BYTES: usize = 192 << 20;

/// The parameters of a normalisation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) gamma: Address,
    pub(super) beta: Address,
}

/// A normalisation backwards: its input and scale, and the gradient of its result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normed {
    pub(super) x: Address,
    pub(super) gamma: Address,
    pub(super) grad: Address,
}

/// The places of the gradients of a normalisation.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormedGradients {
    pub(super) x: Address,
    pub(super) gamma: Address,
    pub(super) beta: Address,
}

/// The tensors of a half of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Half {
    pub(super) x: Address,
    pub(super) norm: Affine,
    pub(super) weight1: Address,
    pub(super) bias1: Address,
    pub(super) weight2: Address,
    pub(super) bias2: Address,
    /// The factor of each example's branch, where any is not 1.
    pub(super) scale: Option<Address>,
}

/// The places of their gradients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gradients {
    norm: NormedGradients,
    weight1: Address,
    bias1: Address,
    weight2: Address,
    bias2: Address,
}

impl Gradients {
    /// In the order of [`BranchGradients::into_array`](crate::ops::branch::BranchGradients::into_array).
    pub(super) fn from_array(gradients: [Address; 7]) -> Self {
        let [x, gamma, beta, weight1, bias1, weight2, bias2] = gradients;
        Self { norm: NormedGradients { x, gamma, beta }, weight1, bias1, weight2, bias2 }
    }
}

/// The dimensions of a branch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dims {
    pub(super) b: usize,
    pub(super) s: usize,
    pub(super) c: usize,
    /// `D_S` or `D_C`.
    pub(super) hidden: usize,
    /// The type of activations.
    pub(super) element: Precision,
}

impl Dims {
    fn rows(&self) -> usize {
        self.b * self.s
    }

    /// True where weights have to be converted to the type of activations.
    fn is_half(&self) -> bool {
        self.element != Precision::F32
    }

    /// Bytes of an activation.
    fn bytes(&self) -> usize {
        self.element.dtype().size()
    }

    /// Rows of token mixing's input with the row of ones.
    fn padded_s(&self) -> usize {
        (self.s + 1).next_multiple_of(8)
    }

    /// Rows of token mixing's hidden units with the row of ones.
    fn padded_hidden(&self) -> usize {
        (self.hidden + 1).next_multiple_of(8)
    }

    /// True where cuBLASLt's epilogues compute the same GELU. They have the tanh form alone, and in f32 less
    /// exactly than ours.
    fn fuses(&self, spec: &MixingSpec) -> bool {
        self.is_half() && spec.gelu == Gelu::Tanh
    }

    fn kernel(&self, name: &'static str) -> Kernel {
        Kernel { name, element: self.element, lanes: self.c.div_ceil(256) }
    }
}

fn form(spec: &MixingSpec) -> Arg {
    Arg::Int(usize::from(spec.gelu == Gelu::Tanh))
}

// SAFETY, of every block below: a kernel gets the arguments that it declares, and an address is handed on with
// the sizes that `Dims` took from the shapes of its tensor, or that it was asked of `scratch` with.
impl Gpu {
    /// Starts a kernel with a warp for each of `rows` rows.
    ///
    /// # Safety
    /// See [`Gpu::launch`].
    unsafe fn launch_rows(
        &mut self,
        kernel: Kernel,
        rows: usize,
        args: &[Arg],
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.launch(kernel, (rows.div_ceil(ROWS_PER_BLOCK), 1), (256, 1), 0, args) }
    }

    /// A weight in the activations' type: itself where that is f32.
    fn weight(
        &mut self,
        from: Address,
        to: Address,
        (rows, columns): (usize, usize),
        d: &Dims,
    ) -> Result<Address, Error> {
        if !d.is_half() {
            return Ok(from);
        }
        if (rows * columns).is_multiple_of(8) {
            self.elementwise("cast", (from, to), rows * columns, None, d)?;
        } else {
            self.pack(from, None, to, (rows, columns, columns), false, d)?;
        }
        Ok(to)
    }

    /// A kernel with eight values a thread.
    fn elementwise(
        &mut self,
        name: &'static str,
        (a, b): (Address, Address),
        len: usize,
        form: Option<Arg>,
        d: &Dims,
    ) -> Result<(), Error> {
        let mut args = vec![Arg::Pointer(a), Arg::Pointer(b), Arg::Long(len / 8)];
        args.extend(form);
        // SAFETY: both have `len` values, and the kernel takes `form` where one is given.
        unsafe { self.launch(d.kernel(name), ((len / 8).div_ceil(256), 1), (256, 1), 0, &args) }
    }

    fn pack(
        &mut self,
        weight: Address,
        bias: Option<Address>,
        to: Address,
        (rows, columns, ld): (usize, usize, usize),
        transposed: bool,
        d: &Dims,
    ) -> Result<(), Error> {
        let blocks = (rows * ld).div_ceil(256).min(16 * self.multiprocessors as usize);
        let args = [
            Arg::Pointer(weight),
            Arg::Optional(bias),
            Arg::Pointer(to),
            Arg::Int(rows),
            Arg::Int(columns),
            Arg::Int(ld),
            Arg::Int(usize::from(transposed)),
        ];
        // SAFETY: `to` has `rows` rows of `ld`, a weight `rows` by `columns` values, either way round.
        unsafe { self.launch(d.kernel("pack"), (blocks, 1), (256, 1), 0, &args) }
    }

    /// LN of every row, with rows of ones and zeros after the `d.s` of each example up to `s_out`.
    fn normalise(
        &mut self,
        x: Address,
        norm: Affine,
        y: Address,
        s_out: usize,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let rows = d.b * s_out;
        let args = [
            Arg::Pointer(x),
            Arg::Pointer(norm.gamma),
            Arg::Pointer(norm.beta),
            Arg::Pointer(y),
            Arg::Long(rows),
            Arg::Int(d.s),
            Arg::Int(s_out),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        // SAFETY: `x` has `d.s` rows of an example, `y` `s_out`, and the parameters have a row's length.
        unsafe { self.launch_rows(d.kernel("layer_norm"), rows, &args) }
    }

    /// Warps of the backward pass of LN, each of which keeps sums of its own.
    fn norm_warps(&self) -> usize {
        2 * self.multiprocessors as usize * ROWS_PER_BLOCK
    }

    fn norm_partials(&self, d: &Dims) -> usize {
        2 * self.norm_warps() * d.c * 4
    }

    /// Blocks of rows over which columns of `n` values are summed.
    fn chunks(&self, n: usize, columns_per_block: usize) -> usize {
        (8 * self.multiprocessors as usize).div_ceil(n.div_ceil(columns_per_block))
    }

    fn reduce(
        &mut self,
        partials: Address,
        outputs: [Option<Address>; 2],
        used: usize,
        count: usize,
        n: usize,
        d: &Dims,
    ) -> Result<(), Error> {
        let args = [
            Arg::Pointer(partials),
            Arg::Optional(outputs[0]),
            Arg::Optional(outputs[1]),
            Arg::Int(count),
            Arg::Int(n),
        ];
        // SAFETY: there are `count` partial sums of `n` values for each of the `used` outputs, which are given.
        unsafe {
            self.launch(d.kernel("reduce_partials"), (n.div_ceil(32), used), (32, 32), 0, &args)
        }
    }

    /// Gradients through LN, with `residual` added to that of its input.
    fn normalise_backward(
        &mut self,
        norm: Normed,
        residual: Option<Address>,
        to: NormedGradients,
        partials: Address,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let args = [
            Arg::Pointer(norm.grad),
            Arg::Pointer(norm.x),
            Arg::Pointer(norm.gamma),
            Arg::Optional(residual),
            Arg::Pointer(to.x),
            Arg::Pointer(partials),
            Arg::Long(d.rows()),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        let warps = self.norm_warps();
        let grid = (warps / ROWS_PER_BLOCK, 1);
        // SAFETY: all activations have `d.rows()` rows, and `partials` has two rows for each warp.
        unsafe { self.launch(d.kernel("layer_norm_backward"), grid, (256, 1), 0, &args)? };
        self.reduce(partials, [Some(to.gamma), Some(to.beta)], 2, warps, d.c, d)
    }

    /// `x + scale · y`, or `scale · y` alone.
    fn add_scaled(
        &mut self,
        x: Option<Address>,
        y: Address,
        scale: Address,
        out: Address,
        d: &Dims,
    ) -> Result<(), Error> {
        let args = [
            Arg::Optional(x),
            Arg::Pointer(y),
            Arg::Pointer(scale),
            Arg::Pointer(out),
            Arg::Long(d.rows()),
            Arg::Int(d.s),
            Arg::Int(d.c),
        ];
        // SAFETY: all activations have `d.rows()` rows; there is a scale for each example.
        unsafe { self.launch_rows(d.kernel("add_scaled"), d.rows(), &args) }
    }

    /// GELU of `rows_in` rows of `columns` per example, with rows of ones and zeros up to `rows_out`.
    fn activate(
        &mut self,
        (from, to): (Address, Address),
        (examples, rows_in, rows_out, columns): (usize, usize, usize, usize),
        spec: &MixingSpec,
        d: &Dims,
    ) -> Result<(), Error> {
        let args = [
            Arg::Pointer(from),
            Arg::Pointer(to),
            Arg::Long(examples * rows_out),
            Arg::Int(rows_in),
            Arg::Int(rows_out),
            Arg::Int(columns),
            form(spec),
        ];
        // SAFETY: `from` has `rows_in` rows of an example, `to` `rows_out`.
        unsafe { self.launch_rows(d.kernel("gelu_forward"), examples * rows_out, &args) }
    }

    /// `x + scale · (W₂ gelu(W₁ LN(x) + b₁) + b₂)`.
    pub(super) fn mix_tokens(
        &mut self,
        p: &Half,
        out: Address,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (sp, hp, e) = (d.padded_s(), d.padded_hidden(), d.bytes());
        let branch = if p.scale.is_some() { d.rows() * d.c * e } else { 0 };
        let [w1, w2, y, u, g, branch] = self.scratch([
            d.hidden * sp * e,
            d.s * hp * e,
            d.b * sp * d.c * e,
            d.b * d.hidden * d.c * e,
            d.b * hp * d.c * e,
            branch,
        ])?;
        self.pack(p.weight1, Some(p.bias1), w1, (d.hidden, d.s, sp), false, d)?;
        self.pack(p.weight2, Some(p.bias2), w2, (d.s, d.hidden, hp), false, d)?;
        self.token_hidden(p, (w1, y, u, g), false, d, spec)?;
        let image = d.s * d.c;
        let target = if p.scale.is_some() { branch } else { out };
        let product = Product {
            batch: d.b,
            add: p.scale.is_none().then(|| Matrix::new(p.x, d.c).batched(image)),
            ..Product::new(
                (d.s, d.c, hp),
                Matrix::new(w2, hp),
                Matrix::new(g, d.c).batched(hp * d.c),
                Matrix::new(target, d.c).batched(image),
                d.element,
            )
        };
        self.multiply(&product)?;
        if let Some(scale) = p.scale {
            self.add_scaled(Some(p.x), branch, scale, out, d)?;
        }
        Ok(())
    }

    /// `y = [LN(x); 1; 0]`, `u = [W₁ b₁] y` and `g = [gelu(u); 1; 0]`. `u` is scratch unless `keeping`.
    fn token_hidden(
        &mut self,
        p: &Half,
        (w1, y, u, g): (Address, Address, Address, Address),
        keeping: bool,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (sp, hp) = (d.padded_s(), d.padded_hidden());
        self.normalise(p.x, p.norm, y, sp, d, spec.epsilon)?;
        let product = Product {
            batch: d.b,
            ..Product::new(
                (d.hidden, d.c, sp),
                Matrix::new(w1, sp),
                Matrix::new(y, d.c).batched(sp * d.c),
                Matrix::new(u, d.c).batched(d.hidden * d.c),
                d.element,
            )
        };
        let fused = Product {
            out: Matrix::new(g, d.c).batched(hp * d.c),
            epilogue: if keeping { Epilogue::GeluKeeping } else { Epilogue::Gelu },
            kept: Some(u),
            kept_stride: d.hidden * d.c,
            ..product
        };
        if d.fuses(spec) && self.try_multiply(&fused)? {
            let rows = d.b * (hp - d.hidden);
            let args =
                [Arg::Pointer(g), Arg::Long(rows), Arg::Int(d.hidden), Arg::Int(hp), Arg::Int(d.c)];
            // SAFETY: `g` has `hp` rows of an example, of which those from `d.hidden` on are filled.
            return unsafe { self.launch_rows(d.kernel("fill_rows"), rows, &args) };
        }
        self.multiply(&product)?;
        self.activate((u, g), (d.b, d.hidden, hp, d.c), spec, d)
    }

    /// Gradients of [`Gpu::mix_tokens`].
    pub(super) fn mix_tokens_backward(
        &mut self,
        p: &Half,
        grad: Address,
        out: &Gradients,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (sp, hp, e) = (d.padded_s(), d.padded_hidden(), d.bytes());
        let image = d.s * d.c;
        let slot = (d.s * hp).max(d.hidden * sp) * 4;
        let slots = d.b.div_ceil(d.b.div_ceil((SLOT_BYTES / slot).clamp(1, d.b)));
        let scaled = if p.scale.is_some() { d.b * image * e } else { 0 };
        let padded_columns = d.s.next_multiple_of(8);
        let [w1, w1t, w2t, y, u, g, du, scaled, sums, partials] = self.scratch([
            d.hidden * sp * e,
            d.hidden * d.s * e,
            d.hidden * padded_columns * e,
            d.b * sp * d.c * e,
            d.b * d.hidden * d.c * e,
            d.b * hp * d.c * e,
            d.b * d.hidden * d.c * e,
            scaled,
            slots * slot,
            self.norm_partials(d),
        ])?;
        self.pack(p.weight1, Some(p.bias1), w1, (d.hidden, d.s, sp), false, d)?;
        // Transposed here and not in the products, which are several times slower then.
        self.pack(p.weight1, None, w1t, (d.s, d.hidden, d.hidden), true, d)?;
        self.pack(p.weight2, None, w2t, (d.hidden, d.s, padded_columns), true, d)?;
        self.token_hidden(p, (w1, y, u, g), true, d, spec)?;
        let outer = match p.scale {
            Some(scale) => {
                self.add_scaled(None, grad, scale, scaled, d)?;
                scaled
            }
            None => grad,
        };
        let per_image = |address, rows| Matrix::new(address, d.c).batched(rows * d.c);
        let product = Product {
            batch: d.b,
            ..Product::new(
                (d.hidden, d.c, d.s),
                Matrix::new(w2t, padded_columns),
                per_image(outer, d.s),
                per_image(du, d.hidden),
                d.element,
            )
        };
        self.multiply_by_slope(product, (u, d.hidden * d.c), d, spec)?;
        self.sum_over_images(
            (outer, d.s),
            (g, hp),
            (sums, slots),
            (out.weight2, out.bias2, d.hidden),
            d,
        )?;
        self.sum_over_images(
            (du, d.hidden),
            (y, sp),
            (sums, slots),
            (out.weight1, out.bias1, d.s),
            d,
        )?;
        // In the place of LN(x), which nothing needs any more.
        let product = Product {
            batch: d.b,
            ..Product::new(
                (d.s, d.c, d.hidden),
                Matrix::new(w1t, d.hidden),
                per_image(du, d.hidden),
                per_image(y, d.s),
                d.element,
            )
        };
        self.multiply(&product)?;
        let norm = Normed { x: p.x, gamma: p.norm.gamma, grad: y };
        self.normalise_backward(norm, Some(grad), out.norm, partials, d, spec.epsilon)
    }

    /// A product whose values are multiplied by the slope of GELU at `before`, which has the product's
    /// rows and columns.
    fn multiply_by_slope(
        &mut self,
        product: Product,
        (before, stride): (Address, usize),
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let slope = Product {
            epilogue: Epilogue::GeluSlope,
            kept: Some(before),
            kept_stride: stride,
            ..product
        };
        let len = product.m * product.n * product.batch;
        if d.fuses(spec)
            && let (Some(fused), Some(plain)) = (self.cost(&slope)?, self.cost(&product)?)
            && fused <= plain + (3 * len * d.bytes()) as f32 / self.bandwidth
        {
            return self.multiply(&slope);
        }
        self.multiply(&product)?;
        self.elementwise("gelu_backward", (before, product.out.address), len, Some(form(spec)), d)
    }

    /// `Σ_b left_b rightᵀ_b`, with the column after the first `columns` as the bias' gradient.
    fn sum_over_images(
        &mut self,
        (left, rows): (Address, usize),
        (right, ld): (Address, usize),
        (sums, slots): (Address, usize),
        (weight, bias, columns): (Address, Address, usize),
        d: &Dims,
    ) -> Result<(), Error> {
        let e = d.bytes();
        let mut first = 0;
        while first < d.b {
            let batch = slots.min(d.b - first);
            let at = |address: Address, rows: usize| {
                Matrix::new(address.plus(first * rows * d.c * e), d.c).batched(rows * d.c)
            };
            let out = Matrix::new(sums, ld).batched(rows * ld);
            let product = Product {
                batch,
                element_out: Precision::F32,
                add: (first > 0).then_some(out),
                ..Product::new((rows, ld, d.c), at(left, rows), at(right, ld).t(), out, d.element)
            };
            self.multiply(&product)?;
            first += batch;
        }
        let args = [
            Arg::Pointer(sums),
            Arg::Pointer(weight),
            Arg::Pointer(bias),
            Arg::Int(slots),
            Arg::Int(rows),
            Arg::Int(columns),
            Arg::Int(ld),
        ];
        let blocks = (rows * ld).div_ceil(256);
        // SAFETY: `sums` has `slots` matrices of `rows` by `ld`, the gradients have `columns` and one of them.
        unsafe { self.launch(d.kernel("reduce_slots"), (blocks, 1), (256, 1), 0, &args) }
    }

    /// `x + scale · (gelu(LN(x) W₁ + b₁) W₂ + b₂)`. The hidden units before GELU, and behind them those
    /// after it, go to `kept`, if it is given.
    pub(super) fn mix_channels(
        &mut self,
        p: &Half,
        out: Address,
        kept: Option<Address>,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (rows, e) = (d.rows(), d.bytes());
        let branch = if p.scale.is_some() { rows * d.c * e } else { 0 };
        let half = |len: usize| if d.is_half() { len * e } else { 0 };
        let [w1, w2, b1, b2, y, g, branch] = self.scratch([
            half(d.c * d.hidden),
            half(d.c * d.hidden),
            half(d.hidden),
            half(d.c),
            rows * d.c * e,
            if kept.is_none() { rows * d.hidden * e } else { 0 },
            branch,
        ])?;
        let w1 = self.weight(p.weight1, w1, (d.c, d.hidden), d)?;
        let w2 = self.weight(p.weight2, w2, (d.hidden, d.c), d)?;
        let b1 = self.weight(p.bias1, b1, (1, d.hidden), d)?;
        let b2 = self.weight(p.bias2, b2, (1, d.c), d)?;
        self.normalise(p.x, p.norm, y, d.s, d, spec.epsilon)?;
        let g = kept.map_or(g, |kept| kept.plus(rows * d.hidden * e));
        self.channel_hidden((y, w1, b1), (kept, g), d, spec)?;
        let target = if p.scale.is_some() { branch } else { out };
        let product = Product {
            add: p.scale.is_none().then(|| Matrix::new(p.x, d.c)),
            epilogue: Epilogue::Bias,
            bias: Some(b2),
            ..Product::new(
                (rows, d.c, d.hidden),
                Matrix::new(g, d.hidden),
                Matrix::new(w2, d.c),
                Matrix::new(target, d.c),
                d.element,
            )
        };
        self.multiply(&product)?;
        if let Some(scale) = p.scale {
            self.add_scaled(Some(p.x), branch, scale, out, d)?;
        }
        Ok(())
    }

    /// `h = y W₁ + b₁`, if it is given, and `g = gelu(y W₁ + b₁)`.
    fn channel_hidden(
        &mut self,
        (y, w1, b1): (Address, Address, Address),
        (h, g): (Option<Address>, Address),
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let rows = d.rows();
        let product = Product {
            bias: Some(b1),
            ..Product::new(
                (rows, d.hidden, d.c),
                Matrix::new(y, d.c),
                Matrix::new(w1, d.hidden),
                Matrix::new(g, d.hidden),
                d.element,
            )
        };
        let fused = if h.is_some() { Epilogue::BiasGeluKeeping } else { Epilogue::BiasGelu };
        if d.fuses(spec) && self.try_multiply(&Product { epilogue: fused, kept: h, ..product })? {
            return Ok(());
        }
        let before = h.unwrap_or(g);
        let out = Matrix::new(before, d.hidden);
        self.multiply(&Product { epilogue: Epilogue::Bias, out, ..product })?;
        self.activate((before, g), (1, rows, rows, d.hidden), spec, d)
    }

    /// Gradients of [`Gpu::mix_channels`], with the hidden units that it kept or computed again.
    pub(super) fn mix_channels_backward(
        &mut self,
        p: &Half,
        kept: Option<Address>,
        grad: Address,
        out: &Gradients,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (rows, e) = (d.rows(), d.bytes());
        let half = |len: usize| if d.is_half() { len * e } else { 0 };
        let sums = |n: usize| self.chunks(n, 128) * n * 4;
        let partials = self.norm_partials(d).max(sums(d.hidden)).max(sums(d.c));
        let [w1, w2, b1, y, again, dh, scaled, partials] = self.scratch([
            half(d.c * d.hidden),
            half(d.c * d.hidden),
            half(d.hidden),
            rows * d.c * e,
            if kept.is_none() { 2 * rows * d.hidden * e } else { 0 },
            rows * d.hidden * e,
            if p.scale.is_some() { rows * d.c * e } else { 0 },
            partials,
        ])?;
        let w1 = self.weight(p.weight1, w1, (d.c, d.hidden), d)?;
        let w2 = self.weight(p.weight2, w2, (d.hidden, d.c), d)?;
        self.normalise(p.x, p.norm, y, d.s, d, spec.epsilon)?;
        let h = kept.unwrap_or(again);
        let g = h.plus(rows * d.hidden * e);
        if kept.is_none() {
            let b1 = self.weight(p.bias1, b1, (1, d.hidden), d)?;
            self.channel_hidden((y, w1, b1), (Some(h), g), d, spec)?;
        }
        let outer = match p.scale {
            Some(scale) => {
                self.add_scaled(None, grad, scale, scaled, d)?;
                scaled
            }
            None => grad,
        };
        let wide = |address| Matrix::new(address, d.hidden);
        let narrow = |address| Matrix::new(address, d.c);
        let dims = (rows, d.hidden, d.c);
        let slope = Product::new(dims, narrow(outer), narrow(w2).t(), wide(dh), d.element);
        let dims = (d.c, d.hidden, rows);
        let dw1 = Product::new(dims, narrow(y).t(), wide(dh), wide(out.weight1), d.element);
        let dw1 = Product { element_out: Precision::F32, ..dw1 };
        // Sums of columns can be had with either of two products; where, is a matter of time.
        let slope_of_h = Product { epilogue: Epilogue::GeluSlope, kept: Some(h), ..slope };
        let with_sums =
            Product { epilogue: Epilogue::GeluSlopeSums, bias: Some(partials), ..slope_of_h };
        let without = slope_of_h;
        let sums_later = Product { epilogue: Epilogue::ColumnSums, bias: Some(out.bias1), ..dw1 };
        if d.fuses(spec)
            && let (Some(a), Some(b)) = (self.cost(&with_sums)?, self.cost(&dw1)?)
            && let (Some(c), Some(e)) = (self.cost(&without)?, self.cost(&sums_later)?)
            && a + b < c + e
        {
            self.multiply(&with_sums)?;
            self.elementwise("widen", (partials, out.bias1), d.hidden, None, d)?;
            self.multiply(&dw1)?;
        } else {
            self.multiply_by_slope(slope, (h, 0), d, spec)?;
            self.multiply_with_column_sums(dw1, out.bias1, partials, d)?;
        }
        let dims = (d.hidden, d.c, rows);
        let product =
            Product::new(dims, wide(g).t(), narrow(outer), narrow(out.weight2), d.element);
        self.multiply_with_column_sums(product, out.bias2, partials, d)?;
        // In the place of LN(x), which nothing needs any more.
        let dims = (rows, d.c, d.hidden);
        self.multiply(&Product::new(dims, wide(dh), wide(w1).t(), narrow(y), d.element))?;
        let norm = Normed { x: p.x, gamma: p.norm.gamma, grad: y };
        self.normalise_backward(norm, Some(grad), out.norm, partials, d, spec.epsilon)
    }

    /// A product with f32 output, and the sums of the columns of its second operand.
    fn multiply_with_column_sums(
        &mut self,
        product: Product,
        sums: Address,
        partials: Address,
        d: &Dims,
    ) -> Result<(), Error> {
        let product = Product { element_out: Precision::F32, ..product };
        let fused = Product { epilogue: Epilogue::ColumnSums, bias: Some(sums), ..product };
        if self.try_multiply(&fused)? {
            return Ok(());
        }
        self.multiply(&product)?;
        self.column_sums(product.b.address, partials, sums, (product.k, product.n), d)
    }

    fn column_sums(
        &mut self,
        x: Address,
        partials: Address,
        out: Address,
        (rows, n): (usize, usize),
        d: &Dims,
    ) -> Result<(), Error> {
        let chunks = self.chunks(n, 128);
        let args = [Arg::Pointer(x), Arg::Pointer(partials), Arg::Long(rows), Arg::Int(n)];
        let grid = (n.div_ceil(128), chunks);
        // SAFETY: `x` has `rows` rows of `n` values, and `partials` has one for each chunk.
        unsafe { self.launch(d.kernel("column_sums"), grid, (128, 1), 0, &args)? };
        self.reduce(partials, [Some(out), None], 1, chunks, n, d)
    }

    /// `x W + b`: `x` is f32 `[rows, k]`, `weight` `[k, n]`, `out` of the activations' type.
    pub(super) fn linear(
        &mut self,
        x: Address,
        (weight, bias): (Address, Address),
        out: Address,
        (rows, k, n): (usize, usize, usize),
        d: &Dims,
    ) -> Result<(), Error> {
        let half = |len: usize| if d.is_half() { len * 2 } else { 0 };
        let [input, w, b] = self.scratch([half(rows * k), half(k * n), half(n)])?;
        let input = self.weight(x, input, (rows, k), d)?;
        let w = self.weight(weight, w, (k, n), d)?;
        let bias = self.weight(bias, b, (1, n), d)?;
        let product = Product {
            epilogue: Epilogue::Bias,
            bias: Some(bias),
            ..Product::new(
                (rows, n, k),
                Matrix::new(input, k),
                Matrix::new(w, n),
                Matrix::new(out, n),
                d.element,
            )
        };
        self.multiply(&product)
    }

    /// Gradients of [`Gpu::linear`] with respect to weight and bias.
    pub(super) fn linear_backward(
        &mut self,
        x: Address,
        grad: Address,
        (dweight, dbias): (Address, Address),
        (rows, k, n): (usize, usize, usize),
        d: &Dims,
    ) -> Result<(), Error> {
        let partials = self.chunks(n, 128) * n * 4;
        let [input, partials] =
            self.scratch([if d.is_half() { rows * k * 2 } else { 0 }, partials])?;
        let input = self.weight(x, input, (rows, k), d)?;
        let product = Product::new(
            (k, n, rows),
            Matrix::new(input, k).t(),
            Matrix::new(grad, n),
            Matrix::new(dweight, n),
            d.element,
        );
        self.multiply_with_column_sums(product, dbias, partials, d)
    }

    /// Gradient of [`Gpu::linear`] with respect to `x`, f32.
    pub(super) fn linear_backward_input(
        &mut self,
        weight: Address,
        grad: Address,
        dx: Address,
        (rows, k, n): (usize, usize, usize),
        d: &Dims,
    ) -> Result<(), Error> {
        let [w] = self.scratch([if d.is_half() { k * n * 2 } else { 0 }])?;
        let w = self.weight(weight, w, (k, n), d)?;
        let product = Product::new(
            (rows, k, n),
            Matrix::new(grad, n),
            Matrix::new(w, n).t(),
            Matrix::new(dx, k),
            d.element,
        );
        self.multiply(&Product { element_out: Precision::F32, ..product })
    }

    /// LN over channels.
    pub(super) fn layer_norm(
        &mut self,
        x: Address,
        norm: Affine,
        out: Address,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        self.normalise(x, norm, out, d.s, d, epsilon)
    }

    /// Gradients of [`Gpu::layer_norm`].
    pub(super) fn layer_norm_backward(
        &mut self,
        norm: Normed,
        to: NormedGradients,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let [partials] = self.scratch([self.norm_partials(d)])?;
        self.normalise_backward(norm, None, to, partials, d, epsilon)
    }

    /// The mean over tokens of LN over channels, f32 `[B, C]`.
    pub(super) fn mean_norm(
        &mut self,
        x: Address,
        norm: Affine,
        out: Address,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let args = [
            Arg::Pointer(x),
            Arg::Pointer(norm.gamma),
            Arg::Pointer(norm.beta),
            Arg::Pointer(out),
            Arg::Int(d.s),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        let shared = ROWS_PER_BLOCK * d.c * 4;
        // SAFETY: `x` has `d.s` rows of an example, `out` one; the shared memory is a row of floats a warp.
        unsafe { self.launch(d.kernel("mean_norm"), (d.b, 1), (256, 1), shared, &args) }
    }

    /// Gradients of [`Gpu::mean_norm`].
    pub(super) fn mean_norm_backward(
        &mut self,
        norm: Normed,
        to: NormedGradients,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let [partials] = self.scratch([self.norm_partials(d)])?;
        let args = [
            Arg::Pointer(norm.grad),
            Arg::Pointer(norm.x),
            Arg::Pointer(norm.gamma),
            Arg::Pointer(to.x),
            Arg::Pointer(partials),
            Arg::Long(d.rows()),
            Arg::Int(d.s),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        let warps = self.norm_warps();
        let grid = (warps / ROWS_PER_BLOCK, 1);
        // SAFETY: as of `layer_norm_backward`; `grad` has a row for each example.
        unsafe { self.launch(d.kernel("mean_norm_backward"), grid, (256, 1), 0, &args)? };
        self.reduce(partials, [Some(to.gamma), Some(to.beta)], 2, warps, d.c, d)
    }
}
