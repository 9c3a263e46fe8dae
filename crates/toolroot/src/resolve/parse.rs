//! Reads what apt prints. Pure: text in, records out.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use artifacts::{Deb, Key};

/// A package apt would install.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) version: String,
}

/// The `Inst NAME (VERSION SUITE [ARCH])` lines of a simulated installation (apt-get(8), `--simulate`).
pub(super) fn chosen(text: &str) -> Result<Vec<Chosen>> {
    let mut all = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("Inst ") else { continue };
        let parsed = || -> Option<Chosen> {
            let (name, rest) = rest.split_once(' ')?;
            // `[OLD VERSION]` comes first where something is installed, which here nothing is.
            let version = rest.strip_prefix('(')?.split_whitespace().next()?;
            let name = name.split(':').next()?;
            Some(Chosen { name: name.to_owned(), version: version.to_owned() })
        };
        all.push(parsed().with_context(|| format!("apt printed a line that is not understood: {line}"))?);
    }
    all.sort();
    Ok(all)
}

/// A paragraph of the archive's indices: fields by name (deb822(5)); lines of a field are joined by newlines.
pub(super) type Paragraph = BTreeMap<String, String>;

/// The paragraphs of an index or of what `apt-cache show` prints.
pub(super) fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut all = Vec::new();
    let mut current = Paragraph::new();
    let mut last = String::new();
    for line in text.lines() {
        if line.trim().is_empty() {
            if !current.is_empty() {
                all.push(std::mem::take(&mut current));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = current.get_mut(&last) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.to_owned();
            current.insert(last.clone(), value.trim().to_owned());
        }
    }
    if !current.is_empty() {
        all.push(current);
    }
    all
}

fn field<'a>(paragraph: &'a Paragraph, name: &str) -> Result<&'a str> {
    let what = || paragraph.get("Package").map_or("a package", String::as_str);
    paragraph.get(name).map(String::as_str).with_context(|| format!("the index has no {name} for {}", what()))
}

/// The lock's entry for a package of the index.
pub(super) fn deb(paragraph: &Paragraph) -> Result<Deb> {
    let name = field(paragraph, "Package")?.to_owned();
    let path = field(paragraph, "Filename")?;
    ensure!(path.starts_with("pool/"), "package {name} is at `{path}`, outside the pool");
    let size = field(paragraph, "Size")?;
    Ok(Deb {
        version: field(paragraph, "Version")?.to_owned(),
        arch: field(paragraph, "Architecture")?.to_owned(),
        path: path.to_owned(),
        size: size.parse().with_context(|| format!("package {name} has the size `{size}`"))?,
        sha256: key(field(paragraph, "SHA256")?).with_context(|| format!("package {name}"))?,
        name,
    })
}

fn key(text: &str) -> Result<Key> {
    text.parse().with_context(|| format!("the index has `{text}` for a SHA-256"))
}

/// A file of a source package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) sha256: Key,
}

/// Looks a file up in paragraphs of source packages (dsc(5): `Directory`, `Checksums-Sha256`).
pub(super) fn source_file(sources: &[Paragraph], file: &str) -> Result<SourceFile> {
    for paragraph in sources {
        for line in paragraph.get("Checksums-Sha256").map(String::as_str).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [sha256, size, name] = words[..]
                && name == file
            {
                let size = size.parse().with_context(|| format!("{file} has the size `{size}`"))?;
                let path = format!("{}/{file}", field(paragraph, "Directory")?);
                return Ok(SourceFile { path, size, sha256: key(sha256)? });
            }
        }
    }
    anyhow::bail!("no source package of the archive has a file {file}; newer versions may have replaced it")
}

/// The moment of a `Date:` of a Release file (`Sat, 21 Nov 2026 02:10:46 UTC`), in seconds since the epoch.
pub(super) fn release_date(release: &str) -> Result<i64> {
    let line = release.lines().find_map(|line| line.strip_prefix("Date:")).context("a Release file has no Date")?;
    let parsed = || -> Option<i64> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, day, month, year, time, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
        let clock: Vec<i64> = time.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let [hour, minute, second] = clock[..] else { return None };
        let days = days_from_civil(year.parse().ok()?, month, day.parse().ok()?);
        Some(days * 86_400 + hour * 3600 + minute * 60 + second)
    };
    parsed().with_context(|| format!("a Release file has the Date `{}`", line.trim()))
}

/// The form the dated archive takes: `20261121T021046Z`.
pub(super) fn stamp(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; years are counted from March, so that the leap day is last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The reverse.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULATE: &str = include_str!("../../tests/data/apt/simulate.txt");
    const SHOW: &str = include_str!("../../tests/data/apt/show.txt");
    const SOURCES: &str = include_str!("../../tests/data/apt/showsrc.txt");

    #[test]
    fn a_simulation_gives_names_and_versions() {
        let all = chosen(SIMULATE).unwrap();
        assert_eq!(all.len(), SIMULATE.lines().filter(|l| l.starts_with("Inst ")).count());
        let find = |name: &str| all.iter().find(|c| c.name == name).unwrap().version.clone();
        assert_eq!(find("qemu-system-x86"), "1:11.1.3+ds-1~bpo13+1");
        assert_eq!(find("zlib1g"), "1:1.3.dfsg+really1.3.1-1+b1");
        assert!(chosen("Inst broken").is_err());
    }

    #[test]
    fn paragraphs_become_entries() {
        let debs: Vec<Deb> = paragraphs(SHOW).iter().map(|p| deb(p).unwrap()).collect();
        assert_eq!(debs.len(), 2);
        assert_eq!(debs[0].id(), "gcc-14=14.2.0-19");
        assert_eq!(debs[0].path, "pool/main/g/gcc-14/gcc-14_14.2.0-19_amd64.deb");
        assert_eq!(debs[1].arch, "all");
        let mut bad = paragraphs(SHOW).remove(0);
        bad.insert("SHA256".into(), "abc".into());
        assert!(format!("{:#}", deb(&bad).unwrap_err()).contains("gcc-14"));
        bad.remove("SHA256");
        assert!(deb(&bad).unwrap_err().to_string().contains("no SHA256 for gcc-14"));
    }

    #[test]
    fn a_source_file_is_found_by_its_name() {
        let sources = paragraphs(SOURCES);
        let file = source_file(&sources, "linux_7.3.4.orig.tar.xz").unwrap();
        assert_eq!(file.path, "pool/main/l/linux/linux_7.3.4.orig.tar.xz");
        assert_eq!(file.size, 165_838_432);
        assert_eq!(file.sha256.short(), "9894ebada187");
        assert!(source_file(&sources, "linux_9.9.orig.tar.xz").unwrap_err().to_string().contains("linux_9.9"));
    }

    #[test]
    fn dates_are_read_and_written() {
        for (date, seconds, text) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0, "19700101T000000Z"),
            ("Tue, 29 Feb 2000 23:59:59 UTC", 951_868_799, "20000229T235959Z"),
            ("Sat, 21 Nov 2026 02:10:46 UTC", 1_795_227_046, "20261121T021046Z"),
            ("Fri, 01 Mar 2030 12:00:00 UTC", 1_898_596_800, "20300301T120000Z"),
        ] {
            let got = release_date(&format!("Origin: Debian\nDate: {date}\n")).unwrap();
            assert_eq!((got, stamp(got)), (seconds, text.to_owned()));
        }
        assert!(release_date("Date: yesterday").unwrap_err().to_string().contains("yesterday"));
    }
}
