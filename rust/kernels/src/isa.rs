//! Instruction sets as values, and the one place where a kernel is bound to one.
//!
//! A token such as [`x86::Avx2`] exists only where detection has found the instructions, so a kernel
//! that is given one needs no further check. Kernels are written once, over [`Simd`], and
//! [`Isa::run`] compiles them for each set.

mod int8;
#[cfg(target_arch = "aarch64")]
pub mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
pub mod x86;

pub use int8::Int8;
pub use portable::Portable;

/// Numbers in one vector, on every instruction set.
///
/// Sets with narrower registers use several, so that the order of every sum is the same.
pub const LANES: usize = 16;

/// Sixteen f32 lanes.
///
/// Implementations are `#[inline(always)]`, and so must be everything between [`Isa::run`] and them:
/// only then do the instructions end up in a function that may use them.
pub trait Simd: Int8 {
    /// Sixteen numbers.
    type V: Copy;

    /// How many such vectors the registers hold.
    const REGISTERS: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;

    /// The lanes from memory.
    fn load(self, from: &[f32; LANES]) -> Self::V;

    /// The lanes to memory.
    fn store(self, v: Self::V, to: &mut [f32; LANES]);

    /// Sixteen IEEE halves, widened.
    fn load_f16(self, from: &[u16; LANES]) -> Self::V;

    /// Sixteen bfloat16, widened.
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::V {
        let mut lanes = [0.0; LANES];
        for (lane, bits) in lanes.iter_mut().zip(from) {
            *lane = f32::from_bits(u32::from(*bits) << 16);
        }
        self.load(&lanes)
    }

    /// Sixteen bytes as numbers.
    fn load_u8(self, from: &[u8; LANES]) -> Self::V;

    /// Sixteen signed bytes as numbers.
    fn load_i8(self, from: &[i8; LANES]) -> Self::V;

    /// Integer sums as numbers.
    fn sums_to_f32(self, sums: Self::Sums) -> Self::V;

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b + c`, rounded once where the machine can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// `a * b + c` of single numbers, rounded as [`mul_add`](Self::mul_add) rounds.
    fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32;

    /// `a / b`.
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        let (mut x, mut y) = ([0.0f32; LANES], [0.0f32; LANES]);
        self.store(a, &mut x);
        self.store(b, &mut y);
        for (x, y) in x.iter_mut().zip(y) {
            *x /= y;
        }
        self.load(&x)
    }

    /// The greatest of the numbers' magnitudes, as bits: those of what is not finite are the greatest.
    #[inline(always)]
    fn magnitude(self, numbers: &[f32; 2 * LANES]) -> u32 {
        let mut most = 0;
        for x in numbers {
            most = most.max(x.to_bits() & 0x7fff_ffff);
        }
        most
    }

    /// The integers nearest to the numbers times `factor`, ties to even, all within `-127..=127`; and the
    /// sums of either half of them.
    #[inline(always)]
    fn nearest_bytes(self, numbers: &[f32; 2 * LANES], factor: f32) -> ([i8; 2 * LANES], [i32; 2]) {
        /// Added, it leaves the nearest integer in the low bits.
        const ROUNDER: f32 = 12_582_912.0;
        let (mut bytes, mut sums) = ([0; 2 * LANES], [0; 2]);
        let mut wide = [0i32; 2 * LANES];
        for (wide, x) in wide.iter_mut().zip(numbers) {
            *wide = (x * factor + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32;
        }
        for (byte, wide) in bytes.iter_mut().zip(wide) {
            *byte = wide as i8;
        }
        for (sum, half) in sums.iter_mut().zip(wide.as_chunks::<LANES>().0) {
            *sum = half.iter().sum();
        }
        (bytes, sums)
    }

    /// The greater number of each lane; `b` where they have no order.
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        let (mut x, mut y) = ([0.0f32; LANES], [0.0f32; LANES]);
        self.store(a, &mut x);
        self.store(b, &mut y);
        for (x, y) in x.into_iter().zip(&mut y) {
            *y = if x > *y { x } else { *y };
        }
        self.load(&y)
    }

    /// The greatest lane, where none is NaN.
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] = if lanes[i] > lanes[i + half] { lanes[i] } else { lanes[i + half] };
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The lanes from `from` to before `to`, both at most 16, and `other` in the rest.
    #[inline(always)]
    fn keep(self, v: Self::V, from: usize, to: usize, other: f32) -> Self::V {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for (i, x) in lanes.iter_mut().enumerate() {
            *x = if i >= from && i < to { *x } else { other };
        }
        self.load(&lanes)
    }

    /// `e^x`, to the bits of `math::exp`.
    #[inline(always)]
    fn exp(self, v: Self::V) -> Self::V {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for x in &mut lanes {
            *x = crate::math::exp(self, *x);
        }
        self.load(&lanes)
    }

    /// Sixteen numbers as IEEE halves, ties to even; what is too large becomes infinite.
    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [u16; LANES]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for (to, x) in to.iter_mut().zip(lanes) {
            *to = half::f16::from_f32(x).to_bits();
        }
    }

    /// Up to sixteen numbers in the first lanes and zeros in the rest.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::V {
        let mut lanes = [0.0; LANES];
        let n = from.len().min(LANES);
        lanes[..n].copy_from_slice(&from[..n]);
        self.load(&lanes)
    }

    /// The sum of the lanes, folded in halves: lane `i` with `i + 8`, then `i + 4`, and so on.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }
}

/// Asks the processor to bring the line at `at` into the second cache, where it can be asked; a line that
/// is not there is no fault.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// A computation written once for every instruction set.
pub trait Kernel {
    /// What it gives.
    type Output;

    /// Runs it. Must be `#[inline(always)]`, with everything it calls; see [`Simd`].
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The instruction set that kernels use, found at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// 512-bit registers with products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(x86::Avx512Vnni),
    /// 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    /// 256-bit registers with fused multiply-add and products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni(x86::Avx2Vnni),
    /// 256-bit registers with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// 128-bit registers with products of unsigned and signed bytes.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(neon::NeonI8mm),
    /// 128-bit registers with products of signed bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDot(neon::NeonDot),
    /// 128-bit registers.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    /// What the compiler makes of plain Rust for the target.
    Portable(Portable),
}

impl Isa {
    /// The best set of this machine.
    pub fn detect() -> Self {
        Self::available().swap_remove(0)
    }

    /// Every set of this machine, the best first.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(x86::Avx512Vnni::new().map(Self::Avx512Vnni));
            sets.extend(x86::Avx512::new().map(Self::Avx512));
            sets.extend(x86::Avx2Vnni::new().map(Self::Avx2Vnni));
            sets.extend(x86::Avx2::new().map(Self::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        {
            sets.extend(neon::NeonI8mm::new().map(Self::NeonI8mm));
            sets.extend(neon::NeonDot::new().map(Self::NeonDot));
            sets.extend(neon::Neon::new().map(Self::Neon));
        }
        sets.push(Self::Portable(Portable));
        sets
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni(_) => "avx2vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm(_) => "neon_i8mm",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot(_) => "neon_dot",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            Self::Portable(_) => "portable",
        }
    }

    /// Runs `kernel`, compiled for this set's arithmetic of numbers: without products of bytes, since
    /// most kernels have none and need not be compiled once more.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(token) => token.without().enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni(token) => token.without().enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm(token) => token.without().enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot(token) => token.without().enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => token.enter(kernel),
            Self::Portable(token) => kernel.run(token),
        }
    }

    /// As [`run`](Self::run), with products of bytes.
    #[inline]
    pub fn run_bytes<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(token) => token.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni(token) => token.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm(token) => token.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot(token) => token.enter(kernel),
            _ => self.run(kernel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `a * b + c` lane by lane, then the folded sum.
    struct MulAddSum<'a>(&'a [f32; LANES], &'a [f32; LANES], &'a [f32; LANES]);

    impl Kernel for MulAddSum<'_> {
        type Output = ([f32; LANES], f32, [f32; LANES]);

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let v = s.mul_add(s.load(self.0), s.load(self.1), s.load(self.2));
            let mut lanes = [0.0; LANES];
            s.store(v, &mut lanes);
            let mut part = [1.0; LANES];
            s.store(s.add(s.mul(s.splat(2.0), s.load_part(&self.0[..5])), s.splat(0.0)), &mut part);
            (lanes, s.sum(v), part)
        }
    }

    struct Halves<'a>(&'a [u16; LANES]);

    impl Kernel for Halves<'_> {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut lanes = [0.0; LANES];
            s.store(s.load_f16(self.0), &mut lanes);
            lanes
        }
    }

    proptest! {
        #[test]
        fn every_set_multiplies_adds_and_sums(
            a in prop::array::uniform16(-4.0f32..4.0),
            b in prop::array::uniform16(-4.0f32..4.0),
            c in prop::array::uniform16(-4.0f32..4.0),
        ) {
            for isa in Isa::available() {
                let (lanes, sum, part) = isa.run(MulAddSum(&a, &b, &c));
                for i in 0..LANES {
                    let exact = f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i]);
                    prop_assert!((f64::from(lanes[i]) - exact).abs() < 1e-5, "{}", isa.name());
                    prop_assert_eq!(part[i], if i < 5 { 2.0 * a[i] } else { 0.0 });
                }
                let exact: f64 = lanes.iter().copied().map(f64::from).sum();
                prop_assert!((f64::from(sum) - exact).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn every_set_widens_every_half() {
        for start in (0..=u16::MAX).step_by(LANES) {
            let halves: [u16; LANES] = std::array::from_fn(|i| start + i as u16);
            for isa in Isa::available() {
                let wide = isa.run(Halves(&halves));
                for (h, w) in halves.iter().zip(wide) {
                    let want = half::f16::from_bits(*h).to_f32();
                    assert!(w.to_bits() == want.to_bits() || (w.is_nan() && want.is_nan()), "{}", isa.name());
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn avx2_and_avx512_agree_bit_for_bit() {
        let (Some(wide), Some(narrow)) = (x86::Avx512::new(), x86::Avx2::new()) else { return };
        let a: [f32; LANES] = std::array::from_fn(|i| (i as f32 * 0.37).sin());
        let b: [f32; LANES] = std::array::from_fn(|i| (i as f32 * 1.91).cos());
        assert_eq!(wide.enter(MulAddSum(&a, &b, &a)), narrow.enter(MulAddSum(&a, &b, &a)));
    }
}
