//! The real package roots: unpacked from `lab.lock`, compiled in, run from. Fetches what the user's cache lacks, so
//! these are ignored unless asked for: `cargo test -p toolroot --test roots -- --ignored`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use artifacts::{Cache, Fetcher, Lock, Mirrors};
use progress::Progress;
use toolroot::resolve::{self, RootsSpec};
use toolroot::{FixUps, Toolroot};

const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn project() -> PathBuf {
    Path::new(TARGET).canonicalize().unwrap()
}

struct Setting {
    cache: Cache,
    lock: Lock,
    mirrors: Mirrors,
    fixups: FixUps,
}

impl Setting {
    fn new() -> Self {
        let lock = Lock::load(&project().join("lab.lock")).unwrap();
        let mirrors = Mirrors::discover(Path::new("/"), &lock);
        let fixups = FixUps::load(&project().join("images/toolroot.toml")).unwrap();
        Setting { cache: Cache::open().unwrap(), lock, mirrors, fixups }
    }

    fn root(&self, name: &str) -> Toolroot {
        let progress = Progress::silent();
        let fetcher = Fetcher::new(&self.cache, self.mirrors.clone(), false, &progress);
        Toolroot::materialize(&self.cache, &self.lock, name, &fetcher, &self.fixups, &progress).unwrap()
    }
}

fn text(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn everything_a_build_needs_runs_inside() {
    let root = Setting::new().root("build");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.c"), "int main(void) { return 3; }\n").unwrap();
    let script = "set -e
        gcc x.c -o x; ./x && exit 1 || [ $? = 3 ]
        clang -target bpf -c x.c -o x.o; file x.o | grep -q eBPF
        python3 -c 'import yaml, jsonschema'
        for t in awk cc yacc which make flex bison bc perl git pahole bpftool openssl depmod cpio xz zstd rsync apt-get; do
            command -v $t >/dev/null || { echo no $t; exit 1; }
        done
        [ \"$(awk 'BEGIN { print 1 + 1 }')\" = 2 ]
        grep -q BEGIN.CERTIFICATE /etc/ssl/certs/ca-certificates.crt
        getent passwd root && getent hosts localhost";
    let sandbox = root.sandbox("bash").args(["-c", script]).cwd(dir.path()).bind_rw(dir.path(), dir.path());
    assert!(text(&sandbox.output().unwrap()).contains("root:"));
}

#[test]
#[ignore = "needs the vm root; `cargo xtask ci` runs it"]
fn qemu_and_mkfs_run_through_the_loader() {
    let root = Setting::new().root("vm");
    assert!(
        text(&root.loader("qemu-system-x86_64").unwrap().arg("--version").output().unwrap()).contains("version 11.")
    );
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/file"), "x").unwrap();
    let mut mkfs = root.loader("mkfs.erofs").unwrap();
    mkfs.arg("-zlz4").arg(dir.path().join("image")).arg(dir.path().join("tree"));
    text(&mkfs.output().unwrap());
    assert!(fs::metadata(dir.path().join("image")).unwrap().len() > 0);
    assert!(root.loader("no-such-program").unwrap_err().to_string().contains("no-such-program"));
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn the_shim_compiles_and_links_without_the_hosts_toolchain() {
    let root = Setting::new().root("build");
    let dir = tempfile::Builder::new().prefix("it's a ").tempdir().unwrap();
    let shim = root.linker_shim(&dir.path().join("shim")).unwrap();
    // Another call changes nothing.
    let stamp = fs::metadata(&shim.cc).unwrap().modified().unwrap();
    assert_eq!(root.linker_shim(&dir.path().join("shim")).unwrap(), shim);
    assert_eq!(fs::metadata(&shim.cc).unwrap().modified().unwrap(), stamp);

    fs::write(dir.path().join("x.c"), "#include <gnu/libc-version.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\nint main(void) { puts(gnu_get_libc_version()); return 0; }\n").unwrap();
    let build = |args: &[&str]| text(&Command::new(&shim.cc).args(args).current_dir(dir.path()).output().unwrap());
    build(&["-static", "x.c", "-o", "fixed"]);
    assert_eq!(text(&Command::new(dir.path().join("fixed")).output().unwrap()), "2.41\n");
    build(&["x.c", "-o", "moving", "-libverbs"]);

    let project = dir.path().join("p");
    fs::create_dir_all(project.join("src")).unwrap();
    fs::write(project.join("Cargo.toml"), "[package]\nname = \"p\"\nedition = \"2024\"\n[workspace]\n").unwrap();
    fs::write(project.join("build.rs"), "fn main() { println!(\"cargo:rustc-env=MADE=yes\"); }\n").unwrap();
    fs::write(project.join("src/main.rs"), "fn main() { println!(\"{}\", env!(\"MADE\")); }\n").unwrap();
    let target = "x86_64-unknown-linux-gnu";
    for fixed in [true, false] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--offline", "--target", target]).current_dir(&project);
        cargo.env("CARGO_TARGET_DIR", project.join("target")).env_remove("CARGO_BUILD_TARGET");
        shim.configure(&mut cargo, target, fixed);
        text(&cargo.output().unwrap());
        let program = project.join("target").join(target).join("debug/p");
        assert_eq!(text(&Command::new(&program).output().unwrap()), "yes\n");
        let found = root.sandbox("readelf").args(["-lp", ".comment"]).arg(&program);
        let found = text(&found.bind_ro(&program, &program).output().unwrap());
        assert!(found.contains("GCC: (Debian 14"), "{found}");
        assert_eq!(found.contains("program interpreter"), !fixed, "{found}");
    }
}

#[test]
#[ignore = "needs the build root and a mirror; `cargo xtask ci` runs it"]
fn a_refresh_resolves_every_root() {
    let setting = Setting::new();
    let spec = RootsSpec::load(&project().join("images/roots.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path()).unwrap();
    let root = setting.root("build");
    let progress = Progress::silent();
    let new = resolve::update(&spec, &root, &setting.mirrors, Some(&setting.lock), &cache, &progress).unwrap();
    for (name, request) in &spec.root {
        let members = new.root(name).unwrap().debs;
        for package in request.packages.iter().filter(|p| !p.ends_with('-')) {
            assert!(members.iter().any(|deb| deb.name == *package), "{name}: {package}");
        }
    }
    let source = new.source("linux-7.3.4").unwrap();
    assert_eq!(source, setting.lock.source("linux-7.3.4").unwrap(), "a pinned version's files do not change");

    // A mirror that is not there, and one whose index nobody signed, are both refused.
    let unsigned = serve("Origin: Nobody\nSuite: trixie\nCodename: trixie\nDate: Sat, 21 Nov 2026 02:10:46 UTC\n");
    let mirrors = Mirrors::only(["http://127.0.0.1:9/debian", &unsigned]);
    let error = resolve::update(&spec, &root, &mirrors, None, &cache, &progress).unwrap_err().to_string();
    assert!(error.contains("no mirror gave the indices") && error.contains("127.0.0.1:9"), "{error}");
    assert!(error.contains("is not signed"), "{error}");
}

/// Serves `release` as every file called Release and nothing else, as long as the test runs.
fn serve(release: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let wanted = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let (status, body) = if wanted.contains("/Release ") { ("200 OK", release) } else { ("404 Not Found", "") };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    format!("http://{address}/debian")
}
