//! Every single corruption of a template, as data.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use crate::bits;
use crate::layout::Field;
use crate::random::Random;
use crate::seal::Seal;
use crate::shape::{self, Shape};
use crate::template::Template;

/// One thing done to a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corruption {
    /// A field has another value.
    Value {
        /// The field.
        field: Field,
        /// Its value.
        value: u128,
        /// What is made consistent again.
        seal: Seal,
    },
    /// The frame has another shape.
    Shape(Shape),
}

/// Values at random that every field gets, beside the telling ones.
const RANDOM_VALUES: usize = 4;

impl Corruption {
    /// The layer it is about, for counting: the header's name, or the shape's.
    pub fn class(&self) -> &'static str {
        match self {
            Corruption::Value { field, .. } => field.name.split('.').next().unwrap_or(field.name),
            Corruption::Shape(shape) => shape.class(),
        }
    }

    /// The frames to send for it: one, but for fragments.
    pub fn apply(&self, template: &Template) -> Vec<Vec<u8>> {
        match self {
            Corruption::Value { field, value, seal } => {
                let mut frame = template.frame.clone();
                bits::set(&mut frame, field.at, field.width, *value);
                // A sum that was set on purpose stays as it was set.
                let seal = match field.name {
                    "ipv4.checksum" => Seal::Broken,
                    "icrc" => (*seal).min(Seal::Header),
                    _ => *seal,
                };
                seal.apply(&mut frame, &template.layout);
                vec![frame]
            }
            Corruption::Shape(shape) => shape.apply(template),
        }
    }
}

/// Every corruption of `template` that gives frames no other one gives, in an order that follows from `seed`.
pub fn corruptions(template: &Template, seed: u64) -> Vec<Corruption> {
    let mut random = Random::new(seed);
    let mut all = Vec::new();
    for field in &template.layout.fields {
        for value in values(*field, template, &mut random) {
            all.extend(Seal::ALL.map(|seal| Corruption::Value { field: *field, value, seal }));
        }
    }
    all.extend(shape::shapes(template, &mut random).into_iter().map(Corruption::Shape));
    let hasher = RandomState::new();
    let mut seen = HashSet::from([hasher.hash_one(std::slice::from_ref(&template.frame))]);
    all.retain(|corruption| seen.insert(hasher.hash_one(corruption.apply(template).as_slice())));
    random.shuffle(&mut all);
    all
}

/// What a field is set to: bounds, neighbours, each bit turned over, and a few at random. An opcode gets all values.
fn values(field: Field, template: &Template, random: &mut Random) -> Vec<u128> {
    let (max, now) = (bits::max(field.width), bits::get(&template.frame, field.at, field.width));
    if field.width <= 8 {
        return (0..=max).filter(|value| *value != now).collect();
    }
    let half = 1 << (field.width - 1);
    let mut values = vec![0, 1, 2, half - 1, half, half + 1, max - 1, max];
    values.extend([1, 2, 3, 4, 8, 64, 256].iter().flat_map(|step| [now.wrapping_add(*step), now.wrapping_sub(*step)]));
    values.extend((0..field.width).map(|bit| now ^ 1 << bit));
    values.extend((0..RANDOM_VALUES).map(|_| u128::from(random.number()) << 64 | u128::from(random.number())));
    values.iter_mut().for_each(|value| *value &= max);
    values.sort_unstable();
    values.dedup();
    values.retain(|value| *value != now);
    values
}
