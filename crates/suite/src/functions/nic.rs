//! `nic-order` and `nic-books`: what an emulated NIC is told to do, and what its own process has counted.

use std::collections::BTreeMap;

use super::Call;
use crate::guests::NicBooks;
use crate::results::Metric;
use crate::run::Stop;

/// What the device holds now: no number of events, and the same whenever one began to count.
const OUTSTANDING: &str = "_outstanding";

/// The guest, and the place of the NIC among its own; the first one unless told otherwise.
fn place(call: &Call) -> Result<(String, usize), Stop> {
    let nic = if call.arg("nic").is_empty() { 0 } else { call.number("nic")? };
    Ok((call.context.guest(call.role)?, usize::try_from(nic).unwrap_or(usize::MAX)))
}

pub(super) fn order(call: &mut Call) -> Result<(), Stop> {
    let (guest, nic) = place(call)?;
    let order = call.arg("order").to_string();
    Ok(call.context.guests().nic_order(&guest, nic, &order)?)
}

pub(super) fn books(call: &mut Call) -> Result<(), Stop> {
    let (guest, nic) = place(call)?;
    let books = values(&call.context.guests().nic_books(&guest, nic)?);
    let keep = call.arg("keep").to_string();
    if !keep.is_empty() {
        call.context.kept.insert(keep, books.into_iter().collect());
        return Ok(());
    }
    let prefix = if call.arg("as").is_empty() { String::new() } else { format!("{}_", call.arg("as")) };
    let since = call.arg("since").to_string();
    let nothing = BTreeMap::new();
    let before = match call.context.kept.get(&since) {
        Some(kept) => kept,
        None if since.is_empty() => &nothing,
        None => return Err(Stop::Infrastructure(format!("`since = \"{since}\"`: nothing was kept under that name"))),
    };
    let mut metrics = Vec::new();
    for (name, mut value) in books {
        if !name.ends_with(OUTSTANDING) {
            value -= before.get(&name).unwrap_or(&0.0);
        }
        metrics.push(Metric { name: format!("{prefix}{name}"), unit: "count".into(), value });
    }
    call.context.metrics.extend(metrics);
    Ok(())
}

/// The books as metrics, by name.
fn values(books: &NicBooks) -> Vec<(String, f64)> {
    let mut values = Vec::new();
    for (way, ledger) in [("tx", books.tx), ("rx", books.rx)] {
        values.push((format!("{way}_posted"), ledger.posted as f64));
        values.push((format!("{way}_returned"), ledger.returned as f64));
        values.push((format!("{way}_abandoned"), ledger.abandoned as f64));
        values.push((format!("{way}{OUTSTANDING}"), ledger.outstanding() as f64));
    }
    values.extend(books.events.iter().map(|(name, count)| (name.clone(), *count as f64)));
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::Ledger;

    #[test]
    fn what_came_back_too_often_is_below_zero() {
        let ledger = |posted, returned, abandoned| Ledger { posted, consumed: posted, returned, abandoned };
        let events = BTreeMap::from([("driver_resets".into(), 3)]);
        let books = NicBooks { tx: ledger(10, 10, 1), rx: ledger(64, 20, 4), events };
        let values: BTreeMap<String, f64> = values(&books).into_iter().collect();
        assert_eq!((values["tx_outstanding"], values["rx_outstanding"]), (-1.0, 40.0));
        assert_eq!((values["rx_abandoned"], values["driver_resets"]), (4.0, 3.0));
    }
}
