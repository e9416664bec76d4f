//! The fixtures do what tests rely on: a fixture that lies makes every test above it lie.

#[cfg(test)]
mod main {
    mod pgserver;
}
