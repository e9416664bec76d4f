//! From a row of the policy to the adapter that can talk to its store.

use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StoreName;
use lifeboat_base::secret::{Secret, SecretRef};
use lifeboat_policy::{
    Checks, Endpoint, EtcdAccess, Kind, RedisScan, Source, Store, VectorEngine, VectorIndex, VectorMetric,
};
use lifeboat_stores::etcd::{
    ClientOptions, Login, Order as EtcdOrder, OutsideCommand, Reach as EtcdReach, TlsPem,
};
use lifeboat_stores::redis::Variables;
use lifeboat_stores::{
    Adapter, Address, EtcdAdapter, EtcdOptions, EtcdSource, FilesAdapter, FilesOptions, Metric,
    PostgresAdapter, PostgresOptions, RedisAdapter, RedisFilesAdapter, RedisFilesOptions, RedisOptions,
    ScanOptions, SqliteAdapter, SqliteOptions, Upkeep, VectorAdapter, VectorOptions,
};

use crate::context::Engine;
use crate::error::EngineError;

/// What a restore asks of an adapter beyond its row.
#[derive(Debug, Default)]
pub(crate) struct Wishes<'a> {
    /// Where tablespaces come to lie, by name or object id; the others lie inside the target.
    pub(crate) tablespaces: &'a [(String, PathBuf)],
    /// By how much a revision is raised.
    pub(crate) bump_revision: Option<u64>,
}

impl Engine {
    /// The adapter of a row; `Refused` for a kind this version cannot capture.
    pub(crate) fn adapter(&self, row: &Store) -> Result<Box<dyn Adapter>, EngineError> {
        self.adapter_with(row, &Wishes::default())
    }

    /// The adapter of a row, for a restore with these wishes; kinds without tablespaces leave theirs unread.
    pub(crate) fn adapter_with(
        &self,
        row: &Store,
        wishes: &Wishes<'_>,
    ) -> Result<Box<dyn Adapter>, EngineError> {
        if wishes.bump_revision.is_some() && row.kind != Kind::Etcd {
            let what = format!("a store of kind `{}` has no revision to raise", row.kind.word());
            return Err(EngineError::new(FailureKind::Usage, what).next("leave --bump-revision out"));
        }
        match &row.source {
            Source::Files { path, exclude, one_file_system } => {
                let options = FilesOptions {
                    root: self.resolve(path),
                    exclude: exclude.clone(),
                    one_file_system: *one_file_system,
                };
                Ok(Box::new(FilesAdapter::new(options)))
            }
            Source::Sqlite { path } => {
                let options = SqliteOptions {
                    path: self.resolve(path),
                    unique: row.checks.unique.clone(),
                    sql: row.checks.sql.clone(),
                };
                Ok(Box::new(SqliteAdapter::new(options)))
            }
            Source::Url(endpoint) if row.kind == Kind::Postgres => {
                let options = PostgresOptions {
                    url: Arc::new(self.address(endpoint)),
                    slot: slot_name(&row.name),
                    programs: self.env.programs.clone(),
                    unique: row.checks.unique.clone(),
                    sql: row.checks.sql.clone(),
                    tablespaces: wishes.tablespaces.to_vec(),
                };
                Ok(Box::new(PostgresAdapter::new(options)))
            }
            Source::Redis { url: endpoint, token, scan } => {
                let options = RedisOptions {
                    url: Arc::new(self.address(endpoint)),
                    programs: self.env.programs.clone(),
                    commands: row.checks.commands.clone(),
                    upkeep: self.upkeep(&row.checks),
                    scan: scan.as_deref().map(scan_options),
                    token: token.clone().map(|token| self.token(token)),
                };
                Ok(Box::new(RedisAdapter::new(options)))
            }
            Source::RedisFiles { dir, config } => {
                let options = RedisFilesOptions {
                    dir: self.resolve(dir),
                    config: config.as_ref().map(|config| self.resolve(config)),
                    programs: self.env.programs.clone(),
                    commands: row.checks.commands.clone(),
                };
                Ok(Box::new(RedisFilesAdapter::new(options)))
            }
            Source::Etcd { url, access } => {
                let source = EtcdSource::Members(self.etcd_members(url, EtcdAccess::clone(access)));
                Ok(self.etcd(source, wishes))
            }
            Source::EtcdCommand { words, environment } => {
                let source = EtcdSource::Command(self.etcd_command(words.clone(), environment.clone()));
                Ok(self.etcd(source, wishes))
            }
            Source::Vector(index) => Ok(Box::new(VectorAdapter::new(self.vector(index)))),
            Source::Url(_) => Err(EngineError::new(
                FailureKind::Refused,
                format!("this version cannot capture stores of kind `{}` (`{}`)", row.kind.word(), row.name),
            )
            .risking(&row.name, "rpo")
            .next("this version captures `files`, `sqlite`, `postgres`, `redis`, `etcd` and `vector` with an `engine`; the row stays broken in `lifeboat status`")),
        }
    }

    pub(crate) fn vector(&self, index: &VectorIndex) -> VectorOptions {
        let VectorEngine::Jsonl = index.engine;
        VectorOptions {
            path: self.resolve(&index.path),
            contract: self.resolve(&index.contract),
            metric: match index.metric {
                VectorMetric::Cosine => Metric::Cosine,
                VectorMetric::InnerProduct => Metric::InnerProduct,
                VectorMetric::L2 => Metric::L2,
            },
            gold: index.gold.as_ref().map(|gold| self.resolve(gold)),
        }
    }

    fn etcd(&self, source: EtcdSource, wishes: &Wishes<'_>) -> Box<dyn Adapter> {
        Box::new(EtcdAdapter::new(EtcdOptions {
            source,
            programs: self.env.programs.clone(),
            bump_revision: wishes.bump_revision,
        }))
    }

    /// A server's address, asked for only when the server is contacted: a restore must not need production's.
    pub(crate) fn address(
        &self,
        endpoint: &Endpoint,
    ) -> impl Fn() -> Result<Secret<String>, Failure> + Send + Sync + use<> {
        let (endpoint, secrets) = (endpoint.clone(), Arc::clone(&self.env.secrets));
        move || match &endpoint {
            Endpoint::Secret(reference) => secrets.resolve(reference),
            Endpoint::Plain(url) => Ok(Secret::new(url.clone())),
        }
    }

    /// A secret that is asked for only when the server is contacted.
    fn token(&self, reference: SecretRef) -> Address {
        let secrets = Arc::clone(&self.env.secrets);
        Arc::new(move || secrets.resolve(&reference))
    }

    /// As [`Engine::address`], with everything else that is secret about a cluster.
    fn etcd_members(&self, url: &Endpoint, access: EtcdAccess) -> EtcdReach {
        let (address, secrets) = (self.address(url), Arc::clone(&self.env.secrets));
        Arc::new(move || {
            let resolve = |reference: &Option<SecretRef>| {
                reference.as_ref().map(|reference| secrets.resolve(reference)).transpose()
            };
            let mut options = ClientOptions::parse(address()?.expose()).map_err(|error| {
                Failure::with_source(error.kind(), "failed to understand the address of the cluster", error)
            })?;
            let text = |reference| Ok::<_, Failure>(resolve(reference)?.map(|text| text.expose().clone()));
            options.tls =
                TlsPem { ca: text(&access.ca)?, cert: text(&access.cert)?, key: resolve(&access.key)? };
            if let (Some(user), Some(password)) = (&access.user, resolve(&access.password)?) {
                options.login = Some(Login { user: user.clone(), password });
            }
            Ok(options)
        })
    }

    fn etcd_command(&self, words: Vec<String>, names: Vec<String>) -> EtcdOrder {
        let environment = self.variables(names);
        Arc::new(move || Ok(OutsideCommand { words: words.clone(), environment: environment()? }))
    }

    /// Variables of our environment with their values, asked for only when a command is run.
    fn variables(&self, names: Vec<String>) -> Variables {
        let secrets = Arc::clone(&self.env.secrets);
        Arc::new(move || {
            let value = |name: &String| Ok((name.clone(), secrets.resolve(&SecretRef::Env(name.clone()))?));
            names.iter().map(value).collect()
        })
    }

    fn upkeep(&self, checks: &Checks) -> Upkeep {
        Upkeep {
            durable: checks.durable.clone(),
            rebuild: checks.replay.clone(),
            folder: std::path::absolute(self.resolve(".")).unwrap_or_else(|_odd| PathBuf::from("/")),
            variables: self.variables(checks.replay_environment.clone()),
        }
    }
}

fn scan_options(scan: &RedisScan) -> ScanOptions {
    ScanOptions {
        prefix: scan.prefix.clone(),
        requests_per_second: scan.requests_per_second,
        second_pass: scan.second_pass,
        skip_unknown: scan.skip_unknown,
    }
}

/// A replication slot takes fewer characters than the name of a store.
fn slot_name(store: &StoreName) -> String {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    format!("lifeboat_{}", store.as_str().chars().map(plain).collect::<String>())
}
