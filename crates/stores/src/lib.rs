//! Adapters: one datastore in, a capture out; a recovery point in, a restored and checked datastore out.
