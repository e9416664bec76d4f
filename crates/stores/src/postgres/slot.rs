//! Guards the server against our own replication slot: while nobody follows the log, the slot makes the server keep it.
//!
//! In: a connection and the slot's name. Out: findings. Production's disk comes first: a gap in the log costs moments to
//! restore to, a full disk stops the server.

use lifeboat_base::failure::Failure;
use lifeboat_base::human;
use lifeboat_base::monitor::Finding;
use lifeboat_postgres::wire::{Connection, quote_literal};

use super::error;

/// What an idle slot may make a server keep that sets no limit itself (`max_slot_wal_keep_size`).
pub(crate) const LIMIT_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// The slot as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SlotState {
    active: bool,
    /// Log that the server keeps for it.
    kept_bytes: u64,
    /// The server has given up on it: what comes next is gone.
    lost: bool,
    /// The server limits what a slot may keep.
    limited: bool,
}

/// What is wrong with the slot, and whether it has to go.
fn judge(slot: &str, state: SlotState, limit_bytes: u64) -> (Option<Finding>, bool) {
    let finding = |code, message: String| Some(Finding::new(code, slot, message));
    let kept = human::bytes(state.kept_bytes);
    if state.lost {
        let message = format!(
            "the server gave up the log that slot `{slot}` kept: follow the log again (it files the gap) and make a \
             backup"
        );
        return (finding("slot-lost", message), false);
    }
    if !state.limited && !state.active && state.kept_bytes > limit_bytes {
        let message = format!(
            "slot `{slot}` made the server keep {kept} of log that nobody followed, and was removed before its disk \
             fills: the log has a gap until it is followed again and a backup is made"
        );
        return (finding("slot-removed", message), true);
    }
    if !state.limited {
        let message = format!(
            "nothing limits what slot `{slot}` makes the server keep while nobody follows the log (now {kept}): set \
             `max_slot_wal_keep_size` on the server; until then a backup removes the slot beyond {}",
            human::bytes(LIMIT_BYTES)
        );
        return (finding("slot-unlimited", message), false);
    }
    (None, false)
}

fn state(sql: &mut Connection, slot: &str) -> Result<Option<SlotState>, Failure> {
    let name = quote_literal(slot);
    let asked = sql.query(&format!(
        "SELECT active, coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn), 0)::bigint, \
         wal_status = 'lost', (SELECT setting::bigint >= 0 FROM pg_catalog.pg_settings \
         WHERE name = 'max_slot_wal_keep_size') FROM pg_catalog.pg_replication_slots WHERE slot_name = {name}"
    ));
    let rows = asked.map_err(error::connection("failed to look at the replication slot"))?;
    Ok(rows.first().map(|row| SlotState {
        active: row.get(0) == Some("t"),
        kept_bytes: row.get(1).and_then(|text| text.parse().ok()).unwrap_or_default(),
        lost: row.get(2) == Some("t"),
        limited: row.get(3) == Some("t"),
    }))
}

/// What is wrong with the slot, if there is one. Changes nothing.
pub(crate) fn look(sql: &mut Connection, slot: &str) -> Result<Option<Finding>, Failure> {
    Ok(state(sql, slot)?.and_then(|state| judge(slot, state, u64::MAX).0))
}

/// Looks, and removes a slot that nobody uses and that keeps more than `limit_bytes` on a server without a limit.
pub(crate) fn guard(sql: &mut Connection, slot: &str, limit_bytes: u64) -> Result<Option<Finding>, Failure> {
    let Some(state) = state(sql, slot)? else { return Ok(None) };
    let (finding, remove) = judge(slot, state, limit_bytes);
    if remove {
        let name = quote_literal(slot);
        sql.query(&format!("SELECT pg_catalog.pg_drop_replication_slot({name})"))
            .map_err(error::connection("failed to remove the replication slot"))?;
    }
    Ok(finding.filter(|finding| finding.code != "slot-unlimited"))
}

#[cfg(test)]
mod tests {
    use lifeboat_base::secret::Secret;
    use lifeboat_postgres::wire::{ConnectOptions, Mode};
    use lifeboat_testkit::{PgOptions, PgServer};

    use super::*;

    #[test]
    fn a_slot_is_removed_only_if_nobody_uses_it_and_nothing_else_limits_it() {
        let state = SlotState { active: false, kept_bytes: 101, lost: false, limited: false };
        let judged = |state| {
            let (finding, remove) = judge("lifeboat_shop", state, 100);
            (finding.map(|finding| finding.code), remove)
        };
        let code = |code: &str| Some(code.into());
        assert_eq!(judged(state), (code("slot-removed"), true));
        assert_eq!(judged(SlotState { kept_bytes: 100, ..state }), (code("slot-unlimited"), false));
        assert_eq!(judged(SlotState { active: true, ..state }), (code("slot-unlimited"), false));
        assert_eq!(judged(SlotState { limited: true, ..state }), (None, false));
        assert_eq!(judged(SlotState { lost: true, limited: true, ..state }), (code("slot-lost"), false));
    }

    #[test]
    fn an_idle_slot_is_removed_from_a_real_server_and_a_limited_one_is_left_to_the_server() {
        for major in [15, 18] {
            let server = PgServer::start(PgOptions::new(major));
            let options = ConnectOptions::parse(&Secret::new(server.conninfo())).unwrap();
            let mut sql = Connection::connect(&options, Mode::Sql).unwrap();
            let slots = "SELECT count(*) FROM pg_replication_slots";
            assert_eq!(look(&mut sql, "lifeboat_shop").unwrap(), None);
            server.psql("SELECT pg_create_physical_replication_slot('lifeboat_shop', true)");
            server.psql("CREATE TABLE t AS SELECT g FROM generate_series(1, 10000) g");
            assert_eq!(guard(&mut sql, "lifeboat_shop", u64::MAX).unwrap(), None);
            assert_eq!(look(&mut sql, "lifeboat_shop").unwrap().unwrap().code, "slot-unlimited");
            server.psql("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'");
            server.psql("SELECT pg_reload_conf()");
            // The reload reaches this connection between two statements.
            while look(&mut sql, "lifeboat_shop").unwrap().is_some() {}
            assert_eq!(guard(&mut sql, "lifeboat_shop", 100_000).unwrap(), None);
            assert_eq!(server.psql(slots), "1");
            server.psql("ALTER SYSTEM RESET max_slot_wal_keep_size");
            server.psql("SELECT pg_reload_conf()");
            while look(&mut sql, "lifeboat_shop").unwrap().is_none() {}
            let finding = guard(&mut sql, "lifeboat_shop", 100_000).unwrap().unwrap();
            assert_eq!(finding.code, "slot-removed");
            assert_eq!(server.psql(slots), "0");
        }
    }
}
