//! Policy and requests in, job runs out: backup, verify, restore, drill, status.
