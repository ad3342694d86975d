//! The search for known secrets. Each needle is found by its last bytes: a table of their hashes is consulted at every
//! byte of the text and nearly always has no match. The cost does not depend on the number of needles, a change of the
//! set costs only the needles that change, and all memory that holds them can be wiped. An automaton over as many
//! needles has none of these properties.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    forms::{Form, MIN_SECRET_BYTES},
    view::is_blank,
};

/// Maximum number of byte comparisons for each byte of a text; a text that needs more was crafted.
const MAX_COMPARISONS: usize = 32;

/// Bits of the filter for each needle at least, so that nearly all of them are zero.
const BITS_PER_NEEDLE: usize = 16;

/// The needles, by the hash of their last bytes.
#[derive(Default)]
pub(super) struct Needles {
    /// One bit for each hash.
    filter: Filter,
    buckets: HashMap<usize, Vec<Needle>>,
    count: usize,
}

struct Filter {
    /// Number of bits of a hash.
    width: u32,
    words: Box<[u64]>,
}

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
            self.insert(Needle { form: form.clone(), uses: 1 });
        }
        if self.count * BITS_PER_NEEDLE > self.filter.bits() {
            self.grow();
        }
    }

    /// Reverts one [`Self::add`].
    pub fn remove(&mut self, forms: &[Arc<Form>]) {
        forms.iter().for_each(|form| self.release(form, 1));
    }

    /// Reverts every [`Self::add`] of `others`.
    pub fn remove_all(&mut self, others: &Self) {
        for needle in others.buckets.values().flatten() {
            self.release(&needle.form, needle.uses);
        }
    }

    fn insert(&mut self, needle: Needle) {
        let hash = self.filter.hash(Tail::of(&needle.form));
        self.filter.set(hash, true);
        let bucket = self.buckets.entry(hash).or_default();
        match bucket.iter_mut().find(|known| known.form == needle.form) {
            Some(known) => known.uses += needle.uses,
            None => {
                bucket.push(needle);
                self.count += 1;
            }
        }
    }

    fn release(&mut self, form: &Form, uses: usize) {
        let hash = self.filter.hash(Tail::of(form));
        let Some(bucket) = self.buckets.get_mut(&hash) else { return };
        let Some(at) = bucket.iter().position(|needle| *needle.form == *form) else { return };
        bucket[at].uses = bucket[at].uses.saturating_sub(uses);
        if bucket[at].uses == 0 {
            bucket.swap_remove(at);
            self.count -= 1;
        }
        if bucket.is_empty() {
            self.buckets.remove(&hash);
            self.filter.set(hash, false);
        }
    }

    fn grow(&mut self) {
        self.filter = Filter::new(self.filter.width + 2);
        self.count = 0;
        for needle in std::mem::take(&mut self.buckets).into_values().flatten() {
            self.insert(needle);
        }
    }

    /// Returns the needles that may end with `tail`.
    fn ending_with(&self, tail: Tail) -> impl Iterator<Item = &Needle> {
        let hash = self.filter.hash(tail);
        self.filter.has(hash).then(|| self.buckets.get(&hash)).flatten().into_iter().flatten()
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
    let mut tail = Tail::default();
    let mut work = text.len().saturating_add(1024).saturating_mul(MAX_COMPARISONS);
    for (at, &byte) in text.iter().enumerate() {
        if is_blank(byte) {
            continue;
        }
        tail.push(byte);
        for needle in sets.iter().flat_map(|needles| needles.ending_with(tail)) {
            let (start, compared) = start(&text[..=at], &needle.form);
            found.extend(start.map(|start| start..at + 1));
            work = work.checked_sub(compared).ok_or(TooMuchWork)?;
        }
    }
    Ok(())
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

    /// Hashes by Fibonacci hashing: the first bits are the hash.
    fn mixed(self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new(14)
    }
}

impl Filter {
    fn new(width: u32) -> Self {
        Self { width, words: vec![0; 1 << (width - 6)].into() }
    }

    fn bits(&self) -> usize {
        self.words.len() * 64
    }

    #[expect(clippy::cast_possible_truncation, reason = "a hash has few bits")]
    fn hash(&self, tail: Tail) -> usize {
        (tail.mixed() >> (u64::BITS - self.width)) as usize
    }

    fn has(&self, hash: usize) -> bool {
        self.words[hash / 64] & 1 << (hash % 64) != 0
    }

    fn set(&mut self, hash: usize, present: bool) {
        let (word, bit) = (&mut self.words[hash / 64], 1 << (hash % 64));
        if present { *word |= bit } else { *word &= !bit }
    }
}
