//! The engine under a clock that jumps: what was shown as kept must not stay so by an accident of time.

#[cfg(test)]
mod main {
    mod clocks;
    mod doubts;
    mod due;
    mod locks;
    mod retention;
    mod world;
}
