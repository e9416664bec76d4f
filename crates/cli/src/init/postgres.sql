-- What PostgreSQL 13 to 18 needs so that Lifeboat can keep it. Run this on the primary as a superuser.

-- A role that may replicate and do nothing else. Choose a password; it belongs into the place that the policy's
-- `url = "env:NAME"` refers to, never into the policy.
CREATE ROLE lifeboat LOGIN REPLICATION PASSWORD 'choose one';

-- Settings, sizes and roles (without passwords), recorded with every recovery point.
GRANT pg_monitor TO lifeboat;

-- Optional, from 14 on: lets rows be counted and content be summed, so that a restore can be compared with them.
-- Without it they are recorded as unknown.
DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 140000 THEN
        GRANT pg_read_all_data TO lifeboat;
    END IF;
END $$;

-- In pg_hba.conf, then `SELECT pg_reload_conf()`:
--   hostssl  replication  lifeboat  ADDRESS/32  scram-sha-256
--   hostssl  all          lifeboat  ADDRESS/32  scram-sha-256
--
-- In postgresql.conf (the first two need a restart):
--   wal_level = replica
--   max_wal_senders = 10
--   max_slot_wal_keep_size = '100GB'    -- what a follower that is away may cost; beyond it the log has a gap
--
-- The log: `lifeboat wal stream STORE` follows it and loses seconds. Beside it or instead, the server can hand it over
-- file by file, which loses up to a segment, or what archive_timeout allows. Run as the server's account; a restart:
--   archive_mode = on
--   archive_command = 'lifeboat --policy /etc/lifeboat.toml wal push %p'
--   archive_timeout = '60s'
-- On a standby or a cluster that recovers:
--   restore_command = 'lifeboat --policy /etc/lifeboat.toml wal fetch %f %p'
