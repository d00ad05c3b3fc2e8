//! How many threads are worth having.

use std::collections::HashSet;
use std::path::Path;

use crate::cgroup;

/// Physical cores that this process may use: those of its affinity mask, two threads of one core
/// counted once, and no more than whole cores of its control groups' quota. At least 1.
///
/// A kernel that keeps the floating-point units busy gains nothing from a second thread on a core, and
/// a thread more than the quota allows is stopped for the rest of every period, the others waiting.
pub fn physical_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    match allowed_cpus() {
        Some(cpus) => cores_under(Path::new("/"), &cpus),
        None => logical,
    }
}

/// The CPUs of the affinity mask; `None` where the system has none to ask.
#[cfg(target_os = "linux")]
fn allowed_cpus() -> Option<Vec<usize>> {
    const WORD: usize = std::mem::size_of::<libc::c_ulong>();
    // the call fails while the mask is smaller than the kernel's own
    for words in [16, 128, 1024] {
        let mut mask: Vec<libc::c_ulong> = vec![0; words];
        // SAFETY: `mask` is writable and `words * WORD` bytes long; pid 0 is the calling thread.
        let status = unsafe { libc::sched_getaffinity(0, words * WORD, mask.as_mut_ptr().cast()) };
        if status == 0 {
            let bits = WORD * 8;
            return Some((0..words * bits).filter(|cpu| mask[cpu / bits] >> (cpu % bits) & 1 == 1).collect());
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
fn allowed_cpus() -> Option<Vec<usize>> {
    None
}

/// Cores among `cpus`, by the description under `root`, within the quota.
fn cores_under(root: &Path, cpus: &[usize]) -> usize {
    let mut cores = HashSet::new();
    for &cpu in cpus {
        let folder = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
        // two threads of one core list the same siblings
        let siblings = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
        cores.insert(siblings.map_or_else(|| cpu.to_string(), |s| s.trim().to_owned()));
    }
    let quota = quota_under(root).map_or(usize::MAX, |cores| cores as usize);
    cores.len().min(quota).max(1)
}

/// The tightest quota, in cores.
fn quota_under(root: &Path) -> Option<f64> {
    let limits = cgroup::folders(root, "cpu").into_iter().filter_map(|folder| {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let (quota, period) = match read("cpu.max") {
            Some(text) => {
                let mut words = text.split_whitespace();
                (words.next()?.parse::<f64>().ok()?, words.next()?.parse::<f64>().ok()?)
            }
            None => (
                read("cpu.cfs_quota_us")?.trim().parse::<f64>().ok()?,
                read("cpu.cfs_period_us")?.trim().parse::<f64>().ok()?,
            ),
        };
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    });
    limits.min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn threads_of_one_core_count_once() {
        let topology: Vec<(String, String)> = (0..8)
            .map(|i| {
                (
                    format!("sys/devices/system/cpu/cpu{i}/topology/core_cpus_list"),
                    format!("{},{}\n", i % 4, i % 4 + 4),
                )
            })
            .collect();
        let files: Vec<_> = topology.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        let root = machine(&files);
        assert_eq!(cores_under(root.path(), &[0, 1, 2, 3, 4, 5, 6, 7]), 4);
        assert_eq!(cores_under(root.path(), &[1, 5]), 1);
        assert_eq!(cores_under(root.path(), &[1, 2, 7]), 3);
        assert_eq!(cores_under(root.path(), &[100, 101]), 2, "unknown CPUs are cores of their own");
        assert_eq!(cores_under(root.path(), &[]), 1);
    }

    #[test]
    fn the_quota_bounds_the_count() {
        let cpus = [0, 1, 2, 3, 4, 5];
        let second = machine(&[
            ("proc/self/cgroup", "0::/user/app\n"),
            ("sys/fs/cgroup/user/app/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/user/cpu.max", "350000 100000\n"),
        ]);
        assert_eq!(cores_under(second.path(), &cpus), 3);
        let first = machine(&[
            ("proc/self/cgroup", "3:cpu,cpuacct:/app\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/app/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(cores_under(first.path(), &cpus), 1);
        let free = machine(&[
            ("proc/self/cgroup", "2:cpu:/app\n"),
            ("sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/app/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(cores_under(free.path(), &cpus), 6);
    }

    #[test]
    fn this_machine_has_a_core() {
        let cores = physical_cores();
        assert!((1..=std::thread::available_parallelism().map_or(usize::MAX, usize::from)).contains(&cores));
    }
}
