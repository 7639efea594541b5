//! Matrix products by cuBLASLt, each shape by the fastest way that the library proposes.

use std::ffi::c_void;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatrixLayoutAttribute_t as LayoutAttribute, cudaDataType,
};
use cudarc::driver::result as driver;

use crate::spec::Precision;

use super::address::Address;
use super::gpu::{Error, Gpu, WORKSPACE, driver_error};
use super::product::{Algorithm, CudaProduct, Epilogue, Matrix, Product, Tuned};

/// Number of the library's proposals that are timed when a shape is first met.
const PROPOSALS: usize = 8;
/// Number of times that each is.
const TRIALS: usize = 3;

/// The library's descriptions of one product, freed when dropped.
struct Descriptors {
    product: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    c: sys::cublasLtMatrixLayout_t,
    d: sys::cublasLtMatrixLayout_t,
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: each was made by `Gpu::describe` and is freed once. Nothing can be done about a
        // descriptor that the library will not free.
        unsafe {
            for layout in [self.a, self.b, self.c, self.d] {
                lt::destroy_matrix_layout(layout).ok();
            }
            lt::destroy_matmul_desc(self.product).ok();
        }
    }
}

fn lt_error(what: &str) -> impl Fn(lt::CublasError) -> Error + '_ {
    move |error| format!("{what}: {error}")
}

fn data_type(element: Precision) -> cudaDataType {
    match element {
        Precision::F32 => cudaDataType::CUDA_R_32F,
        Precision::Bf16 => cudaDataType::CUDA_R_16BF,
        Precision::F16 => cudaDataType::CUDA_R_16F,
    }
}

/// A row-major `[rows, columns]` is the library's column-major `[columns, rows]`.
fn layout(
    (rows, columns): (usize, usize),
    matrix: &Matrix,
    element: Precision,
    batch: usize,
) -> Result<sys::cublasLtMatrixLayout_t, Error> {
    let (rows, columns) = if matrix.transposed { (columns, rows) } else { (rows, columns) };
    let layout =
        lt::create_matrix_layout(data_type(element), columns as u64, rows as u64, matrix.ld as i64)
            .map_err(lt_error("cublasLtMatrixLayoutCreate"))?;
    let (batch, stride) = (batch as i32, matrix.stride as i64);
    // SAFETY: the layout was just made; the values live until the calls return.
    unsafe {
        let set = |attribute, value: *const c_void, size| {
            lt::set_matrix_layout_attribute(layout, attribute, value, size)
                .map_err(lt_error("cublasLtMatrixLayoutSetAttribute"))
        };
        set(LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, (&raw const batch).cast(), 4)?;
        set(
            LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
            (&raw const stride).cast(),
            8,
        )?;
    }
    Ok(layout)
}

fn describe(p: &Product) -> Result<Descriptors, Error> {
    let product =
        lt::create_matmul_desc(cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType::CUDA_R_32F)
            .map_err(lt_error("cublasLtMatmulDescCreate"))?;
    let transpose = |transposed: bool| -> i32 { i32::from(transposed) };
    // Row-major out = a · b is column-major outᵀ = bᵀ · aᵀ: the library's first operand is our second.
    let (first, second) = (transpose(p.b.transposed), transpose(p.a.transposed));
    let epilogue = match p.epilogue {
        Epilogue::None => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
        Epilogue::Bias => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
        Epilogue::BiasGelu => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        Epilogue::BiasGeluKeeping => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        Epilogue::Gelu => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU,
        Epilogue::GeluKeeping => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_AUX,
        Epilogue::GeluSlope => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DGELU,
        Epilogue::GeluSlopeSums => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DGELU_BGRAD,
        Epilogue::ColumnSums => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BGRADA,
    } as u32;
    let (bias, kept) = (p.bias.map_or(0, Address::get), p.kept.map_or(0, Address::get));
    let kept_ld = p.out.ld as i64;
    let kept_stride = p.kept_stride as i64;
    // SAFETY: the description was just made; the values live until the calls return, and the
    // addresses are the caller's.
    unsafe {
        let set = |attribute, value: *const c_void, size| {
            lt::set_matmul_desc_attribute(product, attribute, value, size)
                .map_err(lt_error("cublasLtMatmulDescSetAttribute"))
        };
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, (&raw const first).cast(), 4)?;
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, (&raw const second).cast(), 4)?;
        set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, (&raw const epilogue).cast(), 4)?;
        if p.epilogue.has_bias() {
            let bias = &raw const bias;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.cast(), 8)?;
        }
        if p.epilogue.has_kept() {
            let kept = &raw const kept;
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, kept.cast(), 8)?;
            let ld = &raw const kept_ld;
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, ld.cast(), 8)?;
            let stride = &raw const kept_stride;
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, stride.cast(), 8)?;
        }
    }
    let add = p.add.unwrap_or(p.out);
    Ok(Descriptors {
        product,
        a: layout((p.k, p.n), &p.b, p.element, p.batch)?,
        b: layout((p.m, p.k), &p.a, p.element, p.batch)?,
        c: layout((p.m, p.n), &add, p.element_out, p.batch)?,
        d: layout((p.m, p.n), &p.out, p.element_out, p.batch)?,
    })
}

impl Gpu {
    /// Computes a product on our stream. The first time that a shape is met, the library's proposals
    /// are timed, and the fastest is kept for the life of the process.
    ///
    /// Returns false, and does nothing, where the library cannot do it.
    pub(super) fn try_multiply(&mut self, p: &Product) -> Result<bool, Error> {
        let descriptors = describe(p)?;
        let Some(tuned) = self.tuned(p, &descriptors)? else { return Ok(false) };
        let what = || {
            let letter = |transposed| if transposed { "T" } else { "" };
            let (a, b) = (letter(p.a.transposed), letter(p.b.transposed));
            let name = format!(
                "[{}, {}]{a} · [{}, {}]{b} × {} {:?}{}",
                p.m,
                p.k,
                p.k,
                p.n,
                p.batch,
                p.epilogue,
                if p.add.is_some() { " + C" } else { "" }
            );
            (name, 2.0 * (p.m * p.n) as f64 * (p.k * p.batch) as f64)
        };
        self.timed(what, |gpu| gpu.start(p, &descriptors, &tuned.algorithm))?;
        Ok(true)
    }

    /// The time of a product, ms; `None` where the library cannot do it.
    pub(super) fn cost(&mut self, p: &Product) -> Result<Option<f32>, Error> {
        let descriptors = describe(p)?;
        Ok(self.tuned(p, &descriptors)?.map(|tuned| tuned.milliseconds))
    }

    /// The time of a product of noise, seconds; `None` where the library cannot do it.
    pub(super) fn product_seconds(
        &mut self,
        spec: &CudaProduct,
        element: Precision,
    ) -> Result<Option<f64>, Error> {
        let CudaProduct { m, n, k, count, .. } = *spec;
        let left = m * k * if spec.left_shared { 1 } else { count };
        let (right, result) = (k * n * count, m * n * count);
        let size = element.dtype().size();
        self.begin()?;
        let [a, b, out] = self.scratch([left * size, right * size, result * 4])?;
        for (to, bytes) in [(a, left * size), (b, right * size)] {
            // SAFETY: the scratch memory was asked for with these sizes.
            unsafe { self.fill_with_noise(to, bytes, element)? };
        }
        let operand = |address, (rows, columns), transposed, stride| {
            let ld = if transposed { rows } else { columns };
            Matrix { address, ld, stride, transposed }
        };
        let stride = if spec.left_shared { 0 } else { m * k };
        let product = Product {
            batch: count,
            element_out: if spec.wide_result { Precision::F32 } else { element },
            ..Product::new(
                (m, n, k),
                operand(a, (m, k), spec.left_transposed, stride),
                operand(b, (k, n), spec.right_transposed, k * n),
                Matrix::new(out, n).batched(m * n),
                element,
            )
        };
        let cost = self.cost(&product)?;
        self.end()?;
        Ok(cost.map(|milliseconds| f64::from(milliseconds) / 1e3))
    }

    fn tuned(&mut self, p: &Product, descriptors: &Descriptors) -> Result<Option<Tuned>, Error> {
        let key = p.key();
        if let Some(known) = self.products.get(&key) {
            return Ok(*known);
        }
        let fastest = self.fastest(p, descriptors)?;
        self.products.insert(key, fastest);
        Ok(fastest)
    }

    /// As [`Gpu::try_multiply`], for what every version of the library can do.
    pub(super) fn multiply(&mut self, p: &Product) -> Result<(), Error> {
        if self.try_multiply(p)? {
            return Ok(());
        }
        Err(format!("cuBLASLt has no way to multiply [{}, {}] by [{}, {}]", p.m, p.k, p.k, p.n))
    }

    fn start(
        &self,
        p: &Product,
        descriptors: &Descriptors,
        algorithm: &Algorithm,
    ) -> Result<(), Error> {
        let one = 1.0_f32;
        let beta = if p.add.is_some() { 1.0_f32 } else { 0.0 };
        let add = p.add.unwrap_or(p.out);
        // SAFETY: the descriptors fit the addresses, which the caller keeps alive until the stream has
        // passed this point; the workspace has the size that the proposals were asked for.
        unsafe {
            lt::matmul(
                self.lt,
                descriptors.product,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                p.b.address.get() as *const c_void,
                descriptors.a,
                p.a.address.get() as *const c_void,
                descriptors.b,
                add.address.get() as *const c_void,
                descriptors.c,
                p.out.address.get() as *mut c_void,
                descriptors.d,
                algorithm,
                self.workspace.get() as *mut c_void,
                WORKSPACE,
                self.stream.cast(),
            )
        }
        .map_err(|error| format!("cublasLtMatmul [{}, {}] · [{}, {}]: {error}", p.m, p.k, p.k, p.n))
    }

    fn proposals(&self, descriptors: &Descriptors) -> Result<Vec<Algorithm>, Error> {
        let preference =
            lt::create_matmul_pref().map_err(lt_error("cublasLtMatmulPreferenceCreate"))?;
        let mut found = 0;
        let workspace = WORKSPACE;
        let empty = sys::cublasLtMatmulHeuristicResult_t {
            algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            workspaceSize: 0,
            state: sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
            wavesCount: 0.0,
            reserved: [0; 4],
        };
        let mut results = [empty; PROPOSALS];
        // SAFETY: the descriptors are alive, and the array has room for what is asked for.
        let status = unsafe {
            lt::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                8,
            )
            .map_err(lt_error("cublasLtMatmulPreferenceSetAttribute"))?;
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.lt,
                descriptors.product,
                descriptors.a,
                descriptors.b,
                descriptors.c,
                descriptors.d,
                preference,
                PROPOSALS as i32,
                results.as_mut_ptr(),
                &mut found,
            );
            lt::destroy_matmul_pref(preference)
                .map_err(lt_error("cublasLtMatmulPreferenceDestroy"))?;
            status
        };
        if status != sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            return Ok(Vec::new());
        }
        let found = usize::try_from(found).unwrap_or(0);
        let usable = |result: &&sys::cublasLtMatmulHeuristicResult_t| {
            result.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS
        };
        Ok(results[..found].iter().filter(usable).map(|result| result.algo).collect())
    }

    fn fastest(&self, p: &Product, descriptors: &Descriptors) -> Result<Option<Tuned>, Error> {
        let proposals = self.proposals(descriptors)?;
        // Trials of a product that adds to its own output would change it.
        let repeatable = p.add.is_none_or(|add| add.address != p.out.address);
        if !repeatable {
            let first = proposals.first();
            return Ok(first.map(|&algorithm| Tuned { algorithm, milliseconds: 0.0 }));
        }
        let mut best: Option<Tuned> = None;
        for algorithm in proposals {
            // A proposal may turn out not to run; the others are tried.
            let Ok(milliseconds) = self.time(p, descriptors, &algorithm) else { continue };
            if best.is_none_or(|best| milliseconds < best.milliseconds) {
                best = Some(Tuned { algorithm, milliseconds });
            }
        }
        Ok(best)
    }

    fn time(
        &self,
        p: &Product,
        descriptors: &Descriptors,
        algorithm: &Algorithm,
    ) -> Result<f32, Error> {
        let event = || {
            driver::event::create(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(driver_error("cuEventCreate"))
        };
        self.start(p, descriptors, algorithm)?;
        let (started, ended) = (event()?, event()?);
        // SAFETY: events and stream are alive; the events are destroyed once.
        unsafe {
            driver::event::record(started, self.stream).map_err(driver_error("cuEventRecord"))?;
            for _ in 0..TRIALS {
                self.start(p, descriptors, algorithm)?;
            }
            driver::event::record(ended, self.stream).map_err(driver_error("cuEventRecord"))?;
            driver::event::synchronize(ended).map_err(driver_error("cuEventSynchronize"))?;
            let elapsed = driver::event::elapsed(started, ended)
                .map_err(driver_error("cuEventElapsedTime"))?;
            for event in [started, ended] {
                driver::event::destroy(event).map_err(driver_error("cuEventDestroy"))?;
            }
            Ok(elapsed / TRIALS as f32)
        }
    }
}
