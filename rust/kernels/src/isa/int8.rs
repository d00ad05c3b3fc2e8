//! Products of small integers.

/// Sixteen integer sums over weights of sixteen rows.
///
/// Weights come 64 bytes at a time: four of each of sixteen rows, row after row. They are unsigned,
/// activations are signed and lie in `-127..=127`, and every sum is exact on every instruction set, so
/// that all of them come to the same bits.
pub trait Int8: Copy + Send + Sync + 'static {
    /// 64 bytes.
    type Bytes: Copy;

    /// 16 sums.
    type Sums: Copy;

    /// 16 sums, or 32 of 16 bits of which two and two are yet to be added.
    type Partial: Copy;

    /// The bytes from memory.
    fn load_bytes(self, from: &[u8; 64]) -> Self::Bytes;

    /// The bytes to memory.
    fn store_bytes(self, bytes: Self::Bytes, to: &mut [u8; 64]);

    /// The bits that both have.
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    /// The bits that either has.
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    /// `byte` everywhere.
    fn splat_byte(self, byte: u8) -> Self::Bytes;

    /// Every byte up by `bits` below 8. The lowest `bits` of each may be anything.
    fn up(self, bytes: Self::Bytes, bits: u32) -> Self::Bytes;

    /// Every byte down by `bits` below 8. The highest `bits` of each may be anything.
    fn down(self, bytes: Self::Bytes, bits: u32) -> Self::Bytes;

    /// The entries of `table` at `places`, which lie below 16.
    fn look_up(self, table: &[u8; 16], places: Self::Bytes) -> Self::Bytes;

    /// `x` in every sum.
    fn splat_sum(self, x: i32) -> Self::Sums;

    /// Sums that [`dot`](Self::dot) can add to, beginning with `sums` or with nothing.
    fn open(self, sums: Self::Sums) -> Self::Partial;

    /// Adds to each sum its row's four weights times the four activations. From [`open`](Self::open) to
    /// [`settle`](Self::settle), twice 127 times the largest weights must come to less than 2^15.
    fn dot(self, sums: Self::Partial, weights: Self::Bytes, activations: [i8; 4]) -> Self::Partial;

    /// What [`open`](Self::open) was given, with what was added since.
    fn settle(self, sums: Self::Sums, partial: Self::Partial) -> Self::Sums;

    /// Sums to begin with for [`dot_biased`](Self::dot_biased) over activations whose sum is
    /// `-negated_sum`.
    fn start_biased(self, negated_sum: i32) -> Self::Sums;

    /// As [`dot`](Self::dot), for weights of all 8 bits that stand for themselves less 128.
    fn dot_biased(self, sums: Self::Sums, weights: Self::Bytes, activations: [i8; 4]) -> Self::Sums;

    /// Whether products of [words](Self::dot_words) are faster than those of
    /// [biased bytes](Self::dot_biased), and there are any.
    const HAS_WORDS: bool = false;

    /// The bytes less 128 as words of 16 bits: the first two of each row, then the other two. Only where
    /// there are [words](Self::HAS_WORDS).
    #[inline(always)]
    fn words(self, bytes: Self::Bytes) -> [Self::Bytes; 2] {
        [bytes; 2]
    }

    /// Adds to each sum its row's two words times the two activations, which are the halves of a number as
    /// they lie in memory. Only where there are [words](Self::HAS_WORDS).
    #[inline(always)]
    fn dot_words(self, sums: Self::Sums, _words: Self::Bytes, _activations: i32) -> Self::Sums {
        sums
    }
}
