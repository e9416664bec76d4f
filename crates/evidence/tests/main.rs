//! Tests of lifeboat-evidence: the chain, its verification against every kind of tampering, bundles.

#[cfg(test)]
mod main {
    mod bundles;
    mod chains;
    mod tampering;
    mod tools;
}
