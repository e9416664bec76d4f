//! Which paths a policy leaves out. Pure: patterns and a path in, a decision out.

use std::path::Path;

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use lifeboat_base::failure::{Failure, FailureKind};

/// Patterns, compiled.
///
/// `*` and `?` stay within one name, `**` crosses names. A pattern with a `/` inside or in front is anchored at the
/// root of the tree; one without matches a name at any depth. A `/` at the end restricts it to directories. What is
/// below an excluded directory is excluded with it; there is no way to include it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Excludes {
    any: GlobSet,
    dirs: GlobSet,
}

impl Excludes {
    /// `Usage` for the first pattern that cannot be understood.
    pub(crate) fn new(patterns: &[String]) -> Result<Self, Failure> {
        let (mut any, mut dirs) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let refuse = || format!("failed to understand the exclude pattern `{pattern}`");
            let trimmed = pattern.strip_suffix('/').unwrap_or(pattern);
            if trimmed.is_empty() || trimmed.starts_with('!') {
                return Err(Failure::new(FailureKind::Usage, refuse()));
            }
            let anchored = match trimmed.strip_prefix('/') {
                Some(rest) => rest.to_owned(),
                None if trimmed.contains('/') => trimmed.to_owned(),
                None => format!("**/{trimmed}"),
            };
            let glob = GlobBuilder::new(&anchored)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| Failure::with_source(FailureKind::Usage, refuse(), error))?;
            if trimmed.len() == pattern.len() { &mut any } else { &mut dirs }.add(glob);
        }
        let build = |builder: GlobSetBuilder| {
            builder.build().map_err(|error| {
                Failure::with_source(FailureKind::Usage, "failed to combine the exclude patterns", error)
            })
        };
        Ok(Self { any: build(any)?, dirs: build(dirs)? })
    }

    /// Whether `path`, relative to the root of the tree, is left out.
    pub(crate) fn covers(&self, path: &Path, is_dir: bool) -> bool {
        if self.any.is_empty() && self.dirs.is_empty() {
            return false;
        }
        let candidate = Candidate::new(path);
        self.any.is_match_candidate(&candidate) || (is_dir && self.dirs.is_match_candidate(&candidate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, path: &str, is_dir: bool) -> bool {
        Excludes::new(&[pattern.to_owned()]).unwrap().covers(Path::new(path), is_dir)
    }

    #[test]
    fn a_pattern_without_a_slash_matches_a_name_at_any_depth() {
        assert!(covers("*.tmp", "a.tmp", false));
        assert!(covers("*.tmp", "a/b/c.tmp", false));
        assert!(covers("*.tmp", "a\nb.tmp", false));
        assert!(!covers("*.tmp", "a.tmp/b", false));
        assert!(!covers("cache", "caches", true));
    }

    #[test]
    fn a_pattern_with_a_slash_is_anchored_and_stars_stay_within_a_name() {
        assert!(covers("/cache", "cache", true));
        assert!(!covers("/cache", "a/cache", true));
        assert!(covers("a/*.log", "a/x.log", false));
        assert!(!covers("a/*.log", "a/b/x.log", false));
        assert!(!covers("a/*.log", "z/a/x.log", false));
        assert!(covers("a/**/x.log", "a/b/c/x.log", false));
    }

    #[test]
    fn a_slash_at_the_end_means_directories_only() {
        assert!(covers("cache/", "a/cache", true));
        assert!(!covers("cache/", "a/cache", false));
    }

    #[test]
    fn patterns_that_cannot_be_understood_are_usage_errors() {
        for pattern in ["", "/", "!keep", "a[", "{a"] {
            let error = Excludes::new(&[pattern.to_owned()]).unwrap_err();
            assert_eq!(error.kind(), FailureKind::Usage, "{pattern}");
        }
    }
}
