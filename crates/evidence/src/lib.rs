//! Signed, hash-chained records and bundles an outsider can verify offline.
