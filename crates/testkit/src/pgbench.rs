//! Load for a test's server, by its own `pgbench`.

use crate::pgserver::PgServer;

impl PgServer {
    /// Makes `pgbench`'s tables; each step of `scale` is 100,000 accounts, about 15 MB.
    #[track_caller]
    pub fn pgbench_init(&self, scale: u32) {
        self.run("pgbench", &["-i", "-q", "-s", &scale.to_string()]);
    }

    /// Runs `pgbench` with these arguments, such as `-c 4 -T 5` in pieces, to its end; gives its report.
    #[track_caller]
    pub fn pgbench_run(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n"];
        all.extend_from_slice(arguments);
        self.run("pgbench", &all)
    }
}
