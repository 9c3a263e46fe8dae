//! `cargo xtask lab lease …`: receive queues of a NIC for pods of a guest.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use lab::client::Client;
use lab::lease::{LeaseAsk, NewPod, QueueChoice, Via};
use progress::Progress;

use crate::flags::{InGuest, Lease as Command, Via as ViaFlag};
use crate::{inside, state, tables};

/// Dispatches a `lab lease` command.
pub fn run(command: Command, progress: &Progress) -> Result<ExitCode> {
    match command {
        Command::List { at, json } => {
            let (client, guest) = at_guest(&at)?;
            let pods = lab::lease::ask(&client, &guest, LeaseAsk::List)?;
            print!("{}", if json { serde_json::to_string_pretty(&pods)? + "\n" } else { tables::pods(&guest, &pods) });
        }
        Command::Add { at, netdev, pod, queues, address, address6, via } => {
            let (v4, v6) =
                (address.iter().find(|it| !it.address.is_ipv4()), address6.iter().find(|it| it.address.is_ipv4()));
            ensure!(v4.is_none(), "--address takes IPv4 addresses, --address6 those of IPv6");
            ensure!(v6.is_none(), "--address6 takes IPv6 addresses, --address those of IPv4");
            let (client, guest) = at_guest(&at)?;
            let wanted = NewPod {
                name: pod,
                netdev,
                queues: parse_queues(&queues)?,
                addresses: [address, address6].concat(),
                via: match via {
                    ViaFlag::Bpf => Via::Bpf,
                    ViaFlag::Forward => Via::Forward,
                },
            };
            let pods = lab::lease::ask(&client, &guest, LeaseAsk::Add(wanted))?;
            print!("{}", tables::pods(&guest, &pods));
        }
        Command::Remove { at, pod } => {
            let (client, guest) = at_guest(&at)?;
            lab::lease::ask(&client, &guest, LeaseAsk::Remove { pod: pod.clone() })?;
            progress.info(format!("pod `{pod}` of guest `{guest}` is removed"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn at_guest(at: &InGuest) -> Result<(Client, String)> {
    let client = state::client(&at.lab)?;
    let guest = inside::pick(&client.status()?, at.guest.as_deref())?;
    Ok((client, guest))
}

/// `12-15`, `3,5-7`, `any:4`.
fn parse_queues(text: &str) -> Result<QueueChoice> {
    let number = |text: &str| {
        text.parse::<u32>().with_context(|| format!("`{text}` is no number of a queue; write 12-15, 3,5-7 or any:4"))
    };
    if let Some(count) = text.strip_prefix("any:") {
        return Ok(QueueChoice::Any(number(count)?));
    }
    let mut queues = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        // More than any NIC has is a slip of the keyboard.
        ensure!(first <= last && last - first < 4096, "`{part}` is no range of queues");
        queues.extend(first..=last);
    }
    Ok(QueueChoice::These(queues))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_read() {
        assert_eq!(parse_queues("12-15").unwrap(), QueueChoice::These(vec![12, 13, 14, 15]));
        assert_eq!(parse_queues("3,5-7").unwrap(), QueueChoice::These(vec![3, 5, 6, 7]));
        assert_eq!(parse_queues("any:4").unwrap(), QueueChoice::Any(4));
        for (bad, why) in [("", "no number"), ("a-b", "`a`"), ("7-5", "no range"), ("0-4294967295", "no range")] {
            let error = parse_queues(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
