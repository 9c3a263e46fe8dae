//! The project's own image from the project's own lock, with the real tools. Slow and in need of the packages, hence
//! ignored unless asked for: `cargo test -p image --test real -- --ignored`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use artifacts::{Cache, Fetcher, Lock, Mirrors};
use image::{BasePlan, Ctx, Definition, Filter, base_plan, build_base};
use progress::{Cancel, Event, Progress};
use toolroot::{FixUps, Toolroot};

struct Lab {
    /// Packages and toolroots: the user's own cache, so that they are fetched once.
    cache: Cache,
    fetcher: Fetcher,
    vm: Toolroot,
    plan: BasePlan,
    progress: Progress,
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Tells how long each step took: the numbers of the design are checked by eye and by `cargo xtask bench`.
fn narrator() -> Progress {
    Progress::new(Cancel::default(), |event| {
        if let Event::Finished { step, outcome, wall_us } = event {
            eprintln!("{step}: {outcome:?} after {} ms", wall_us / 1000);
        }
    })
}

fn lab() -> Lab {
    let progress = narrator();
    let cache = Cache::open().unwrap();
    let lock = Lock::load(&project("lab.lock")).unwrap();
    let fetcher = Fetcher::new(&cache, Mirrors::discover(Path::new("/"), &lock), false, &progress);
    let fixups = FixUps::load(&project("images/toolroot.toml")).unwrap();
    let vm = Toolroot::materialize(&cache, &lock, "vm", &fetcher, &fixups, &progress).unwrap();
    let definition = Definition::load(&project("images/lab.toml")).unwrap();
    let plan = base_plan("lab", definition, &lock).unwrap();
    Lab { cache, fetcher, vm, plan, progress }
}

#[test]
#[ignore = "needs the packages of lab.lock; `cargo xtask ci` runs it"]
fn the_base_image_is_the_same_twice_and_holds_what_it_says() {
    let lab = lab();
    let mut hashes = BTreeSet::new();
    let mut last = None;
    for _ in 0..2 {
        let dir = tempfile::tempdir_in(lab.cache.root()).unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let ctx = Ctx { cache: &cache, fetcher: &lab.fetcher, vm: &lab.vm, progress: &lab.progress };
        let image = build_base(&lab.plan, &ctx).unwrap();
        assert!(!image.cached);
        assert!(build_base(&lab.plan, &ctx).unwrap().cached);
        hashes.insert(image.sha256.clone());
        last = Some((dir, image));
    }
    assert_eq!(hashes.len(), 1, "two builds differ: {hashes:?}");

    let (dir, image) = last.unwrap();
    let manifest = image.manifest().unwrap();
    eprintln!("{} files, {} bytes of content, image {} bytes", manifest.entries.len(), manifest.bytes(), image.size);
    for origin in manifest.by_size().into_iter().take(12) {
        eprintln!("{:>10} {:>6} {} {}", origin.bytes, origin.files, origin.name, origin.version);
    }

    // What is on the disk is what the manifest says.
    let out = dir.path().join("extracted");
    let mut fsck = lab.vm.loader("fsck.erofs").unwrap();
    let output = fsck.arg(format!("--extract={}", out.display())).arg(&image.path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for entry in manifest.find(&Filter::default()) {
        let meta = std::fs::symlink_metadata(out.join(entry.path.trim_start_matches('/'))).unwrap();
        assert_eq!(meta.is_symlink(), entry.kind == 'l', "{}", entry.path);
        assert!(entry.kind != 'f' || meta.len() == entry.size, "{}", entry.path);
    }
    assert_eq!(std::fs::read_link(out.join("usr/bin/awk")).unwrap(), Path::new("gawk"));
    assert!(std::fs::read_to_string(out.join("etc/passwd")).unwrap().starts_with("root:"));

    // Bytecode is of the kind that is used without a look at the source (PEP 552), and names the guest's path.
    let bytecode =
        std::fs::read(out.join("usr/lib/python3/dist-packages/yaml/__pycache__/loader.cpython-313.pyc")).unwrap();
    assert_eq!(bytecode[4..8], [1, 0, 0, 0]);
    let named = |path: &str| bytecode.windows(path.len()).any(|window| window == path.as_bytes());
    assert!(named("/usr/lib/python3/dist-packages/yaml/loader.py") && !named(".scratch"));
}
