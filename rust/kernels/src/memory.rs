//! Memory: zeroed buffers that take no page until it is touched, and how much there is.

use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use alloyforge_types::{Error, Result};
use memmap2::MmapMut;

use crate::cgroup;

/// From this size on, a buffer is refused where the machine has less memory than it asks for. Smaller
/// ones are not worth reading the kernel's counters for.
const CHECKED_LEN: usize = 64 << 20;

/// From this size on, a buffer has a mapping of its own.
const OWN_LEN: usize = 16 << 20;

/// The size of a mapping that smaller buffers share: many of a model's matrices are smaller than one
/// huge page, and would never lie in one.
const SHARED_LEN: usize = 64 << 20;

/// Where a shared buffer may begin: at a line of the cache, and not all at the same place of a page.
const ALIGN: usize = 64;

/// Zeroed bytes, aligned to a line of the cache. The kernel hands out the pages as they are touched,
/// huge ones where it has them.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the bytes, some of which may be other buffers'.
    _map: Arc<MmapMut>,
}

// SAFETY: the bytes are this buffer's alone, and it lends them as a slice that it owned would be lent.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

/// The mapping that small buffers are cut from, and how much of it is.
struct Shared {
    map: Weak<MmapMut>,
    /// The mapping's first byte, taken while nobody else had it.
    start: usize,
    used: usize,
}

/// Cut in the order of their birth, and never reused: what is cut is zeros.
static SHARED: Mutex<Shared> = Mutex::new(Shared { map: Weak::new(), start: 0, used: 0 });

/// `len` zeroed bytes from the system.
fn map(len: usize) -> std::io::Result<MmapMut> {
    let map = MmapMut::map_anon(len)?;
    // a wish: some systems have no huge pages, and Miri has no such call
    #[cfg(all(target_os = "linux", not(miri)))]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

impl Buffer {
    /// `len` zeroed bytes for `what`.
    ///
    /// # Errors
    /// `OutOfMemory` where the machine has fewer, now.
    pub fn zeroed(len: usize, what: &str) -> Result<Self> {
        let refused = |available: Option<u64>| Error::OutOfMemory {
            what: what.to_owned(),
            needed: len as u64,
            available: available.unwrap_or(0),
        };
        if len > isize::MAX as usize {
            return Err(refused(available()));
        }
        if len >= CHECKED_LEN
            && let Some(left) = available()
            && len as u64 > left
        {
            return Err(refused(Some(left)));
        }
        let outcome = if len >= OWN_LEN { Self::own(len) } else { Self::share(len) };
        outcome.map_err(|_| refused(available()))
    }

    /// A buffer with a mapping of its own.
    fn own(len: usize) -> std::io::Result<Self> {
        let mut map = map(len)?;
        let start = NonNull::from(&mut map[..]).cast();
        Ok(Self { start, len, _map: Arc::new(map) })
    }

    /// A buffer cut from the mapping that all small ones share.
    fn share(len: usize) -> std::io::Result<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        // an empty one lies somewhere too
        let room = len.max(1).next_multiple_of(ALIGN);
        let owner = match shared.map.upgrade() {
            Some(owner) if SHARED_LEN - shared.used >= room => owner,
            _ => {
                let mut map = map(SHARED_LEN)?;
                let start = map.as_mut_ptr().expose_provenance();
                let owner = Arc::new(map);
                *shared = Shared { map: Arc::downgrade(&owner), start, used: 0 };
                owner
            }
        };
        let start = std::ptr::with_exposed_provenance_mut::<u8>(shared.start + shared.used);
        shared.used += room;
        // SAFETY: a place in a mapping is not null.
        let start = unsafe { NonNull::new_unchecked(start) };
        Ok(Self { start, len, _map: owner })
    }

    /// `len` zeroed f32 numbers for `what`.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn zeroed_f32(len: usize, what: &str) -> Result<Self> {
        Self::zeroed(len.saturating_mul(4), what)
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are this buffer's, and mapped as long as it lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and no other buffer has them.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The whole numbers that lie in it.
    pub fn f32s(&self) -> &[f32] {
        // SAFETY: every bit pattern is an f32, and the slice is aligned and inside the bytes.
        let (before, numbers, _) = unsafe { self.bytes().align_to::<f32>() };
        debug_assert!(before.is_empty(), "a buffer begins at a line");
        numbers
    }

    /// The whole numbers that lie in it, to write.
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        // SAFETY: every bit pattern is an f32 and every f32 is four bytes; aligned and inside.
        let (before, numbers, _) = unsafe { self.bytes_mut().align_to_mut::<f32>() };
        debug_assert!(before.is_empty(), "a buffer begins at a line");
        numbers
    }
}

/// Bytes that this process may still take: what the machine can give without swapping, within the
/// limit of its control groups. `None` where the system does not say.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

fn available_under(root: &Path) -> Option<u64> {
    let machine = std::fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| field(&text, "MemAvailable:").map(|kib| kib.saturating_mul(1024)));
    let groups = cgroup::folders(root, "memory").into_iter().filter_map(|folder| {
        let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
        let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
        // the page cache counts as used but is given back on demand
        let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cache = |total: &str, own: &str| field(&stat, total).or_else(|| field(&stat, own)).unwrap_or(0);
        let cached =
            cache("total_inactive_file", "inactive_file") + cache("total_active_file", "active_file");
        Some(limit.saturating_sub(used.saturating_sub(cached)))
    });
    machine.into_iter().chain(groups).min()
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_and_writable() {
        let mut buffer = Buffer::zeroed_f32(1000, "a test").expect("4 KB");
        assert!(buffer.bytes().iter().all(|&b| b == 0));
        buffer.f32s_mut()[999] = 1.5;
        assert_eq!(buffer.f32s().len(), 1000);
        assert_eq!(buffer.bytes()[3996..], 1.5f32.to_ne_bytes());
        assert!(Buffer::zeroed(0, "nothing").expect("nothing").is_empty());
    }

    #[test]
    fn more_than_there_is_is_refused() {
        for len in [usize::MAX, isize::MAX as usize, 1 << 50] {
            match Buffer::zeroed(len, "the moon") {
                Err(Error::OutOfMemory { what, needed, .. }) => {
                    assert_eq!((what.as_str(), needed), ("the moon", len as u64));
                }
                other => panic!("{len}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_tightest_limit_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        assert_eq!(available_under(root.path()), None);
        write("proc/meminfo", "MemTotal: 99 kB\nMemAvailable:   2000 kB\n");
        assert_eq!(available_under(root.path()), Some(2_048_000));
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        write("sys/fs/cgroup/a/memory.max", "1000000\n");
        write("sys/fs/cgroup/a/memory.current", "900000\n");
        write("sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 100000\nactive_file 1000\n");
        assert_eq!(available_under(root.path()), Some(201_000));
    }
}
