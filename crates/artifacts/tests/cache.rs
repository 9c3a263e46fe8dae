//! The cache: built once, whole or not at all, whoever else is at work or dies on the way.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use artifacts::{Cache, Change, Kind, Recipe, What, Why};
use common::child::{self, await_file};
use common::{Scratch, names};
use progress::{Cancel, Event, Progress};

fn recipe(version: &str) -> Recipe {
    Recipe::new("kernel:patched").value("version", version).value("compiler", "gcc")
}

fn write(dir: &Path, text: &str) -> anyhow::Result<()> {
    Ok(fs::write(dir.join("out"), text)?)
}

#[test]
fn the_first_build_is_published_sealed_and_the_second_is_none() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    assert_eq!(cache.why(&recipe("1")).unwrap(), Why::Never);
    let built = cache.get_or_build(Kind::Kernel, &recipe("1"), |dir| write(dir, "one")).unwrap();
    assert!(!built.cached);
    assert_eq!(fs::read_to_string(built.path.join("out")).unwrap(), "one");
    assert_eq!(built.path, dir.path().join("kernel").join(built.key.as_str()).join("content"));
    for path in [built.path.clone(), built.path.join("out"), built.path.join("../recipe.json")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o222, 0, "{}", path.display());
    }
    assert_eq!(cache.recipe(Kind::Kernel, &built.key).unwrap(), recipe("1"));
    assert_eq!(cache.lookup(Kind::Kernel, &built.key), Some(built.path.clone()));
    assert_eq!(cache.lookup(Kind::Image, &built.key), None);

    let again = cache.get_or_build(Kind::Kernel, &recipe("1"), |_| panic!("built twice")).unwrap();
    assert!(again.cached);
    assert_eq!(again.path, built.path);
}

#[test]
fn why_names_the_inputs_that_differ_from_the_entry_used_last() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    for version in ["1", "2"] {
        cache.get_or_build(Kind::Kernel, &recipe(version), |dir| write(dir, version)).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(cache.why(&recipe("2")).unwrap(), Why::Cached);
    let now = Recipe::new("kernel:patched").value("version", "3").value("series", "rxe");
    let change = |label: &str, old: Option<&str>, new: Option<&str>| Change {
        label: label.into(),
        old: old.map(str::to_string),
        new: new.map(str::to_string),
    };
    let expected = |version| {
        Why::Changed(vec![
            change("version", Some(version), Some("3")),
            change("series", None, Some("rxe")),
            change("compiler", Some("gcc"), None),
        ])
    };
    assert_eq!(cache.why(&now).unwrap(), expected("2"));
    // Using the older one again makes it the one to compare with.
    cache.lookup(Kind::Kernel, &recipe("1").key()).unwrap();
    assert_eq!(cache.why(&now).unwrap(), expected("1"));
    assert_eq!(cache.why(&Recipe::new("kernel:stock")).unwrap(), Why::Never);
}

#[test]
fn a_build_that_fails_or_panics_leaves_nothing() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let failed = cache.get_or_build(Kind::Image, &Recipe::new("image:lab"), |dir| {
        write(dir, "half")?;
        bail!("mkfs.erofs ended with status 1")
    });
    assert_eq!(format!("{:#}", failed.unwrap_err()), "step image:lab: mkfs.erofs ended with status 1");
    let other = cache.clone();
    let panicked = thread::spawn(move || {
        other.get_or_build(Kind::Image, &Recipe::new("image:lab"), |dir| {
            write(dir, "half").unwrap();
            panic!("on purpose")
        })
    });
    assert!(panicked.join().is_err());
    assert_eq!(names(&dir.path().join("image")), [""; 0]);
    assert!(!cache.get_or_build(Kind::Image, &Recipe::new("image:lab"), |dir| write(dir, "whole")).unwrap().cached);
}

#[test]
fn threads_that_want_the_same_build_it_once() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let (builds, barrier) = (AtomicU32::new(0), Barrier::new(8));
    let cached = thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let built = cache.get_or_build(Kind::Root, &recipe("1"), |dir| {
                        builds.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(150));
                        write(dir, "one")
                    });
                    let built = built.unwrap();
                    assert_eq!(fs::read_to_string(built.path.join("out")).unwrap(), "one");
                    built.cached
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(builds.load(Ordering::SeqCst), 1);
    assert_eq!(cached.iter().filter(|cached| !**cached).count(), 1);
}

#[test]
fn processes_that_want_the_same_build_it_once() {
    let dir = Scratch::new();
    let at = dir.path().to_str().unwrap();
    let children: Vec<_> =
        (0..3).map(|_| child::command(None, "build-slowly", &[("dir", at)]).spawn().unwrap()).collect();
    for running in children {
        child::check(&running.wait_with_output().unwrap(), "build-slowly");
    }
    assert_eq!(fs::read_to_string(dir.path().join("builds")).unwrap().lines().count(), 1);
    assert_eq!(names(&dir.path().join("cache/root")).len(), 1);
}

#[test]
fn a_builder_that_is_killed_blocks_nobody_and_its_rest_is_swept() {
    for sweep in ["prune", "sweep", "build"] {
        let dir = Scratch::new();
        let at = dir.path().to_str().unwrap();
        let mut running = child::command(None, "build-and-hang", &[("dir", at)]).spawn().unwrap();
        await_file(&dir.path().join("building"));
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let root = dir.path().join("cache/root");

        // As long as it lives, its half-made entry is no leftover.
        let report = cache.prune(Duration::ZERO, false).unwrap();
        assert_eq!((report.removed, report.in_use), (vec![], vec![]));
        assert_eq!(cache.sweep().unwrap().removed, []);
        assert_eq!(names(&root).len(), 1);

        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(names(&root).len(), 1, "a killed process cannot clean up");
        if sweep != "build" {
            let hour = Duration::from_secs(3600);
            let report = if sweep == "prune" { cache.prune(hour, false) } else { cache.sweep() }.unwrap();
            assert_eq!(report.removed.iter().map(|p| p.what.clone()).collect::<Vec<_>>(), [What::Leftover]);
            assert_eq!(names(&root), [""; 0]);
        }
        let begun = Instant::now();
        let built = cache.get_or_build(Kind::Root, &recipe("1"), |dir| write(dir, "mine")).unwrap();
        assert!(!built.cached);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(names(&root), [built.key.as_str()]);
        assert_eq!(names(&built.path), ["out"], "nothing of the dead builder got in");
    }
}

#[test]
fn whoever_waits_is_told_and_can_be_interrupted() {
    let dir = Scratch::new();
    let cancel = Cancel::default();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&notes);
    let progress = Progress::new(cancel.clone(), move |event| {
        if let Event::Note { text, .. } = event {
            sink.lock().unwrap().push(text);
        }
    });
    let cache = Cache::at(dir.path()).unwrap();
    let waiting = cache.with_progress(&progress);
    let (begun, release) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let built = cache.get_or_build(Kind::Root, &recipe("1"), |dir| {
                begun.wait();
                release.wait();
                write(dir, "one")
            });
            built.unwrap();
        });
        begun.wait();
        let waiter = scope.spawn(|| waiting.get_or_build(Kind::Root, &recipe("1"), |_| panic!("not mine to build")));
        let until = Instant::now() + Duration::from_secs(10);
        while notes.lock().unwrap().is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        cancel.cancel();
        let error = waiter.join().unwrap().unwrap_err();
        assert!(error.downcast_ref::<progress::Cancelled>().is_some(), "{error:#}");
        release.wait();
    });
    assert_eq!(*notes.lock().unwrap(), ["kernel:patched: waiting for another process that is making it"]);
}

#[test]
fn prune_removes_what_is_old_and_spares_what_is_in_use() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let held = cache.get_or_build(Kind::Kernel, &recipe("held"), |dir| write(dir, "x")).unwrap();
    let free = cache.get_or_build(Kind::Kernel, &recipe("free"), |dir| write(dir, "x")).unwrap();
    let free_key = free.key.clone();
    drop(free);
    let busy = cache.work("objects-busy").unwrap();
    fs::write(busy.path().join("f"), "x").unwrap();
    let idle = cache.work("objects-idle").unwrap().path().to_path_buf();
    fs::write(idle.join("f"), "x").unwrap();

    let young = cache.prune(Duration::from_secs(3600), false).unwrap();
    assert_eq!(young.removed, []);

    let what = |list: &[artifacts::Pruned]| list.iter().map(|p| p.what.clone()).collect::<Vec<_>>();
    for dry_run in [true, false] {
        let report = cache.prune(Duration::ZERO, dry_run).unwrap();
        assert_eq!(what(&report.removed), [What::Entry(Kind::Kernel), What::Work]);
        assert_eq!(report.removed[0].name, format!("kernel:patched kernel/{}", free_key.short()));
        assert_eq!(what(&report.in_use), [What::Entry(Kind::Kernel), What::Work]);
        assert!(report.bytes > 0);
        assert_eq!(idle.exists(), dry_run);
        assert_eq!(cache.lookup(Kind::Kernel, &free_key).is_some(), dry_run);
    }
    assert!(held.path.join("out").exists() && busy.path().join("f").exists());
    assert_eq!(names(&dir.path().join("kernel")), [held.key.as_str()]);
    assert_eq!(names(&dir.path().join("work")), ["objects-busy"]);

    let key = held.key.clone();
    drop((held, busy));
    let hold = cache.hold(Kind::Kernel, &key).unwrap().unwrap();
    assert_eq!(what(&cache.prune(Duration::ZERO, false).unwrap().removed), [What::Work]);
    drop(hold);
    assert_eq!(what(&cache.prune(Duration::ZERO, false).unwrap().removed), [What::Entry(Kind::Kernel)]);
    assert_eq!(names(&dir.path().join("locks")), ["downloads"], "locks of what is gone go too");
    assert!(cache.hold(Kind::Kernel, &key).unwrap().is_none());
}

#[test]
fn a_work_directory_belongs_to_one_at_a_time_and_keeps_its_content() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let inside = AtomicU32::new(0);
    thread::scope(|scope| {
        for n in 0..4 {
            let (cache, inside) = (&cache, &inside);
            scope.spawn(move || {
                let work = cache.work("tree-linux-7.3.4").unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                fs::write(work.path().join(n.to_string()), "x").unwrap();
                thread::sleep(Duration::from_millis(20));
                inside.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(names(cache.work("tree-linux-7.3.4").unwrap().path()), ["0", "1", "2", "3"]);
    for bad in ["", ".hidden", "a/b", "..", "a b"] {
        let error = cache.work(bad).unwrap_err().to_string();
        assert!(error.contains(&format!("`{bad}` cannot name a work directory")), "{error}");
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let dir = Scratch::new();
    let at = dir.path().to_str().unwrap();
    child::run(Some(&child::SMALL_FILES), "build-too-much", &[("dir", at)]);
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    match child::small_disk(&disk) {
        Some(wrap) => {
            let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
            child::run(Some(&wrap), "build-too-much", &[("dir", disk.to_str().unwrap())]);
        }
        None => eprintln!("no small tmpfs on this host: only the limit on file sizes was tried"),
    }
}

/// Not a test of its own: what the tests above run in other processes.
#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    let dir = Path::new(&arguments["dir"]);
    let cache = Cache::at(&dir.join("cache")).unwrap();
    match role.as_str() {
        "build-slowly" => {
            let built = cache.get_or_build(Kind::Root, &recipe("1"), |to| {
                use std::io::Write;
                let mut log = fs::OpenOptions::new().append(true).create(true).open(dir.join("builds"))?;
                writeln!(log, "{}", std::process::id())?;
                thread::sleep(Duration::from_millis(300));
                write(to, "one")
            });
            assert_eq!(fs::read_to_string(built.unwrap().path.join("out")).unwrap(), "one");
        }
        "build-and-hang" => {
            let hang = cache.get_or_build(Kind::Root, &recipe("1"), |to| {
                fs::create_dir(to.join("sub"))?;
                fs::write(to.join("sub/dead"), "x")?;
                fs::write(dir.join("building"), "")?;
                thread::sleep(Duration::from_secs(60));
                Ok(())
            });
            panic!("not killed: {hang:?}");
        }
        "build-too-much" => {
            let error = cache.get_or_build(Kind::Image, &Recipe::new("image:lab"), |to| {
                fs::write(to.join("small"), "x")?;
                fs::write(to.join("large"), vec![1; 2 << 20]).context("cannot write the image")
            });
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.starts_with("step image:lab: no room to write "), "{error}");
            assert!(error.contains("cargo xtask cache prune") && error.contains("cannot write the image"), "{error}");
            assert_eq!(names(&dir.join("cache/image")), [""; 0]);
            assert!(cache.get_or_build(Kind::Image, &Recipe::new("image:lab"), |to| write(to, "fits")).is_ok());
        }
        other => panic!("no role {other}"),
    }
}
