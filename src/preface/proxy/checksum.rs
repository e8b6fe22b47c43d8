//! CRC32C (Castagnoli), the sum over a header.

/// The polynomial, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut value = at as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 0 { value >> 1 } else { value >> 1 ^ POLYNOMIAL };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
}

/// The sum over these parts, one after the other.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut sum = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        sum = sum >> 8 ^ TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)];
    }
    !sum
}
