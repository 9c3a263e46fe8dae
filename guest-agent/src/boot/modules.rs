//! Loads the modules the initramfs carries: `/modules/NN-name.ko`, in the order of their names, which whoever built the
//! initramfs chose so that none comes before what it needs. Empty for a kernel that has everything built in.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::system::finit_module;

const FOLDER: &str = "/modules";

/// Loads them all. A module that fails is a fault; the rest is tried all the same.
pub fn load_all(faults: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let loaded = load(&file);
        // The initramfs stays for as long as the guest does; its memory need not.
        let _ = fs::remove_file(&file);
        match loaded {
            // Built into this kernel after all, or loaded already.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => faults.push(format!("loading {}: {error}", file.display())),
            Ok(()) => {}
        }
    }
}

fn load(file: &Path) -> io::Result<()> {
    Ok(finit_module(File::open(file)?, c"", 0)?)
}
