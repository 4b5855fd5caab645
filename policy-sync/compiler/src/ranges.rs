//! Prefixes as sets: which addresses remain, and who holds one.
//!
//! Knows containment. Never knows whose addresses they are.

use std::collections::BTreeSet;

use fw_model::{Addr, Cidr};

/// Prefixes that can be asked for containment in either direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prefixes {
    list: BTreeSet<Cidr>,
    lengths: BTreeSet<u8>,
}

impl Prefixes {
    pub(crate) fn new(list: impl IntoIterator<Item = Cidr>) -> Self {
        let mut prefixes = Self::default();
        prefixes.add(list);
        prefixes
    }

    pub(crate) fn add(&mut self, list: impl IntoIterator<Item = Cidr>) {
        for prefix in list {
            self.lengths.insert(prefix.length());
            self.list.insert(prefix);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Cidr> + '_ {
        self.list.iter().copied()
    }

    /// Whether exactly this is one of these.
    pub(crate) fn has(&self, prefix: Cidr) -> bool {
        self.list.contains(&prefix)
    }

    /// Whether all of `prefix` is in one of these.
    pub(crate) fn cover(&self, prefix: Cidr) -> bool {
        let wider = self.lengths.iter().take_while(|length| **length <= prefix.length());
        wider
            .map(|length| Cidr::new(prefix.network(), *length))
            .any(|wider| self.list.contains(&wider) && wider.contains(prefix.network()))
    }

    /// Whether some of `prefix` is in one of these.
    pub(crate) fn meet(&self, prefix: Cidr) -> bool {
        self.cover(prefix) || self.within(prefix)
    }

    /// Whether one of these is within `prefix`.
    fn within(&self, prefix: Cidr) -> bool {
        let last = Addr::from_bits(
            prefix.network().bits()
                | !Cidr::new(Addr::from_bits(u128::MAX), prefix.length()).network().bits(),
        );
        self.list.range(prefix..=Cidr::host(last)).any(|next| prefix.contains(next.network()))
    }

    /// What is left of these without `holes`.
    pub(crate) fn without(&self, holes: &Self) -> Self {
        if holes.list.is_empty() {
            return self.clone();
        }
        let mut left = Self::default();
        let mut waiting: Vec<Cidr> = self.list.iter().rev().copied().collect();
        while let Some(prefix) = waiting.pop() {
            if holes.cover(prefix) {
                continue;
            }
            if !holes.within(prefix) {
                left.add([prefix]);
                continue;
            }
            let length = prefix.length().saturating_add(1);
            let low = prefix.network();
            let high = Addr::from_bits(low.bits() | (1 << (128 - u32::from(length.min(128)))));
            waiting.push(Cidr::new(high, length));
            waiting.push(Cidr::new(low, length));
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(list: &[&str]) -> Prefixes {
        Prefixes::new(list.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn a_hole_splits_a_prefix() {
        let left =
            prefixes(&["10.0.0.0/29", "2001:db8::/64"]).without(&prefixes(&["10.0.0.3", "10.0.0.4/30"]));
        let left: Vec<_> = left.iter().map(|prefix| prefix.to_string()).collect();
        assert_eq!(left, ["10.0.0.0/31", "10.0.0.2", "2001:db8::/64"]);
    }

    #[test]
    fn families_do_not_meet() {
        assert!(!prefixes(&["0.0.0.0/0"]).meet("2001:db8::1".parse().unwrap()));
        assert!(!prefixes(&["::/0"]).cover("10.0.0.1".parse().unwrap()));
        assert!(prefixes(&["::/0"]).cover("2001:db8::1".parse().unwrap()));
        let left = prefixes(&["::/0"]).without(&prefixes(&["10.0.0.0/8"]));
        assert_eq!(left, prefixes(&["::/0"]));
    }

    #[test]
    fn meeting_is_less_than_covering() {
        let held = prefixes(&["10.0.0.0/24"]);
        assert!(held.meet("10.0.0.0/16".parse().unwrap()) && !held.cover("10.0.0.0/16".parse().unwrap()));
        assert!(held.cover("10.0.0.9".parse().unwrap()) && !held.meet("10.0.1.0/24".parse().unwrap()));
    }
}
