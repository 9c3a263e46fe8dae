//! The name that was probably meant.

/// The candidate nearest to `given`, if one is near enough to be a slip: a third of its letters may differ (at least
/// one, at most three, never all), transposed letters count once, case does not count.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = given.to_lowercase();
    let letters = given.chars().count();
    let slips = (letters / 3).clamp(1, 3).min(letters.saturating_sub(1));
    candidates
        .into_iter()
        .map(|c| (strsim::osa_distance(&folded, &c.to_lowercase()), c))
        .filter(|(distance, _)| *distance <= slips)
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
        assert_eq!(nearest("disk", keys), None);
        assert_eq!(nearest("b", ["a"]), None);
    }
}
