//! From `cases` and `matrix` to the variables of each test.
//!
//! `cases` is a list of cases; `matrix` is a list of such lists, and every combination of one case from each is a case.
//! The first list turns slowest, so tests come in the order in which a person would read a table.

use toml::Spanned;

use super::{Loader, Source, raw};
use crate::model::Place;

/// More tests than this from one `matrix` are a slip: each takes seconds.
const MOST: usize = 1000;

impl Loader {
    /// The cases of a test, each with the line that a mistake in it is blamed on; one without variables when there are
    /// none.
    pub(super) fn cases(&mut self, source: &Source, test: &Spanned<raw::Test>) -> Vec<(Place, raw::Case)> {
        let raw = test.get_ref();
        let place = source.place(test);
        if !raw.cases.is_empty() && !raw.matrix.is_empty() {
            let at = source.place(&raw.matrix[0]);
            self.problem(&at, "a test has `cases` or a `matrix`: the cases can be one more list of the matrix");
        }
        if !raw.cases.is_empty() {
            return raw.cases.iter().map(|case| (source.place(case), case.get_ref().clone())).collect();
        }
        let whole = raw.matrix.first().map_or(place, |list| source.place(list));
        let mut all = vec![(whole.clone(), raw::Case::new())];
        for (n, list) in raw.matrix.iter().enumerate() {
            let at = source.place(list);
            let cases = list.get_ref();
            if cases.is_empty() {
                self.problem(&at, "a list of the matrix is empty, which leaves no combination at all");
                return Vec::new();
            }
            for case in cases {
                let earlier =
                    raw.matrix[..n].iter().flat_map(|list| list.get_ref()).flat_map(|case| case.get_ref().keys());
                let mut earlier = earlier.filter(|name| case.get_ref().contains_key(*name));
                if let Some(twice) = earlier.next() {
                    let at = source.place(case);
                    self.problem(&at, format!("variable `{twice}` has a value in another list of the matrix already"));
                }
            }
            if all.len() * cases.len() > MOST {
                self.problem(&at, format!("with this list the matrix makes more than {MOST} tests"));
                return Vec::new();
            }
            all = all
                .iter()
                .flat_map(|(whole, left)| {
                    cases.iter().map(move |right| {
                        let right = right.get_ref().iter().map(|(name, value)| (name.clone(), value.clone()));
                        // A combination has no line of its own: it is blamed on the first list.
                        (whole.clone(), left.clone().into_iter().chain(right).collect())
                    })
                })
                .collect();
        }
        all
    }
}
