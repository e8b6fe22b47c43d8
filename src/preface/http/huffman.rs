//! The code in which HPACK shortens strings (RFC 7541, section 5.2 and appendix B).
//!
//! It is a canonical code: codes of one length follow each other, in the order of their symbols. So
//! the lengths say everything.

/// The end of a string. It must not occur, but its first bits fill the last byte.
const END: usize = 256;

/// The longest code, in bits.
const LONGEST: usize = 30;

/// The length of the code of each symbol, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; END + 1] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The symbols in the order of their codes.
static SYMBOLS: [u16; END + 1] = symbols();

/// How many codes there are of each length.
static COUNTS: [u16; LONGEST + 1] = counts();

const fn counts() -> [u16; LONGEST + 1] {
    let mut counts = [0; LONGEST + 1];
    let mut symbol = 0;
    while symbol <= END {
        counts[LENGTHS[symbol] as usize] += 1;
        symbol += 1;
    }
    counts
}

const fn symbols() -> [u16; END + 1] {
    let mut symbols = [0; END + 1];
    let (mut at, mut length) = (0, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] as usize == length {
                symbols[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

/// Decodes `bytes` to the start of `text`, and gives the length, or `None` where they are no code
/// or the text is too long.
pub(super) fn decode(bytes: &[u8], text: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    let mut code = Code::default();
    for byte in bytes {
        for bit in (0..8).rev() {
            if let Some(symbol) = code.push(byte >> bit & 1)? {
                *text.get_mut(length)? = u8::try_from(symbol).ok()?;
                length += 1;
                code = Code::default();
            }
        }
    }
    // What is left are the first bits of the end, which are ones.
    (code.bits < 8 && code.value + 1 == 1 << code.bits).then_some(length)
}

/// The bits of one code so far.
#[derive(Default)]
struct Code {
    bits: usize,
    value: u32,
    /// The first code of this length.
    first: u32,
    /// Where the symbols of this length begin in [`SYMBOLS`].
    at: usize,
}

impl Code {
    /// Takes one more bit, and gives the symbol if that completes it; the outer `None` where no
    /// code begins so.
    fn push(&mut self, bit: u8) -> Option<Option<u16>> {
        self.first = (self.first + u32::from(COUNTS[self.bits])) << 1;
        self.at += usize::from(COUNTS[self.bits]);
        self.bits += 1;
        self.value = self.value << 1 | u32::from(bit);
        let count = *COUNTS.get(self.bits)?;
        let nth = self.value.checked_sub(self.first).filter(|nth| *nth < u32::from(count));
        Some(nth.map(|nth| SYMBOLS[self.at + nth as usize]))
    }
}
