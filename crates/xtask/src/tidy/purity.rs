//! What a crate must not do: wait asynchronously, print, exit, read the environment.

use super::rust::{Source, Token};
use super::tree::Finding;

/// Crates in which nothing is asynchronous. `build` checks their dependencies for the same.
pub(super) const SYNCHRONOUS: &[&str] = &["base", "policy", "keys", "catalog", "evidence", "probe", "vault"];

/// Crates that talk to a person.
const PRINTERS: &[&str] = &["cli", "xtask"];
/// Crates that may read the environment.
const ENVIRONMENT_READERS: &[&str] = &["cli"];

/// Every forbidden word of the shipped code.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let package = source.package.as_str();
    for (index, token) in source.tokens.iter().enumerate() {
        let rest = source.tokens.get(index..).unwrap_or_default();
        let mut find = |rule, what: String| findings.push(Finding::new(&source.path, token.line, rule, what));
        if SYNCHRONOUS.contains(&package) && matches!(token.text.as_str(), "async" | "await") {
            let what =
                "this crate is synchronous: take a bounded channel or a thread, or move the call outwards";
            find("async", format!("`{}`, {what}", token.text));
        }
        if !PRINTERS.contains(&package) {
            if is_print(rest) {
                let what = "only the command line prints: return it, or tell the monitor";
                find("print", format!("`{}!`, {what}", token.text));
            }
            if is_path(rest, "process", &["exit", "abort"]) {
                find("exit", "a library does not end the process: return a failure".to_owned());
            }
        }
        if !ENVIRONMENT_READERS.contains(&package)
            && is_path(rest, "env", &["var", "var_os", "vars", "vars_os"])
        {
            find("environment", "only the command line reads the environment: take an argument".to_owned());
        }
    }
    findings
}

fn is_print(tokens: &[Token]) -> bool {
    matches!(tokens, [name, mark, ..]
        if matches!(name.text.as_str(), "print" | "println" | "eprint" | "eprintln" | "dbg") && mark.text == "!")
}

/// Whether the code goes on with `module::NAME` for one of `names`.
fn is_path(tokens: &[Token], module: &str, names: &[&str]) -> bool {
    matches!(tokens, [first, colon, second, name, ..]
        if first.text == module && colon.text == ":" && second.text == ":" && names.contains(&name.text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rust::sample;

    fn rules(package: &str, code: &str) -> Vec<&'static str> {
        let source = sample(&format!("crates/{package}/src/a.rs"), &format!("//! Doc.\n{code}\n"));
        check(&source).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn synchronous_crates_do_not_wait() {
        for code in [
            "async fn a() {}",
            "fn a() { let b = async { 1 }; }",
            "trait A { async fn b(); }",
            "fn a() { m!(c.await) }",
        ] {
            assert_eq!(rules("vault", code), ["async"], "{code}");
            assert!(rules("console", code).is_empty(), "{code}");
        }
        assert!(rules("vault", "/// async and .await in words.\nfn a() { b(\"async\") }").is_empty());
    }

    #[test]
    fn libraries_do_not_print_or_exit() {
        assert_eq!(rules("engine", "fn a() { println!(\"x\"); eprintln!(\"x\"); }"), ["print", "print"]);
        assert_eq!(rules("engine", "fn a() { std::process::exit(1) }"), ["exit"]);
        assert!(rules("cli", "fn a() { println!(\"x\"); std::process::exit(1) }").is_empty());
        assert!(
            rules("engine", "fn println() {}\n// println!\n#[cfg(test)]\nfn b() { println!() }").is_empty()
        );
    }

    #[test]
    fn only_the_command_line_reads_the_environment() {
        assert_eq!(rules("stores", "fn a() { std::env::var(\"HOME\") }"), ["environment"]);
        assert_eq!(rules("xtask", "use std::env;\nfn a() { env::var_os(\"HOME\") }"), ["environment"]);
        assert!(rules("cli", "fn a() { std::env::var(\"HOME\") }").is_empty());
        assert!(rules("stores", "fn a() { std::env::temp_dir() }").is_empty());
    }
}
