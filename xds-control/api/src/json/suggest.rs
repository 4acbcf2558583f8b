//! "Did you mean ...?" for names that do not exist.

/// The candidate nearest to `wrong`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wrong.chars().count() / 3).clamp(1, 4);
    candidates
        .map(|candidate| (distance(wrong, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The hint to put behind an error, or nothing.
pub(crate) fn hint<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(wrong, candidates).map(|name| format!(", did you mean {name:?}?")).unwrap_or_default()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `left` into `right`; letters' case and the
/// difference between `-` and `_` cost nothing.
fn distance(left: &str, right: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars().take(64).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    let (left, right) = (fold(left), fold(right));
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let replace = previous[j] + usize::from(a != b);
            let mut best = replace.min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits_and_swaps() {
        assert_eq!(distance("domians", "domains"), 1);
        assert_eq!(distance("name", "name"), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("Round-Robin", "ROUND_ROBIN"), 0);
    }

    #[test]
    fn suggests_only_what_is_near() {
        let names = ["domains", "routes", "name"];
        assert_eq!(nearest("domians", names.into_iter()), Some("domains"));
        assert_eq!(nearest("retry_policy", names.into_iter()), None);
        assert_eq!(hint("nmae", names.into_iter()), ", did you mean \"name\"?");
        assert_eq!(hint("x", names.into_iter()), "");
    }
}
