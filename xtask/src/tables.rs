//! Tables for people. In: the library's data. Out: text; nothing here touches anything.

use std::fmt::Write as _;

use artifacts::PruneReport;
use image::{BuiltImage, Manifest};
use lab::control::{DeviceStatus, LabStatus};
use lab::doctor::{Finding, Status};
use lab::lease::{Pod, Traffic, Via};
use lab::plan::Reason;

/// Columns padded to their widest cell, two spaces apart.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// `lab status`.
pub fn status(status: &LabStatus) -> String {
    let mut out =
        format!("lab `{}`, up {}, supervisor {}\n\n", status.name, uptime(status.up_s), status.supervisor_pid);
    let mut rows = vec![row(["guest", "state", "kernel", "accelerator", "qemu", "boot", "boots", "addresses"])];
    for guest in &status.guests {
        let addresses: Vec<&str> = guest.nics.iter().flat_map(|n| &n.addresses).map(String::as_str).collect();
        rows.push(vec![
            guest.name.clone(),
            if guest.detail.is_empty() {
                guest.state.clone()
            } else {
                format!("{}: {}", guest.state, first_line(&guest.detail))
            },
            format!("{} ({})", guest.kernel, guest.kernel_release),
            guest.accelerator.clone(),
            guest.pid.map_or_else(String::new, |p| p.to_string()),
            guest.boot_ms.map_or_else(String::new, |ms| format!("{:.1} s", ms as f64 / 1000.0)),
            guest.boots.to_string(),
            addresses.join(" "),
        ]);
    }
    out.push_str(&columns(&rows));
    for guest in &status.guests {
        if let Some(gdb) = &guest.gdb {
            let _ = writeln!(out, "gdb: guest {}: target remote {gdb}", guest.name);
        }
    }
    if !status.ports.is_empty() {
        let mut rows =
            vec![row(["port", "network", "link", "frames in", "bytes in", "frames out", "bytes out", "dropped"])];
        for port in &status.ports {
            rows.push(vec![
                port.name.clone(),
                port.network.clone(),
                if port.connected { "up" } else { "down" }.into(),
                port.rx_frames.to_string(),
                port.rx_bytes.to_string(),
                port.tx_frames.to_string(),
                port.tx_bytes.to_string(),
                port.dropped.to_string(),
            ]);
        }
        out.push('\n');
        out.push_str(&columns(&rows));
    }
    for device in &status.devices {
        out.push('\n');
        out.push_str(&queues(device));
    }
    out
}

/// The queues of a gvnic that carried something.
fn queues(device: &DeviceStatus) -> String {
    let title = format!("{} queue", device.port);
    let mut rows = vec![row([
        &title,
        "frames in",
        "bytes in",
        "frames out",
        "bytes out",
        "split",
        "header",
        "payload",
        "dropped",
    ])];
    for queue in device.queues.iter().filter(|q| q.tx_frames + q.rx_frames + q.dropped > 0) {
        let q = queue;
        let numbers =
            [q.tx_frames, q.tx_bytes, q.rx_frames, q.rx_bytes, q.split_frames, q.header_bytes, q.payload_bytes];
        let numbers = numbers.into_iter().chain([q.dropped]).map(|number| number.to_string());
        rows.push(std::iter::once(q.id.to_string()).chain(numbers).collect());
    }
    columns(&rows)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `lab doctor`.
pub fn findings(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        let word = match finding.status {
            Status::Ok => "ok",
            Status::Limited => "limited",
            Status::Missing => "MISSING",
        };
        rows.push(vec![word.to_owned(), finding.name.clone(), finding.detail.clone()]);
        if let Some(remedy) = &finding.remedy {
            rows.push(vec![String::new(), String::new(), format!("-> {remedy}")]);
        }
    }
    columns(&rows)
}

/// `lab why`.
pub fn reasons(reasons: &[Reason]) -> String {
    let mut out = String::new();
    for reason in reasons {
        let _ = writeln!(out, "{:24} {}  {}", reason.step, reason.key.short(), reason.sentence());
        for change in reason.changes() {
            let show = |v: &Option<String>| v.as_deref().map_or("nothing".to_owned(), short);
            let _ = writeln!(out, "{:24}   {}: {} -> {}", "", change.label, show(&change.old), show(&change.new));
        }
    }
    out
}

/// `image inspect`: packages by size, and the files whose path contains `files`.
pub fn manifest(what: &str, image: &BuiltImage, manifest: &Manifest, files: Option<&str>) -> String {
    let mut out = format!(
        "{what}: {} ({} unpacked), sha256 {}\n{}\n\n",
        bytes(image.size),
        bytes(manifest.bytes()),
        image.sha256,
        image.path.display()
    );
    if let Some(text) = files {
        let found = manifest.entries.iter().filter(|e| e.path.contains(text));
        let rows: Vec<_> = found
            .map(|e| vec![format!("{}{:04o}", e.kind, e.mode), e.size.to_string(), e.origin.clone(), e.path.clone()])
            .collect();
        out.push_str(&columns(&rows));
    } else {
        let mut rows = vec![row(["from", "version", "files", "size", "pruned"])];
        for origin in manifest.by_size() {
            let pruned = if origin.pruned_bytes == 0 { String::new() } else { bytes(origin.pruned_bytes) };
            rows.push(vec![
                origin.name.clone(),
                origin.version.clone(),
                origin.files.to_string(),
                bytes(origin.bytes),
                pruned,
            ]);
        }
        out.push_str(&columns(&rows));
    }
    out.push('\n');
    out
}

/// `lab lease list`.
pub fn pods(guest: &str, pods: &[Pod]) -> String {
    if pods.is_empty() {
        return format!("guest {guest} has no pods\n");
    }
    let mut out = String::new();
    for pod in pods {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let via = match pod.via {
            Via::Bpf => "BPF",
            Via::Forward => "IP forwarding",
        };
        let _ = writeln!(
            out,
            "pod {}: {} in netns {}, behind {} and {}, by {via}",
            pod.name,
            addresses.join(" "),
            pod.name,
            pod.host_link,
            pod.netdev
        );
        if let Some(broken) = &pod.broken {
            let _ = writeln!(out, "  BROKEN: {broken}; `lab lease remove --pod {}` takes the rest away", pod.name);
        }
        let cells = |name: String, of: String, memory: &str, traffic: &Traffic| {
            vec![name, of, memory.to_owned(), traffic.frames.to_string(), traffic.bytes.to_string()]
        };
        let mut rows = vec![row(["queue", "in the pod", "memory", "frames", "bytes"])];
        for queue in &pod.queues {
            let memory = if queue.devmem { "device" } else { "host" };
            let inside = format!("{} {}", pod.pod_link, queue.pod_queue);
            rows.push(cells(format!("{} {}", pod.netdev, queue.queue), inside, memory, &queue.received));
        }
        rows.push(cells("others".into(), String::new(), "host", &pod.elsewhere));
        if pod.via == Via::Bpf {
            rows.push(cells("sent".into(), String::new(), "", &pod.sent));
        }
        for line in columns(&rows).lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

/// `cache prune`.
pub fn pruned(report: &PruneReport, dry_run: bool) -> String {
    let mut rows = Vec::new();
    for (word, list) in [("remove", &report.removed), ("in use", &report.in_use)] {
        for one in list {
            let days = format!("{:.1} days unused", one.unused_s as f64 / 86_400.0);
            rows.push(vec![word.to_owned(), one.name.clone(), bytes(one.bytes), days]);
        }
    }
    let verb = if dry_run { "would free" } else { "freed" };
    format!("{}{verb} {}\n", columns(&rows), bytes(report.bytes))
}

/// `1.5 GB`, in powers of a thousand as disks are sold.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "kB", "MB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} GB")
}

/// Digests are cut to what a person compares.
fn short(value: &str) -> String {
    if value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()) {
        value[..12].to_owned()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = columns(&[row(["a", "long cell", "x"]), row(["bbb", "c", ""])]);
        assert_eq!(text, "a    long cell  x\nbbb  c\n");
    }

    #[test]
    fn digests_are_short() {
        assert_eq!(short(&"a".repeat(64)), "a".repeat(12));
        assert_eq!(short("-zlz4"), "-zlz4");
    }
}
