//! Repeated measurements of one thing.

use anyhow::Result;
use serde::Serialize;

/// Measurements in the order they were made; never empty once a benchmark is through.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The one in the middle; of an even number, the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }
}

/// Measures two things in turn, `rounds` times; who goes first alternates.
pub fn alternate(
    rounds: usize,
    mut ours: impl FnMut(usize) -> Result<f64>,
    mut peer: impl FnMut(usize) -> Result<f64>,
) -> Result<(Samples, Samples)> {
    let (mut a, mut b) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        if round % 2 == 0 {
            a.0.push(ours(round)?);
            b.0.push(peer(round)?);
        } else {
            b.0.push(peer(round)?);
            a.0.push(ours(round)?);
        }
    }
    Ok((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Samples(vec![9.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        assert!(Samples::default().median().is_nan());
        assert_eq!((Samples(vec![3.0, 1.0]).min(), Samples(vec![3.0, 1.0]).max()), (1.0, 3.0));
    }

    #[test]
    fn neither_side_always_goes_first() {
        let order = std::cell::RefCell::new(String::new());
        let note = |c| {
            order.borrow_mut().push(c);
            Ok(1.0)
        };
        let (a, b) = alternate(3, |_| note('a'), |_| note('b')).unwrap();
        assert_eq!(*order.borrow(), "abbaab");
        assert_eq!((a.0.len(), b.0.len()), (3, 3));
    }
}
