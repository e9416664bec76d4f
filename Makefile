# Everything here is short for a command a person could type; `cargo xtask ci` runs all of it as CI does.

CARGO ?= cargo
LIFEBOAT_CACHE ?= target/peers
export LIFEBOAT_CACHE

# The Python that scripts/install-test-peers.sh prepares comes first on the path, so tests just call `python3`.
test: export PATH := $(abspath $(LIFEBOAT_CACHE))/venv/bin:$(PATH)

.PHONY: demo estate test lint fmt bench

demo:
	$(CARGO) run --locked --release --package lifeboat-cli -- demo

# Five servers under load, one drill of all of them: MIB=2048 for a heavier one, DIR for another folder.
estate: export PATH := $(abspath $(LIFEBOAT_CACHE))/venv/bin:$(PATH)
estate: MIB ?= 256
estate: DIR ?= estate-run
estate: TARGET := $(or $(CARGO_TARGET_DIR),target)/release
estate:
	scripts/install-test-peers.sh
	$(CARGO) build --locked --release --package lifeboat-cli --package lifeboat-testkit --bin lifeboat --example estate
	$(TARGET)/examples/estate $(TARGET)/lifeboat $(DIR) $(MIB)

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
