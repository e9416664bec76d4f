//! Kind `sqlite`: the conformance suite over a busy database, and the proof that a capture is one moment.
