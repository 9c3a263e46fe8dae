//! `lease`, `lease-traffic` and `lease-end`: pods with leased receive queues, as `lab lease` makes them.

use std::fmt::Display;
use std::str::FromStr;

use protocol::{Event, LeaseAsk, NewPod, Pod, PodAddress, QueueChoice, Via};

use super::Call;
use crate::results::Metric;
use crate::run::Stop;

/// Asks the agent; the pods its answer tells of.
fn ask(call: &mut Call, ask: LeaseAsk) -> Result<Vec<Pod>, Stop> {
    call.context.pump(call.role, protocol::Request::Lease(ask), call.limit, |_, event| match event {
        Event::Leases(pods) => Ok(Some(pods)),
        Event::Done => Ok(Some(Vec::new())),
        Event::Failed(failure) => Err(Stop::Failed(failure.message)),
        _ => Ok(None),
    })
}

/// An argument of a kind that is written as text.
fn read<T: FromStr<Err: Display>>(call: &Call, name: &str) -> Result<T, Stop> {
    call.arg(name).parse().map_err(|error| Stop::Infrastructure(format!("`{name}`: {error}")))
}

pub(super) fn add(call: &mut Call) -> Result<(), Stop> {
    let mut addresses: Vec<PodAddress> = Vec::new();
    for name in ["address", "address6"] {
        if !call.arg(name).is_empty() {
            addresses.push(read(call, name)?);
        }
    }
    let via = if call.arg("via").is_empty() { Via::Bpf } else { read(call, "via")? };
    let queues: QueueChoice = read(call, "queues")?;
    let pod = NewPod { name: call.arg("pod").into(), netdev: call.arg("netdev").into(), queues, addresses, via };
    ask(call, LeaseAsk::Add(pod)).map(drop)
}

pub(super) fn remove(call: &mut Call) -> Result<(), Stop> {
    let pod = call.arg("pod").to_string();
    ask(call, LeaseAsk::Remove { pod }).map(drop)
}

pub(super) fn traffic(call: &mut Call) -> Result<(), Stop> {
    let name = call.arg("pod").to_string();
    let pods = ask(call, LeaseAsk::List)?;
    let pod = pods.iter().find(|pod| pod.name == name);
    let pod = pod.ok_or_else(|| Stop::Failed(format!("there is no pod `{name}`")))?;
    judge(pod, call.arg("broken")).map_err(Stop::Failed)?;
    let leased: u64 = pod.queues.iter().map(|queue| queue.received.bytes).sum();
    let values = [("leased", leased), ("elsewhere", pod.elsewhere.bytes), ("sent", pod.sent.bytes)];
    let when = if call.arg("when").is_empty() { String::new() } else { format!("{}_", call.arg("when")) };
    for (what, value) in values {
        let name = format!("{when}{name}_{what}_bytes");
        call.context.metrics.push(Metric { name, unit: "bytes".into(), value: value as f64 });
    }
    Ok(())
}

/// Whether the pod is in the state that is expected: broken with that text, or whole when the text is empty.
fn judge(pod: &Pod, broken: &str) -> Result<(), String> {
    match (&pod.broken, broken) {
        (None, "") => Ok(()),
        (Some(why), text) if !text.is_empty() && why.contains(text) => Ok(()),
        (Some(why), "") => Err(format!("pod `{}` is broken: {why}", pod.name)),
        (Some(why), text) => Err(format!("pod `{}` is broken, but not by `{text}`: {why}", pod.name)),
        (None, text) => Err(format!("pod `{}` is whole, where `{text}` was expected", pod.name)),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Traffic;

    use super::*;

    #[test]
    fn a_pod_is_judged_by_what_it_should_be() {
        let pod = |broken: Option<&str>| Pod {
            name: "blue".into(),
            netdev: "eth0".into(),
            host_link: "nk-blue".into(),
            pod_link: "nk0".into(),
            addresses: Vec::new(),
            via: Via::Bpf,
            queues: Vec::new(),
            elsewhere: Traffic::default(),
            sent: Traffic::default(),
            broken: broken.map(str::to_string),
        };
        let gone = pod(Some("the NIC eth0 was removed"));
        assert_eq!((judge(&pod(None), ""), judge(&gone, "NIC eth0")), (Ok(()), Ok(())));
        assert!(judge(&gone, "").unwrap_err().contains("was removed"));
        assert!(judge(&gone, "namespace").unwrap_err().contains("not by `namespace`"));
        assert!(judge(&pod(None), "NIC").unwrap_err().contains("is whole"));
    }
}
