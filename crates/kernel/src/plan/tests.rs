//! Plans and keys over the project's own lock, series and fragments.

use super::*;
use std::path::PathBuf;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn lock() -> Lock {
    Lock::load(&project().join("lab.lock")).unwrap()
}

fn request(name: &str, origin: Origin, series: &[&str]) -> KernelRequest {
    KernelRequest {
        name: name.into(),
        origin,
        series: series.iter().map(ToString::to_string).collect(),
        fragments: ["base", "virtio", "net", "rdma"].map(String::from).into(),
        debug_info: false,
        btf: false,
        selftests: SELFTESTS.map(String::from).into(),
    }
}

fn source() -> Origin {
    Origin::Source("linux-7.3.4".into())
}

#[test]
fn a_key_follows_from_what_goes_into_the_kernel_only() {
    let mut lock = lock();
    let base = plan(&request("k", source(), &["rxe"]), &project(), &lock).unwrap().recipe().key();
    let same = plan(&request("k", source(), &["rxe", "rxe"]), &project(), &lock).unwrap();
    assert_eq!(base, same.recipe().key(), "named twice is once");
    let mut others = vec![
        request("k", source(), &[]),
        KernelRequest { debug_info: true, ..request("k", source(), &["rxe"]) },
        KernelRequest { selftests: vec!["rdma".into()], ..request("k", source(), &["rxe"]) },
    ];
    others[0].fragments.reverse();
    for other in &others {
        assert_ne!(base, plan(other, &project(), &lock).unwrap().recipe().key(), "{other:?}");
    }
    let digest = |n: u8| artifacts::sha256_bytes(&[n]);
    let set = |lock: &mut Lock, name: &str, n| {
        lock.debs.iter_mut().filter(|d| d.name == name).for_each(|d| d.sha256 = digest(n));
    };
    set(&mut lock, "git", 1);
    let again = plan(&request("k", source(), &["rxe"]), &project(), &lock).unwrap().recipe().key();
    assert_eq!(base, again, "git does not get into a kernel");
    set(&mut lock, "gcc-14-x86-64-linux-gnu", 2);
    let again = plan(&request("k", source(), &["rxe"]), &project(), &lock).unwrap().recipe().key();
    assert_ne!(base, again, "the compiler does");
}

#[test]
fn distribution_kernels_are_found_in_the_lock() {
    let lock = lock();
    let release = "7.3.4+deb13-amd64".to_string();
    let stock = plan(&request("stock", Origin::Package(release.clone()), &[]), &project(), &lock).unwrap();
    assert_eq!(stock.version, "7.3.4");
    assert_eq!(stock.summary(), "unpack 7.3.4+deb13-amd64");
    let quick = plan(&request("quick", Origin::Rebuild(release), &["rxe"]), &project(), &lock).unwrap();
    let Kind::Rebuild { headers, source, .. } = &quick.kind else { panic!("{quick:?}") };
    assert_eq!(headers.len(), 3);
    assert_eq!(source.alternatives[0].name, "debian-patched", "the form closest to the packages comes first");
    let error = plan(&request("s", Origin::Package("7.9.1-amd64".into()), &[]), &project(), &lock).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("no package linux-base-7.9.1-amd64") && error.ends_with("it has: 7.3.4+deb13-amd64"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_planned_says_for_which_kernel() {
    let lock = lock();
    let mut old = lock.clone();
    old.sources[0].name = "linux-7.1.13".into();
    old.sources[0].version = "7.1.13".into();
    let of = |request: &KernelRequest, lock: &Lock| plan(request, &project(), lock).unwrap_err().to_string();
    let error = of(&request("old", Origin::Source("linux-7.1.13".into()), &["rxe"]), &old);
    assert!(error.starts_with("kernel `old`: series `rxe` is not kept for Linux 7.1.13"), "{error}");
    let error = of(&request("k", source(), &["rxf"]), &lock);
    assert!(error.starts_with("kernel `k`: there is no series `rxf`"), "{error}");
    let error = of(&KernelRequest { fragments: vec!["nat".into()], ..request("k", source(), &[]) }, &lock);
    assert!(error.starts_with("kernel `k`: there is no kernel config fragment `nat`"), "{error}");
    let error = of(&request("k", Origin::Source("linux-9".into()), &[]), &lock);
    assert!(error.contains("no source `linux-9`"), "{error}");
}
