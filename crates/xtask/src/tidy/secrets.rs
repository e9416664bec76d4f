//! No type that prints itself holds a secret in the open.
//!
//! In: shipped code. Out: fields whose name says they are secret, in a type that derives `Debug` or `Serialize`,
//! unless their own type masks them (`Secret<..>`, `SecretRef` or another type whose name starts with `Secret`).
//! What is sealed must be serialised first: a private type with `Secret` in its name may derive `Serialize`.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields, Ident, Type, Visibility};

use super::rust::Source;
use super::tree::Finding;

const WORDS: &[&str] =
    &["password", "passphrase", "secret", "token", "private_key", "seed", "dek", "master_key"];

/// Every secret that could be printed.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut visitor = Visitor { path: &source.path, findings: Vec::new() };
    for item in &source.shipped {
        visitor.visit_item(item);
    }
    visitor.findings
}

struct Visitor<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Visitor<'_> {
    /// `unnamed` is the word that stands for fields without a name of their own.
    fn check(&mut self, derived: &[&str], unnamed: &Ident, fields: &Fields) {
        if derived.is_empty() {
            return;
        }
        for field in fields {
            let name = field.ident.as_ref().map_or_else(|| snake(&unnamed.to_string()), ToString::to_string);
            if sounds_secret(&name) && !is_masked(&field.ty) {
                let what = format!(
                    "`{name}` sounds secret in a type that derives {}: make it a `Secret<..>`, or write the \
                     implementation by hand, or name it for what it is",
                    derived.join(" and ")
                );
                self.findings.push(Finding::new(self.path, field.span().start().line, "secret", what));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.check(&leaks(&item.attrs, &item.vis, &item.ident), &item.ident, &item.fields);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        let derived = leaks(&item.attrs, &item.vis, &item.ident);
        for variant in &item.variants {
            self.check(&derived, &variant.ident, &variant.fields);
        }
        visit::visit_item_enum(self, item);
    }
}

/// The derived traits by which a type's content could get out.
fn leaks(attributes: &[Attribute], visibility: &Visibility, ident: &Ident) -> Vec<&'static str> {
    let is_for_sealing = matches!(visibility, Visibility::Inherited) && ident.to_string().contains("Secret");
    let names = if is_for_sealing { &["Debug"][..] } else { &["Debug", "Serialize"][..] };
    names.iter().copied().filter(|name| derives(attributes, name)).collect()
}

fn derives(attributes: &[Attribute], name: &str) -> bool {
    let mut found = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        let read = attribute.parse_nested_meta(|meta| {
            found |= meta.path.segments.last().is_some_and(|segment| segment.ident == name);
            Ok(())
        });
        // What cannot be read could be anything.
        found |= read.is_err();
    }
    found
}

/// `MasterKey` as `master_key`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// Whether the last words of a name, one or many, are among ours.
fn sounds_secret(name: &str) -> bool {
    WORDS.iter().any(|word| {
        let Some(before) = name.strip_suffix(word).or_else(|| name.strip_suffix('s')?.strip_suffix(word))
        else {
            return false;
        };
        before.is_empty() || before.ends_with('_')
    })
}

/// Whether the type masks what it holds, or cannot hold a secret: a yes or no, positions in a text.
fn is_masked(ty: &Type) -> bool {
    struct Seek(bool);
    impl<'ast> Visit<'ast> for Seek {
        fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
            let name = segment.ident.to_string();
            self.0 |= matches!(name.as_str(), "bool" | "Range") || name.starts_with("Secret");
            visit::visit_path_segment(self, segment);
        }
    }
    let mut seek = Seek(false);
    seek.visit_type(ty);
    seek.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rust::sample;

    fn found(code: &str) -> usize {
        check(&sample("crates/keys/src/a.rs", code)).len()
    }

    #[test]
    fn a_secret_in_the_open_is_found() {
        for code in [
            "#[derive(Debug)] struct A { password: String }",
            "#[derive(Clone, serde::Serialize)] struct A { repository_password: [u8; 32] }",
            "#[derive(Debug)] enum A { B { api_tokens: Vec<String> } }",
            "#[derive(Debug)] enum A { Passphrase(String) }",
            "#[derive(Debug)] struct MasterKey([u8; 32]);",
            "#[derive(Debug)] struct A { chunker_seed: u64 }",
            "fn a() { #[derive(Debug)] struct A { dek: [u8; 32] } }",
            "mod a { #[derive(Debug)] struct A { private_key: Option<String> } }",
            "#[derive(Serialize)] pub struct SealedSecrets { seed: String }",
            "#[derive(Debug, Serialize)] struct SealedSecrets { seed: String }",
        ] {
            assert_eq!(found(code), 1, "{code}");
        }
    }

    #[test]
    fn masked_fields_and_harmless_names_are_not() {
        for code in [
            "#[derive(Debug)] struct A { password: Secret<String>, key: u8 }",
            "#[derive(Debug)] enum A { Passphrase(SecretRef), Secrets }",
            "#[derive(Debug)] struct A { secret: Option<base::secret::Secret<[u8; 32]>>, has_password: bool }",
            "#[derive(Clone)] struct A { password: String }",
            "#[derive(Serialize, Deserialize)] struct SealedSecrets<'a> { seed: &'a str }",
            "#[derive(Debug)] struct A { password_hint: String, tokenizer: u8, secrets_path: String }",
            "#[derive(Debug)] struct A { secrets: Vec<Range<usize>> }",
            "#[cfg(test)] mod tests { #[derive(Debug)] struct A { password: String } }",
        ] {
            assert_eq!(found(code), 0, "{code}");
        }
    }
}
