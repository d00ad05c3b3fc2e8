//! A file that holds the bytes of one run, since readers map files.

use std::path::PathBuf;

/// Writes `data` to this process's own file of the name `name` and returns its path.
pub fn put(name: &str, data: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("alloyforge-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for scratch files");
    let path = folder.join(name);
    std::fs::write(&path, data).expect("a scratch file");
    path
}
