//! The two halves of a block and what comes before and after them, as sequences of kernels and products.
//!
//! Activations are bf16 or f32, parameters and their gradients f32. With S tokens of C channels, token
//! mixing keeps a bias as one more column of its weight, and the row of ones that it multiplies as one
//! more row of its input: `W X + b 1ᵀ = [W b] [X; 1]`. So its bias costs nothing forwards, and its
//! gradient falls out of that of the weight. Rows are filled up to a multiple of eight, which is what
//! tensor cores want of a row in bytes.

use crate::functions::gelu::Gelu;
use crate::functions::mixing::MixingSpec;
use crate::spec::Precision;

use super::gpu::{Arg, Error, Gpu, Kernel};
use super::product::{Epilogue, Matrix, Product};

/// Rows of a block of threads in kernels with a warp per row.
const ROWS_PER_BLOCK: usize = 8;
/// Most memory that gradients of single examples take before they are summed, bytes.
const SLOT_BYTES: usize = 192 << 20;

/// Addresses of the parameters of a branch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameters {
    pub(super) gamma: u64,
    pub(super) beta: u64,
    pub(super) weight1: u64,
    pub(super) bias1: u64,
    pub(super) weight2: u64,
    pub(super) bias2: u64,
}

/// Addresses of where gradients go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gradients {
    pub(super) x: u64,
    pub(super) gamma: u64,
    pub(super) beta: u64,
    pub(super) weight1: u64,
    pub(super) bias1: u64,
    pub(super) weight2: u64,
    pub(super) bias2: u64,
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

    /// Whether weights have to be converted to the type of activations.
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

    /// Whether cuBLASLt's epilogues compute the same GELU. They have the tanh form alone, and in f32 less
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

impl Gpu {
    fn launch_rows(&mut self, kernel: Kernel, rows: usize, args: &[Arg]) -> Result<(), Error> {
        self.launch(kernel, (rows.div_ceil(ROWS_PER_BLOCK), 1), (256, 1), 0, args)
    }

    /// A weight in the activations' type: itself where that is f32.
    fn weight(
        &mut self,
        from: u64,
        to: u64,
        (rows, columns): (usize, usize),
        d: &Dims,
    ) -> Result<u64, Error> {
        if !d.is_half() {
            return Ok(from);
        }
        if (rows * columns).is_multiple_of(8) {
            self.elementwise("cast", (from, to), rows * columns, None, d)?;
        } else {
            self.pack(from, 0, to, (rows, columns, columns), false, d)?;
        }
        Ok(to)
    }

    /// A kernel with eight values a thread.
    fn elementwise(
        &mut self,
        name: &'static str,
        (a, b): (u64, u64),
        len: usize,
        form: Option<Arg>,
        d: &Dims,
    ) -> Result<(), Error> {
        let mut args = vec![Arg::Pointer(a), Arg::Pointer(b), Arg::Long(len / 8)];
        args.extend(form);
        self.launch(d.kernel(name), ((len / 8).div_ceil(256), 1), (256, 1), 0, &args)
    }

    fn pack(
        &mut self,
        weight: u64,
        bias: u64,
        to: u64,
        (rows, columns, ld): (usize, usize, usize),
        transposed: bool,
        d: &Dims,
    ) -> Result<(), Error> {
        let blocks = (rows * ld).div_ceil(256).min(16 * self.multiprocessors as usize);
        let args = [
            Arg::Pointer(weight),
            Arg::Pointer(bias),
            Arg::Pointer(to),
            Arg::Int(rows),
            Arg::Int(columns),
            Arg::Int(ld),
            Arg::Int(usize::from(transposed)),
        ];
        self.launch(d.kernel("pack"), (blocks, 1), (256, 1), 0, &args)
    }

    /// LN of every row, with rows of ones and zeros after the `d.s` of each example up to `s_out`.
    fn normalise(
        &mut self,
        x: u64,
        p: &Parameters,
        y: u64,
        s_out: usize,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let rows = d.b * s_out;
        let args = [
            Arg::Pointer(x),
            Arg::Pointer(p.gamma),
            Arg::Pointer(p.beta),
            Arg::Pointer(y),
            Arg::Long(rows),
            Arg::Int(d.s),
            Arg::Int(s_out),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        self.launch_rows(d.kernel("layer_norm"), rows, &args)
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
        partials: u64,
        outputs: [u64; 2],
        used: usize,
        count: usize,
        n: usize,
        d: &Dims,
    ) -> Result<(), Error> {
        let args = [
            Arg::Pointer(partials),
            Arg::Pointer(outputs[0]),
            Arg::Pointer(outputs[1]),
            Arg::Int(count),
            Arg::Int(n),
        ];
        self.launch(d.kernel("reduce_partials"), (n.div_ceil(32), used), (32, 32), 0, &args)
    }

    /// Gradients through LN: `dx` with `residual` (0 for none) added, `dgamma` and `dbeta`.
    #[allow(clippy::too_many_arguments)]
    fn normalise_backward(
        &mut self,
        dy: u64,
        x: u64,
        gamma: u64,
        residual: u64,
        (dx, dgamma, dbeta): (u64, u64, u64),
        partials: u64,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let args = [
            Arg::Pointer(dy),
            Arg::Pointer(x),
            Arg::Pointer(gamma),
            Arg::Pointer(residual),
            Arg::Pointer(dx),
            Arg::Pointer(partials),
            Arg::Long(d.rows()),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        let warps = self.norm_warps();
        let grid = (warps / ROWS_PER_BLOCK, 1);
        self.launch(d.kernel("layer_norm_backward"), grid, (256, 1), 0, &args)?;
        self.reduce(partials, [dgamma, dbeta], 2, warps, d.c, d)
    }

    fn add_scaled(&mut self, x: u64, y: u64, scale: u64, out: u64, d: &Dims) -> Result<(), Error> {
        let args = [
            Arg::Pointer(x),
            Arg::Pointer(y),
            Arg::Pointer(scale),
            Arg::Pointer(out),
            Arg::Long(d.rows()),
            Arg::Int(d.s),
            Arg::Int(d.c),
        ];
        self.launch_rows(d.kernel("add_scaled"), d.rows(), &args)
    }

    /// GELU of `rows_in` rows of `columns` per example, with rows of ones and zeros up to `rows_out`.
    fn activate(
        &mut self,
        (from, to): (u64, u64),
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
        self.launch_rows(d.kernel("gelu_forward"), examples * rows_out, &args)
    }

    /// `x + scale · (W₂ gelu(W₁ LN(x) + b₁) + b₂)`; a `scale` of 0 is none.
    pub(super) fn mix_tokens(
        &mut self,
        x: u64,
        p: &Parameters,
        scale: u64,
        out: u64,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (sp, hp, e) = (d.padded_s(), d.padded_hidden(), d.bytes());
        let branch = if scale == 0 { 0 } else { d.rows() * d.c * e };
        let [w1, w2, y, u, g, branch] = self.scratch([
            d.hidden * sp * e,
            d.s * hp * e,
            d.b * sp * d.c * e,
            d.b * d.hidden * d.c * e,
            d.b * hp * d.c * e,
            branch,
        ])?;
        self.pack(p.weight1, p.bias1, w1, (d.hidden, d.s, sp), false, d)?;
        self.pack(p.weight2, p.bias2, w2, (d.s, d.hidden, hp), false, d)?;
        self.token_hidden(x, p, (w1, y, u, g), false, d, spec)?;
        let image = d.s * d.c;
        let target = if scale == 0 { out } else { branch };
        let product = Product {
            batch: d.b,
            add: (scale == 0).then(|| Matrix::new(x, d.c).batched(image)),
            ..Product::new(
                (d.s, d.c, hp),
                Matrix::new(w2, hp),
                Matrix::new(g, d.c).batched(hp * d.c),
                Matrix::new(target, d.c).batched(image),
                d.element,
            )
        };
        self.multiply(&product)?;
        if scale != 0 {
            self.add_scaled(x, branch, scale, out, d)?;
        }
        Ok(())
    }

    /// `y = [LN(x); 1; 0]`, `u = [W₁ b₁] y` and `g = [gelu(u); 1; 0]`. `u` is scratch unless `keeping`.
    fn token_hidden(
        &mut self,
        x: u64,
        p: &Parameters,
        (w1, y, u, g): (u64, u64, u64, u64),
        keeping: bool,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (sp, hp) = (d.padded_s(), d.padded_hidden());
        self.normalise(x, p, y, sp, d, spec.epsilon)?;
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
            kept: u,
            kept_stride: d.hidden * d.c,
            ..product
        };
        if d.fuses(spec) && self.try_multiply(&fused)? {
            let rows = d.b * (hp - d.hidden);
            let args =
                [Arg::Pointer(g), Arg::Long(rows), Arg::Int(d.hidden), Arg::Int(hp), Arg::Int(d.c)];
            return self.launch_rows(d.kernel("fill_rows"), rows, &args);
        }
        self.multiply(&product)?;
        self.activate((u, g), (d.b, d.hidden, hp, d.c), spec, d)
    }

    /// Gradients of [`Gpu::mix_tokens`].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn mix_tokens_backward(
        &mut self,
        x: u64,
        p: &Parameters,
        scale: u64,
        grad: u64,
        out: &Gradients,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (sp, hp, e) = (d.padded_s(), d.padded_hidden(), d.bytes());
        let image = d.s * d.c;
        let slot = (d.s * hp).max(d.hidden * sp) * 4;
        let slots = d.b.div_ceil(d.b.div_ceil((SLOT_BYTES / slot).clamp(1, d.b)));
        let scaled = if scale == 0 { 0 } else { d.b * image * e };
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
        self.pack(p.weight1, p.bias1, w1, (d.hidden, d.s, sp), false, d)?;
        // Transposed here and not in the products, which are several times slower then.
        self.pack(p.weight1, 0, w1t, (d.s, d.hidden, d.hidden), true, d)?;
        self.pack(p.weight2, 0, w2t, (d.hidden, d.s, padded_columns), true, d)?;
        self.token_hidden(x, p, (w1, y, u, g), true, d, spec)?;
        let outer = if scale == 0 {
            grad
        } else {
            self.add_scaled(0, grad, scale, scaled, d)?;
            scaled
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
        let gradients = (out.x, out.gamma, out.beta);
        self.normalise_backward(y, x, p.gamma, grad, gradients, partials, d, spec.epsilon)
    }

    /// A product whose values are multiplied by the slope of GELU at `before`, which has the product's
    /// rows and columns.
    fn multiply_by_slope(
        &mut self,
        product: Product,
        (before, stride): (u64, usize),
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let slope =
            Product { epilogue: Epilogue::GeluSlope, kept: before, kept_stride: stride, ..product };
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
        (left, rows): (u64, usize),
        (right, ld): (u64, usize),
        (sums, slots): (u64, usize),
        (weight, bias, columns): (u64, u64, usize),
        d: &Dims,
    ) -> Result<(), Error> {
        let e = d.bytes();
        let mut first = 0;
        while first < d.b {
            let batch = slots.min(d.b - first);
            let at = |address: u64, rows: usize| {
                Matrix::new(address + (first * rows * d.c * e) as u64, d.c).batched(rows * d.c)
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
        self.launch(d.kernel("reduce_slots"), ((rows * ld).div_ceil(256), 1), (256, 1), 0, &args)
    }

    /// `x + scale · (gelu(LN(x) W₁ + b₁) W₂ + b₂)`; a `scale` of 0 is none. The hidden units before GELU,
    /// and behind them those after it, go to `kept` where it is not 0.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn mix_channels(
        &mut self,
        x: u64,
        p: &Parameters,
        scale: u64,
        out: u64,
        kept: u64,
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let (rows, e) = (d.rows(), d.bytes());
        let branch = if scale == 0 { 0 } else { rows * d.c * e };
        let half = |len: usize| if d.is_half() { len * e } else { 0 };
        let [w1, w2, b1, b2, y, g, branch] = self.scratch([
            half(d.c * d.hidden),
            half(d.c * d.hidden),
            half(d.hidden),
            half(d.c),
            rows * d.c * e,
            if kept == 0 { rows * d.hidden * e } else { 0 },
            branch,
        ])?;
        let w1 = self.weight(p.weight1, w1, (d.c, d.hidden), d)?;
        let w2 = self.weight(p.weight2, w2, (d.hidden, d.c), d)?;
        let b1 = self.weight(p.bias1, b1, (1, d.hidden), d)?;
        let b2 = self.weight(p.bias2, b2, (1, d.c), d)?;
        self.normalise(x, p, y, d.s, d, spec.epsilon)?;
        let g = if kept == 0 { g } else { kept + (rows * d.hidden * e) as u64 };
        self.channel_hidden((y, w1, b1), (kept, g), d, spec)?;
        let target = if scale == 0 { out } else { branch };
        let product = Product {
            add: (scale == 0).then(|| Matrix::new(x, d.c)),
            epilogue: Epilogue::Bias,
            bias: b2,
            ..Product::new(
                (rows, d.c, d.hidden),
                Matrix::new(g, d.hidden),
                Matrix::new(w2, d.c),
                Matrix::new(target, d.c),
                d.element,
            )
        };
        self.multiply(&product)?;
        if scale != 0 {
            self.add_scaled(x, branch, scale, out, d)?;
        }
        Ok(())
    }

    /// `h = y W₁ + b₁`, unless it is 0, and `g = gelu(y W₁ + b₁)`.
    fn channel_hidden(
        &mut self,
        (y, w1, b1): (u64, u64, u64),
        (h, g): (u64, u64),
        d: &Dims,
        spec: &MixingSpec,
    ) -> Result<(), Error> {
        let rows = d.rows();
        let product = Product {
            bias: b1,
            ..Product::new(
                (rows, d.hidden, d.c),
                Matrix::new(y, d.c),
                Matrix::new(w1, d.hidden),
                Matrix::new(g, d.hidden),
                d.element,
            )
        };
        let fused = if h == 0 { Epilogue::BiasGelu } else { Epilogue::BiasGeluKeeping };
        if d.fuses(spec) && self.try_multiply(&Product { epilogue: fused, kept: h, ..product })? {
            return Ok(());
        }
        let before = if h == 0 { g } else { h };
        let out = Matrix::new(before, d.hidden);
        self.multiply(&Product { epilogue: Epilogue::Bias, out, ..product })?;
        self.activate((before, g), (1, rows, rows, d.hidden), spec, d)
    }

    /// Gradients of [`Gpu::mix_channels`]. `kept` is what it kept, or 0.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn mix_channels_backward(
        &mut self,
        x: u64,
        p: &Parameters,
        scale: u64,
        kept: u64,
        grad: u64,
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
            if kept == 0 { 2 * rows * d.hidden * e } else { 0 },
            rows * d.hidden * e,
            if scale == 0 { 0 } else { rows * d.c * e },
            partials,
        ])?;
        let w1 = self.weight(p.weight1, w1, (d.c, d.hidden), d)?;
        let w2 = self.weight(p.weight2, w2, (d.hidden, d.c), d)?;
        self.normalise(x, p, y, d.s, d, spec.epsilon)?;
        let h = if kept == 0 { again } else { kept };
        let g = h + (rows * d.hidden * e) as u64;
        if kept == 0 {
            let b1 = self.weight(p.bias1, b1, (1, d.hidden), d)?;
            self.channel_hidden((y, w1, b1), (h, g), d, spec)?;
        }
        let outer = if scale == 0 {
            grad
        } else {
            self.add_scaled(0, grad, scale, scaled, d)?;
            scaled
        };
        let wide = |address| Matrix::new(address, d.hidden);
        let narrow = |address| Matrix::new(address, d.c);
        let dims = (rows, d.hidden, d.c);
        let slope = Product::new(dims, narrow(outer), narrow(w2).t(), wide(dh), d.element);
        let dims = (d.c, d.hidden, rows);
        let dw1 = Product::new(dims, narrow(y).t(), wide(dh), wide(out.weight1), d.element);
        let dw1 = Product { element_out: Precision::F32, ..dw1 };
        // Sums of columns can be had with either of two products; where, is a matter of time.
        let with_sums =
            Product { epilogue: Epilogue::GeluSlopeSums, kept: h, bias: partials, ..slope };
        let without = Product { epilogue: Epilogue::GeluSlope, kept: h, ..slope };
        let sums_later = Product { epilogue: Epilogue::ColumnSums, bias: out.bias1, ..dw1 };
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
        let gradients = (out.x, out.gamma, out.beta);
        self.normalise_backward(y, x, p.gamma, grad, gradients, partials, d, spec.epsilon)
    }

    /// A product with f32 output, and the sums of the columns of its second operand.
    fn multiply_with_column_sums(
        &mut self,
        product: Product,
        sums: u64,
        partials: u64,
        d: &Dims,
    ) -> Result<(), Error> {
        let product = Product { element_out: Precision::F32, ..product };
        let fused = Product { epilogue: Epilogue::ColumnSums, bias: sums, ..product };
        if self.try_multiply(&fused)? {
            return Ok(());
        }
        self.multiply(&product)?;
        self.column_sums(product.b.address, partials, sums, (product.k, product.n), d)
    }

    fn column_sums(
        &mut self,
        x: u64,
        partials: u64,
        out: u64,
        (rows, n): (usize, usize),
        d: &Dims,
    ) -> Result<(), Error> {
        let chunks = self.chunks(n, 128);
        let args = [Arg::Pointer(x), Arg::Pointer(partials), Arg::Long(rows), Arg::Int(n)];
        self.launch(d.kernel("column_sums"), (n.div_ceil(128), chunks), (128, 1), 0, &args)?;
        self.reduce(partials, [out, 0], 1, chunks, n, d)
    }

    /// `x W + b`: `x` is f32 `[rows, k]`, `weight` `[k, n]`, `out` of the activations' type.
    pub(super) fn linear(
        &mut self,
        x: u64,
        (weight, bias): (u64, u64),
        out: u64,
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
            bias,
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
        (x, grad): (u64, u64),
        (dweight, dbias): (u64, u64),
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
        (weight, grad): (u64, u64),
        dx: u64,
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
        x: u64,
        (gamma, beta): (u64, u64),
        out: u64,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let p = Parameters { gamma, beta, weight1: 0, bias1: 0, weight2: 0, bias2: 0 };
        self.normalise(x, &p, out, d.s, d, epsilon)
    }

    /// Gradients of [`Gpu::layer_norm`].
    pub(super) fn layer_norm_backward(
        &mut self,
        (x, gamma, grad): (u64, u64, u64),
        (dx, dgamma, dbeta): (u64, u64, u64),
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let [partials] = self.scratch([self.norm_partials(d)])?;
        self.normalise_backward(grad, x, gamma, 0, (dx, dgamma, dbeta), partials, d, epsilon)
    }

    /// The mean over tokens of LN over channels, f32 `[B, C]`.
    pub(super) fn mean_norm(
        &mut self,
        x: u64,
        (gamma, beta): (u64, u64),
        out: u64,
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let args = [
            Arg::Pointer(x),
            Arg::Pointer(gamma),
            Arg::Pointer(beta),
            Arg::Pointer(out),
            Arg::Int(d.s),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        let shared = ROWS_PER_BLOCK * d.c * 4;
        self.launch(d.kernel("mean_norm"), (d.b, 1), (256, 1), shared, &args)
    }

    /// Gradients of [`Gpu::mean_norm`].
    pub(super) fn mean_norm_backward(
        &mut self,
        (x, gamma, grad): (u64, u64, u64),
        (dx, dgamma, dbeta): (u64, u64, u64),
        d: &Dims,
        epsilon: f64,
    ) -> Result<(), Error> {
        let [partials] = self.scratch([self.norm_partials(d)])?;
        let args = [
            Arg::Pointer(grad),
            Arg::Pointer(x),
            Arg::Pointer(gamma),
            Arg::Pointer(dx),
            Arg::Pointer(partials),
            Arg::Long(d.rows()),
            Arg::Int(d.s),
            Arg::Int(d.c),
            Arg::Float(epsilon),
        ];
        let warps = self.norm_warps();
        let grid = (warps / ROWS_PER_BLOCK, 1);
        self.launch(d.kernel("mean_norm_backward"), grid, (256, 1), 0, &args)?;
        self.reduce(partials, [dgamma, dbeta], 2, warps, d.c, d)
    }
}
