//! The engine itself: the policy, where its files lie, and the outside world it was given.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::Entropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StoreName;
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::secret::SecretSource;
use lifeboat_base::time::Clock;
use lifeboat_catalog::Catalog;
use lifeboat_policy::{Policy, Store};

use crate::error::EngineError;
use crate::locks::Believed;

/// Written into every manifest.
pub(crate) const TOOL: &str = concat!("lifeboat ", env!("CARGO_PKG_VERSION"));

/// A policy file larger than this is not a policy.
const MAX_POLICY_BYTES: u64 = 4 * 1024 * 1024;

/// The outside world, given by the command line.
#[derive(Clone)]
pub struct Environment {
    /// Wall clock and stopwatch.
    pub clock: Arc<dyn Clock>,
    /// Randomness for keys and ids.
    pub entropy: Arc<dyn Entropy>,
    /// Resolves secret references.
    pub secrets: Arc<dyn SecretSource>,
    /// The name of this machine, for snapshots.
    pub host: String,
    /// Who runs this, for snapshots.
    pub user: String,
    /// Folders with programs, for servers that are not where packages put them.
    pub programs: Vec<PathBuf>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Shows jobs in progress. Every job reports to its own monitor, so that several can run at once.
pub trait Observer: Send + Sync {
    /// A job starts, such as `backup orders`; its monitor lives as long as the job.
    fn job(&self, name: &str) -> Box<dyn Monitor>;
}

/// A loaded policy, ready to work.
pub struct Engine {
    pub(crate) policy: Policy,
    pub(crate) policy_hash: Digest,
    /// The folder of the policy file; relative paths in the policy start here.
    pub(crate) base: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) env: Environment,
    pub(crate) observer: Arc<dyn Observer>,
    /// By what time locks end.
    pub(crate) believed: Believed,
    /// The catalog and what was found when it caught up with the evidence.
    catalog: OnceLock<(Catalog, Vec<Finding>)>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("base", &self.base).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Engine {
    /// Reads and parses the policy file. Touches nothing else.
    pub fn load(path: &Path, env: Environment, observer: Arc<dyn Observer>) -> Result<Self, EngineError> {
        let text = read_policy(path)?;
        let name = path.display().to_string();
        let policy = lifeboat_policy::parse(&text, &name)
            .map_err(|errors| Failure::with_source(FailureKind::Usage, "the policy is not valid", errors))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let base = folder
            .canonicalize()
            .map_err(|error| Failure::io(format!("failed to find the folder of {name}"), error))?;
        let state = base.join(&policy.state);
        Ok(Self {
            policy_hash: Digest::of(text.as_bytes()),
            policy,
            base,
            state,
            env,
            observer,
            believed: Believed::default(),
            catalog: OnceLock::new(),
        })
    }

    /// The same engine under another policy, with files in the same places.
    pub(crate) fn with_policy(&self, policy: Policy) -> Self {
        Self {
            policy,
            policy_hash: self.policy_hash,
            base: self.base.clone(),
            state: self.state.clone(),
            env: self.env.clone(),
            observer: Arc::clone(&self.observer),
            believed: Believed::default(),
            catalog: OnceLock::new(),
        }
    }

    /// The policy as parsed.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The hash of the policy file's bytes.
    pub fn policy_hash(&self) -> Digest {
        self.policy_hash
    }

    /// The folder of the evidence chain.
    pub fn evidence_dir(&self) -> PathBuf {
        self.state.join("evidence")
    }

    /// A path of the policy, relative to the policy file.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// The row of a store.
    pub(crate) fn store(&self, name: &StoreName) -> Result<&Store, EngineError> {
        self.policy.stores.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.policy.stores.keys().map(StoreName::as_str).collect();
            EngineError::new(FailureKind::Usage, format!("the policy has no store `{name}`"))
                .next(format!("name one of: {}", known.join(", ")))
        })
    }

    /// The rows named, or all of them.
    pub(crate) fn select(&self, names: &[StoreName]) -> Result<Vec<&Store>, EngineError> {
        if names.is_empty() {
            return Ok(self.policy.stores.values().collect());
        }
        let mut rows: Vec<&Store> = Vec::new();
        for name in names {
            let row = self.store(name)?;
            if !rows.iter().any(|known| known.name == row.name) {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// The catalog, opened once and brought up to the evidence chain: one that was lost or put back from an older
    /// state must not forget what was found since.
    pub(crate) fn catalog(&self) -> Result<&Catalog, EngineError> {
        if let Some((catalog, _findings)) = self.catalog.get() {
            return Ok(catalog);
        }
        let catalog = Catalog::open(&self.catalog_path()).map_err(|error| {
            let next = error.next_step();
            EngineError::from(Failure::from(error)).next(next)
        })?;
        let findings = self.catch_up(&catalog)?;
        Ok(&self.catalog.get_or_init(|| (catalog, findings)).0)
    }

    /// Evidence that could not be taken over when the catalog was opened.
    pub(crate) fn catalog_findings(&self) -> Vec<Finding> {
        self.catalog.get().map(|(_catalog, findings)| findings.clone()).unwrap_or_default()
    }

    pub(crate) fn catalog_path(&self) -> PathBuf {
        self.state.join("catalog.db")
    }

    /// A folder for spools of one run, made when asked for.
    pub(crate) fn spool(&self) -> Result<PathBuf, EngineError> {
        let dir = self.state.join("spool");
        crashsafe::create_dir_all(&dir)
            .map_err(|error| Failure::io("failed to make the spool folder", error))?;
        Ok(dir)
    }

    /// The file that a capture of this store may leave for the next one.
    pub(crate) fn kept(&self, store: &StoreName) -> Result<PathBuf, Failure> {
        let dir = self.state.join("captures");
        crashsafe::create_dir_all(&dir)
            .map_err(|error| Failure::io(format!("failed to make {}", dir.display()), error))?;
        Ok(dir.join(store.as_str()))
    }

    /// Where sandboxes are made, with a way in for the servers that run in them.
    pub(crate) fn sandboxes(&self) -> Result<PathBuf, Failure> {
        crashsafe::create_dir_all(&self.state)
            .and_then(|()| crashsafe::let_through(&self.state))
            .map_err(|error| Failure::io("failed to open a way to the sandbox", error))?;
        Ok(self.state.join("sandbox"))
    }

    /// The one lease that lets a process change a store's vaults.
    pub(crate) fn lease(&self, store: &StoreName, what: &str) -> Result<Lease, EngineError> {
        let path = self.state.join("locks").join(format!("{store}.lock"));
        let note = format!("{what} of {store}");
        match Lease::try_acquire(&path, &note) {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(held)) => Err(EngineError::new(
                FailureKind::Refused,
                format!("another run holds `{store}`: {}", held.0),
            )
            .next("wait for it to end, then run the command again")),
            Err(error) => Err(Failure::io(format!("failed to take the lease of `{store}`"), error).into()),
        }
    }
}

fn read_policy(path: &Path) -> Result<String, EngineError> {
    let shown = path.display();
    let fail = |error| {
        EngineError::from(Failure::with_source(
            FailureKind::Usage,
            format!("failed to read the policy {shown}"),
            error,
        ))
        .next("name it with --policy FILE, or make one with `lifeboat init`")
    };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(MAX_POLICY_BYTES + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_POLICY_BYTES {
        return Err(EngineError::new(
            FailureKind::Usage,
            format!("{shown} is larger than a policy may be (4 MiB)"),
        ));
    }
    Ok(text)
}
