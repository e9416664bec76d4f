#!/usr/bin/env python3
"""Compares restored stores with the ledger of whoever wrote to them.

usage: ledger.py LEDGER

LEDGER has a line of JSON for the begin of every write and one for its acknowledgement, with the time of the writer's
clock in milliseconds. STORE_x says where a restored store is, MOMENT_x which moment it shows. Needs the stores' own
clients: psql, redis-cli, etcdctl.
"""

import datetime
import json
import os
import sqlite3
import subprocess
import sys

# Moments other than PostgreSQL's are told by the capture's clock, a little beside the store's own.
SLACK_MS = {"shop": 0, "carts": 2000, "flags": 2000, "audit": 2000, "uploads": 2000}
# A tree that is read while it is written to may hold what came later.
FUZZY = {"uploads"}
SHOWN = 5


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()


def shop(address):
    return run("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", "SELECT n FROM orders", address)


def carts(address):
    socket = address.removeprefix("unix://")
    keys = run("redis-cli", "-e", "-s", socket, "--scan", "--pattern", "cart:*")
    if run("redis-cli", "-e", "-s", socket, "PING") != ["PONG"]:
        raise OSError("no answer")
    return [key.removeprefix("cart:") for key in keys]


def flags(address):
    keys = run("etcdctl", "--endpoints", address, "get", "--prefix", "--keys-only", "/orders/")
    return [key.removeprefix("/orders/") for key in keys if key]


def audit(address):
    connection = sqlite3.connect(f"file:{address}?mode=ro", uri=True)
    return [row[0] for row in connection.execute("SELECT n FROM audit")]


def uploads(address):
    # A receipt that is being written has another name until it is whole.
    names = os.listdir(os.path.join(address, "receipts"))
    return [name.removesuffix(".txt") for name in names if name.endswith(".txt")]


def read(path):
    """When each write began and was acknowledged, by store and number. The last line may be half written."""
    began, acked = {}, {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                entry = json.loads(line)
                place = began if entry["event"] == "began" else acked
                place[entry["store"], entry["n"]] = entry["at_ms"]
    return began, acked


def moment_ms(text):
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.datetime.fromisoformat(f"{whole}.{fraction.ljust(6, '0')[:6]}")
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000


def compare(store, began, acked):
    """What is wrong with one store, in words."""
    name = store.__name__
    shows, slack = moment_ms(os.environ[f"MOMENT_{name.upper()}"]), SLACK_MS[name]
    try:
        there = {int(number) for number in store(os.environ[f"STORE_{name.upper()}"])}
    except (OSError, ValueError, sqlite3.Error, subprocess.SubprocessError) as error:
        yield f"{name}: cannot be read: {error}"
        return
    own = {number: at for (of, number), at in acked.items() if of == name}
    lost = sorted(number for number, at in own.items() if at + slack < shows and number not in there)
    invented = sorted(number for number in there if (name, number) not in began)
    later = sorted(
        number for number in there if name not in FUZZY and began.get((name, number), 0) > shows + slack
    )
    for what, numbers in (("lost", lost), ("never written", invented), ("of the future", later)):
        if numbers:
            yield f"{name}: {len(numbers)} {what}: {', '.join(map(str, numbers[:SHOWN]))}"
    print(f"{name}: {len(there)} there, {sum(at + slack < shows for at in own.values())} promised")


def main():
    began, acked = read(sys.argv[1])
    wrong = [line for store in (shop, carts, flags, audit, uploads) for line in compare(store, began, acked)]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
