//! The codes of one block of a tile: 32 columns of 16 rows, in 8 groups of 4 columns.

use crate::isa::Simd;

/// A block with all codes as bytes: by group, then row, then column.
pub(crate) type Groups = [[u8; 64]; 8];

/// How codes lie in memory.
pub(crate) trait Codes {
    /// Bytes of a block, whole lines.
    const BYTES: usize;

    /// The largest code.
    const LARGEST: u8;

    /// The codes of a group as bytes.
    ///
    /// # Safety
    /// `from` points to a block.
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes;

    /// Writes a block.
    fn write(groups: &Groups, to: &mut [u8]);
}

/// Line `i` of a block.
///
/// # Safety
/// The block has it.
#[inline(always)]
unsafe fn line<S: Simd>(s: S, from: *const u8, i: usize) -> S::Bytes {
    // SAFETY: the caller's promise; bytes need no alignment.
    s.load_bytes(unsafe { &*from.add(64 * i).cast() })
}

/// The bits of `mask`, after a shift up by `shift` places, or down where it is negative.
#[inline(always)]
fn bits<S: Simd>(s: S, line: S::Bytes, shift: i32, mask: u8) -> S::Bytes {
    let moved = match shift {
        0 => line,
        1.. => s.up(line, shift as u32),
        _ => s.down(line, shift.unsigned_abs()),
    };
    s.and(moved, s.splat_byte(mask))
}

/// Adds to each byte of `line` the bits `mask` of the code, moved to `at`.
#[inline(always)]
fn put(line: &mut [u8], codes: &[u8; 64], down: u32, mask: u8, at: u32) {
    for (byte, code) in line.iter_mut().zip(codes) {
        *byte |= ((code >> down) & mask) << at;
    }
}

/// Whole bytes.
pub(crate) struct Bytes;

impl Codes for Bytes {
    const BYTES: usize = 512;
    const LARGEST: u8 = 255;

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        unsafe { line(s, from, group) }
    }

    #[inline(always)]
    fn write(groups: &Groups, to: &mut [u8]) {
        to.copy_from_slice(groups.as_flattened());
    }
}

/// Four lines of nibbles: line `i` has groups `2 i` and `2 i + 1`.
pub(crate) struct Nibbles;

impl Codes for Nibbles {
    const BYTES: usize = 256;
    const LARGEST: u8 = 15;

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        let line = unsafe { line(s, from, group / 2) };
        bits(s, line, -4 * (group as i32 % 2), 15)
    }

    #[inline(always)]
    fn write(groups: &Groups, to: &mut [u8]) {
        for (line, pair) in to.chunks_exact_mut(64).zip(groups.as_chunks::<2>().0) {
            for ((byte, low), high) in line.iter_mut().zip(&pair[0]).zip(&pair[1]) {
                *byte = (low & 15) | high << 4;
            }
        }
    }
}

/// Nibbles and a line of fifth bits, group `i`'s at bit `i`.
pub(crate) struct Fives;

impl Codes for Fives {
    const BYTES: usize = 320;
    const LARGEST: u8 = 31;

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { (Nibbles::group(s, from, group), line(s, from, 4)) };
        s.or(low, bits(s, high, 4 - group as i32, 16))
    }

    #[inline(always)]
    fn write(groups: &Groups, to: &mut [u8]) {
        let (low, high) = to.split_at_mut(256);
        Nibbles::write(groups, low);
        high.fill(0);
        for (i, codes) in groups.iter().enumerate() {
            put(high, codes, 4, 1, i as u32);
        }
    }
}

/// Nibbles and two lines of upper bits: line `i` has groups `4 i` to `4 i + 3`, two bits each.
pub(crate) struct Sixes;

impl Codes for Sixes {
    const BYTES: usize = 384;
    const LARGEST: u8 = 63;

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { (Nibbles::group(s, from, group), line(s, from, 4 + group / 4)) };
        s.or(low, bits(s, high, 4 - 2 * (group as i32 % 4), 48))
    }

    #[inline(always)]
    fn write(groups: &Groups, to: &mut [u8]) {
        let (low, high) = to.split_at_mut(256);
        Nibbles::write(groups, low);
        high.fill(0);
        for (i, codes) in groups.iter().enumerate() {
            put(&mut high[i / 4 * 64..][..64], codes, 4, 3, 2 * (i as u32 % 4));
        }
    }
}

/// Two lines of pairs of bits: line `i` has groups `4 i` to `4 i + 3`.
pub(crate) struct Twos;

impl Codes for Twos {
    const BYTES: usize = 128;
    const LARGEST: u8 = 3;

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        let line = unsafe { line(s, from, group / 4) };
        bits(s, line, -2 * (group as i32 % 4), 3)
    }

    #[inline(always)]
    fn write(groups: &Groups, to: &mut [u8]) {
        to.fill(0);
        for (i, codes) in groups.iter().enumerate() {
            put(&mut to[i / 4 * 64..][..64], codes, 0, 3, 2 * (i as u32 % 4));
        }
    }
}

/// Pairs of bits and a line of third bits, group `i`'s at bit `i`.
pub(crate) struct Threes;

impl Codes for Threes {
    const BYTES: usize = 192;
    const LARGEST: u8 = 7;

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { (Twos::group(s, from, group), line(s, from, 2)) };
        s.or(low, bits(s, high, 2 - group as i32, 4))
    }

    #[inline(always)]
    fn write(groups: &Groups, to: &mut [u8]) {
        let (low, high) = to.split_at_mut(128);
        Twos::write(groups, low);
        high.fill(0);
        for (i, codes) in groups.iter().enumerate() {
            put(high, codes, 2, 1, i as u32);
        }
    }
}

/// A list of 16 values that nibbles choose from.
pub(crate) trait Table {
    /// The values, with the format's offset added.
    const VALUES: [u8; 16];
}

/// The largest of some values.
const fn largest(values: &[u8; 16]) -> u8 {
    let (mut largest, mut i) = (0, 0);
    while i < 16 {
        if values[i] > largest {
            largest = values[i];
        }
        i += 1;
    }
    largest
}

/// Nibbles that stand for a table's values. What is written are places in it.
pub(crate) struct Chosen<T>(std::marker::PhantomData<T>);

impl<T: Table> Codes for Chosen<T> {
    const BYTES: usize = Nibbles::BYTES;
    const LARGEST: u8 = largest(&T::VALUES);

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, from: *const u8, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        s.look_up(&T::VALUES, unsafe { Nibbles::group(s, from, group) })
    }

    #[inline(always)]
    fn write(groups: &Groups, to: &mut [u8]) {
        Nibbles::write(groups, to);
    }
}
