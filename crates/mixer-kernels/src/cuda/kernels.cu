// What Mixer does between its products, for NVRTC: no headers. Compiled once per element type and width:
//   BF16   activations are bf16 (kept as their 16 bits)
//   F16    or f16, likewise; otherwise they are float
//   LANES  vectors of eight channels that each of a warp's 32 lanes holds: ceil(C / 256)
// Every sum is float, and every sum over many rows has a fixed order: partial sums, then one reduction.

typedef long long i64;

#if defined(BF16)
__device__ __forceinline__ unsigned pack2(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
__device__ __forceinline__ void unpack2(unsigned bits, float* low, float* high) {
    *low = __uint_as_float(bits << 16);
    *high = __uint_as_float(bits & 0xffff0000u);
}
#elif defined(F16)
__device__ __forceinline__ unsigned pack2(float low, float high) {
    unsigned bits;
    asm("{.reg .b16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b};}"
        : "=r"(bits) : "f"(low), "f"(high));
    return bits;
}
__device__ __forceinline__ void unpack2(unsigned bits, float* low, float* high) {
    asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
        : "=f"(*low), "=f"(*high) : "r"(bits));
}
#endif

#if defined(BF16) || defined(F16)
#define HALF
typedef unsigned short T;
__device__ __forceinline__ void load8(const T* from, float* v) {
    uint4 q = *reinterpret_cast<const uint4*>(from);
    unsigned words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) unpack2(words[i], v + 2 * i, v + 2 * i + 1);
}
__device__ __forceinline__ void store8(T* to, const float* v) {
    uint4 q;
    q.x = pack2(v[0], v[1]);
    q.y = pack2(v[2], v[3]);
    q.z = pack2(v[4], v[5]);
    q.w = pack2(v[6], v[7]);
    *reinterpret_cast<uint4*>(to) = q;
}
__device__ __forceinline__ T from_float(float x) { return (T)(pack2(x, 0.f) & 0xffffu); }
__device__ __forceinline__ float to_float(T x) {
    float low, high;
    unpack2(x, &low, &high);
    return low;
}
#else
typedef float T;
__device__ __forceinline__ void load8(const T* from, float* v) {
    float4 a = reinterpret_cast<const float4*>(from)[0];
    float4 b = reinterpret_cast<const float4*>(from)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
    v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}
__device__ __forceinline__ void store8(T* to, const float* v) {
    reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ T from_float(float x) { return x; }
__device__ __forceinline__ float to_float(T x) { return x; }
#endif

__device__ __forceinline__ void load8f(const float* from, float* v) {
    float4 a = reinterpret_cast<const float4*>(from)[0];
    float4 b = reinterpret_cast<const float4*>(from)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
    v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}
__device__ __forceinline__ void store8f(float* to, const float* v) {
    reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

// The row of channels that a warp holds, and its statistics. Lanes past the end hold zeros.
struct Row {
    float v[LANES][8];
    float mean, inverse_deviation;

    __device__ __forceinline__ void load(const T* from, int c, int lane, float epsilon) {
        float sum = 0.f;
#pragma unroll
        for (int j = 0; j < LANES; ++j) {
            int column = (j * 32 + lane) * 8;
            if (column < c) {
                load8(from + column, v[j]);
#pragma unroll
                for (int i = 0; i < 8; ++i) sum += v[j][i];
            } else {
#pragma unroll
                for (int i = 0; i < 8; ++i) v[j][i] = 0.f;
            }
        }
        mean = warp_sum(sum) / c;
        float squares = 0.f;
#pragma unroll
        for (int j = 0; j < LANES; ++j) {
            if ((j * 32 + lane) * 8 < c) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    v[j][i] -= mean;
                    squares += v[j][i] * v[j][i];
                }
            }
        }
        inverse_deviation = rsqrtf(warp_sum(squares) / c + epsilon);
#pragma unroll
        for (int j = 0; j < LANES; ++j) {
#pragma unroll
            for (int i = 0; i < 8; ++i) v[j][i] *= inverse_deviation;
        }
    }
};

// y[b, s, :] = LN(x[b, s, :]) for s < s_in; then a row of ones (it multiplies a bias that is kept as
// one more column of the weight) and rows of zeros up to s_out. A warp per row of y.
extern "C" __global__ void layer_norm(const T* x, const float* gamma, const float* beta, T* y,
                                      i64 rows_out, int s_in, int s_out, int c, float epsilon) {
    int lane = threadIdx.x & 31;
    i64 row = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows_out) return;
    i64 b = row / s_out;
    int s = (int)(row - b * s_out);
    T* to = y + row * c;
    if (s >= s_in) {
        float fill[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) fill[i] = s == s_in ? 1.f : 0.f;
        for (int column = lane * 8; column < c; column += 256) store8(to + column, fill);
        return;
    }
    Row in;
    in.load(x + (b * s_in + s) * c, c, lane, epsilon);
#pragma unroll
    for (int j = 0; j < LANES; ++j) {
        int column = (j * 32 + lane) * 8;
        if (column < c) {
            float g[8], h[8];
            load8f(gamma + column, g);
            load8f(beta + column, h);
#pragma unroll
            for (int i = 0; i < 8; ++i) h[i] += in.v[j][i] * g[i];
            store8(to + column, h);
        }
    }
}

// dx = d LN(x) / dx · dy (+ residual), and per warp the sums over its rows of dy · n and of dy.
// MEAN: dy is float [B, C], the gradient of the mean over the s rows of an example.
template <bool MEAN>
__device__ void layer_norm_backward_rows(const T* dy, const float* dmean, const T* x,
                                         const float* gamma, const T* residual, T* dx,
                                         float* partials, i64 rows, int s, int c, float epsilon) {
    int lane = threadIdx.x & 31;
    int warps = gridDim.x * (blockDim.x >> 5);
    int warp = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    float dgamma[LANES][8], dbeta[LANES][8];
#pragma unroll
    for (int j = 0; j < LANES; ++j) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            dgamma[j][i] = 0.f;
            dbeta[j][i] = 0.f;
        }
    }
    for (i64 row = warp; row < rows; row += warps) {
        Row in;
        in.load(x + row * c, c, lane, epsilon);
        float h[LANES][8];
        float sum_h = 0.f, sum_hn = 0.f;
#pragma unroll
        for (int j = 0; j < LANES; ++j) {
            int column = (j * 32 + lane) * 8;
            if (column < c) {
                float scale[8];
                if (MEAN) {
                    load8f(dmean + (row / s) * c + column, h[j]);
#pragma unroll
                    for (int i = 0; i < 8; ++i) h[j][i] /= s;
                } else {
                    load8(dy + row * c + column, h[j]);
                }
                load8f(gamma + column, scale);
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    dbeta[j][i] += h[j][i];
                    dgamma[j][i] += h[j][i] * in.v[j][i];
                    h[j][i] *= scale[i];
                    sum_h += h[j][i];
                    sum_hn += h[j][i] * in.v[j][i];
                }
            }
        }
        float mean_h = warp_sum(sum_h) / c;
        float mean_hn = warp_sum(sum_hn) / c;
#pragma unroll
        for (int j = 0; j < LANES; ++j) {
            int column = (j * 32 + lane) * 8;
            if (column < c) {
                float out[8];
#pragma unroll
                for (int i = 0; i < 8; ++i)
                    out[i] = (h[j][i] - mean_h - in.v[j][i] * mean_hn) * in.inverse_deviation;
                if (!MEAN && residual) {
                    float skip[8];
                    load8(residual + row * c + column, skip);
#pragma unroll
                    for (int i = 0; i < 8; ++i) out[i] += skip[i];
                }
                store8(dx + row * c + column, out);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < LANES; ++j) {
        int column = (j * 32 + lane) * 8;
        if (column < c) {
            store8f(partials + (i64)warp * c + column, dgamma[j]);
            store8f(partials + ((i64)warps + warp) * c + column, dbeta[j]);
        }
    }
}
extern "C" __global__ void __launch_bounds__(256)
layer_norm_backward(const T* dy, const T* x, const float* gamma, const T* residual, T* dx,
                    float* partials, i64 rows, int c, float epsilon) {
    layer_norm_backward_rows<false>(dy, 0, x, gamma, residual, dx, partials, rows, 1, c, epsilon);
}
extern "C" __global__ void __launch_bounds__(256)
mean_norm_backward(const float* dmean, const T* x, const float* gamma, T* dx, float* partials,
                   i64 rows, int s, int c, float epsilon) {
    layer_norm_backward_rows<true>(0, dmean, x, gamma, 0, dx, partials, rows, s, c, epsilon);
}

// out[b, :] = mean over s of LN(x[b, s, :]). A block per example; shared: a row of floats per warp.
extern "C" __global__ void __launch_bounds__(256)
mean_norm(const T* x, const float* gamma, const float* beta, float* out, int s, int c, float epsilon) {
    extern __shared__ float sums[];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    float total[LANES][8];
#pragma unroll
    for (int j = 0; j < LANES; ++j)
#pragma unroll
        for (int i = 0; i < 8; ++i) total[j][i] = 0.f;
    for (int row = warp; row < s; row += warps) {
        Row in;
        in.load(x + ((i64)blockIdx.x * s + row) * c, c, lane, epsilon);
#pragma unroll
        for (int j = 0; j < LANES; ++j)
#pragma unroll
            for (int i = 0; i < 8; ++i) total[j][i] += in.v[j][i];
    }
#pragma unroll
    for (int j = 0; j < LANES; ++j) {
        int column = (j * 32 + lane) * 8;
        if (column < c) store8f(sums + warp * c + column, total[j]);
    }
    __syncthreads();
    for (int column = threadIdx.x; column < c; column += blockDim.x) {
        float sum = 0.f;
        for (int w = 0; w < warps; ++w) sum += sums[w * c + column];
        out[(i64)blockIdx.x * c + column] = gamma[column] * (sum / s) + beta[column];
    }
}

// out_k[:] = sum over p of partials[k, p, :]. Blocks of 32 x 32, grid (columns / 32, outputs).
extern "C" __global__ void reduce_partials(const float* partials, float* out0, float* out1, int count,
                                           int n) {
    __shared__ float tile[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    const float* from = partials + (i64)blockIdx.y * count * n;
    float sum = 0.f;
    if (column < n)
        for (int p = threadIdx.y; p < count; p += 32) sum += from[(i64)p * n + column];
    tile[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < n) {
        float total = 0.f;
        for (int i = 0; i < 32; ++i) total += tile[i][threadIdx.x];
        (blockIdx.y == 0 ? out0 : out1)[column] = total;
    }
}

// GELU in both forms (tanh_form 1 or 0), and its slope.
__device__ __forceinline__ float tanh_of(float x) {
#ifdef HALF
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return tanhf(x);
#endif
}
__device__ __forceinline__ float gelu(float x, int tanh_form, float* slope) {
    if (tanh_form) {
        float square = x * x;
        float t = tanh_of(0.7978845608028654f * x * (1.f + 0.044715f * square));
        float half = 0.5f * (1.f + t);
        *slope = half + 0.5f * x * (1.f - t * t) * 0.7978845608028654f * (1.f + 0.134145f * square);
        return x * half;
    }
    float cdf = 0.5f * (1.f + erff(0.7071067811865476f * x));
    *slope = cdf + x * 0.3989422804014327f * expf(-0.5f * x * x);
    return x * cdf;
}

// g[b, r, :] = gelu(u[b, r, :]) for r < rows_in, then ones and zeros as in layer_norm. A warp per row.
extern "C" __global__ void gelu_forward(const T* u, T* g, i64 total_out, int rows_in, int rows_out,
                                        int c, int tanh_form) {
    int lane = threadIdx.x & 31;
    i64 row = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= total_out) return;
    i64 b = row / rows_out;
    int r = (int)(row - b * rows_out);
    T* to = g + row * c;
    const T* from = u + (b * rows_in + r) * c;
#pragma unroll 4
    for (int column = lane * 8; column < c; column += 256) {
        float v[8];
        if (r < rows_in) {
            load8(from + column, v);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float slope;
                v[i] = gelu(v[i], tanh_form, &slope);
            }
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) v[i] = r == rows_in ? 1.f : 0.f;
        }
        store8(to + column, v);
    }
}

// Rows of ones and zeros, as in layer_norm, after the rows_in of each example. A warp per row.
extern "C" __global__ void fill_rows(T* g, i64 total, int rows_in, int rows_out, int c) {
    int lane = threadIdx.x & 31;
    i64 row = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= total) return;
    int extra = rows_out - rows_in;
    i64 b = row / extra;
    int r = (int)(row - b * extra);
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = r == 0 ? 1.f : 0.f;
    T* to = g + (b * rows_out + rows_in + r) * c;
    for (int column = lane * 8; column < c; column += 256) store8(to + column, v);
}

// dg becomes dg · gelu'(u). Eight values a thread.
extern "C" __global__ void gelu_backward(const T* u, T* dg, i64 eights, int tanh_form) {
    i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= eights) return;
    float v[8], d[8];
    load8(u + i * 8, v);
    load8(dg + i * 8, d);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        float slope;
        gelu(v[k], tanh_form, &slope);
        d[k] *= slope;
    }
    store8(dg + i * 8, d);
}

// float as T, eight values a thread.
extern "C" __global__ void cast(const float* from, T* to, i64 eights) {
    i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= eights) return;
    float v[8];
    load8f(from + i * 8, v);
    store8(to + i * 8, v);
}

// T as float, eight values a thread.
extern "C" __global__ void widen(const T* from, float* to, i64 eights) {
    i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= eights) return;
    float v[8];
    load8(from + i * 8, v);
    store8f(to + i * 8, v);
}

// Sums of columns, per chunk of rows: grid (columns / 128, chunks).
extern "C" __global__ void column_sums(const T* x, float* partials, i64 rows, int n) {
    int column = blockIdx.x * 128 + threadIdx.x;
    if (column >= n) return;
    i64 chunk = (rows + gridDim.y - 1) / gridDim.y;
    i64 first = blockIdx.y * chunk;
    i64 last = first + chunk < rows ? first + chunk : rows;
    float sum = 0.f;
#pragma unroll 8
    for (i64 row = first; row < last; ++row) sum += to_float(x[row * n + column]);
    partials[(i64)blockIdx.y * n + column] = sum;
}

// out[b, r, :] = (x[b, r, :] if there is an x) + scale[b] · y[b, r, :]. A warp per row.
extern "C" __global__ void add_scaled(const T* x, const T* y, const float* scale, T* out, i64 rows,
                                      int s, int c) {
    int lane = threadIdx.x & 31;
    i64 row = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows) return;
    float factor = scale[row / s];
    for (int column = lane * 8; column < c; column += 256) {
        float v[8], w[8];
        load8(y + row * c + column, v);
        if (x) load8(x + row * c + column, w);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = (x ? w[i] : 0.f) + factor * v[i];
        store8(out + row * c + column, v);
    }
}

// A float matrix [rows, columns] (or, `transposed`, [columns, rows]) as T [rows, ld]; column `columns` is
// the bias where there is one, the rest zeros.
extern "C" __global__ void pack(const float* w, const float* bias, T* out, int rows, int columns, int ld,
                                int transposed) {
    i64 total = (i64)rows * ld;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += (i64)gridDim.x * blockDim.x) {
        int r = (int)(i / ld), column = (int)(i - (i64)r * ld);
        float value = 0.f;
        if (column < columns) value = w[transposed ? (i64)column * rows + r : (i64)r * columns + column];
        else if (column == columns && bias) value = bias[r];
        out[i] = from_float(value);
    }
}

// Sums [count, rows, ld] over count, taken apart again into the weight and the bias of `pack`.
extern "C" __global__ void reduce_slots(const float* slots, float* dw, float* dbias, int count,
                                        int rows, int columns, int ld) {
    i64 size = (i64)rows * ld;
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int r = (int)(i / ld), column = (int)(i - (i64)r * ld);
    if (column > columns) return;
    float sum = 0.f;
#pragma unroll 8
    for (int p = 0; p < count; ++p) sum += slots[p * size + i];
    if (column < columns) dw[(i64)r * columns + column] = sum;
    else dbias[r] = sum;
}

// One AdamW update of many tensors. A block is 256 threads on CHUNK elements of the tensor that its
// number falls into.
#define CHUNK 8192
struct Parameter {
    float* value;
    const float* gradient;
    float* first;
    float* second;
    i64 len;
    i64 first_block;
    float decay, rate;
};
__device__ __forceinline__ int find(const Parameter* table, int count, i64 block) {
    int low = 0, high = count - 1;
    while (low < high) {
        int middle = (low + high + 1) >> 1;
        if (table[middle].first_block <= block) low = middle;
        else high = middle - 1;
    }
    return low;
}
// What gradients are multiplied by: `scale`, and what brings the norm to `limit`. 0 tells that the norm
// is not finite, and then nothing is to be updated.
__device__ __forceinline__ float clipped(const float* squared_norm, float limit, float scale) {
    if (!squared_norm) return scale;
    float norm = sqrtf(*squared_norm);
    if (!(norm - norm == 0.f)) return 0.f;
    return norm > limit ? scale * (limit / norm) : scale;
}
extern "C" __global__ void __launch_bounds__(256)
adamw(const Parameter* table, int count, const float* squared_norm, float limit, float gradient_scale,
      float beta1, float beta2, float rest1, float rest2, float correct1, float correct2,
      float epsilon) {
    float scale = clipped(squared_norm, limit, gradient_scale);
    if (scale == 0.f) return;
    Parameter p = table[find(table, count, blockIdx.x)];
    i64 start = ((i64)blockIdx.x - p.first_block) * CHUNK;
    i64 end = start + CHUNK < p.len ? start + CHUNK : p.len;
#pragma unroll 4
    for (i64 i = start + threadIdx.x; i < end; i += 256) {
        float g = p.gradient[i] * scale;
        float first = p.first[i] * beta1 + g * rest1;
        float second = p.second[i] * beta2 + g * g * rest2;
        float change = (first * correct1) / (sqrtf(second * correct2) + epsilon);
        p.value[i] = p.value[i] * p.decay - change * p.rate;
        p.first[i] = first;
        p.second[i] = second;
    }
}

// One update by gradient descent with momentum; `first` is the velocity.
extern "C" __global__ void __launch_bounds__(256)
sgd(const Parameter* table, int count, const float* squared_norm, float limit, float gradient_scale,
    float momentum) {
    float scale = clipped(squared_norm, limit, gradient_scale);
    if (scale == 0.f) return;
    Parameter p = table[find(table, count, blockIdx.x)];
    i64 start = ((i64)blockIdx.x - p.first_block) * CHUNK;
    i64 end = start + CHUNK < p.len ? start + CHUNK : p.len;
#pragma unroll 4
    for (i64 i = start + threadIdx.x; i < end; i += 256) {
        float velocity = p.first[i] * momentum + p.gradient[i] * scale;
        p.value[i] = p.value[i] * p.decay - velocity * p.rate;
        p.first[i] = velocity;
    }
}

// Moving averages of many tensors: value <- value + (1 - decay) (gradient - value), where `gradient` is
// the parameter that is averaged.
extern "C" __global__ void __launch_bounds__(256) average(const Parameter* table, int count, float rest) {
    Parameter p = table[find(table, count, blockIdx.x)];
    i64 start = ((i64)blockIdx.x - p.first_block) * CHUNK;
    i64 end = start + CHUNK < p.len ? start + CHUNK : p.len;
#pragma unroll 4
    for (i64 i = start + threadIdx.x; i < end; i += 256)
        p.value[i] += (p.gradient[i] - p.value[i]) * rest;
}

// Partial sums of squares of many tensors, a float per block; the table as above.
extern "C" __global__ void __launch_bounds__(256)
squares(const Parameter* table, int count, float* partials) {
    __shared__ float sums[8];
    Parameter p = table[find(table, count, blockIdx.x)];
    i64 start = ((i64)blockIdx.x - p.first_block) * CHUNK;
    i64 end = start + CHUNK < p.len ? start + CHUNK : p.len;
    float sum = 0.f;
#pragma unroll 4
    for (i64 i = start + threadIdx.x; i < end; i += 256) sum += p.gradient[i] * p.gradient[i];
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0.f;
        for (int i = 0; i < 8; ++i) total += sums[i];
        partials[blockIdx.x] = total;
    }
}
// One block of 1024 threads.
extern "C" __global__ void total(const float* partials, float* out, int count) {
    __shared__ float sums[32];
    float sum = 0.f;
    for (int i = threadIdx.x; i < count; i += 1024) sum += partials[i];
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = warp_sum(sums[threadIdx.x]);
        if (threadIdx.x == 0) out[0] = sum;
    }
}
