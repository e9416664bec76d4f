//! Rust files taken apart: what ships, what only tests, and the words of the code that ships.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, File, ImplItem, Item};

use super::tree::{Finding, Tree};

/// One Rust file.
pub(super) struct Source {
    /// Where it is.
    pub(super) path: String,
    /// The crate's folder below `crates/`.
    pub(super) package: String,
    /// All of its text.
    pub(super) text: String,
    /// Nothing in it ships.
    pub(super) is_test: bool,
    /// Its items without those that only tests see; empty for a test file.
    pub(super) shipped: Vec<Item>,
    /// Lines without those of the items that only tests see.
    pub(super) shipped_lines_count: usize,
    /// The shipped code word by word.
    pub(super) tokens: Vec<Token>,
}

/// A word or a mark of the code and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The word; a mark is one character, a bracket its opening one.
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
}

/// Takes every Rust file apart; one that does not parse is a finding.
pub(super) fn parse(tree: &Tree) -> (Vec<Source>, Vec<Finding>) {
    let mut sources = Vec::new();
    let mut findings = Vec::new();
    let mut test_modules = BTreeSet::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| is_rust(path)) {
        match syn::parse_file(text) {
            Ok(file) => sources.push(take_apart(path, text, file, &mut test_modules)),
            Err(error) => {
                let line = error.span().start().line;
                findings.push(Finding::new(path, line, "syntax", format!("{error}, make it parse")));
            }
        }
    }
    for source in &mut sources {
        if test_modules.contains(&source.path) {
            source.make_test();
        }
    }
    (sources, findings)
}

fn is_rust(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| extension == "rs")
}

impl Source {
    fn make_test(&mut self) {
        self.is_test = true;
        self.shipped.clear();
        self.tokens.clear();
        self.shipped_lines_count = 0;
    }

    /// The file's own name.
    pub(super) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

fn take_apart(path: &str, text: &str, mut file: File, test_modules: &mut BTreeSet<String>) -> Source {
    let mut strip = StripTests { folder: module_folder(path), test_lines_count: 0, test_modules };
    strip.visit_file_mut(&mut file);
    let mut tokens = Vec::new();
    flatten(file.to_token_stream(), &mut tokens);
    let mut parts = path.split('/');
    let package = if parts.next() == Some("crates") { parts.next().unwrap_or_default() } else { "" };
    let mut source = Source {
        path: path.to_owned(),
        package: package.to_owned(),
        text: text.to_owned(),
        is_test: false,
        shipped_lines_count: text.lines().count().saturating_sub(strip.test_lines_count),
        shipped: file.items,
        tokens,
    };
    if path.contains("/tests/") || path.contains("/benches/") || path.contains("/examples/") {
        source.make_test();
    }
    source
}

/// The folder in which the file's child modules live.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name.trim_end_matches(".rs") {
        "lib" | "main" | "mod" => folder.to_owned(),
        stem => format!("{folder}/{stem}"),
    }
}

/// Takes out what only tests see, counts its lines and notes the files it names.
struct StripTests<'a> {
    folder: String,
    test_lines_count: usize,
    test_modules: &'a mut BTreeSet<String>,
}

impl StripTests<'_> {
    /// Whether to keep a piece of code; one that goes is counted.
    fn keeps(&mut self, code: &(impl ToTokens + Spanned)) -> bool {
        if !only_for_tests(code) {
            return true;
        }
        let span = code.span();
        self.test_lines_count += span.end().line.saturating_sub(span.start().line) + 1;
        false
    }

    fn keeps_item(&mut self, item: &Item) -> bool {
        let keeps = self.keeps(item);
        if let (false, Item::Mod(module)) = (keeps, item)
            && module.content.is_none()
        {
            let stem = format!("{}/{}", self.folder, module.ident);
            self.test_modules.insert(format!("{stem}.rs"));
            self.test_modules.insert(format!("{stem}/mod.rs"));
        }
        keeps
    }
}

impl VisitMut for StripTests<'_> {
    fn visit_file_mut(&mut self, file: &mut File) {
        file.items.retain(|item| self.keeps_item(item));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| self.keeps_item(item));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item: &ImplItem| self.keeps(item));
        visit_mut::visit_item_impl_mut(self, block);
    }
}

/// Whether an outer attribute says `cfg(test)`, alone or as a part of `all(..)`.
fn only_for_tests(code: &impl ToTokens) -> bool {
    let attributes = |input: ParseStream<'_>| {
        let attributes = Attribute::parse_outer(input)?;
        input.parse::<TokenStream>()?;
        Ok(attributes)
    };
    let Ok(attributes) = attributes.parse2(code.to_token_stream()) else { return false };
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let condition = attribute.meta.to_token_stream().to_string().replace(' ', "");
        condition == "cfg(test)" || condition.starts_with("cfg(all(test,")
    })
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let mark = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => "(",
                    proc_macro2::Delimiter::Brace => "{",
                    proc_macro2::Delimiter::Bracket => "[",
                    proc_macro2::Delimiter::None => "",
                };
                tokens.push(Token { text: mark.to_owned(), line });
                flatten(group.stream(), tokens);
            }
            other => tokens.push(Token { text: other.to_string(), line }),
        }
    }
}

/// One file as the rules see it, for canaries.
#[cfg(test)]
pub(super) fn sample(path: &str, text: &str) -> Source {
    let (mut sources, findings) = parse(&Tree::of(&[(path, text)]));
    assert!(findings.is_empty(), "{findings:?}");
    sources.pop().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_for_tests_does_not_ship() {
        let text = "//! Doc.\n\npub fn kept() {}\n\n#[cfg(test)]\nmod tests {\n    fn gone() {}\n}\n";
        let source = sample("crates/base/src/a.rs", text);
        assert_eq!(source.package, "base");
        assert_eq!(source.shipped_lines_count, 4);
        let words: Vec<&str> = source.tokens.iter().map(|token| token.text.as_str()).collect();
        assert!(words.contains(&"kept") && !words.contains(&"gone"), "{words:?}");
        let feature = sample("crates/base/src/a.rs", "#[cfg(any(test, feature = \"x\"))]\nfn kept() {}\n");
        assert_eq!(feature.shipped.len(), 1);
    }

    #[test]
    fn files_declared_for_tests_are_tests() {
        let tree = Tree::of(&[
            ("crates/a/src/plan.rs", "#[cfg(test)]\nmod tests;\nmod real;\n"),
            ("crates/a/src/plan/tests.rs", "fn x() {}\n"),
            ("crates/a/src/plan/real.rs", "fn x() {}\n"),
            ("crates/a/tests/main.rs", "fn x() {}\n"),
        ]);
        let (sources, _) = parse(&tree);
        let tests: Vec<&str> =
            sources.iter().filter(|source| source.is_test).map(|source| source.path.as_str()).collect();
        assert_eq!(tests, ["crates/a/src/plan/tests.rs", "crates/a/tests/main.rs"]);
    }

    #[test]
    fn a_file_that_does_not_parse_is_named() {
        let (_, findings) = parse(&Tree::of(&[("crates/a/src/b.rs", "fn {\n")]));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings.first().map(|finding| finding.rule), Some("syntax"));
    }
}
