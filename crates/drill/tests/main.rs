//! Drills with adapters that misbehave on purpose: a green verdict must be earned.

#[cfg(test)]
mod main {
    mod adapters;
    mod agreement;
    mod applications;
    mod verdicts;
}
