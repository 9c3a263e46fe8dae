//! `cargo xtask lab lease …`: receive queues of a NIC for pods of a guest.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use lab::client::Client;
use lab::lease::{LeaseAsk, NewPod};
use progress::Progress;

use crate::flags::{InGuest, Lease as Command};
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
            let wanted = NewPod { name: pod, netdev, queues, addresses: [address, address6].concat(), via };
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
