#!/usr/bin/env python3
"""Checks a Lifeboat evidence bundle: python3 verify.py DIRECTORY 'ed25519:KEY'

Needs Python 3.9 or later and the package `cryptography`. Uses nothing of Lifeboat and no network.
Exit code 0: everything is authentic. 6: something was altered. 2: wrong usage.
"""

import base64
import hashlib
import json
import os
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TYPES = "application/vnd.lifeboat.evidence"
PAGES = {"VERIFY.md", "head.json", "index.json", "index.md", "public.key", "records.csv", "verify.py"}
BESIDE = re.compile(r"[a-z0-9-]{1,64}\.(html|md|json|csv)\Z")
TEMPORARY = ".lifeboat-tmp-"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def decode(text):
    return base64.b64decode(text, validate=True)


class Bundle:
    def __init__(self, directory, key_text):
        prefix, _, encoded = key_text.strip().partition(":")
        raw = decode(encoded)
        if prefix != "ed25519" or len(raw) != 32:
            raise ValueError("the key must be ed25519: and base64 text of 32 bytes")
        self.directory, self.key_text = directory, key_text.strip()
        self.key, self.key_id = Ed25519PublicKey.from_public_bytes(raw), sha256(raw)[:16]
        self.problems = []

    def read(self, name):
        path = os.path.join(self.directory, name)
        if os.path.islink(path) or not os.path.isfile(path):
            raise ValueError("is missing or not a regular file")
        with open(path, "rb") as file:
            return file.read()

    def signed(self, name, suffix):
        """The file's bytes and its payload, if the key signed it."""
        data = self.read(name)
        document = json.loads(data)
        kind, payload = document["payloadType"], decode(document["payload"])
        (signature,) = document["signatures"]
        if kind != TYPES + suffix + "+json" or signature["keyid"] != self.key_id:
            raise ValueError("has another type or names another key")
        encoded = b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)
        try:
            self.key.verify(decode(signature["sig"]), encoded)
        except InvalidSignature:
            raise ValueError("was changed after it was signed, or was signed by another key") from None
        return data, json.loads(payload)

    def check(self, name, test):
        """Runs one test; whatever goes wrong in it is a problem of that file."""
        try:
            return test()
        except Exception as error:  # a hostile file may fail in any way
            self.problems.append("%s: %s" % (name, error))
            return None

    def record(self, name, listed, previous):
        data, record = self.signed(name, "")
        if sha256(data) != listed["digest"]:
            raise ValueError("is not the record bundle.json lists")
        if record["format"] != "lifeboat.evidence/v1" or record["seq"] != listed["seq"]:
            raise ValueError("holds another record")
        if record["previous"] != previous:
            raise ValueError("does not follow the record before it")

    def page(self, listed):
        if sha256(self.read(listed["name"])) != listed["digest"]:
            raise ValueError("was changed")

    @staticmethod
    def well_named(names):
        """Every page of a bundle once; others beside them only under plain names."""
        others = set(names) - PAGES
        return (
            len(names) == len(set(names))
            and PAGES <= set(names)
            and all(BESIDE.match(name) and name != "bundle.json" for name in others)
        )

    def manifest(self):
        _, bundle = self.signed("bundle.json", "-bundle")
        records, head = bundle["records"], bundle["head"]
        last = records[-1]["digest"] if records else "0" * 64
        if (
            bundle["format"] != "lifeboat.evidence-bundle/v1"
            or bundle["public_key"] != self.key_text
            or [record["seq"] for record in records] != list(range(1, head["seq"] + 1))
            or head["digest"] != last
            or not self.well_named([file["name"] for file in bundle["files"]])
        ):
            raise ValueError("contradicts itself")
        return bundle

    def verify(self):
        bundle = self.check("bundle.json", self.manifest)
        if bundle is None:
            return None
        for listed in bundle["files"]:
            self.check(listed["name"], lambda: self.page(listed))
        previous, expected = "0" * 64, set()
        for listed in bundle["records"]:
            if listed["included"]:
                name = "records/%08d.json" % listed["seq"]
                expected.add(os.path.basename(name))
                self.check(name, lambda: self.record(name, listed, previous))
            previous = listed["digest"]
        named = {listed["name"] for listed in bundle["files"]}
        for folder, known in (("", named | {"bundle.json", "records"}), ("records", expected)):
            for name in sorted(os.listdir(os.path.join(self.directory, folder))):
                if name not in known and not name.startswith(TEMPORARY):
                    self.problems.append("%s: does not belong here" % os.path.join(folder, name))
        return bundle, len(expected)


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        bundle = Bundle(*arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    found = bundle.verify()
    for problem in bundle.problems:
        print(ascii(problem))
    if bundle.problems or found is None:
        print("NOT AUTHENTIC: %d problems" % len(bundle.problems))
        return 6
    manifest, included = found
    head = manifest["head"]
    print("authentic: %d records, %d left out" % (included, head["seq"] - included))
    print("the chain ends with record %d, SHA-256 %s" % (head["seq"], head["digest"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
