//! The name that was probably meant.

/// The candidate nearest to `given`, if one is near enough to be a slip: a third of the letters may differ (at least
/// one, at most three, never all), transposed letters count once, case does not count. A beginning of three letters
/// or more is taken for the whole.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = given.to_lowercase();
    let letters = folded.chars().count();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let target = candidate.to_lowercase();
            let slips = (letters.max(target.chars().count()) / 3).clamp(1, 3).min(letters.saturating_sub(1));
            let distance = strsim::osa_distance(&folded, &target);
            (distance <= slips || letters >= 3 && target.starts_with(&folded)).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn suggests_only_what_is_near() {
        let keys = ["cpus", "image", "kernel", "memory", "nic"];
        assert_eq!(nearest("memroy", keys), Some("memory"));
        assert_eq!(nearest("CPUs", keys), Some("cpus"));
        assert_eq!(nearest("cpu", keys), Some("cpus"));
        assert_eq!(nearest("mem", keys), Some("memory"));
        assert_eq!(nearest("disk", keys), None);
        assert_eq!(nearest("b", ["a"]), None);
    }
}
