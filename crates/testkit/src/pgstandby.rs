//! A streaming standby of a test's server, and its promotion.

use std::path::Path;
use std::process::Command;

use lifeboat_postgres::server::{Installation, give_tree};

use crate::fail::{fail, need};
use crate::pgserver::PgServer;

impl PgServer {
    /// Starts a hot standby of this server, made by `pg_basebackup`; tablespaces get folders of their own. It streams
    /// without a slot, over the socket.
    #[must_use]
    #[track_caller]
    pub fn standby(&self) -> Self {
        let mut standby = Self::prepare(self.installation.clone());
        let data = standby.data();
        let target = data.to_string_lossy();
        let mappings = self.tablespace_mappings(&standby);
        let mut arguments = vec!["-D", &target, "-R", "-X", "stream", "-c", "fast", "--no-sync"];
        arguments.extend(mappings.iter().map(String::as_str));
        self.run("pg_basebackup", &arguments);
        standby.configure(&standby.place());
        standby.start_again();
        standby
    }

    /// Starts a server of its own on a copy of a cluster that does not run, such as a restored one.
    #[must_use]
    #[track_caller]
    pub fn on_copy(installation: &Installation, cluster: &Path) -> Self {
        let mut server = Self::prepare(installation.clone());
        let data = server.data();
        let copied = Command::new("cp").arg("-aT").arg(cluster).arg(&data).status();
        if !need(copied, "a cluster cannot be copied").success() {
            fail(format_args!("{} cannot be copied", cluster.display()));
        }
        need(give_tree(&data, server.account()), "a copy cannot be given away");
        server.configure(&server.place());
        server.start_again();
        server
    }

    /// Waits until this standby has replayed everything that `primary` has written by now.
    #[track_caller]
    pub fn catch_up(&self, primary: &Self) {
        let written = primary.psql("SELECT pg_current_wal_flush_lsn()");
        // Asked again and again: one long statement would hold the replay up.
        while self.psql(&format!("SELECT pg_last_wal_replay_lsn() < '{written}'")) == "t" {}
    }

    /// Promotes a standby and waits until it takes writes.
    #[track_caller]
    pub fn promote(&self) {
        if self.psql("SELECT pg_promote(true, 60)") != "t" {
            fail(format_args!("the standby was not promoted:\n{}", self.log()));
        }
    }

    /// Arguments of `pg_basebackup` that move every tablespace of ours into a folder of `other`.
    #[track_caller]
    fn tablespace_mappings(&self, other: &Self) -> Vec<String> {
        let folder = self.root.path().join("tablespaces");
        let entries = need(std::fs::read_dir(&folder), "the tablespaces cannot be listed");
        entries
            .map(|entry| {
                let from = need(entry, "the tablespaces cannot be listed").path();
                let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let to = other.tablespace_dir(&name);
                format!("--tablespace-mapping={}={}", from.display(), to.display())
            })
            .collect()
    }
}
