//! Changes to inputs: of bits, bytes and numbers, of runs of bytes, and of the lengths that CBOR states.

/// A small generator (xorshift64*): a seed gives the same inputs everywhere.
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// Longest input that is made.
pub const INPUT_BYTES_MAX: usize = 16 << 10;
/// Most changes from one input to the next.
const CHANGES_MAX: usize = 6;
/// Bytes that mean something to a decoder: CBOR's heads of long and endless items, ends of text, signs.
const BYTES: &[u8] = &[
    0, 1, 0x17, 0x18, 0x1b, 0x20, 0x40, 0x58, 0x5b, 0x5f, 0x60, 0x7b, 0x7f, 0x80, 0x81, 0x9b, 0x9f, 0xa1, 0xbf, 0xf6,
    0xff, b'/', b'.', b'%', b'<', b'"', b'\n', b'\r', b'=',
];
/// Numbers at which counting goes wrong.
const NUMBERS: &[u64] = &[
    0,
    1,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65_535,
    65_536,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

impl Dice {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`; 0 if there are none.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let rolled = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        rolled as usize % sides.max(1)
    }

    fn byte(&mut self) -> u8 {
        match self.roll(2) {
            0 => BYTES[self.roll(BYTES.len())],
            _ => self.roll(256) as u8,
        }
    }

    /// A run within `len`, seldom a long one.
    fn run(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.roll(len + 1);
        let longest = match self.roll(4) {
            0 => len - start,
            _ => (len - start).min(16),
        };
        start..start + self.roll(longest + 1)
    }
}

/// Changes `input` here and there. `other` is another input, `words` are what the target's language is made of.
pub fn mutate(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    for _ in 0..=dice.roll(CHANGES_MAX) {
        change(dice, input, other, words);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn change(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let at = dice.roll(input.len());
    match dice.roll(12) {
        0 if !input.is_empty() => input[at] ^= 1 << dice.roll(8),
        1 | 2 if !input.is_empty() => input[at] = dice.byte(),
        3 if !input.is_empty() => input[at] = input[at].wrapping_add(if dice.roll(2) == 0 { 1 } else { 0xff }),
        4 => {
            let bytes: Vec<u8> = (0..=dice.roll(4)).map(|_| dice.byte()).collect();
            input.splice(at..at, bytes);
        }
        5 => drop(input.drain(dice.run(input.len()))),
        6 => {
            let run = input[dice.run(input.len())].to_vec();
            input.splice(at..at, run);
        }
        7 => {
            let run = other[dice.run(other.len())].to_vec();
            let end = match dice.roll(2) {
                0 => at,
                _ => (at + run.len()).min(input.len()),
            };
            input.splice(at..end, run);
        }
        8 => write_number(dice, input, at),
        9 => restate_length(dice, input, at),
        10 if !words.is_empty() => {
            let word = words[dice.roll(words.len())];
            let end = match dice.roll(2) {
                0 => at,
                _ => (at + word.len()).min(input.len()),
            };
            input.splice(at..end, word.iter().copied());
        }
        11 if dice.roll(8) == 0 => input.truncate(at),
        _ => {}
    }
}

/// A number of 2, 4 or 8 bytes in either order over what is there.
fn write_number(dice: &mut Dice, input: &mut [u8], at: usize) {
    let number = NUMBERS[dice.roll(NUMBERS.len())];
    let bytes = 2 << dice.roll(3);
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    let number = match dice.roll(2) {
        0 => &little[..bytes],
        _ => &big[8 - bytes..],
    };
    for (place, byte) in input.iter_mut().skip(at).zip(number) {
        *place = *byte;
    }
}

/// The CBOR head that may be at `at` with another argument, in a longer form than need be, or without an end.
fn restate_length(dice: &mut Dice, input: &mut Vec<u8>, at: usize) {
    let Some(&head) = input.get(at) else { return };
    let (major, width) = (head & 0xe0, [0, 1, 2, 4, 8][dice.roll(5)]);
    let old_bytes = 1 + match head & 0x1f {
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => 0,
    };
    let number = match dice.roll(3) {
        0 => NUMBERS[dice.roll(NUMBERS.len())],
        _ => u64::from(head & 0x1f),
    };
    let mut new = match width {
        0 => vec![major | [31, number as u8 & 0x1f][dice.roll(2)]],
        width => vec![major | (23 + u8::try_from(width).unwrap_or(1).ilog2() as u8 + 1)],
    };
    new.extend_from_slice(&number.to_be_bytes()[8 - width..]);
    input.splice(at..(at + old_bytes).min(input.len()), new);
}
