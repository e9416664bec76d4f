//! Restores into an isolated target, checks, timings and a verdict.
