//! FLAC (RFC 9639), decoded and mixed down to one channel.
//!
//! Files come from strangers: every count is bound by the bits that are there, and what is kept is bound
//! by the caller, whatever the header says.

use alloyforge_types::{Error, Result};

/// Sound of one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Mono {
    /// The mean of all channels, from -1 to 1.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub rate: u32,
}

/// Most channels that the format has.
const MAX_CHANNELS: usize = 8;

fn fault(fault: impl Into<String>) -> Error {
    Error::Media { item: "audio".into(), fault: format!("is a damaged FLAC: {}", fault.into()) }
}

/// Reads bits, the highest first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    /// The next 57 bits or more, zeros behind the end.
    fn window(&self) -> u64 {
        let byte = self.at >> 3;
        let mut eight = [0; 8];
        let rest = self.bytes.get(byte..).unwrap_or_default();
        let len = rest.len().min(8);
        eight[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(eight) << (self.at & 7)
    }

    fn advance(&mut self, count: usize) -> Result<()> {
        self.at += count;
        if self.at > self.bytes.len() * 8 { Err(fault("it ends within a frame")) } else { Ok(()) }
    }

    /// Up to 56 bits.
    fn read(&mut self, count: usize) -> Result<u64> {
        if count == 0 {
            return Ok(0);
        }
        let value = self.window() >> (64 - count);
        self.advance(count)?;
        Ok(value)
    }

    fn signed(&mut self, count: usize) -> Result<i64> {
        if count == 0 {
            return Ok(0);
        }
        let value = self.read(count)?;
        Ok(((value << (64 - count)) as i64) >> (64 - count))
    }

    /// Zeros before the next one.
    fn unary(&mut self) -> Result<usize> {
        let mut count = 0;
        loop {
            let zeros = self.window().leading_zeros() as usize;
            if zeros < 56 {
                self.advance(zeros + 1)?;
                return Ok(count + zeros);
            }
            self.advance(56)?;
            count += 56;
        }
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

/// What the stream says of itself.
struct Info {
    rate: u32,
    channels: usize,
    bits: usize,
    /// Most samples of a block.
    max_block: usize,
}

/// Decodes `bytes`, at most `max_samples` of one channel.
///
/// # Errors
/// `Media` for a damaged file, one of another kind, or one that is longer.
pub fn decode(bytes: &[u8], max_samples: usize) -> Result<Mono> {
    let bytes = without_tag(bytes);
    let (info, first) = metadata(bytes)?;
    let mut samples = Vec::new();
    let mut bits = Bits { bytes, at: first * 8 };
    let mut channels: Vec<Vec<i64>> = Vec::new();
    while bits.at / 8 + 2 < bytes.len() {
        // what others write behind the last frame
        if bytes[bits.at / 8..].starts_with(b"TAG") {
            break;
        }
        let start = bits.at / 8;
        let depth = frame(&mut bits, &info, &mut channels)?;
        bits.align();
        let end = bits.at / 8;
        let sum = bits.read(16)?;
        if u64::from(crc16(&bytes[start..end])) != sum {
            return Err(fault("a frame's checksum is wrong"));
        }
        let len = channels.first().map_or(0, Vec::len);
        if samples.len() + len > max_samples {
            let fault = format!("has more than {max_samples} samples");
            return Err(Error::Media { item: "audio".into(), fault });
        }
        let scale = 1.0 / ((1u64 << (depth - 1)) as f64 * channels.len() as f64);
        samples.extend((0..len).map(|i| {
            let sum: i64 = channels.iter().map(|channel| channel[i]).sum();
            (sum as f64 * scale) as f32
        }));
    }
    Ok(Mono { samples, rate: info.rate })
}

/// `bytes` behind an ID3 tag.
fn without_tag(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] => {
            let len = [a, b, c, d].iter().fold(0usize, |n, &&x| n << 7 | usize::from(x & 0x7f));
            bytes.get(10 + len..).unwrap_or_default()
        }
        _ => bytes,
    }
}

/// The stream's description, and where its first frame is.
fn metadata(bytes: &[u8]) -> Result<(Info, usize)> {
    if !bytes.starts_with(b"fLaC") {
        return Err(fault("it does not begin as one"));
    }
    let (mut at, mut info) = (4, None);
    loop {
        let Some(&[kind, a, b, c]) = bytes.get(at..at + 4) else {
            return Err(fault("it ends within its metadata"));
        };
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        at += 4;
        let body = bytes.get(at..at + len).ok_or_else(|| fault("it ends within its metadata"))?;
        at += len;
        if kind & 0x7f == 0 && info.is_none() {
            info = Some(stream_info(body)?);
        }
        if kind & 0x80 != 0 {
            let info = info.ok_or_else(|| fault("it does not describe its stream"))?;
            return Ok((info, at));
        }
    }
}

fn stream_info(body: &[u8]) -> Result<Info> {
    if body.len() < 34 {
        return Err(fault("its stream's description is too short"));
    }
    let mut bits = Bits { bytes: body, at: 16 };
    let max_block = bits.read(16)? as usize;
    bits.advance(48)?;
    let (rate, channels) = (bits.read(20)? as u32, bits.read(3)? as usize + 1);
    let depth = bits.read(5)? as usize + 1;
    if rate == 0 || depth < 4 || max_block < 16 {
        return Err(fault(format!("it has {depth} bits at {rate} Hz in blocks of {max_block}")));
    }
    Ok(Info { rate, channels, bits: depth, max_block })
}

/// One frame's channels; gives the bits of a sample.
fn frame(bits: &mut Bits<'_>, info: &Info, channels: &mut Vec<Vec<i64>>) -> Result<usize> {
    if bits.read(15)? != 0b111_1111_1111_1100 {
        return Err(fault("a frame does not begin as one"));
    }
    bits.read(1)?;
    let (size, rate) = (bits.read(4)?, bits.read(4)?);
    let (assignment, depth) = (bits.read(4)? as usize, bits.read(3)?);
    bits.read(1)?;
    // the frame's number: as many bytes more as it begins with ones, less one
    let lead = (bits.read(8)? as u8).leading_ones();
    if lead == 1 || lead > 7 {
        return Err(fault("a frame's number is wrong"));
    }
    bits.advance(8 * lead.saturating_sub(1) as usize)?;
    let len = match size {
        1 => 192,
        2..=5 => 576 << (size - 2),
        6 => bits.read(8)? as usize + 1,
        7 => bits.read(16)? as usize + 1,
        8..=15 => 256 << (size - 8),
        _ => return Err(fault("a block's length is reserved")),
    };
    match rate {
        12 => bits.advance(8)?,
        13 | 14 => bits.advance(16)?,
        15 => return Err(fault("a frame's rate is wrong")),
        _ => {}
    }
    bits.read(8)?;
    if len > info.max_block.max(65535) {
        return Err(fault(format!("a block has {len} samples")));
    }
    let depth = match depth {
        0 => info.bits,
        1 => 8,
        2 => 12,
        4 => 16,
        5 => 20,
        6 => 24,
        7 => 32,
        _ => return Err(fault("a frame's depth is reserved")),
    };
    let count = match assignment {
        0..=7 => assignment + 1,
        8..=10 => 2,
        _ => return Err(fault("a frame's channels are reserved")),
    };
    if count != info.channels || count > MAX_CHANNELS {
        return Err(fault(format!("a frame has {count} channels, the stream {}", info.channels)));
    }
    channels.resize_with(count, Vec::new);
    for (i, channel) in channels.iter_mut().enumerate() {
        // the difference of two channels takes one bit more
        let is_side = matches!((assignment, i), (8 | 10, 1) | (9, 0));
        subframe(bits, depth + usize::from(is_side), len, channel)?;
    }
    if let (8..=10, [first, second]) = (assignment, &mut channels[..]) {
        for (a, b) in first.iter_mut().zip(second) {
            match assignment {
                8 => *b = a.wrapping_sub(*b),
                9 => *a = a.wrapping_add(*b),
                _ => {
                    let mid = (*a << 1) | (*b & 1);
                    (*a, *b) = ((mid.wrapping_add(*b)) >> 1, (mid.wrapping_sub(*b)) >> 1);
                }
            }
        }
    }
    Ok(depth)
}

fn subframe(bits: &mut Bits<'_>, depth: usize, len: usize, out: &mut Vec<i64>) -> Result<()> {
    out.clear();
    if bits.read(1)? != 0 {
        return Err(fault("a channel does not begin as one"));
    }
    let kind = bits.read(6)? as usize;
    let wasted = if bits.read(1)? == 1 { bits.unary()? + 1 } else { 0 };
    let depth = depth.checked_sub(wasted).filter(|&d| d > 0).ok_or_else(|| fault("a channel has no bits"))?;
    match kind {
        0 => out.resize(len, bits.signed(depth)?),
        1 => {
            for _ in 0..len {
                out.push(bits.signed(depth)?);
            }
        }
        8..=12 => {
            const FIXED: [&[i64]; 5] = [&[], &[1], &[2, -1], &[3, -3, 1], &[4, -6, 4, -1]];
            let weights = FIXED[kind - 8];
            warm_up(bits, depth, weights.len(), len, out)?;
            residual(bits, weights.len(), len, out)?;
            predict(out, weights, 0);
        }
        32..=63 => {
            let order = (kind & 31) + 1;
            warm_up(bits, depth, order, len, out)?;
            let precision = bits.read(4)? as usize + 1;
            if precision == 16 {
                return Err(fault("a predictor's precision is wrong"));
            }
            let shift = bits.signed(5)?;
            if shift < 0 {
                return Err(fault("a predictor's shift is negative"));
            }
            let weights = (0..order).map(|_| bits.signed(precision)).collect::<Result<Vec<_>>>()?;
            residual(bits, order, len, out)?;
            predict(out, &weights, shift as u32);
        }
        _ => return Err(fault("a channel's coding is reserved")),
    }
    if wasted > 0 {
        for sample in out {
            *sample = sample.wrapping_shl(wasted as u32);
        }
    }
    Ok(())
}

fn warm_up(bits: &mut Bits<'_>, depth: usize, order: usize, len: usize, out: &mut Vec<i64>) -> Result<()> {
    if order > len {
        return Err(fault("a predictor is longer than its block"));
    }
    for _ in 0..order {
        out.push(bits.signed(depth)?);
    }
    Ok(())
}

/// Rice-coded differences, in partitions of equal length.
fn residual(bits: &mut Bits<'_>, order: usize, len: usize, out: &mut Vec<i64>) -> Result<()> {
    let width = match bits.read(2)? {
        0 => 4,
        1 => 5,
        _ => return Err(fault("a residual's coding is reserved")),
    };
    let partitions = 1usize << bits.read(4)?;
    let each = len / partitions;
    if each * partitions != len || each < order {
        return Err(fault("a residual's partitions do not fit its block"));
    }
    for partition in 0..partitions {
        let count = if partition == 0 { each - order } else { each };
        let parameter = bits.read(width)? as usize;
        if parameter == (1 << width) - 1 {
            let raw = bits.read(5)? as usize;
            for _ in 0..count {
                out.push(bits.signed(raw)?);
            }
            continue;
        }
        for _ in 0..count {
            let high = bits.unary()? as u64;
            let value = high << parameter | bits.read(parameter)?;
            out.push((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Ok(())
}

/// Adds what the samples before foretell.
fn predict(samples: &mut [i64], weights: &[i64], shift: u32) {
    for i in weights.len()..samples.len() {
        let before = samples[i - weights.len()..i].iter().rev();
        let sum = weights.iter().zip(before).fold(0i64, |sum, (w, s)| sum.wrapping_add(w.wrapping_mul(*s)));
        samples[i] = samples[i].wrapping_add(sum >> shift);
    }
}

/// The polynomial 0x8005, the highest bit first.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = (i as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x8005 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, &b| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ b)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 9639, appendix D.1: one sample of two channels.
    const ONE: &str = "664c6143800000221000100000000f00000f0ac442f0000000013e84b41807dc690307587\
                       a3dad1a2e0ffff869180000bf0358fd03128baa9a";

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        hex.chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).expect("ascii"), 16).expect("hex"))
            .collect()
    }

    #[test]
    fn the_published_example_is_read() {
        let sound = decode(&bytes(ONE), 10).expect("sound");
        assert_eq!(sound.rate, 44100);
        assert_eq!(sound.samples, [(25588.0 + 10416.0) / 2.0 / 32768.0]);
        assert!(matches!(decode(&bytes(ONE), 0), Err(Error::Media { .. })));
    }

    #[test]
    fn a_bit_that_fell_over_is_found() {
        let good = bytes(ONE);
        for at in 43..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(decode(&bad, 100), Err(Error::Media { .. })), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn strange_bytes_are_an_error_and_no_panic(body in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let mut file = bytes(ONE);
            file.truncate(42);
            file.extend([0xff, 0xf8]);
            file.extend(&body);
            let _ = decode(&file, 1 << 20);
            file.truncate(at);
            let _ = decode(&file, 1 << 20);
        }
    }
}
