//! Downloads from real servers that misbehave: what arrives is right or not there, and the error says why.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use artifacts::{Cache, Deb, FetchError, FetchOptions, Fetcher, Kind, Mirrors, Refusal, sha256_bytes};
use common::child;
use common::server::{Act, Server};
use common::{Scratch, bytes, deb, names};
use progress::{Cancel, Event, Outcome, Progress};

const SIZE: usize = 300_000;

fn options(parallel: usize) -> FetchOptions {
    FetchOptions { parallel, connect_timeout: Duration::from_secs(2), stall_timeout: Duration::from_secs(1) }
}

fn fetcher(cache: &Cache, mirrors: &[&Server]) -> Fetcher {
    let mirrors = Mirrors::only(mirrors.iter().map(|m| m.url()));
    Fetcher::new(cache, mirrors, false, &Progress::silent()).with_options(options(1))
}

/// A cache, a package and its bytes.
fn one() -> (Scratch, Cache, Deb, Vec<u8>) {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let content = bytes(1, SIZE);
    (dir, cache, deb("gcc-14", &content), content)
}

fn serving(deb: &Deb, content: &[u8]) -> Server {
    let server = Server::start();
    server.file(&deb.path, content);
    server
}

/// The refusals of the one file that failed, in order.
fn refusals(error: FetchError) -> Vec<Refusal> {
    match error {
        FetchError::Failed { mut failures } => {
            assert_eq!(failures.len(), 1, "{failures:?}");
            failures.remove(0).attempts.into_iter().map(|a| a.refusal).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn part(cache: &Cache, deb: &Deb) -> std::path::PathBuf {
    cache.root().join("deb").join(format!(".part-{}", deb.sha256))
}

#[test]
fn many_files_come_in_order_sealed_and_with_progress() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let server = Server::start();
    let contents: Vec<Vec<u8>> = (0..20).map(|n| bytes(n + 1, 1000 + 7000 * n as usize)).collect();
    let debs: Vec<Deb> = contents.iter().enumerate().map(|(n, c)| deb(&format!("lib{n}+b"), c)).collect();
    for (deb, content) in debs.iter().zip(&contents) {
        server.file(&deb.path, content);
    }
    let (sender, events) = std::sync::mpsc::channel();
    let progress = Progress::new(Cancel::default(), move |event| sender.send(event).unwrap());
    let fetcher = Fetcher::new(&cache, Mirrors::only([server.url()]), false, &progress).labelled("guest");
    let mut wanted: Vec<&Deb> = debs.iter().collect();
    wanted.push(&debs[3]);
    for outcome in [Outcome::Done, Outcome::Cached] {
        let paths = fetcher.debs(&wanted).unwrap();
        for (path, deb) in paths.iter().zip(&wanted) {
            assert_eq!(sha256_bytes(&fs::read(path).unwrap()), deb.sha256);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o444);
        }
        let seen: Vec<Event> = events.try_iter().collect();
        let total: u64 = debs.iter().map(|d| d.size).sum();
        if outcome == Outcome::Done {
            let advanced = seen.iter().filter_map(|e| match e {
                Event::Advanced { done, .. } => Some(*done),
                _ => None,
            });
            assert_eq!(advanced.max(), Some(total));
        }
        let ended = matches!(seen.last(), Some(Event::Finished { step, outcome: o, .. })
            if step == "fetch:guest" && *o == outcome);
        assert!(ended, "{seen:?}");
    }
    assert_eq!(server.seen().len(), 20);
    assert_eq!(names(&dir.path().join("deb")).len(), 20);
}

#[test]
fn a_broken_connection_is_continued_where_it_broke() {
    let (_dir, cache, deb, content) = one();
    let server = serving(&deb, &content);
    server.acts(&deb.path, [Act::Truncate(100_000), Act::Truncate(50_000)]);
    fetcher(&cache, &[&server]).debs(&[&deb]).unwrap();
    assert_eq!(server.offsets(), [None, Some(100_000), Some(150_000)]);
}

#[test]
fn a_partial_file_of_an_earlier_run_is_continued() {
    let (_dir, cache, deb, content) = one();
    let server = serving(&deb, &content);
    for (have, offsets) in [(12_345, vec![Some(12_345)]), (SIZE, vec![]), (SIZE + 1, vec![None])] {
        let server = if have == 12_345 { &server } else { &serving(&deb, &content) };
        let mut old = content.clone();
        old.push(0);
        fs::write(part(&cache, &deb), &old[..have]).unwrap();
        let paths = fetcher(&cache, &[server]).debs(&[&deb]).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), content);
        assert_eq!(server.offsets(), offsets);
        fs::remove_file(&paths[0]).unwrap();
    }
}

#[test]
fn a_server_without_range_sends_the_file_again() {
    let (_dir, cache, deb, content) = one();
    let server = serving(&deb, &content);
    server.always(Act::IgnoreRange);
    fs::write(part(&cache, &deb), &content[..1000]).unwrap();
    let paths = fetcher(&cache, &[&server]).debs(&[&deb]).unwrap();
    assert_eq!(fs::read(&paths[0]).unwrap(), content);
    assert_eq!(server.offsets(), [Some(1000)]);
}

#[test]
fn a_spoilt_partial_file_costs_one_clean_start() {
    for (acts, offsets) in [
        (vec![], vec![Some(1000), None]),
        (vec![Act::WrongRange], vec![Some(1000), None]),
        (vec![Act::Status(416)], vec![Some(1000), None]),
    ] {
        let (_dir, cache, deb, content) = one();
        let server = serving(&deb, &content);
        server.acts(&deb.path, acts);
        fs::write(part(&cache, &deb), bytes(99, 1000)).unwrap();
        let paths = fetcher(&cache, &[&server]).debs(&[&deb]).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), content);
        assert_eq!(server.offsets(), offsets);
    }
}

#[test]
fn the_next_mirror_is_asked_whatever_is_wrong_with_the_first() {
    let (_, _, deb, content) = one();
    let longer = bytes(5, SIZE + 10);
    let faults = [
        Act::Status(404),
        Act::Status(403),
        Act::Status(503),
        Act::Corrupt,
        Act::Other(longer.clone()),
        Act::Unannounced(longer),
        Act::Unannounced(content[..10].to_vec()),
        Act::Stall(70_000),
        Act::Stall(0),
        Act::Truncate(0),
    ];
    for fault in faults {
        let (_dir, cache, ..) = one();
        let (bad, good) = (serving(&deb, &content), serving(&deb, &content));
        bad.always(fault);
        let paths = fetcher(&cache, &[&bad, &good]).debs(&[&deb]).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), content);
        assert_eq!(good.seen().len(), 1);
        assert_eq!(names(&cache.root().join("deb")), [deb.sha256.as_str()]);
    }
}

#[test]
fn redirections_are_followed() {
    let (_dir, cache, deb, content) = one();
    let (first, second) = (serving(&deb, &content), serving(&deb, &content));
    first.always(Act::Redirect(format!("{}/{}", second.url(), deb.path)));
    fetcher(&cache, &[&first]).debs(&[&deb]).unwrap();
    assert_eq!(second.seen().len(), 1);
}

#[test]
fn what_failed_in_passing_is_tried_once_more() {
    let (_dir, cache, deb, content) = one();
    let server = serving(&deb, &content);
    server.acts(&deb.path, [Act::Status(503)]);
    fetcher(&cache, &[&server]).debs(&[&deb]).unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn gone_from_every_mirror_says_which_and_how_to_refresh() {
    let (_dir, cache, deb, _) = one();
    let (a, b) = (Server::start(), Server::start());
    let error = fetcher(&cache, &[&a, &b]).debs(&[&deb]).unwrap_err();
    let expected = format!(
        "1 file of lab.lock is on no mirror any more:\n  deb gcc-14 1.0-1\n    {0}/{2}: no such file (404)\n    {1}/{2}: \
         no such file (404)\nmirrors drop old versions: refresh the lock with `cargo xtask lock --update`, or name a \
         mirror that has them (`[mirrors]` in lab.toml, or DEVMEM_LAB_MIRROR)",
        a.url(),
        b.url(),
        deb.path
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(names(&cache.root().join("deb")), [""; 0]);
}

#[test]
fn a_lock_with_a_wrong_hash_shows_both_and_publishes_nothing() {
    let (_dir, cache, mut deb, content) = one();
    let found = deb.sha256.clone();
    deb.sha256 = sha256_bytes(b"something else");
    let (a, b) = (serving(&deb, &content), serving(&deb, &content));
    let error = fetcher(&cache, &[&a, &b]).debs(&[&deb]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("1 file is not what lab.lock says"), "{text}");
    for part in [&format!("lab.lock: {SIZE} bytes, SHA-256 {}", deb.sha256), found.as_str(), "lock --update"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert_eq!(refusals(error), [Refusal::WrongHash(found.clone()), Refusal::WrongHash(found)]);
    assert_eq!(names(&cache.root().join("deb")), [""; 0]);
}

#[test]
fn a_wrong_size_is_refused_before_its_bytes_are_read() {
    let (_dir, cache, mut deb, content) = one();
    deb.size = 7;
    let server = serving(&deb, &content);
    let error = fetcher(&cache, &[&server]).debs(&[&deb]).unwrap_err();
    assert_eq!(refusals(error), [Refusal::WrongSize(SIZE as u64)]);
}

#[test]
fn a_dead_host_is_tried_once_and_not_for_each_file() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let debs = [1, 2, 3].map(|n| deb(&format!("lib{n}"), &bytes(n, 100)));
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/debian", listener.local_addr().unwrap())
    };
    let mirrors = Mirrors::only([closed.as_str(), "http://no-such-host.invalid/debian"]);
    let fetcher = Fetcher::new(&cache, mirrors, false, &Progress::silent()).with_options(options(1));
    let error = fetcher.debs(&debs.iter().collect::<Vec<_>>()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("check the network and proxy settings"), "{text}");
    let FetchError::Failed { failures } = error else { panic!("{text}") };
    let all: Vec<Refusal> = failures.into_iter().flat_map(|f| f.attempts).map(|a| a.refusal).collect();
    assert!(matches!(all[0], Refusal::Connect(_)), "{all:?}");
    assert_eq!(all[1], Refusal::Dns);
    assert!(all[2..].iter().all(|r| matches!(r, Refusal::DeadHost(_))) && all.len() == 6, "{all:?}");
}

#[test]
fn one_missing_file_does_not_keep_the_others_from_coming() {
    let dir = Scratch::new();
    let cache = Cache::at(dir.path()).unwrap();
    let server = Server::start();
    let contents = [bytes(1, 500), bytes(2, 400), bytes(3, 300)];
    let debs = [0, 1, 2].map(|n| deb(&format!("lib{n}"), &contents[n]));
    server.file(&debs[1].path, &contents[1]).file(&debs[2].path, &contents[2]);
    let fetcher = fetcher(&cache, &[&server]);
    let wanted: Vec<&Deb> = debs.iter().collect();
    assert_eq!(refusals(fetcher.debs(&wanted).unwrap_err()), [Refusal::NotFound]);
    assert_eq!(fetcher.missing(&wanted), [&debs[0]]);
}

#[test]
fn offline_lists_what_is_missing_and_asks_nobody() {
    let (_dir, cache, there, content) = one();
    let server = serving(&there, &content);
    fetcher(&cache, &[&server]).debs(&[&there]).unwrap();
    let missing = deb("clang-19", &bytes(2, 2_500_000));
    let offline = Fetcher::new(&cache, Mirrors::only([server.url()]), true, &Progress::silent());
    assert_eq!(offline.debs(&[&there]).unwrap().len(), 1);
    let error = offline.debs(&[&there, &missing]).unwrap_err();
    let expected = "offline, and the cache lacks 1 file of 2.5 MB:\n  deb clang-19 1.0-1\nrun once without --offline to \
                    fetch them";
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn ctrl_c_returns_at_once_and_leaves_what_can_be_continued() {
    for hang in [false, true] {
        let (_dir, cache, deb, content) = one();
        let server = serving(&deb, &content);
        let cancel = Cancel::default();
        let progress = Progress::new(cancel.clone(), |_| {});
        let flag = cancel.clone();
        if hang {
            server.acts(&deb.path, [Act::Stall(100_000)]);
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(300));
                flag.cancel();
            });
        } else {
            server.acts(&deb.path, [Act::Midway(Arc::new(move || flag.cancel()))]);
        }
        let patient = FetchOptions { stall_timeout: Duration::from_secs(8), ..options(2) };
        let fetcher = Fetcher::new(&cache, Mirrors::only([server.url()]), false, &progress).with_options(patient);
        let begun = Instant::now();
        let error = fetcher.debs(&[&deb]).unwrap_err();
        assert!(matches!(error, FetchError::Cancelled(_)), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(cache.lookup(Kind::Deb, &deb.sha256).is_none());
        if !hang {
            let have = fs::metadata(part(&cache, &deb)).unwrap().len() as usize;
            assert!(have < SIZE);
            resume(&cache, &server, &deb, have);
        }
    }
}

fn resume(cache: &Cache, server: &Server, deb: &Deb, have: usize) {
    fetcher(cache, &[server]).debs(&[deb]).unwrap();
    assert_eq!(server.offsets().last(), Some(&(have > 0).then_some(have)));
}

#[test]
fn two_at_once_download_a_file_once() {
    let (dir, cache, deb, content) = one();
    let server = serving(&deb, &content);
    server.acts(&deb.path, [Act::Midway(Arc::new(|| thread::sleep(Duration::from_millis(400))))]);
    let arguments = arguments(&dir, &server, &deb);
    let running = child::command(None, "fetch", &borrowed(&arguments)).spawn().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fetcher(&cache, &[&server]).debs(&[&deb]).unwrap());
        }
    });
    child::check(&running.wait_with_output().unwrap(), "fetch");
    assert_eq!(server.seen().len(), 1);
    assert_eq!(names(&dir.path().join("deb")), [deb.sha256.as_str()]);
}

#[test]
fn a_fetch_that_was_killed_is_continued_by_the_next() {
    let (dir, cache, deb, content) = one();
    let server = serving(&deb, &content);
    server.acts(&deb.path, [Act::Stall(200_000)]);
    let arguments = arguments(&dir, &server, &deb);
    let mut running = child::command(None, "fetch", &borrowed(&arguments)).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while fs::metadata(part(&cache, &deb)).map_or(0, |m| m.len()) < 200_000 && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    fetcher(&cache, &[&server]).debs(&[&deb]).unwrap();
    assert_eq!(server.offsets(), [None, Some(200_000)]);
}

#[test]
fn a_full_disk_is_told_before_or_while_and_leaves_nothing() {
    let (dir, _, deb, content) = one();
    let server = serving(&deb, &content);
    let mut arguments = arguments(&dir, &server, &deb);
    child::run(Some(&child::SMALL_FILES), "fetch-too-much", &borrowed(&arguments));
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    match child::small_disk(&disk) {
        Some(wrap) => {
            let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
            arguments[0].1 = disk.to_str().unwrap().to_string();
            child::run(Some(&wrap), "fetch-fills-disk", &borrowed(&arguments));
        }
        None => eprintln!("no small tmpfs on this host: only the limit on file sizes was tried"),
    }
}

#[test]
fn prune_leaves_downloads_alone_while_a_fetcher_lives() {
    let (_dir, cache, deb, content) = one();
    let server = serving(&deb, &content);
    let living = fetcher(&cache, &[&server]);
    living.debs(&[&deb]).unwrap();
    fs::write(cache.root().join("src").join(format!(".part-{}", "a".repeat(64))), "half").unwrap();
    let report = cache.prune(Duration::ZERO, false).unwrap();
    assert_eq!((report.removed.len(), report.in_use.len()), (0, 2));
    drop(living);
    let report = cache.prune(Duration::ZERO, false).unwrap();
    assert_eq!((report.removed.len(), report.in_use.len()), (2, 0));
    assert_eq!((names(&cache.root().join("deb")), names(&cache.root().join("src"))), (vec![], vec![]));
}

fn arguments(dir: &Scratch, server: &Server, deb: &Deb) -> Vec<(&'static str, String)> {
    let entry = serde_json::to_string(deb).unwrap();
    vec![("dir", dir.path().to_str().unwrap().to_string()), ("url", server.url()), ("deb", entry)]
}

fn borrowed(arguments: &[(&'static str, String)]) -> Vec<(&'static str, &'static str)> {
    arguments.iter().map(|(name, value)| (*name, &*value.clone().leak())).collect()
}

/// Not a test of its own: what the tests above run in other processes.
#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    let cache = Cache::at(Path::new(&arguments["dir"])).unwrap();
    let deb: Deb = serde_json::from_str(&arguments["deb"]).unwrap();
    let fetch = |deb: &Deb, url: &str| {
        let mirrors = Mirrors::only([url]);
        let patient = FetchOptions { stall_timeout: Duration::from_secs(20), ..options(2) };
        Fetcher::new(&cache, mirrors, false, &Progress::silent()).with_options(patient).debs(&[deb])
    };
    let no_room = |error: FetchError, deb: &Deb| {
        let text = error.to_string();
        let FetchError::NoSpace { needed, .. } = error else { panic!("{text}") };
        assert_eq!(needed, deb.size, "{text}");
        assert!(
            text.contains("no room to write") && text.contains(" free of ") && text.contains("are needed"),
            "{text}"
        );
        assert_eq!(names(&cache.root().join("deb")), [""; 0]);
        text
    };
    match role.as_str() {
        "fetch" => assert_eq!(fetch(&deb, &arguments["url"]).unwrap().len(), 1),
        "fetch-too-much" => {
            no_room(fetch(&deb, &arguments["url"]).unwrap_err(), &deb);
        }
        "fetch-fills-disk" => {
            // Too large for the disk as it is: refused before a byte is asked for.
            let huge = Deb { size: 5 << 20, ..deb.clone() };
            let text = no_room(fetch(&huge, "http://127.0.0.1:9/unasked").unwrap_err(), &huge);
            assert!(text.contains("tmpfs"), "{text}");
            // It fits as it is, but somebody else fills the disk meanwhile.
            let content = bytes(7, 700_000);
            let large = self::deb("large", &content);
            let server = serving(&large, &content);
            let filler = cache.root().join("filler");
            let fill = filler.clone();
            let (sender, filled) = std::sync::mpsc::channel();
            server.always(Act::Midway(Arc::new(move || {
                // It ends with an error, when nothing more fits.
                let _ = fs::write(&fill, vec![0; 2 << 20]);
                sender.send(()).unwrap();
            })));
            let text = no_room(fetch(&large, &server.url()).unwrap_err(), &large);
            assert!(text.starts_with("deb large 1.0-1: no room"), "{text}");
            filled.recv().unwrap();
            fs::remove_file(&filler).unwrap();
            fetch(&deb, &arguments["url"]).unwrap();
        }
        other => panic!("no role {other}"),
    }
}
