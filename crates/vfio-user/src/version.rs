//! Agreeing on version and capabilities ("`VFIO_USER_VERSION`" of QEMU's `docs/interop/vfio-user.rst`).

use serde_json::{Map, Value, json};

use crate::error::Refusal;
use crate::wire::{MAX_FDS, MAX_MAPS, MAX_TRANSFER, PAGE, Version};

/// The protocol's major version (`VFIO_USER_MAJOR_VER`, `hw/vfio-user/protocol.h`).
const MAJOR: u16 = 0;
/// Its latest minor version; QEMU is at 0 (`VFIO_USER_MINOR_VER`).
const MINOR: u16 = 1;

/// Capabilities that are numbers, with the least that a client can do with.
const NUMBERS: [(&str, u64); 4] =
    [("max_msg_fds", 0), ("max_data_xfer_size", 1), ("max_dma_maps", 0), ("pgsizes", PAGE)];

/// Answers a proposal with what both ends can do.
///
/// # Errors
/// Another major version, or capabilities that are not what they should be.
pub(crate) fn negotiate(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let Some((version, json)) = Version::split(body) else { return Err(Refusal::Length(body.len())) };
    if version.major != MAJOR {
        return Err(wrong(format!("{} is proposed, this server has {MAJOR}", version.major)));
    }
    let proposed = capabilities(json)?;
    for (name, least) in NUMBERS {
        let Some(value) = proposed.get(name) else { continue };
        if value.as_u64().is_none_or(|number| number < least) {
            return Err(wrong(format!("{name} is {value}, not a number from {least}")));
        }
    }
    if let Some(value) = proposed.get("pgsizes").and_then(Value::as_u64).filter(|sizes| sizes & PAGE == 0) {
        return Err(wrong(format!("pgsizes is {value:#x}, without {PAGE:#x}")));
    }
    // The limits are this server's own and hold whether or not the client has any: left out, others would be assumed.
    let mut agreed = json!({
        "max_msg_fds": MAX_FDS,
        "max_data_xfer_size": MAX_TRANSFER,
        "max_dma_maps": MAX_MAPS,
        "pgsizes": PAGE,
    });
    match proposed.get("write_multiple") {
        Some(Value::Bool(true)) => agreed["write_multiple"] = json!(true),
        None | Some(Value::Bool(false)) => {}
        Some(other) => return Err(wrong(format!("write_multiple is {other}, not true or false"))),
    }
    let mut answer = Vec::new();
    Version { major: MAJOR, minor: version.minor.min(MINOR) }.append(&mut answer);
    answer.extend_from_slice(json!({ "capabilities": agreed }).to_string().as_bytes());
    answer.push(0);
    Ok(answer)
}

fn capabilities(json: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let text = match json {
        [] => return Ok(Map::new()),
        [text @ .., 0] => text,
        _ => return Err(wrong("there is no NUL behind the JSON".into())),
    };
    let value = serde_json::from_slice(text).map_err(|e| wrong(format!("the JSON is malformed: {e}")))?;
    let Value::Object(mut all) = value else { return Err(wrong("the JSON is not an object".into())) };
    match all.remove("capabilities") {
        None => Ok(Map::new()),
        Some(Value::Object(capabilities)) => Ok(capabilities),
        Some(_) => Err(wrong("`capabilities` is not an object".into())),
    }
}

fn wrong(why: String) -> Refusal {
    Refusal::Version(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(major: u16, minor: u16, json: &[u8]) -> Result<(u16, Value), String> {
        let mut body = Vec::new();
        Version { major, minor }.append(&mut body);
        body.extend_from_slice(json);
        let answer = negotiate(&body).map_err(|e| e.to_string())?;
        let (version, json) = Version::split(&answer).unwrap();
        assert_eq!((version.major, json.last()), (0, Some(&0)));
        Ok((version.minor, serde_json::from_slice(&json[..json.len() - 1]).unwrap()))
    }

    #[test]
    fn what_qemu_proposes_is_agreed_on_and_the_answer_is_no_longer() {
        // `caps_json`, hw/vfio-user/proxy.c: the reply has to fit into the request.
        let json = b"{\"capabilities\": {\"migration\": {\"pgsize\": 4096, \"max_bitmap_size\": 268435456}, \
            \"max_msg_fds\": 16, \"max_data_xfer_size\": 1048576, \"pgsizes\": 4096, \"max_dma_maps\": 65535, \
            \"write_multiple\": true}}\0";
        let (minor, answer) = propose(0, 0, json).unwrap();
        let capabilities = json!({"max_msg_fds": 16, "max_data_xfer_size": 65536, "max_dma_maps": 65535,
            "pgsizes": 4096, "write_multiple": true});
        assert_eq!((minor, &answer["capabilities"]), (0, &capabilities));
        assert!(answer.to_string().len() < json.len());
    }

    #[test]
    fn what_is_left_out_is_fine() {
        for json in
            [&b""[..], b"{}\0", b"{\"capabilities\":{}}\0", b"{\"capabilities\":{\"twin_socket\":{}},\"x\":1}\0"]
        {
            let (minor, answer) = propose(0, 7, json).unwrap();
            assert_eq!(minor, 1);
            assert_eq!(answer["capabilities"]["max_msg_fds"], 16);
            assert_eq!(answer["capabilities"].get("write_multiple"), None);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let deep = [b"[".repeat(10_000), b"\0".to_vec()].concat();
        let cases: [(u16, &[u8], &str); 15] = [
            (1, b"", "1 is proposed, this server has 0"),
            (0, b"{}", "there is no NUL"),
            (0, b"\0", "malformed"),
            (0, b"{}}\0", "malformed"),
            (0, b"{\0}\0", "malformed"),
            (0, b"\xff\xfe\0", "malformed"),
            (0, &deep, "malformed"),
            (0, b"[]\0", "not an object"),
            (0, b"{\"capabilities\":[]}\0", "`capabilities` is not an object"),
            (0, b"{\"capabilities\":{\"max_msg_fds\":\"1\"}}\0", "max_msg_fds is \"1\""),
            (0, b"{\"capabilities\":{\"max_data_xfer_size\":0}}\0", "max_data_xfer_size is 0, not a number from 1"),
            (0, b"{\"capabilities\":{\"max_dma_maps\":-1}}\0", "max_dma_maps is -1"),
            (0, b"{\"capabilities\":{\"pgsizes\":1e99}}\0", "pgsizes is 1e"),
            (0, b"{\"capabilities\":{\"pgsizes\":8192}}\0", "pgsizes is 0x2000, without 0x1000"),
            (0, b"{\"capabilities\":{\"write_multiple\":1}}\0", "write_multiple is 1"),
        ];
        for (major, json, expected) in cases {
            let error = propose(major, 0, json).unwrap_err();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
        for short in 0..Version::SIZE {
            assert!(matches!(negotiate(&vec![0; short]), Err(Refusal::Length(length)) if length == short));
        }
    }
}
