//! Compares a restored tree with its inventory, in both directions, in one pass over both.
//!
//! In: the inventory from the recovery point, the facts, the restored directory. Out: six check results. Memory:
//! one directory's names per level and one entry per group of hard links, never the tree.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, META, RestoreSource};
use lifeboat_base::digest::{Digest, digest_of_reader};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;

use super::capture::{Counts, INVENTORY};
use super::inventory::{InventoryError, InventoryReader, Line, LineType, digest_of_xattrs};
use super::notes::shown;
use super::walk::{Found, Step, WalkOptions, Walker};
use crate::adapter::{CheckResult, CheckState};
use crate::tally::{Tally, equal, failed, not_applicable};

const MISSING: &str = "files.missing";
const EXTRA: &str = "files.extra";
const CONTENT: &str = "files.content";
const METADATA: &str = "files.metadata";
const COUNT: &str = "files.count";
const INVENTORY_CHECK: &str = "files.inventory";

type Identity = (u64, u64);
/// Names of one file on the source that were captured with the same content: a file that changed between two of its
/// names comes back as two.
type Group = (Identity, Option<Digest>);

#[derive(Default)]
struct Comparison {
    missing: Tally,
    extra: Tally,
    content: Tally,
    metadata: Tally,
    /// What the restored tree holds.
    found: Counts,
    compared: u64,
    /// Group in the inventory to file in the restored tree, and back.
    restored_of_group: BTreeMap<Group, Identity>,
    group_of_restored: BTreeMap<Identity, Group>,
    is_root: bool,
}

/// Runs all checks of a restored tree.
pub(crate) fn check_tree(
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
    restored: &Path,
    monitor: &dyn Monitor,
) -> Result<Vec<CheckResult>, Failure> {
    monitor.phase("comparing the restored tree with its inventory", facts.counts.get("bytes").copied());
    let inventory_path = RelPath::new(Path::new(META).join(INVENTORY)).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to name the inventory", error)
    })?;
    let options = WalkOptions { open: true, ..WalkOptions::default() };
    let mut tree = Walker::start(restored, options).map_err(|error| {
        Failure::io(format!("failed to open the restored tree {}", restored.display()), error)
    })?;
    let mut comparison =
        Comparison { is_root: rustix::process::geteuid().is_root(), ..Comparison::default() };

    let expected = facts.checksums.get("inventory").map(String::as_str).unwrap_or_default();
    let inventory = match from.open(&inventory_path) {
        Ok(reader) => {
            let mut lines = InventoryReader::new(BufReader::new(reader));
            match comparison.run(&mut lines, &mut tree, facts, monitor)? {
                None => equal(INVENTORY_CHECK, format!("sha256:{}", lines.digest()), expected),
                Some(reason) => failed(INVENTORY_CHECK, expected, reason),
            }
        }
        Err(error) if error.kind() == FailureKind::Refused => {
            comparison.count_rest(&mut tree, monitor)?;
            failed(INVENTORY_CHECK, expected, error.chain())
        }
        Err(error) => return Err(error),
    };
    Ok(comparison.results(facts, inventory))
}

/// How many lines the facts allow for.
fn lines_promised(facts: &CaptureFacts) -> u64 {
    ["files", "dirs", "symlinks", "others"].iter().filter_map(|name| facts.counts.get(*name)).sum()
}

impl Comparison {
    /// Merges both sides. Gives the reason if the inventory could not be followed to its end.
    fn run<R: Read>(
        &mut self,
        lines: &mut InventoryReader<BufReader<R>>,
        tree: &mut Walker,
        facts: &CaptureFacts,
        monitor: &dyn Monitor,
    ) -> Result<Option<String>, Failure> {
        let promised = lines_promised(facts);
        let mut line_count = 0;
        let mut line = None;
        let mut found = self.next_found(tree, monitor)?;
        loop {
            if line.is_none() {
                line = match lines.next_line() {
                    Ok(next) => next,
                    Err(InventoryError::Read(error)) => return Err(read_failure(error)),
                    Err(error) => {
                        self.count_rest(tree, monitor)?;
                        return Ok(Some(error.to_string()));
                    }
                };
                line_count += u64::from(line.is_some());
                if line_count > promised {
                    self.count_rest(tree, monitor)?;
                    return Ok(Some(format!("it has more than the {promised} entries that were captured")));
                }
            }
            match (line.take(), found.take()) {
                (None, None) => return Ok(None),
                (Some((path, expected)), Some(node)) if path == node.path => {
                    self.compare(&path, &expected, *node, monitor);
                    found = self.next_found(tree, monitor)?;
                }
                (Some((path, expected)), Some(node)) if path < node.path => {
                    self.missing.add(|| format!("{} ({})", shown(&path), word(expected.kind)));
                    found = Some(node);
                }
                (Some((path, expected)), None) => {
                    self.missing.add(|| format!("{} ({})", shown(&path), word(expected.kind)));
                }
                (kept, Some(node)) => {
                    self.extra.add(|| shown(&node.path));
                    line = kept;
                    found = self.next_found(tree, monitor)?;
                }
            }
        }
    }

    fn next_found(
        &mut self,
        tree: &mut Walker,
        monitor: &dyn Monitor,
    ) -> Result<Option<Box<Found>>, Failure> {
        loop {
            if monitor.cancelled() {
                return Err(Failure::new(FailureKind::Refused, "the comparison was cancelled"));
            }
            match tree.step()? {
                None => return Ok(None),
                Some(Step::Found(found)) => {
                    if let Some(kind) = LineType::of(&found.node) {
                        let bytes = if kind == LineType::File { found.node.size_bytes } else { 0 };
                        self.found.add(kind, bytes);
                    }
                    return Ok(Some(found));
                }
                // It then counts as missing too.
                Some(Step::Lost { path, trouble }) => {
                    self.content.add(|| format!("{}: cannot be read back: {trouble:?}", shown(&path)));
                }
            }
        }
    }

    fn count_rest(&mut self, tree: &mut Walker, monitor: &dyn Monitor) -> Result<(), Failure> {
        while self.next_found(tree, monitor)?.is_some() {}
        Ok(())
    }

    fn compare(&mut self, path: &RelPath, expected: &Line, found: Found, monitor: &dyn Monitor) {
        self.compared += 1;
        self.compare_metadata(path, expected, &found);
        if LineType::of(&found.node) != Some(expected.kind) {
            self.content.add(|| format!("{}: is not a {}", shown(path), word(expected.kind)));
            return;
        }
        if expected.kind == LineType::File {
            let actual = match found.file {
                Some(file) => digest_of_reader(file),
                None => Err(io::Error::other("not opened")),
            };
            match actual {
                Ok((digest, bytes)) => {
                    monitor.advance(bytes, 1);
                    self.compare_content(path, expected, digest, bytes);
                }
                Err(error) => self.content.add(|| format!("{}: cannot be read back: {error}", shown(path))),
            }
        }
    }

    fn compare_content(&mut self, path: &RelPath, expected: &Line, digest: Digest, bytes: u64) {
        if expected.sha256 != Some(digest) || expected.size_bytes != Some(bytes) {
            let was = expected.size_bytes.unwrap_or_default();
            self.content.add(|| format!("{}: content differs ({bytes} bytes, {was} captured)", shown(path)));
        }
    }

    fn compare_metadata(&mut self, path: &RelPath, expected: &Line, found: &Found) {
        let node = &found.node;
        let mut wrong = Vec::new();
        // A link has no mode of its own on Linux.
        if expected.kind != LineType::Symlink && node.mode != expected.mode {
            wrong.push(format!("mode {:04o} instead of {:04o}", node.mode, expected.mode));
        }
        if self.is_root && (node.uid, node.gid) != (expected.uid, expected.gid) {
            wrong.push(format!(
                "owner {}:{} instead of {}:{}",
                node.uid, node.gid, expected.uid, expected.gid
            ));
        }
        if node.mtime != expected.mtime {
            wrong.push("time of change".to_owned());
        }
        if found.target != expected.target.as_ref().and_then(super::inventory::Name::bytes) {
            wrong.push("link target".to_owned());
        }
        if expected.rdev.is_some_and(|rdev| rdev != node.rdev) {
            wrong.push("device number".to_owned());
        }
        if found.xattr_error.is_some() || digest_of_xattrs(&found.xattrs) != expected.xattrs_sha256 {
            wrong.push("extended attributes".to_owned());
        }
        if expected.kind != LineType::Dir && !self.same_links(expected, found) {
            wrong.push("hard links".to_owned());
        }
        if !wrong.is_empty() {
            self.metadata.add(|| format!("{}: {}", shown(path), wrong.join(", ")));
        }
    }

    /// Whether the restored name shares its file with exactly the names it shared it with on the source.
    fn same_links(&mut self, expected: &Line, found: &Found) -> bool {
        let restored = (found.node.device, found.node.inode);
        let Some(group) = expected.link_group else {
            return !found.node.is_hard_linked();
        };
        let group = (group, expected.sha256);
        let forth = *self.restored_of_group.entry(group).or_insert(restored);
        let back = *self.group_of_restored.entry(restored).or_insert(group);
        forth == restored && back == group
    }

    fn results(self, facts: &CaptureFacts, inventory: CheckResult) -> Vec<CheckResult> {
        let compared = format!("{} entries", human::count(self.compared));
        let trusted = inventory.state == CheckState::Passed;
        // Without a true inventory a difference still counts, but its absence proves nothing.
        let judge = |id: &str, tally: Tally, expected: &str| {
            if trusted || tally.count() > 0 {
                let measured = format!("{} of {compared}", human::count(tally.count()));
                tally.result(id, measured, expected)
            } else {
                not_applicable(id, expected, "the inventory is not the one that was captured")
            }
        };
        let mut count = Tally::default();
        for (name, found) in self.found.named() {
            match facts.counts.get(name) {
                Some(expected) if *expected == found => {}
                Some(expected) => count.add(|| format!("{name}: {found} instead of {expected}")),
                None => count.add(|| format!("{name}: the number captured is not known")),
            }
        }
        let shown = |counts: Counts| {
            counts.named().map(|(name, count)| format!("{} {name}", human::count(count))).join(", ")
        };
        let promised = |name: &str| facts.counts.get(name).copied().unwrap_or_default();
        let expected = Counts {
            files: promised("files"),
            dirs: promised("dirs"),
            symlinks: promised("symlinks"),
            others: promised("others"),
            bytes: promised("bytes"),
        };
        let count = count.result(COUNT, shown(self.found), shown(expected));
        vec![
            inventory,
            judge(MISSING, self.missing, "0 missing"),
            judge(EXTRA, self.extra, "0 extra"),
            judge(CONTENT, self.content, "0 with other content"),
            judge(METADATA, self.metadata, "0 with other metadata"),
            count,
        ]
    }
}

fn read_failure(error: io::Error) -> Failure {
    Failure::with_source(FailureKind::Damaged, "failed to read the inventory of the recovery point", error)
}

fn word(kind: LineType) -> &'static str {
    match kind {
        LineType::File => "file",
        LineType::Dir => "directory",
        LineType::Symlink => "symbolic link",
        LineType::Fifo => "named pipe",
        LineType::Socket => "socket",
        LineType::CharDevice => "character device",
        LineType::BlockDevice => "block device",
    }
}
