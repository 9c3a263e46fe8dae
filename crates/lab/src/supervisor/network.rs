//! What the supervisor does inside a guest before anyone else: its NICs get their names, MTUs and addresses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::Exec;
use protocol::host::Session;

use crate::launch::GuestLaunch;

/// How long a slow emulated guest may take for a few `ip` commands.
const PATIENCE: Duration = Duration::from_secs(60);

/// Configures every NIC of the guest in one `ip -batch` run: links are found by MAC address, since the order in which
/// the kernel names them is nobody's promise.
///
/// # Errors
/// When `ip` fails; the message carries what it said.
pub(crate) fn set_up(session: &Session, launch: &GuestLaunch) -> Result<()> {
    if launch.nics.is_empty() {
        return Ok(());
    }
    let script = script(launch);
    let exec = Exec::new(["sh", "-e", "-c", &script]);
    let done = session
        .run(exec, PATIENCE)
        .with_context(|| format!("cannot set up the NICs of guest `{}`", launch.plan.name))?;
    ensure!(
        done.exit.success(),
        "cannot set up the NICs of guest `{}`: exit {}\n{}{}",
        launch.plan.name,
        done.exit.shell_code(),
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// `dev_of MAC` prints the device. A kernel with its NIC drivers as modules has none at first, since nobody in the guest
/// loads modules for devices that appear (there is no udev): then every bus's module aliases are loaded once.
const FIND: &str = r#"
find_mac() { for d in /sys/class/net/*; do read -r m <$d/address; [ "$m" = "$1" ] && { echo ${d##*/}; return 0; }; done; return 1; }
dev_of() {
  find_mac $1 && return
  modprobe -qab $(cat /sys/bus/pci/devices/*/modalias /sys/bus/virtio/devices/*/modalias) || :
  find_mac $1 || { echo "no NIC with MAC address $1, not even with the drivers of all devices loaded" >&2; exit 1; }
}
# Another device may have the name that this one gets; its own is to come.
rename() {
  [ $1 != $2 ] || return 0
  [ ! -e /sys/class/net/$2 ] || ip link set $2 name $3
  ip link set $1 name $2
}
"#;

/// The shell script: find each device by MAC, then one batch for `ip`.
fn script(launch: &GuestLaunch) -> String {
    let mut script = String::from(FIND);
    let mut batch = String::new();
    for (n, (nic, mtu)) in launch.nics.iter().zip(&launch.mtus).enumerate() {
        script.push_str(&format!("d{n}=$(dev_of {})\n", nic.mac));
        script.push_str(&format!("rename $d{n} {} aside{n}\n", nic.device));
        batch.push_str(&format!("link set {} mtu {mtu} up\n", nic.device));
        for address in &nic.addresses {
            // No duplicate address detection: the lab gave the address out, and waiting two seconds for it tells nothing.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            batch.push_str(&format!("addr replace {address} dev {}{nodad}\n", nic.device));
        }
    }
    script.push_str(&format!("ip -batch - <<'EOF'\n{batch}EOF\n"));
    script
}
