//! How much memory this process may still take.

use std::fs;
use std::path::Path;

/// Bytes that the machine and the process's control groups leave, whichever is less; `None` where the
/// operating system does not say.
pub fn free_memory() -> Option<u64> {
    free_memory_under(Path::new("/"))
}

/// As [`free_memory`], with the system's files under `root`.
fn free_memory_under(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = meminfo.as_deref().and_then(available_in);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().flat_map(|line| limits_of(root, line)).chain(machine).min()
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What is left in the group that a line of `/proc/self/cgroup` names, and in each group around it.
fn limits_of(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (base, limit, usage, cache) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max", "memory.current", "file")
    } else if controllers.split(',').any(|c| c == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
    } else {
        return Vec::new();
    };
    let base = root.join(base);
    let relative = Path::new(path.trim_start_matches('/'));
    // in a container the path is the host's and only the root of the mount is there
    relative
        .ancestors()
        .filter_map(|dir| {
            let dir = base.join(dir);
            let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            // cached file pages count as used, but are given back when memory is wanted
            let cached =
                stat.lines().find_map(|l| l.strip_prefix(cache)?.strip_prefix(' ')?.trim().parse().ok());
            let used = number(usage)?.saturating_sub(cached.unwrap_or(0));
            Some(number(limit)?.saturating_sub(used))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   8000 kB\n");

    #[test]
    fn the_machine_alone() {
        let root = root(&[MEMINFO]);
        assert_eq!(free_memory_under(root.path()), Some(8000 * 1024));
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "5000000\n"),
            ("sys/fs/cgroup/a/memory.current", "3000000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\nfile 500000\nfile_mapped 9\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "1\n"),
        ]);
        assert_eq!(free_memory_under(root.path()), Some(2_500_000));
    }

    #[test]
    fn version_one_in_a_container() {
        let root = root(&[
            MEMINFO,
            ("proc/self/cgroup", "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n"),
            ("sys/fs/cgroup/memory/memory.stat", "cache 3\ntotal_cache 700\n"),
        ]);
        assert_eq!(free_memory_under(root.path()), Some(200));
    }

    #[test]
    fn nothing_known() {
        let root = root(&[("proc/self/cgroup", "nonsense\n0::/\n")]);
        assert_eq!(free_memory_under(root.path()), None);
    }
}
