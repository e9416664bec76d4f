//! Patterns of key names: `*` stands for any bytes, `?` for one.
//!
//! In: a pattern as a person wrote it. Out: whether the bytes of a name fit.

/// Whether `name` fits `pattern`. Takes at most the product of both lengths.
pub fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    // Where the last `*` was, and what it is taken to end before.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(in_name) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                in_name += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (at, in_name) = (after + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by trying everything.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if slowly(rest, name) => true,
            (Some((b'*', _)), Some((_, less))) => slowly(pattern, less),
            (Some((b'?', rest)), Some((_, less))) => slowly(rest, less),
            (Some((one, rest)), Some((other, less))) if one == other => slowly(rest, less),
            _ => false,
        }
    }

    #[test]
    fn names_are_told_apart() {
        for (pattern, name, fit) in [
            ("flag:*", "flag:a", true),
            ("flag:*", "flag:", true),
            ("flag:*", "flags:a", false),
            ("*", "", true),
            ("", "a", false),
            ("a?c*z", "abcdz", true),
            ("a?c*z", "acz", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), fit, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn it_is_what_trying_everything_finds(pattern in "[ab*?]{0,7}", name in "[ab]{0,9}") {
            prop_assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), slowly(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
