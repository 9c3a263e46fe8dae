//! Sources that may be had in several forms: the first that can be had is used, and stays in use.

mod common;

use artifacts::{Alternative, AlternativeKind, Cache, FetchError, Fetcher, Mirrors, Source, Wheel, sha256_bytes};
use common::server::Server;
use common::{Scratch, bytes};
use progress::Progress;

fn alternative(name: &str, kind: AlternativeKind, content: &[u8]) -> Alternative {
    Alternative {
        name: name.into(),
        kind,
        url: None,
        path: Some(format!("pool/main/l/linux/{name}")),
        size: content.len() as u64,
        sha256: sha256_bytes(content),
        strip: 1,
        inner: None,
    }
}

struct Lab {
    _dir: Scratch,
    cache: Cache,
    mirror: Server,
    site: Server,
    source: Source,
    contents: [Vec<u8>; 3],
}

impl Lab {
    fn new() -> Self {
        let dir = Scratch::new();
        let contents = [bytes(1, 5000), bytes(2, 6000), bytes(3, 7000)];
        let (mirror, site) = (Server::start(), Server::start());
        let mut alternatives = vec![
            alternative("linux-7.3.4.tar.xz", AlternativeKind::Tarball, &contents[0]),
            alternative("linux_7.3.4.orig.tar.xz", AlternativeKind::Tarball, &contents[1]),
            alternative("linux-source-7.3.deb", AlternativeKind::Deb, &contents[2]),
        ];
        alternatives[0].path = None;
        alternatives[0].url = Some(format!("{}/linux-7.3.4.tar.xz", site.url()));
        let source = Source { name: "linux-7.3.4".into(), version: "7.3.4".into(), alternatives };
        Lab { cache: Cache::at(dir.path()).unwrap(), _dir: dir, mirror, site, source, contents }
    }

    fn fetcher(&self, offline: bool) -> Fetcher {
        Fetcher::new(&self.cache, Mirrors::only([self.mirror.url()]), offline, &Progress::silent())
    }

    fn serve(&self, n: usize) {
        match (&self.source.alternatives[n].path, n) {
            (Some(path), _) => self.mirror.file(path, &self.contents[n]),
            (None, _) => self.site.file("linux-7.3.4.tar.xz", &self.contents[n]),
        };
    }
}

#[test]
fn the_first_form_that_can_be_had_is_used() {
    for first in 0..3 {
        let lab = Lab::new();
        (first..3).for_each(|n| lab.serve(n));
        let found = lab.fetcher(false).source(&lab.source).unwrap();
        assert_eq!(found.alternative, lab.source.alternatives[first]);
        assert_eq!(std::fs::read(found.path).unwrap(), lab.contents[first]);
    }
}

#[test]
fn the_form_in_the_cache_stays_in_use_and_needs_no_network() {
    let lab = Lab::new();
    lab.serve(2);
    assert!(lab.fetcher(false).cached_source(&lab.source).is_none());
    lab.fetcher(false).source(&lab.source).unwrap();
    let asked = (lab.site.seen().len(), lab.mirror.seen().len());
    assert_eq!(asked, (1, 2));
    lab.serve(0);
    for offline in [false, true] {
        let found = lab.fetcher(offline).source(&lab.source).unwrap();
        assert_eq!(found.alternative.name, "linux-source-7.3.deb");
    }
    assert_eq!((lab.site.seen().len(), lab.mirror.seen().len()), asked);
}

#[test]
fn no_form_at_all_tells_of_each() {
    let lab = Lab::new();
    let error = lab.fetcher(false).source(&lab.source).unwrap_err().to_string();
    for alternative in &lab.source.alternatives {
        assert!(error.contains(&format!("source linux-7.3.4 ({})", alternative.name)), "{error}");
    }
    assert!(error.contains("lock --update"), "{error}");
    let error = lab.fetcher(true).source(&lab.source).unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }));
    assert!(error.to_string().contains("source linux-7.3.4, in any of its forms"), "{error}");
}

#[test]
fn a_wheel_is_a_download_like_any_other() {
    let lab = Lab::new();
    let content = bytes(9, 4000);
    lab.site.file("w.whl", &content);
    let url = format!("{}/w.whl", lab.site.url());
    let (name, version) = ("virtme_ng".to_string(), "1.42".to_string());
    let wheel = Wheel { name, version, url, size: 4000, sha256: sha256_bytes(&content) };
    let path = lab.fetcher(false).wheel(&wheel).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
}
