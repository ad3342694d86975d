//! The search for known secrets. Each needle is found by its last bytes: a table of their hashes is consulted at every
//! byte of the text and nearly always has no match. The cost does not depend on the number of needles, a change of the
//! set costs only the needles that change, and all memory that holds them can be wiped. An automaton over as many
//! needles has none of these properties.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    ops::Range,
    sync::Arc,
};

use super::{
    forms::{Form, MIN_SECRET_BYTES},
    view::is_blank,
};

/// Maximum number of looks at bytes for each byte of a text; a text that needs more was crafted.
const MAX_LOOKS: usize = 32;

/// Size of a filter: with the usual number of needles few other bytes of a text pass it.
const SLOTS: usize = 1 << 13;

/// The needles, by their last bytes.
#[derive(Default)]
pub(super) struct Needles {
    filter: Filter,
    buckets: HashMap<Tail, Vec<Needle>, BuildHasherDefault<TailHasher>>,
    count: usize,
}

/// The number of needles by the hash of their last bytes. A number that reaches the maximum stays there.
struct Filter(Box<[u8; SLOTS]>);

struct Needle {
    form: Arc<Form>,
    /// Number of secrets that have this form.
    uses: usize,
}

/// The error for a text with so many partial matches that it is not searched to its end.
pub(super) struct TooMuchWork;

impl Needles {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds the forms of a secret. They are shared with other sets.
    pub fn add(&mut self, forms: &[Arc<Form>]) {
        for form in forms {
            let tail = Tail::of(form);
            let bucket = self.buckets.entry(tail).or_default();
            if let Some(needle) = bucket.iter_mut().find(|needle| needle.form == *form) {
                needle.uses += 1;
            } else {
                bucket.push(Needle { form: form.clone(), uses: 1 });
                self.filter.add(tail);
                self.count += 1;
            }
        }
    }

    /// Reverts one [`Self::add`].
    pub fn remove(&mut self, forms: &[Arc<Form>]) {
        for form in forms {
            self.release(form, 1);
        }
    }

    /// Reverts every [`Self::add`] of `others`.
    pub fn remove_all(&mut self, others: &Self) {
        for needle in others.buckets.values().flatten() {
            self.release(&needle.form, needle.uses);
        }
    }

    fn release(&mut self, form: &Form, uses: usize) {
        let tail = Tail::of(form);
        let Some(bucket) = self.buckets.get_mut(&tail) else { return };
        let Some(at) = bucket.iter().position(|needle| *needle.form == *form) else { return };
        bucket[at].uses = bucket[at].uses.saturating_sub(uses);
        if bucket[at].uses > 0 {
            return;
        }
        bucket.swap_remove(at);
        self.filter.remove(tail);
        self.count -= 1;
        if bucket.is_empty() {
            self.buckets.remove(&tail);
        }
    }

    /// Finds the needles that end where `text` ends, with `tail`; takes the number of bytes that were looked at from `work`.
    fn find_at_end(
        &self,
        text: &[u8],
        tail: Tail,
        work: &mut usize,
        found: &mut Vec<Range<usize>>,
    ) -> Result<(), TooMuchWork> {
        for needle in self.buckets.get(&tail.masked()).into_iter().flatten() {
            let (start, looked_at) = start(text, &needle.form);
            found.extend(start.map(|start| start..text.len()));
            *work = work.checked_sub(looked_at).ok_or(TooMuchWork)?;
        }
        Ok(())
    }
}

/// Finds the needles of all `sets` in `text`, in one pass, ignoring blanks between their characters.
pub(super) fn find(
    sets: [&Needles; 2],
    text: &[u8],
    found: &mut Vec<Range<usize>>,
) -> Result<(), TooMuchWork> {
    match sets {
        [one, other] if other.is_empty() => find_in([one], text, found),
        [one, other] if one.is_empty() => find_in([other], text, found),
        both => find_in(both, text, found),
    }
}

fn find_in<const N: usize>(
    sets: [&Needles; N],
    text: &[u8],
    found: &mut Vec<Range<usize>>,
) -> Result<(), TooMuchWork> {
    if sets.iter().all(|needles| needles.is_empty()) {
        return Ok(());
    }
    let filters = sets.map(|needles| &*needles.filter.0);
    let mut tail = Tail::default();
    let mut work = text.len().saturating_add(1024).saturating_mul(MAX_LOOKS);
    for (at, &byte) in text.iter().enumerate() {
        if is_blank(byte) {
            continue;
        }
        tail.push(byte);
        if filters.iter().any(|filter| filter[tail.slot()] != 0) {
            for needles in sets {
                needles.find_at_end(&text[..=at], tail, &mut work, found)?;
            }
        }
    }
    Ok(())
}

/// Returns where `needle` begins if `text` ends with it, and the number of bytes that were looked at.
fn start(text: &[u8], needle: &[u8]) -> (Option<usize>, usize) {
    let mut kept = text.iter().enumerate().rev().filter(|(_, byte)| !is_blank(**byte));
    let mut start = text.len();
    for wanted in needle.iter().rev() {
        match kept.next() {
            Some((at, byte)) if byte == wanted => start = at,
            other => return (None, text.len() - other.map_or(0, |(at, _)| at)),
        }
    }
    (Some(start), text.len() - start)
}

/// The last bytes of a needle or of a text so far; the lowest [`MIN_SECRET_BYTES`] count.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Tail(u64);

/// Bits of a tail that do not count.
const UNUSED: u32 = 16;
const _: () = assert!(UNUSED as usize + 8 * MIN_SECRET_BYTES == 64);

impl Tail {
    fn of(needle: &[u8]) -> Self {
        let mut tail = Self::default();
        for &byte in needle {
            tail.push(byte);
        }
        tail.masked()
    }

    fn push(&mut self, byte: u8) {
        self.0 = self.0 << 8 | u64::from(byte);
    }

    /// Returns the tail without the bits that do not count.
    fn masked(self) -> Self {
        Self(self.0 << UNUSED >> UNUSED)
    }

    /// Hashes by Fibonacci hashing: the first bits are the hash. The factor pushes out the bits that do not count.
    fn product(self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15 << UNUSED)
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are fewer slots than that")]
    fn slot(self) -> usize {
        (self.product() >> (u64::BITS - SLOTS.trailing_zeros())) as usize
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self(Box::new([0; SLOTS]))
    }
}

impl Filter {
    fn add(&mut self, tail: Tail) {
        let number = &mut self.0[tail.slot()];
        *number = number.saturating_add(1);
    }

    fn remove(&mut self, tail: Tail) {
        let number = &mut self.0[tail.slot()];
        if *number < u8::MAX {
            *number = number.saturating_sub(1);
        }
    }
}

impl Hash for Tail {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.product());
    }
}

/// Takes the hash of a tail as it is; its last bits, which choose a place in the table, become as good as its first.
#[derive(Default)]
struct TailHasher(u64);

impl Hasher for TailHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash ^ hash >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
