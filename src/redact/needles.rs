//! The search for known secrets. Each needle is found by its last bytes: a table of their hashes is consulted at every
//! byte of the text and nearly always has no match. The cost does not depend on the number of needles, a change of the
//! set costs only the needles that change, and all memory that holds them can be wiped. An automaton over as many
//! needles has none of these properties.

use std::{collections::HashMap, ops::Range};

use zeroize::Zeroizing;

use super::{
    forms::{MIN_SECRET_BYTES, forms},
    view::is_blank,
};

/// Maximum number of byte comparisons for each byte of a text; a text that needs more was crafted.
const MAX_COMPARISONS: usize = 32;

/// The needles, by the hash of their last bytes.
#[derive(Default)]
pub(super) struct Needles {
    /// One bit for each hash.
    filter: Filter,
    buckets: HashMap<u16, Vec<Needle>>,
}

struct Filter(Box<[u64; 1 << 10]>);

struct Needle {
    form: Zeroizing<Vec<u8>>,
    /// Number of secrets that have this form.
    uses: usize,
}

/// The error for a text with so many partial matches that it is not searched to its end.
pub(super) struct TooMuchWork;

impl Needles {
    pub fn add(&mut self, secret: &str) {
        for form in forms(secret) {
            let hash = Tail::of(&form).hash();
            self.filter.set(hash, true);
            let bucket = self.buckets.entry(hash).or_default();
            match bucket.iter_mut().find(|needle| needle.form == form) {
                Some(needle) => needle.uses += 1,
                None => bucket.push(Needle { form, uses: 1 }),
            }
        }
    }

    /// Reverts one [`Self::add`].
    pub fn remove(&mut self, secret: &str) {
        for form in forms(secret) {
            let hash = Tail::of(&form).hash();
            let Some(bucket) = self.buckets.get_mut(&hash) else { continue };
            if let Some(needle) = bucket.iter_mut().find(|needle| needle.form == form) {
                needle.uses -= 1;
            }
            bucket.retain(|needle| needle.uses > 0);
            if bucket.is_empty() {
                self.buckets.remove(&hash);
                self.filter.set(hash, false);
            }
        }
    }

    /// Finds needles in `text`, ignoring blanks between their characters.
    pub fn find(&self, text: &[u8], found: &mut Vec<Range<usize>>) -> Result<(), TooMuchWork> {
        if self.buckets.is_empty() {
            return Ok(());
        }
        let mut tail = Tail::default();
        let mut work = text.len().saturating_add(1024).saturating_mul(MAX_COMPARISONS);
        for (at, &byte) in text.iter().enumerate() {
            if is_blank(byte) {
                continue;
            }
            tail.push(byte);
            let hash = tail.hash();
            if !self.filter.has(hash) {
                continue;
            }
            for needle in self.buckets.get(&hash).into_iter().flatten() {
                let (start, compared) = start(&text[..=at], &needle.form);
                found.extend(start.map(|start| start..at + 1));
                work = work.checked_sub(compared).ok_or(TooMuchWork)?;
            }
        }
        Ok(())
    }
}

/// Returns where `needle` begins if `text` ends with it, and the number of compared bytes.
fn start(text: &[u8], needle: &[u8]) -> (Option<usize>, usize) {
    let mut kept = text.iter().enumerate().rev().filter(|(_, byte)| !is_blank(**byte));
    let mut start = None;
    for (compared, wanted) in needle.iter().rev().enumerate() {
        match kept.next() {
            Some((at, byte)) if byte == wanted => start = Some(at),
            _ => return (None, compared + 1),
        }
    }
    (start, needle.len())
}

/// Returns the last [`MIN_SECRET_BYTES`] bytes.
#[derive(Clone, Copy, Default)]
struct Tail(u64);

impl Tail {
    fn of(needle: &[u8]) -> Self {
        let mut tail = Self::default();
        needle[needle.len().saturating_sub(MIN_SECRET_BYTES)..].iter().for_each(|&byte| tail.push(byte));
        tail
    }

    fn push(&mut self, byte: u8) {
        const MASK: u64 = (1 << (8 * MIN_SECRET_BYTES)) - 1;
        self.0 = (self.0 << 8 | u64::from(byte)) & MASK;
    }

    /// Hashes by Fibonacci hashing.
    fn hash(self) -> u16 {
        let [high, low, ..] = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self(Box::new([0; 1 << 10]))
    }
}

impl Filter {
    fn has(&self, hash: u16) -> bool {
        self.0[usize::from(hash >> 6)] & 1 << (hash & 63) != 0
    }

    fn set(&mut self, hash: u16, present: bool) {
        let (word, bit) = (&mut self.0[usize::from(hash >> 6)], 1 << (hash & 63));
        if present { *word |= bit } else { *word &= !bit }
    }
}
