# Everything here is short for a command a person could type; `cargo xtask ci` runs all of it as CI does.

CARGO ?= cargo
LIFEBOAT_CACHE ?= target/peers
export LIFEBOAT_CACHE

# The Python that scripts/install-test-peers.sh prepares comes first on the path, so tests just call `python3`.
test: export PATH := $(abspath $(LIFEBOAT_CACHE))/venv/bin:$(PATH)

.PHONY: demo test lint fmt bench

demo:
	$(CARGO) run --locked --release --package lifeboat-cli -- demo

test:
	scripts/install-test-peers.sh
	$(CARGO) test --locked --workspace --no-fail-fast
	python3 -m unittest discover --start-directory recovery-kit --pattern 'test_*.py' 2>&1

lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) xtask tidy

fmt:
	$(CARGO) fmt --all

bench:
	$(CARGO) xtask bench
