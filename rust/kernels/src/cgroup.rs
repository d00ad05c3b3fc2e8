//! Where this process's control groups keep their limits (Linux; nothing elsewhere).

use std::path::{Component, Path, PathBuf};

/// The folders that limit this process for `controller`: its own group's and every one above, of
/// both versions. `root` is `/` but for tests.
pub(crate) fn folders(root: &Path, controller: &str) -> Vec<PathBuf> {
    let mount = root.join("sys/fs/cgroup");
    let Ok(groups) = std::fs::read_to_string(root.join("proc/self/cgroup")) else { return Vec::new() };
    let mut found = Vec::new();
    for line in groups.lines() {
        // "hierarchy:controllers:path", the second version with hierarchy 0 and no controllers
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let base = if id == "0" && controllers.is_empty() {
            mount.clone()
        } else if controllers.split(',').any(|c| c == controller) {
            mount.join(controller)
        } else {
            continue;
        };
        found.push(base.clone());
        // a group outside this mount's view begins with "..": only the mount itself can be read then
        let mut folder = base;
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => {
                    folder = folder.join(name);
                    found.push(folder.clone());
                }
                Component::ParentDir => break,
                _ => {}
            }
        }
    }
    found
}
