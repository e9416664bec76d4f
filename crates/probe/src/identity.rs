//! What makes an index the same index: hashes of its contract, its texts, its vectors and its files.
//!
//! In: records in ascending order of their id, one at a time. Out: roots of hash trees that need memory for one record and
//! one digest per level, whatever the size of the index. Every hash names what it is of, so that none stands for another.

use lifeboat_base::digest::{Digest, Hasher};
use serde::Serialize;

use crate::ProbeError;
use crate::canonical::canonical_json;
use crate::span::Span;

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// A hash tree over leaves that come in order: a left subtree is the largest power of two, as in RFC 6962.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Roots of whole subtrees with their heights, which fall from left to right.
    roots: Vec<(u32, Digest)>,
}

impl Tree {
    pub(crate) fn add(&mut self, leaf: Digest) {
        let mut node = joined(&[&LEAF, leaf.as_bytes()]);
        let mut height = 0;
        while let Some((_, left)) = self.roots.pop_if(|(other, _)| *other == height) {
            node = joined(&[&NODE, left.as_bytes(), node.as_bytes()]);
            height += 1;
        }
        self.roots.push((height, node));
    }

    pub(crate) fn root(self) -> Digest {
        let mut roots = self.roots.into_iter().rev().map(|(_, root)| root);
        let Some(last) = roots.next() else { return Digest::of(&[]) };
        roots.fold(last, |right, left| joined(&[&NODE, left.as_bytes(), right.as_bytes()]))
    }
}

fn joined(parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

/// Ids in ascending order of their bytes, each once, and none with the byte that separates fields.
#[derive(Debug, Default)]
struct Sequence {
    last: Option<String>,
    count: u64,
}

impl Sequence {
    fn admit(&mut self, id: &str) -> Result<(), ProbeError> {
        named(id)?;
        if let Some(after) = self.last.as_ref().filter(|last| last.as_str() >= id) {
            return Err(ProbeError::Unsorted { id: id.to_owned(), after: after.clone() });
        }
        self.last = Some(id.to_owned());
        self.count += 1;
        Ok(())
    }
}

/// The leaf of a snippet in the tree of texts.
pub(crate) fn corpus_leaf(id: &str, text: &str, section_id: &str, span: Span) -> Result<Digest, ProbeError> {
    named(id)?;
    if section_id.contains('\0') {
        return Err(ProbeError::invalid("a section id", "it holds a zero byte"));
    }
    let digest = Digest::of(text.as_bytes());
    let (start, end) = (span.start().to_be_bytes(), span.end().to_be_bytes());
    let zero: &[u8] = &[0];
    let (id, section) = (id.as_bytes(), section_id.as_bytes());
    Ok(joined(&[id, zero, digest.as_bytes(), zero, section, zero, &start, &end]))
}

/// The leaf of a vector in the tree of vectors.
pub(crate) fn vector_leaf(id: &str, vector: &[f32]) -> Result<Digest, ProbeError> {
    named(id)?;
    if !vector.iter().all(|value| value.is_finite()) {
        return Err(ProbeError::NotFinite { what: format!("a component of the vector of `{id}`") });
    }
    let mut hasher = Hasher::new();
    hasher.update(id.as_bytes());
    hasher.update(&[0]);
    for value in vector {
        hasher.update(&value.to_le_bytes());
    }
    Ok(hasher.finish())
}

/// An id that cannot run into the field after it.
fn named(id: &str) -> Result<(), ProbeError> {
    if id.is_empty() || id.contains('\0') {
        return Err(ProbeError::invalid("a snippet id", "it is empty or holds a zero byte"));
    }
    Ok(())
}

/// The texts of an index, their sections and their places.
#[derive(Debug, Default)]
pub struct CorpusRoot {
    ids: Sequence,
    tree: Tree,
}

impl CorpusRoot {
    /// Adds a snippet; ids must ascend.
    pub fn add(&mut self, id: &str, text: &str, section_id: &str, span: Span) -> Result<(), ProbeError> {
        let leaf = corpus_leaf(id, text, section_id, span)?;
        self.ids.admit(id)?;
        self.tree.add(leaf);
        Ok(())
    }

    /// How many snippets there are so far.
    pub fn count(&self) -> u64 {
        self.ids.count
    }

    /// The root; of no snippets it is the hash of nothing.
    pub fn finish(self) -> Digest {
        self.tree.root()
    }
}

/// The vectors of an index, bit by bit.
#[derive(Debug, Default)]
pub struct VectorRoot {
    ids: Sequence,
    dim: Option<usize>,
    tree: Tree,
}

impl VectorRoot {
    /// Adds a vector; ids must ascend, all vectors have one length, and every component is a number.
    pub fn add(&mut self, id: &str, vector: &[f32]) -> Result<(), ProbeError> {
        let expected = *self.dim.get_or_insert(vector.len());
        let what = || format!("`{id}`");
        if vector.len() != expected || vector.is_empty() {
            return Err(ProbeError::Dimension { what: what(), found: vector.len(), expected });
        }
        let leaf = vector_leaf(id, vector)?;
        self.ids.admit(id)?;
        self.tree.add(leaf);
        Ok(())
    }

    /// How many vectors there are so far.
    pub fn count(&self) -> u64 {
        self.ids.count
    }

    /// The root; of no vectors it is the hash of nothing.
    pub fn finish(self) -> Digest {
        self.tree.root()
    }
}

/// The hash of the contract by which an index is built.
pub fn config_hash(contract: &impl Serialize) -> Result<Digest, ProbeError> {
    Ok(Digest::of(format!("index.config.v1\n{}", canonical_json(contract)?).as_bytes()))
}

/// INDEX_HASH: what is in an index and how it is built. The same after a rebuild of the same texts, anywhere.
pub fn index_hash(config: Digest, corpus: Digest) -> Digest {
    Digest::of(format!("index.v1\n{config}\n{corpus}").as_bytes())
}

/// The hash of exported files, of their names, lengths and contents. Names must ascend.
pub fn snapshot_hash<'a>(
    files: impl IntoIterator<Item = (&'a str, u64, Digest)>,
) -> Result<Digest, ProbeError> {
    let mut ids = Sequence::default();
    let mut hasher = Hasher::new();
    hasher.update(b"index.snapshot.v1\n");
    for (path, size_bytes, digest) in files {
        ids.admit(path)?;
        hasher.update(format!("{digest} {size_bytes} {}\n", path.len()).as_bytes());
        hasher.update(path.as_bytes());
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span::new("x", start, end).unwrap()
    }

    fn corpus(records: &[(&str, &str, &str, Span)]) -> Digest {
        let mut root = CorpusRoot::default();
        for (id, text, section, span) in records {
            root.add(id, text, section, *span).unwrap();
        }
        root.finish()
    }

    #[test]
    fn a_root_notices_every_field_and_every_move() {
        let records =
            [("a", "one", "s1", span(0, 3)), ("b", "two", "s1", span(4, 7)), ("c", "six", "s2", span(8, 11))];
        let mut roots = BTreeSet::from([corpus(&records).to_string()]);
        let mut changed = Vec::new();
        for at in 0..records.len() {
            let one = records[at];
            for other in [
                ("aa", one.1, one.2, one.3),
                (one.0, "x", one.2, one.3),
                (one.0, one.1, "s9", one.3),
                (one.0, one.1, one.2, span(0, 99)),
            ] {
                let mut list = records.to_vec();
                list[at] = other;
                list.sort_unstable();
                changed.push(list);
            }
            let mut fewer = records.to_vec();
            fewer.remove(at);
            changed.push(fewer);
        }
        let shifted = vec![
            ("a", "two", "s1", span(4, 7)),
            ("b", "six", "s2", span(8, 11)),
            ("c", "one", "s1", span(0, 3)),
        ];
        changed.push(shifted);
        let all = changed.len() + 1;
        roots.extend(changed.iter().map(|list| corpus(list).to_string()));
        assert_eq!(roots.len(), all);
    }

    #[test]
    fn ids_come_in_order_and_once() {
        let mut root = CorpusRoot::default();
        root.add("b", "x", "s", span(0, 1)).unwrap();
        for late in ["b", "a"] {
            assert!(matches!(root.add(late, "x", "s", span(0, 1)), Err(ProbeError::Unsorted { .. })));
        }
        assert!(root.add("", "x", "s", span(0, 1)).is_err());
        assert!(root.add("c\0d", "x", "s", span(0, 1)).is_err());
        assert!(root.add("c", "x", "s\0", span(0, 1)).is_err());
        assert_eq!(root.count(), 1);
    }

    #[test]
    fn vectors_are_finite_and_of_one_length() {
        let mut root = VectorRoot::default();
        root.add("a", &[1.0, 0.0]).unwrap();
        assert!(matches!(root.add("b", &[1.0]), Err(ProbeError::Dimension { .. })));
        assert!(matches!(root.add("b", &[1.0, f32::NAN]), Err(ProbeError::NotFinite { .. })));
        assert!(VectorRoot::default().add("a", &[]).is_err());
        assert_eq!(root.count(), 1);
    }

    #[test]
    fn one_flipped_bit_of_a_vector_is_another_root() {
        let root = |value: f32| {
            let mut root = VectorRoot::default();
            root.add("a", &[value, 0.5]).unwrap();
            root.finish()
        };
        for bit in 0..23 {
            assert_ne!(root(0.25), root(f32::from_bits(0.25f32.to_bits() ^ (1 << bit))), "bit {bit}");
        }
    }

    #[test]
    fn the_hash_of_files_is_of_names_lengths_and_contents() {
        let hash = |files: &[(&str, u64, &str)]| {
            snapshot_hash(files.iter().map(|(path, len, text)| (*path, *len, Digest::of(text.as_bytes()))))
        };
        let one = hash(&[("a", 1, "x"), ("b", 1, "y")]).unwrap();
        for other in [
            hash(&[("a", 1, "y"), ("b", 1, "x")]),
            hash(&[("a", 2, "x"), ("b", 1, "y")]),
            hash(&[("a", 1, "x"), ("c", 1, "y")]),
            hash(&[("a", 1, "x")]),
        ] {
            assert_ne!(one, other.unwrap());
        }
        assert!(hash(&[("b", 1, "x"), ("a", 1, "y")]).is_err());
    }

    #[test]
    fn the_index_hash_is_fixed_for_ever() {
        let config = config_hash(&serde_json::json!({"metric": "cosine", "dim": 384})).unwrap();
        let corpus = corpus(&[
            ("a", "one", "s1", span(0, 3)),
            ("b", "two", "s1", span(4, 7)),
            ("c", "six", "s2", span(8, 11)),
        ]);
        assert_eq!(config, Digest::of(b"index.config.v1\n{\"dim\":384,\"metric\":\"cosine\"}"));
        let text = format!("index.v1\n{config}\n{corpus}");
        assert_eq!(index_hash(config, corpus), Digest::of(text.as_bytes()));
    }

    /// The tree by its definition, not by a stack.
    fn slow(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(&[]),
            [one] => joined(&[&LEAF, one.as_bytes()]),
            many => {
                let half = many.len().next_power_of_two() / 2;
                let (left, right) = many.split_at(half);
                joined(&[&NODE, slow(left).as_bytes(), slow(right).as_bytes()])
            }
        }
    }

    proptest! {
        #[test]
        fn the_stack_and_the_definition_give_the_same_tree(count in 0usize..70) {
            let leaves: Vec<Digest> = (0..count).map(|at| Digest::of(&[u8::try_from(at).unwrap()])).collect();
            let mut tree = Tree::default();
            for leaf in &leaves {
                tree.add(*leaf);
            }
            prop_assert!(tree.roots.len() <= 8);
            prop_assert_eq!(tree.root(), slow(&leaves));
        }
    }
}
