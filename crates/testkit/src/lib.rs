//! Fixtures for tests against real servers; never shipped.
//!
//! In: what a test asks for. Out: a server in a temporary folder that ends with its handle, also when a test panics.
//! A fixture that cannot be made fails the test on the spot; a missing peer says how to bring it in.

mod corpus;
mod estate;
mod etcdserver;
mod fail;
mod leftovers;
mod peers;
mod pgbench;
mod pgport;
mod pgserver;
mod pgstandby;
mod redisserver;
mod restfront;
mod sentinel;

pub use corpus::{Piece, corpus};
pub use estate::Estate;
pub use etcdserver::{EtcdOptions, EtcdServer, EtcdTls};
pub use lifeboat_postgres::server::Account;
pub use peers::{etcd_installations, pg_installation, pg_majors, pg_system_major};
pub use pgport::Port;
pub use pgserver::{PgOptions, PgServer};
pub use redisserver::{RedisOptions, RedisServer, redis_programs};
pub use restfront::{Mood, RestFront};
pub use sentinel::Sentinel;
