//! AMX in bf16: the tiles of Sapphire Rapids and later. Its instructions have not run on a processor
//! that has them, so that only `MIXER_SIMD=amx` chooses them; what surrounds them is tested with a twin.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::tiles::{TILE, TileProduct, Tiles};

/// Proof of AMX-TILE and AMX-BF16, and of the system's permission to use them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx(());

impl Amx {
    pub(crate) fn detect() -> Option<Self> {
        // Threads have the permission of the process, whenever they begin.
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(|| processor_has() && system_permits()).then_some(Self(()))
    }
}

/// CPUID names the instructions, and the system saves the registers.
fn processor_has() -> bool {
    const XSAVE_BY_SYSTEM: u32 = 1 << 27;
    const BF16_AND_TILE: u32 = (1 << 22) | (1 << 24);
    const CONFIGURATION_AND_DATA: u64 = (1 << 17) | (1 << 18);
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & XSAVE_BY_SYSTEM == 0 {
        return false;
    }
    // SAFETY: the system has switched XGETBV on.
    let saved = unsafe { saved_registers() };
    __cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE
        && saved & CONFIGURATION_AND_DATA == CONFIGURATION_AND_DATA
}

#[target_feature(enable = "xsave")]
fn saved_registers() -> u64 {
    // SAFETY: register 0 is there wherever the instruction is.
    unsafe { _xgetbv(0) }
}

/// Linux gives the registers' memory only to a process that asks.
#[cfg(target_os = "linux")]
fn system_permits() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call reads and writes no memory of the process.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Nothing is known of other systems.
#[cfg(not(target_os = "linux"))]
fn system_permits() -> bool {
    false
}

/// The memory that LDTILECFG reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Results in tiles 0 to 3, the left operand in 4 and 5, the right one in 6 and 7. Tiles without
    /// rows are left out: there are none below a result of 16 rows.
    fn new(rows: usize, words: usize) -> Self {
        const FULL: u16 = 4 * TILE as u16;
        let [above, below] = [rows.min(TILE) as u8, rows.saturating_sub(TILE) as u8];
        let depth = 4 * words as u16;
        let mut row_bytes = [0; 16];
        let mut counts = [0; 16];
        let all = [above, above, below, below, above, below, words as u8, words as u8];
        let wide = [FULL, FULL, FULL, FULL, depth, depth, FULL, FULL];
        for (tile, (rows, bytes)) in all.into_iter().zip(wide).enumerate() {
            if rows > 0 {
                (counts[tile], row_bytes[tile]) = (rows, bytes);
            }
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows: counts }
    }
}

impl Tiles for Amx {
    #[inline]
    unsafe fn product(self, product: &TileProduct) {
        let configuration = Configuration::new(product.rows, product.words);
        macro_rules! run {
            ($load:literal, $clear:literal, $multiply:literal, $store:literal) => {
                asm!(
                    "ldtilecfg [{configuration}]",
                    "test {accumulate:e}, {accumulate:e}",
                    "jz 2f",
                    "tileloadd tmm0, [{to} + {to_row}*1]",
                    "tileloadd tmm1, [{to} + {to_row}*1 + 64]",
                    $load,
                    "jmp 3f",
                    "2:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    $clear,
                    "3:",
                    "tileloadd tmm4, [{left} + {left_row}*1]",
                    "tileloadd tmm6, [{right} + {right_row}*1]",
                    "tileloadd tmm7, [{right} + {right_row}*1 + 64]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    $multiply,
                    "add {left}, {left_step}",
                    "add {right}, 2048",
                    "dec {steps}",
                    "jnz 3b",
                    "tilestored [{to} + {to_row}*1], tmm0",
                    "tilestored [{to} + {to_row}*1 + 64], tmm1",
                    $store,
                    "tilerelease",
                    configuration = in(reg) &raw const configuration,
                    accumulate = in(reg) u32::from(product.accumulate),
                    to = in(reg) product.to,
                    below = in(reg) product.to.wrapping_add(TILE * product.to_row),
                    to_row = in(reg) 4 * product.to_row,
                    left = inout(reg) product.left => _,
                    left_row = in(reg) 4 * TILE,
                    left_step = in(reg) 4 * product.left_step,
                    right = inout(reg) product.right => _,
                    right_row = in(reg) 8 * TILE,
                    steps = inout(reg) product.steps => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            };
        }
        // SAFETY: `self` proves that the processor has the instructions; the memory is the caller's promise.
        unsafe {
            if product.rows > TILE {
                run!(
                    "tileloadd tmm2, [{below} + {to_row}*1]
                     tileloadd tmm3, [{below} + {to_row}*1 + 64]",
                    "tilezero tmm2
                     tilezero tmm3",
                    "tileloadd tmm5, [{left} + {left_row}*1 + 1024]
                     tdpbf16ps tmm2, tmm5, tmm6
                     tdpbf16ps tmm3, tmm5, tmm7",
                    "tilestored [{below} + {to_row}*1], tmm2
                     tilestored [{below} + {to_row}*1 + 64], tmm3"
                );
            } else {
                run!("", "", "", "/* {below} */");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_what_the_manual_says() {
        assert_eq!(size_of::<Configuration>(), 64);
        assert_eq!(std::mem::offset_of!(Configuration, row_bytes), 16);
        assert_eq!(std::mem::offset_of!(Configuration, rows), 48);
        let of = |rows, words| {
            let Configuration { palette, row_bytes, rows, .. } = Configuration::new(rows, words);
            assert_eq!((palette, &row_bytes[8..], &rows[8..]), (1, &[0; 8][..], &[0; 8][..]));
            (row_bytes[..8].to_vec(), rows[..8].to_vec())
        };
        assert_eq!(of(32, 16), (vec![64; 8], vec![16; 8]));
        let (row_bytes, rows) = of(21, 3);
        assert_eq!(row_bytes, [64, 64, 64, 64, 12, 12, 64, 64]);
        assert_eq!(rows, [16, 16, 5, 5, 16, 5, 3, 3]);
        let (row_bytes, rows) = of(7, 16);
        assert_eq!(row_bytes, [64, 64, 0, 0, 64, 0, 64, 64]);
        assert_eq!(rows, [7, 7, 0, 0, 7, 0, 16, 16]);
    }
}
