//! Who can open a vault and who signs: wrapped passwords, signatures, envelopes.
