//! The one narrow door to vector instructions.
//!
//! A kernel is written once, generic over `Simd`, and compiled for every instruction set; which
//! one runs is decided when the program starts. A value of an implementing type is the proof that
//! the processor has the instructions: only `dispatch` makes one, after asking. `unsafe` code for
//! instructions lives in this module's files and nowhere else.

#[cfg(target_arch = "x86_64")]
mod amx;
pub(crate) mod half;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod peak;
mod portable;
pub(crate) mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use tiles::{NoTiles, Tiles};

/// A set of vector instructions over `f32`.
///
/// Functions that take pointers are unsafe as every use of a raw pointer is: `LANES` floats from
/// there on must be readable, or writable, whatever their alignment.
pub(crate) trait Simd: Copy + Send + Sync {
    /// One register.
    type V: Copy;
    /// Floats in a register.
    const LANES: usize;
    /// Rows of a product's tile that is kept in registers.
    const TILE_ROWS: usize;
    /// Registers in a row of it, two or four; with four, at most three rows.
    const TILE_WIDTH: usize = 2;
    /// Words of depth that a product takes at a time, a multiple of 32; the sums wait in memory between
    /// two blocks.
    const DEPTH: usize = usize::MAX;
    /// True where a product asks for the next block of its right operand in time.
    const PREFETCHES: bool = false;

    /// Runs a kernel in a function of its own, compiled with these instructions, and once for all callers.
    fn run(self, kernel: impl Kernel) {
        #[inline(never)]
        fn with<S: Simd>(s: S, kernel: impl Kernel) {
            kernel.run(s);
        }
        with(self, kernel);
    }

    /// Registers for whole tiles of bf16, where there are any.
    #[inline(always)]
    fn tiles(self) -> Option<impl Tiles> {
        None::<NoTiles>
    }
    /// Every lane `x`.
    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// See the trait.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// # Safety
    /// See the trait.
    unsafe fn store(self, to: *mut f32, v: Self::V);
    /// [`Simd::store`] past the caches, for what nobody reads soon.
    ///
    /// # Safety
    /// See the trait; `to` must lie at a multiple of a register's size, and
    /// [`Simd::finish_streaming`] must come before anybody reads there.
    unsafe fn stream(self, to: *mut f32, v: Self::V);
    /// Asks for a cache line, which need not be there.
    fn prefetch(self, _: *const f32) {}
    /// Orders what was streamed before everything after.
    fn finish_streaming(self);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a − b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, in one rounding where the instruction exists.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of two numbers; `b` where `a` is no number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `|a|`.
    fn abs(self, a: Self::V) -> Self::V;
    /// `1 / a` to within two units in the last place, for `1 ≤ a < 2¹⁰⁰`.
    fn reciprocal(self, a: Self::V) -> Self::V;
    /// `a` with the low twelve bits of its fraction cleared, so that its square is exact.
    fn truncate(self, a: Self::V) -> Self::V;
    /// `negative` where the sign bit of `x` is set, else `other`.
    fn select_negative(self, x: Self::V, negative: Self::V, other: Self::V) -> Self::V;
    /// `2ⁿ` for `v = n + 1.5 · 2²³`, `−126 ≤ n ≤ 127`.
    fn exp2_of_rounded(self, v: Self::V) -> Self::V;
    /// The sum of all lanes, in a fixed order.
    fn sum(self, a: Self::V) -> f32;
    /// Rounds to bf16, two to a word: the lanes of `a`, then those of `b`.
    #[inline(always)]
    fn narrow(self, a: Self::V, b: Self::V) -> Self::V {
        half::narrow(self, a, b)
    }
    /// Rounds to bf16, two to a word: each lane of `a` in the low half, of `b` in the high half.
    #[inline(always)]
    fn narrow_pairs(self, a: Self::V, b: Self::V) -> Self::V {
        half::narrow_pairs(self, a, b)
    }
    /// The two registers that [`Simd::narrow`] rounded.
    #[inline(always)]
    fn widen(self, words: Self::V) -> [Self::V; 2] {
        half::widen(self, words)
    }
    /// `sum + a₀ b₀ + a₁ b₁` with the two bf16 of each word.
    #[inline(always)]
    fn dot_pairs(self, a: Self::V, b: Self::V, sum: Self::V) -> Self::V {
        half::dot_pairs(self, a, b, sum)
    }
}

/// Code that is compiled for every instruction set. `run` and everything it calls must be
/// `#[inline(always)]`, for only then do the instructions reach it.
pub(crate) trait Kernel {
    /// Runs with a set of instructions.
    fn run<S: Simd>(self, s: S);
}

/// The instruction sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// Matrix registers for bf16, 512-bit registers for everything else; nobody has run it on hardware yet.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit registers with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 128-bit registers, in pairs.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// The instructions that every processor of the architecture has, through the compiler's own vectorisation.
    Portable,
    /// The same with the twin of AMX's tiles.
    #[cfg(test)]
    Twin,
}

impl InstructionSet {
    /// Its name, as `MIXER_SIMD` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => "neon",
            Self::Portable => "portable",
            #[cfg(test)]
            Self::Twin => "twin",
        }
    }

    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        Self::Portable,
        #[cfg(target_arch = "x86_64")]
        Self::Amx,
    ];

    fn is_there(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => x86::Avx512::<true>::with_tiles().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::<false>::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::Neon::detect().is_some(),
            Self::Portable => true,
            #[cfg(test)]
            Self::Twin => true,
        }
    }

    /// The sets that this processor has, best first; AMX, which has not run on hardware yet, comes last, so that
    /// only who goes so far has the system asked for its registers.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|set| set.is_there())
    }
}

/// A value of `MIXER_SIMD` that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionSetError {
    /// No set has this name.
    Unknown(String),
    /// The processor, or its system, has not got the set of this name.
    Missing(String),
}

impl std::error::Error for InstructionSetError {}

impl std::fmt::Display for InstructionSetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let here: Vec<_> =
            InstructionSet::available().map(|set| format!("`{}`", set.name())).collect();
        let here = here.join(", ");
        match self {
            Self::Unknown(name) => write!(
                f,
                "environment variable MIXER_SIMD is `{name}`, which names no vector instructions; \
                 expected one of those that this processor has: {here}"
            ),
            Self::Missing(name) => write!(
                f,
                "environment variable MIXER_SIMD is `{name}`, which this processor has not got; \
                 it has {here}"
            ),
        }
    }
}

/// Names of the sets of all architectures.
const NAMES: [&str; 5] = ["amx", "avx512", "avx2", "neon", "portable"];

/// The set of a name among those that are there; the first without a name.
fn named(
    wanted: &str,
    mut available: impl Iterator<Item = InstructionSet>,
) -> Result<InstructionSet, InstructionSetError> {
    available.find(|set| wanted.is_empty() || set.name() == wanted).ok_or_else(|| {
        let refused = match NAMES.contains(&wanted) {
            true => InstructionSetError::Missing,
            false => InstructionSetError::Unknown,
        };
        refused(wanted.to_owned())
    })
}

/// The instruction set that the environment variable `MIXER_SIMD` names (`amx`, `avx512`, `avx2`, `neon`,
/// `portable`), or the best but `amx` that the processor has where the variable is empty or absent.
///
/// # Errors
/// An unknown name, and a set that the processor lacks.
pub fn wanted_instruction_set() -> Result<InstructionSet, InstructionSetError> {
    let wanted = std::env::var_os("MIXER_SIMD").unwrap_or_default();
    named(&wanted.to_string_lossy(), InstructionSet::available())
}

/// The instruction set that kernels use: [`wanted_instruction_set`], as it was at the first call; the best
/// that the processor has where that is an error.
#[must_use]
pub fn instruction_set() -> InstructionSet {
    static CHOSEN: OnceLock<InstructionSet> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wanted = wanted_instruction_set().ok();
        wanted.or_else(|| InstructionSet::available().next()).unwrap_or(InstructionSet::Portable)
    })
}

/// True where this processor multiplies bf16 by itself (AVX512-BF16, AMX), and [`instruction_set`] lets it.
#[must_use]
pub fn bf16_is_native() -> bool {
    #[cfg(target_arch = "x86_64")]
    if matches!(instruction_set(), InstructionSet::Amx | InstructionSet::Avx512) {
        return x86::Avx512::<true>::detect().is_some();
    }
    false
}

/// Runs a kernel that works on bf16: with the instructions for it if they are there and `set` is
/// theirs, else in plain Rust, which gives nearly the same and takes far longer.
pub(crate) fn dispatch_bf16(set: InstructionSet, kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    if set == InstructionSet::Amx
        && let Some(s) = x86::Avx512::<true>::with_tiles()
    {
        return s.run(kernel);
    }
    #[cfg(target_arch = "x86_64")]
    if set == InstructionSet::Avx512
        && let Some(s) = x86::Avx512::<true>::detect()
    {
        return s.run(kernel);
    }
    #[cfg(test)]
    if set == InstructionSet::Twin {
        return kernel.run(portable::Portable(Some(tiles::Twin)));
    }
    let _ = set;
    kernel.run(portable::Portable(None::<NoTiles>));
}

/// Runs a kernel with the chosen instruction set.
pub(crate) fn dispatch(kernel: impl Kernel) {
    dispatch_to(instruction_set(), kernel);
}

/// Runs a kernel with one instruction set, or the portable one if the processor lacks it.
pub(crate) fn dispatch_to(set: InstructionSet, kernel: impl Kernel) {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Amx | InstructionSet::Avx512 => {
            if let Some(s) = x86::Avx512::<false>::detect() {
                return s.run(kernel);
            }
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => {
            if let Some(s) = x86::Avx2::detect() {
                return s.run(kernel);
            }
        }
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => {
            if let Some(s) = neon::Neon::detect() {
                return s.run(kernel);
            }
        }
        InstructionSet::Portable => {}
        #[cfg(test)]
        InstructionSet::Twin => {}
    }
    kernel.run(portable::Portable(None::<NoTiles>));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_followed_or_refused() {
        for set in InstructionSet::available() {
            assert_eq!(named(set.name(), InstructionSet::available()), Ok(set));
        }
        for name in ["AVX2", "avx2 ", "avx", "0", "twin"] {
            let refused = InstructionSetError::Unknown(name.to_owned());
            assert_eq!(named(name, InstructionSet::available()), Err(refused));
        }
        for name in ["amx", "avx512"] {
            let refused = InstructionSetError::Missing(name.to_owned());
            assert_eq!(named(name, [InstructionSet::Portable].into_iter()), Err(refused));
        }
    }

    #[test]
    fn amx_is_used_only_where_it_is_named() {
        let all = || InstructionSet::ALL.iter().copied();
        assert!(all().all(|set| NAMES.contains(&set.name())));
        assert_ne!(named("", all()).unwrap().name(), "amx");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(named("amx", all()), Ok(InstructionSet::Amx));
    }
}
