//! The steps of a path such as `lines[0].price`, from an item to a value within it.

/// One step down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// To an attribute of an item or a map.
    Name(&'a str),
    /// To a value of a list, counted from 0.
    Index(usize),
}

/// The steps of a path, of which there is at least one. A step is `None` where the text is not a path; nothing after it
/// means anything.
///
/// Names are separated by dots and contain no dot and no bracket; an index in brackets follows a name or an index, or
/// begins the path.
pub(crate) fn steps(path: &str) -> impl Iterator<Item = Option<Step<'_>>> {
    // A path that begins with a name is read as if a dot preceded it.
    let mut rest = if path.starts_with('[') { Next::Suffix(path) } else { Next::Name(path) };
    std::iter::from_fn(move || {
        let (step, after) = match rest {
            Next::Suffix("") => return None,
            Next::Name(text) => name(text),
            Next::Suffix(text) => match text.strip_prefix('.') {
                Some(text) => name(text),
                None => index(text),
            },
        }
        .map_or((None, ""), |(step, after)| (Some(step), after));
        rest = Next::Suffix(after);
        Some(step)
    })
}

#[derive(Clone, Copy)]
enum Next<'a> {
    /// A name must follow.
    Name(&'a str),
    /// A dot and a name, an index, or the end.
    Suffix(&'a str),
}

fn name(text: &str) -> Option<(Step<'_>, &str)> {
    let end = text.find(['.', '[', ']']).unwrap_or(text.len());
    let (name, after) = text.split_at_checked(end)?;
    (!name.is_empty()).then_some((Step::Name(name), after))
}

fn index(text: &str) -> Option<(Step<'_>, &str)> {
    let (digits, after) = text.strip_prefix('[')?.split_once(']')?;
    // A usize would accept a sign.
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((Step::Index(digits.parse().ok()?), after))
}

#[cfg(test)]
mod tests {
    use super::Step::{Index, Name};
    use super::*;

    #[test]
    fn paths_are_read_step_by_step() {
        let cases: [(&str, &[Step<'_>]); 8] = [
            ("a", &[Name("a")]),
            ("a.b", &[Name("a"), Name("b")]),
            ("a[0]", &[Name("a"), Index(0)]),
            ("a[0][12].b", &[Name("a"), Index(0), Index(12), Name("b")]),
            ("[1].x", &[Index(1), Name("x")]),
            ("first name.#1 \"x\"", &[Name("first name"), Name("#1 \"x\"")]),
            ("Zürich.東京[007]", &[Name("Zürich"), Name("東京"), Index(7)]),
            ("a[18446744073709551615]", &[Name("a"), Index(usize::MAX)]),
        ];
        for (path, expected) in cases {
            assert_eq!(steps(path).collect::<Option<Vec<_>>>().as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_ends_in_none() {
        for path in [
            "",
            ".",
            ".a",
            "a.",
            "a..b",
            "a]",
            "a[",
            "a[]",
            "a[x]",
            "a[-1]",
            "a[+1]",
            "a[ 1]",
            "a[1",
            "a[1]b",
            "a.[0]",
            "]",
            "[",
            "a[0]]",
            "a[18446744073709551616]",
            "a[0].",
            "[0]a",
        ] {
            let found: Vec<_> = steps(path).take(20).collect();
            assert_eq!(found.last(), Some(&None), "{path}: {found:?}");
            assert_eq!(found.iter().filter(|step| step.is_none()).count(), 1, "{path}: {found:?}");
        }
    }
}
