//! Which known name is most like a wrong one?
//!
//! Knows text. Never knows what it names.

/// The known name that takes the fewest single-byte edits to become, if a third of the name or less (and at least
/// one edit) is enough. The first of equals.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> Option<String> {
    let most = (name.len() / 3).max(1);
    let mut best: Option<(usize, String)> = None;
    for candidate in known {
        let candidate = candidate.as_ref();
        let limit = best.as_ref().map_or(most + 1, |(edits, _)| *edits);
        if candidate.len().abs_diff(name.len()) < limit {
            let edits = edits(name.as_bytes(), candidate.as_bytes());
            if edits < limit {
                best = Some((edits, candidate.to_owned()));
            }
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Levenshtein distance, row by row.
fn edits(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for byte in from {
        let Some((first, cells)) = row.split_first_mut() else { break };
        let mut diagonal = *first;
        *first += 1;
        let mut left = *first;
        for (above, other) in cells.iter_mut().zip(to) {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = *above;
            left = replaced.min(diagonal + 1).min(left + 1);
            *above = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_one_by_one() {
        let cases =
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("corp", "crop", 2), ("app", "app", 0)];
        for (from, to, count) in cases {
            assert_eq!(edits(from.as_bytes(), to.as_bytes()), count, "{from} {to}");
            assert_eq!(edits(to.as_bytes(), from.as_bytes()), count, "{to} {from}");
        }
    }

    #[test]
    fn only_a_name_that_is_alike_is_near() {
        let known = ["corp", "frontend", "backend"];
        assert_eq!(nearest("frontent", known.iter()), Some("frontend".to_owned()));
        assert_eq!(nearest("cor", known.iter()), Some("corp".to_owned()));
        assert_eq!(nearest("database", known.iter()), None);
    }
}
