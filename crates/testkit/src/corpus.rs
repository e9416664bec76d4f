//! A corpus of real text: the documentation inside the sources of packages that this workspace locks.
//!
//! In: nothing. Out: some thousands of pieces of sections, the same every time, with their places in the documents. The
//! packages come with the build; what is not there fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fail::need;

/// Packages whose documentation is the corpus.
const PACKAGES: [&str; 5] = ["jiff", "clap_builder", "regex", "regex-syntax", "proptest"];
/// Words of a piece, at most.
const WINDOW: usize = 80;
/// A section with fewer words says too little.
const LEAST_WORDS: usize = 25;

/// A piece of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its id.
    pub id: String,
    /// Its document.
    pub doc_id: String,
    /// Its section.
    pub section_id: String,
    /// What the section is called.
    pub heading: String,
    /// Its text.
    pub text: String,
    /// Where the text begins in the document, in bytes.
    pub start: usize,
}

/// The corpus.
pub fn corpus() -> Vec<Piece> {
    let mut files = Vec::new();
    for folder in package_folders() {
        rust_files(&folder, &mut files);
    }
    let (mut pieces, mut seen) = (Vec::new(), BTreeSet::new());
    for (at, file) in files.iter().enumerate() {
        let source = need(fs::read_to_string(file), "the source of a package");
        let doc_id = format!("f{at:03}");
        let mut start = 0;
        for (number, (heading, text)) in sections_of(&source).into_iter().enumerate() {
            // The same comment on ten types is one text.
            if text.split_whitespace().count() >= LEAST_WORDS && seen.insert(text.clone()) {
                let section_id = format!("{doc_id}#{number:04}");
                let text = format!("{heading}\n{text}");
                pieces.extend(cut(&doc_id, &section_id, &heading, &text, start));
                start += text.len() + 1;
            }
        }
    }
    pieces
}

fn package_folders() -> Vec<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--offline", "--locked"]);
    let output = need(command.current_dir(env!("CARGO_MANIFEST_DIR")).output(), "`cargo metadata`");
    let metadata: Value = need(serde_json::from_slice(&output.stdout), "the packages of the workspace");
    let packages = metadata.get("packages").and_then(Value::as_array).into_iter().flatten();
    let text =
        |package: &Value, key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = packages.filter(|package| PACKAGES.contains(&text(package, "name").as_str()));
    let mut folders: Vec<PathBuf> = wanted
        .filter_map(|package| Some(Path::new(&text(package, "manifest_path")).parent()?.join("src")))
        .collect();
    folders.sort();
    folders
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let listed = need(fs::read_dir(folder), "the folder of a package");
    let mut inside: Vec<PathBuf> = listed.map(|entry| need(entry, "a file of a package").path()).collect();
    inside.sort();
    for path in inside {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The doc comments of a file with what they are about; code in them is left out.
fn sections_of(source: &str) -> Vec<(String, String)> {
    let mut sections = Vec::new();
    let (mut block, mut in_code) = (String::new(), false);
    for line in source.lines().chain([""]) {
        let line = line.trim_start();
        if let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
            if doc.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                block.push_str(doc.trim());
                block.push('\n');
            }
        } else if !block.is_empty() && !line.starts_with("#[") {
            let item = line.split(['(', '{', ';', '=']).next().unwrap_or_default().trim();
            let name = item.split_whitespace().last().unwrap_or_default().replace(['_', ':', '<', '>'], " ");
            let text = std::mem::take(&mut block);
            let first = text.split(['.', '\n']).next().unwrap_or_default();
            sections.push((format!("{} {first}", name.trim()), text));
            in_code = false;
        }
    }
    sections
}

/// Pieces of some words each, which together are the text.
fn cut(doc_id: &str, section_id: &str, heading: &str, text: &str, start: usize) -> Vec<Piece> {
    let mut cuts = vec![0];
    let mut words = 0;
    let mut in_word = false;
    for (at, letter) in text.char_indices() {
        if !letter.is_whitespace() && !in_word {
            words += 1;
            if words > WINDOW {
                cuts.push(at);
                words = 1;
            }
        }
        in_word = !letter.is_whitespace();
    }
    cuts.push(text.len());
    let bounds = cuts.iter().zip(cuts.iter().skip(1)).enumerate();
    let piece = |(number, (from, to)): (usize, (&usize, &usize))| Piece {
        id: format!("{section_id}#{number:03}"),
        doc_id: doc_id.to_owned(),
        section_id: section_id.to_owned(),
        heading: heading.to_owned(),
        text: text.get(*from..*to).unwrap_or_default().to_owned(),
        start: start + from,
    };
    bounds.map(piece).collect()
}
