// SPDX-License-Identifier: GPL-2.0

//! CRC32C (Castagnoli) over headers: portable, table-driven, eight bytes at a time.
//!
//! For headers, descriptors, superblocks and small messages. Payloads are summed by the caller, in
//! the kernel with the processor's own instruction: same polynomial, same number.

/// A function that continues a CRC32C, like [`crc32c`]. The kernel's is `!crc32c(!seed, data)`.
pub type Crc32c = fn(u32, &[u8]) -> u32;

/// The polynomial, bit-reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// One table for each place that a byte can have in a group of eight.
static TABLES: [[u32; 256]; 8] = tables();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs in the compiler only: a slip here is a build error"
)]
const fn tables() -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
            bit += 1;
        }
        t[0][i] = crc;
        i += 1;
    }
    let mut k = 1;
    while k < 8 {
        i = 0;
        while i < 256 {
            let before = t[k - 1][i];
            t[k][i] = (before >> 8) ^ t[0][(before & 0xff) as usize];
            i += 1;
        }
        k += 1;
    }
    t
}

/// What `byte` contributes through `table`. A byte is always inside: the fallback is never taken.
#[inline(always)]
fn at(table: &[u32; 256], byte: u8) -> u32 {
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Continues the CRC32C `seed` over `data`; start with 0.
///
/// `crc32c(crc32c(0, a), b)` is the sum of `a` followed by `b`.
#[must_use]
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    let mut crc = !seed;
    let mut groups = data.chunks_exact(8);
    for group in &mut groups {
        let &[a, b, c, d, e, f, g, h] = group else {
            break;
        };
        let [w, x, y, z] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
        crc = at(t7, w)
            ^ at(t6, x)
            ^ at(t5, y)
            ^ at(t4, z)
            ^ at(t3, e)
            ^ at(t2, f)
            ^ at(t1, g)
            ^ at(t0, h);
    }
    for byte in groups.remainder() {
        let [low, ..] = crc.to_le_bytes();
        crc = (crc >> 8) ^ at(t0, low ^ byte);
    }
    !crc
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_checksum))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // RFC 3720, B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(0, b""), 0);
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(0, &[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn continues_at_any_cut() {
        let data = b"the order of writes is the only order there is";
        let whole = crc32c(0, data);
        for cut in 0..=data.len() {
            let (a, b) = data.split_at(cut);
            assert_eq!(crc32c(crc32c(0, a), b), whole);
        }
    }

    #[test]
    fn kernel_convention() {
        // The kernel's function neither inverts its seed nor its result.
        fn raw(seed: u32, data: &[u8]) -> u32 {
            !crc32c(!seed, data)
        }
        assert_eq!(!raw(!0, b"123456789"), 0xe306_9283);
    }
}
