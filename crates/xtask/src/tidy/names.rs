//! Integers say their unit: no field or constant named only `timeout`, `size`, `age` or `interval`.

use syn::visit::{self, Visit};
use syn::{Ident, Type};

use super::rust::Source;
use super::tree::Finding;

const WORDS: &[&str] = &["timeout", "size", "age", "interval"];
const INTEGERS: &[&str] =
    &["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"];

/// Every integer without a unit.
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
    fn check(&mut self, ident: &Ident, ty: &Type) {
        let name = ident.to_string().to_lowercase();
        let last = name.rsplit('_').next().unwrap_or_default();
        if WORDS.contains(&last) && is_integer(ty) {
            let what =
                format!("`{ident}` is a number without a unit: end its name in _bytes, _ms, _s or _count");
            self.findings.push(Finding::new(self.path, ident.span().start().line, "unit", what));
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(ident) = &field.ident {
            self.check(ident, &field.ty);
        }
        visit::visit_field(self, field);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.check(&item.ident, &item.ty);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.check(&item.ident, &item.ty);
        visit::visit_item_static(self, item);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.check(&item.ident, &item.ty);
        visit::visit_impl_item_const(self, item);
    }
}

/// An integer, or an optional one.
fn is_integer(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    let Some(segment) = path.path.segments.last() else { return false };
    match &segment.arguments {
        syn::PathArguments::AngleBracketed(arguments) if segment.ident == "Option" => arguments
            .args
            .iter()
            .any(|argument| matches!(argument, syn::GenericArgument::Type(ty) if is_integer(ty))),
        _ => INTEGERS.iter().any(|name| segment.ident == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rust::sample;

    fn found(code: &str) -> usize {
        check(&sample("crates/vault/src/a.rs", code)).len()
    }

    #[test]
    fn integers_without_a_unit_are_found() {
        for code in [
            "struct A { timeout: u64 }",
            "struct A { page_size: Option<u32> }",
            "enum A { B { max_age: i64 } }",
            "const PACK_SIZE: usize = 4;",
            "static INTERVAL: u32 = 4;",
            "impl A { const SIZE: u64 = 1; }",
        ] {
            assert_eq!(found(code), 1, "{code}");
        }
    }

    #[test]
    fn units_and_types_that_carry_their_own_are_fine() {
        for code in [
            "struct A { timeout_ms: u64, size_bytes: u64, size_hint: u64, image: u64 }",
            "struct A { timeout: Duration, age: Option<Span> }",
            "const PACK_SIZE_BYTES: usize = 4;",
            "#[cfg(test)] const SIZE: u8 = 1;",
        ] {
            assert_eq!(found(code), 0, "{code}");
        }
    }
}
