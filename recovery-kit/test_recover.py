"""Tests of the recovery kit: run `python -m unittest` in this directory.

The vault under test is made by stock restic plus the files of docs/format.md written by this file, so that neither
Lifeboat's writer nor the kit's reader is trusted by itself. Vaults made by Lifeboat are read by its own tests, which call
the kit.
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import tempfile
import unittest
from types import SimpleNamespace

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

import lifeboat_recover as kit

# Without restic the tests fail: nothing is skipped.
RESTIC = shutil.which("restic") or "restic"
PASSPHRASE = "correct horse"
PASSWORD = "5e" * 32
VAULT_ID = "0123456789abcdef0123456789abcdef"
KEY_FILE = "lifeboat-key-1:" + base64.b64encode(bytes(range(32))).decode() + "\n"
SIGNING = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
POINT = "pt-20261121T020000000Z-00000001"


def b64(data):
    return base64.b64encode(data).decode()


def compact(document):
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def put(root, name, data):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as handle:
        handle.write(data)


def get(root, name):
    with open(os.path.join(root, name), "rb") as handle:
        return handle.read()


def sign(payload_type, payload):
    return SIGNING.sign(b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload))


def dsse(payload_type, document):
    payload = compact(document)
    public = SIGNING.public_key().public_bytes_raw()
    signature = {"keyid": hashlib.sha256(public).hexdigest()[:16], "sig": b64(sign(payload_type, payload))}
    return compact({"payloadType": payload_type, "payload": b64(payload), "signatures": [signature]}) + b"\n"


def seal(key, plain):
    """The restic seal, written here a second time. `key` is encrypt, mac.k, mac.r one after another."""
    nonce = os.urandom(16)
    body = Cipher(algorithms.AES(key[:32]), modes.CTR(nonce)).encryptor().update(plain)
    s = Cipher(algorithms.AES(key[32:48]), modes.ECB()).encryptor().update(nonce)
    return nonce + body + Poly1305.generate_tag(key[48:] + s, body)


def make_envelope(root):
    public = "ed25519:" + b64(SIGNING.public_key().public_bytes_raw())
    lines = ["lifeboat.envelope/v1", VAULT_ID, "orders", "2026-11-21T02:00:00Z", public]
    context = "".join(line + "\n" for line in lines).encode()
    data_key = b"\x42" * 32
    salt = b"\x01" * 32
    recipients = []
    for kind, label, params, key in [
        ("passphrase", "env:LIFEBOAT_PASSPHRASE", {"n": 1024, "p": 1, "r": 8, "salt": b64(salt)},
         Scrypt(salt=salt, length=32, n=1024, r=8, p=1).derive(PASSPHRASE.encode())),
        ("keyfile", "file:./ops.key", {}, bytes(range(32))),
    ]:
        nonce = os.urandom(12)
        aad = context + f"recipient\n{kind}\n{label}\n".encode()
        wrapped = ChaCha20Poly1305(key).encrypt(nonce, data_key, aad)
        recipients.append({"kind": kind, "label": label, "params": params, "nonce": b64(nonce), "wrapped": b64(wrapped)})
    secrets = {"format": "lifeboat.vault-secrets/v1", "repository_password": PASSWORD,
               "signing_seed": b64(b"\x07" * 32), "chunker_seed": "00" * 8}
    nonce = os.urandom(12)
    sealed = ChaCha20Poly1305(data_key).encrypt(nonce, compact(secrets), context + b"sealed\n")
    names = ["format", "vault_id", "store", "created", "public_key"]
    document = dict(zip(names, lines)) | {
        "recipients": recipients, "sealed": {"nonce": b64(nonce), "ciphertext": b64(sealed)}, "signature": ""}
    document["signature"] = b64(sign("application/vnd.lifeboat.envelope+json", compact(document)))
    put(root, "lifeboat/envelope.json", compact(document) + b"\n")
    identity = {"format": "lifeboat.vault/v1", "vault": VAULT_ID, "store": "orders", "created": lines[3]}
    put(root, "lifeboat/vault.json", dsse("application/vnd.lifeboat.vault+json", identity))


def make_point(root, snapshot):
    when = "2026-11-21T02:00:00Z"
    facts = {"consistency": {"level": "fuzzy", "moment": when, "position": None, "changes": 0},
             "logical_bytes": 5, "counts": {}, "checksums": {}, "environment": {}, "unreadable": []}
    manifest = {"format": "lifeboat.recovery-point/v1", "id": POINT, "store": "orders", "kind": "files",
                "vault": VAULT_ID, "policy_hash": "00" * 32, "snapshot": snapshot, "started": when, "ended": when,
                "facts": facts, "new_bytes": 5, "stored_bytes": 5, "key_id": "", "tool": "test"}
    put(root, f"lifeboat/points/{POINT}.json", dsse("application/vnd.lifeboat.recovery-point+json", manifest))


def log_name(first, last, timeline=1):
    return f"{timeline:08x}-{first:016x}-{last:016x}"


def make_log(root, key, first, last, content):
    name = log_name(first, last)
    header = {"ended": "2026-11-21T13:00:00Z", "first": name[:25], "follows": None, "format": "lifeboat.log/v1",
              "last": name[:9] + name[26:], "name": name, "plain_bytes": len(content),
              "plain_sha256": hashlib.sha256(content).hexdigest(), "previous": None,
              "started": "2026-11-21T13:00:00Z", "stream": "wal", "vault": VAULT_ID}
    text = compact(header)
    plain = struct.pack("<I", len(text)) + text + zstandard.ZstdCompressor().compress(content)
    stored = b"LBLOG1\x01\x00" + seal(key, plain)
    put(root, f"lifeboat/logs/wal/{name}", stored)
    return {"name": name, "first": header["first"], "last": header["last"], "follows": None,
            "started": header["started"], "ended": header["ended"], "stored_bytes": len(stored),
            "sha256": hashlib.sha256(stored).hexdigest()}


def cheapen_key(root):
    """Replaces the key file by one whose derivation is quick, and gives the master key."""
    (name,) = os.listdir(os.path.join(root, "keys"))
    slot = json.loads(get(root, f"keys/{name}"))
    user = Scrypt(salt=base64.b64decode(slot["salt"]), length=64, n=slot["N"], r=slot["r"], p=slot["p"])
    user = user.derive(PASSWORD.encode())
    master = kit.SealKey(user[:32], user[32:48], user[48:]).open("keys", base64.b64decode(slot["data"]))
    cheap = Scrypt(salt=b"\x02" * 64, length=64, n=1024, r=8, p=1).derive(PASSWORD.encode())
    slot |= {"N": 1024, "r": 8, "p": 1, "salt": b64(b"\x02" * 64), "data": b64(seal(cheap, master))}
    os.unlink(os.path.join(root, "keys", name))
    put(root, f"keys/{hashlib.sha256(compact(slot)).hexdigest()}", compact(slot))
    parts = json.loads(master)
    return b"".join(base64.b64decode(part) for part in (parts["encrypt"], parts["mac"]["k"], parts["mac"]["r"]))


def make_source(root):
    """`data/` with everything a file system has, and `meta/inventory.jsonl` about it."""
    data = os.path.join(root, "data")
    os.makedirs(os.path.join(data, "a/b"))
    chance = random.Random(1)
    contents = {"a/small": b"hello", "a/b/large": chance.randbytes(3_000_000), "empty": b"", b"n\xff\xfe": b"odd",
                'tab\tline\nquote"back\\': b"odd", "ünï": b"text", "zeros": bytes(2_000_000) + b"end"}
    for name, content in contents.items():
        with open(os.path.join(os.fsencode(data), os.fsencode(name)), "xb") as handle:
            handle.write(content)
    os.link(os.path.join(data, "a/small"), os.path.join(data, "a/b/hard"))
    contents["a/b/hard"] = contents["a/small"]
    os.symlink("../small", os.path.join(data, "a/b/link"))
    os.symlink("/nowhere", os.path.join(data, "dangling"))
    os.mkfifo(os.path.join(data, "pipe"))
    os.mkdir(os.path.join(data, "empty-dir"))
    os.chmod(os.path.join(data, "a/small"), 0o4751)
    os.chmod(os.path.join(data, "empty-dir"), 0o1777)
    os.utime(os.path.join(data, "a/b/large"), ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    os.utime(os.path.join(data, "a/b"), ns=(1, 1_111_111_111_111_111_111))
    lines = []
    for name, content in contents.items():
        raw = os.fsencode(name)
        try:
            path = {"text": raw.decode("utf-8")}
        except UnicodeDecodeError:
            path = {"base64": b64(raw)}
        lines.append(compact({"path": path, "type": "file", "sha256": hashlib.sha256(content).hexdigest()}))
    os.mkdir(os.path.join(root, "meta"))
    put(root, "meta/inventory.jsonl", b"".join(line + b"\n" for line in lines))
    return data


def state(root):
    """Everything a restore must give back, by path."""
    found = {}
    root = os.fsencode(root)
    for where, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(where, name)
            info = os.lstat(path)
            content = None
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as handle:
                    content = hashlib.sha256(handle.read()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            links = info.st_nlink if stat.S_ISREG(info.st_mode) else 0
            found[os.path.relpath(path, root)] = (
                info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, links, content)
    return found


class Base(unittest.TestCase):
    def run_kit(self, *arguments):
        """(exit code, everything printed)."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = kit.main(list(arguments))
            except SystemExit as exit_:
                code = exit_.code
        return code, out.getvalue()

    def check(self, expected, *arguments):
        code, text = self.run_kit(*arguments)
        self.assertEqual(code, expected, text)
        return text


class VaultTest(Base):
    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(prefix="lifeboat-kit-")
        cls.addClassCleanup(shutil.rmtree, cls.base)
        cls.pristine = os.path.join(cls.base, "pristine")
        source = os.path.join(cls.base, "source")
        os.mkdir(source)
        cls.data = make_source(source)
        environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": os.path.join(cls.base, "cache")}
        restic = [RESTIC, "-q", "-r", cls.pristine]
        subprocess.run([*restic, "init", "--repository-version", "2"], check=True, env=environment)
        subprocess.run([*restic, "backup", "."], check=True, env=environment, cwd=source)
        cls.key = cheapen_key(cls.pristine)
        make_envelope(cls.pristine)
        (snapshot,) = os.listdir(os.path.join(cls.pristine, "snapshots"))
        make_point(cls.pristine, snapshot)
        objects = [make_log(cls.pristine, cls.key, at, at + 10, b"log %d" % at) for at in (0, 10, 20)]
        rollup = {"format": "lifeboat.log-rollup/v1", "vault": VAULT_ID, "stream": "wal", "hour": "20261121T13",
                  "part": 1, "objects": objects}
        put(cls.pristine, "lifeboat/logs/wal/rollup/20261121T13.json",
            dsse("application/vnd.lifeboat.log-rollup+json", rollup))
        cls.passphrase = os.path.join(cls.base, "passphrase")
        put(cls.base, "passphrase", PASSPHRASE.encode() + b"\n")
        put(cls.base, "wrong", b"wrong\n")
        put(cls.base, "ops.key", KEY_FILE.encode())
        put(cls.base, "password", PASSWORD.encode() + b"\n")

    def setUp(self):
        self.work = tempfile.mkdtemp(dir=self.base)
        self.vault = os.path.join(self.work, "vault")
        shutil.copytree(self.pristine, self.vault)
        self.target = os.path.join(self.work, "target")
        self.opened = ["--passphrase-file", self.passphrase]

    def files(self):
        names = []
        for where, _, found in os.walk(self.vault):
            names += [os.path.relpath(os.path.join(where, name), self.vault) for name in found]
        return sorted(names)

    def flip(self, name, byte):
        path = os.path.join(self.vault, name)
        os.chmod(path, 0o600)
        with open(path, "r+b") as handle:
            handle.seek(byte)
            value = handle.read(1)[0]
            handle.seek(byte)
            handle.write(bytes([value ^ 1]))

    def pack_of(self, path):
        """The pack that holds the first blob of a file."""
        repository = kit.Repository(kit.Files(self.vault), PASSWORD)
        repository.load_index()
        ((_, snapshot),) = repository.snapshots()
        node = {"subtree": snapshot["tree"].hex()}
        for name in path.encode().split(b"/"):
            nodes = {n["name"]: n for n in repository.tree(bytes.fromhex(node["subtree"]))}
            node = nodes[name]
        repository.close()
        place = repository.blobs[bytes.fromhex(node["content"][0])]
        return repository.pack_name(place[0]), place[1]

    def test_a_point_is_restored_with_everything_a_file_system_has(self):
        text = self.check(0, "restore", self.vault, POINT, self.target, *self.opened)
        self.assertEqual(state(self.target), state(self.data))
        self.assertIn("8 files compared with the inventory", text)
        self.assertFalse(os.path.exists(self.target + ".incomplete"))

    def test_every_way_to_open_a_vault_works(self):
        for number, key in enumerate([
            ["--passphrase-file", self.passphrase],
            ["--key-file", os.path.join(self.base, "ops.key")],
            ["--repository-password-file", os.path.join(self.base, "password")],
        ]):
            self.check(0, "restore", self.vault, "latest", f"{self.target}{number}", *key)
            self.assertEqual(self.check(0, "password", self.vault, *key).split()[-1], PASSWORD)

    def test_a_whole_vault_verifies_and_shows_itself(self):
        text = self.check(0, "verify", self.vault, *self.opened)
        self.assertIn(f"recovery point {POINT}: whole", text)
        self.assertIn(POINT, self.check(0, "points", self.vault, *self.opened))
        self.assertIn("passphrase (env:LIFEBOAT_PASSPHRASE)", self.check(0, "info", self.vault))
        text = self.check(0, "logs", self.vault, "--stream", "wal", "--to", self.target, *self.opened)
        self.assertNotIn("GAP", text)
        self.assertEqual(get(self.target, log_name(10, 20)), b"log 10")

    def test_wrong_use_has_its_exit_code_and_changes_nothing(self):
        wrong = ["--passphrase-file", os.path.join(self.base, "wrong")]
        self.assertIn("envelope.json", self.check(6, "points", self.vault, *wrong))
        self.check(4, "points", self.vault, "--passphrase-file", os.path.join(self.base, "absent"))
        self.check(4, "points", os.path.join(self.base, "absent"), *self.opened)
        self.check(4, "points", self.base, *self.opened)
        self.check(2, "restore", self.vault, "pt-unknown", self.target, *self.opened)
        self.check(2, "restore", self.vault, "../../etc", self.target, *self.opened)
        self.check(2, "no-such-command", self.vault)
        os.mkdir(self.target)
        self.check(3, "restore", self.vault, POINT, self.target, *self.opened)
        self.assertEqual(os.listdir(self.target), [])
        self.check(3, "restore", self.vault, POINT, os.path.join(self.work, "no/parent"), *self.opened)

    def test_one_flipped_bit_in_any_file_is_found_and_named(self):
        chance = random.Random(2)
        for name in self.files():
            size = os.path.getsize(os.path.join(self.vault, name))
            for byte in {0, size // 2, size - 1, chance.randrange(size), chance.randrange(size)}:
                with self.subTest(file=name, byte=byte):
                    self.flip(name, byte)
                    self.assertIn(name, self.check(6, "verify", self.vault, *self.opened))
                    self.flip(name, byte)
        self.check(0, "verify", self.vault, *self.opened)

    def test_every_bit_of_the_signed_files_counts(self):
        for name in ["lifeboat/vault.json", f"lifeboat/points/{POINT}.json", "lifeboat/envelope.json"]:
            document = get(self.vault, name)
            for byte in range(len(document)):
                altered = bytearray(document)
                altered[byte] ^= 1
                envelope = SimpleNamespace(read=lambda *_, raw=bytes(altered): raw)
                with self.subTest(file=name, byte=byte), self.assertRaises(kit.Damaged):
                    if name.endswith("envelope.json"):
                        kit.Envelope(envelope).check()
                    else:
                        kit.Envelope(kit.Files(self.pristine)).public_key.open(
                            name, bytes(altered), json.loads(document)["payloadType"])

    def test_a_missing_file_of_any_kind_is_found(self):
        for name in self.files():
            with self.subTest(file=name):
                path = os.path.join(self.vault, name)
                os.rename(path, path + ".away")
                code, text = self.run_kit("verify", self.vault, *self.opened)
                if name.endswith(f"{POINT}.json") or "rollup" in name:
                    # Nothing inside a vault knows how many manifests or roll-ups there were; the catalog does.
                    self.assertEqual(code, 6 if "rollup" in name else 0, text)
                else:
                    self.assertIn(code, (4, 6), text)
                os.rename(path + ".away", path)

    def test_a_damaged_pack_costs_only_what_is_in_it(self):
        name, offset = self.pack_of("data/a/b/large")
        self.flip(name, offset + 20)
        text = self.check(6, "restore", self.vault, POINT, self.target, *self.opened)
        self.assertIn("DAMAGED a/b/large", text)
        self.assertIn(name, text)
        self.assertFalse(os.path.exists(self.target))
        whole, partial = state(self.data), state(self.target + ".incomplete")
        self.assertEqual(set(whole) - set(partial), {b"a/b/large"})
        text = self.check(6, "verify", self.vault, *self.opened)
        self.assertIn(f"recovery point {POINT}: DAMAGED", text)
        self.assertIn("data/a/b/large", text)

    def test_a_damaged_or_missing_index_does_not_stop_a_restore(self):
        (name,) = [name for name in self.files() if name.startswith("index/")]
        self.flip(name, 40)
        text = self.check(0, "restore", self.vault, POINT, self.target, *self.opened)
        self.assertIn(f"warning: the vault has damage that this restore could work around: {name}", text)
        self.assertEqual(state(self.target), state(self.data))
        os.unlink(os.path.join(self.vault, name))
        self.check(0, "restore", self.vault, POINT, self.target + "2", *self.opened)
        self.assertIn("no index lists it", self.check(6, "verify", self.vault, *self.opened))

    def test_a_damaged_config_does_not_stop_a_restore(self):
        self.flip("config", 20)
        text = self.check(0, "restore", self.vault, POINT, self.target, *self.opened)
        self.assertIn("work around: config", text)
        self.assertEqual(state(self.target), state(self.data))

    def test_a_file_that_is_not_what_the_capture_read_is_damage(self):
        put(self.work, "source/data/a", b"not what was captured")
        line = compact({"path": {"text": "a"}, "type": "file", "sha256": hashlib.sha256(b"captured").hexdigest()})
        gone = compact({"path": {"text": "gone"}, "type": "file", "sha256": hashlib.sha256(b"").hexdigest()})
        put(self.work, "source/meta/inventory.jsonl", line + b"\n" + gone + b"\n")
        environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": os.path.join(self.base, "cache")}
        subprocess.run([RESTIC, "-q", "-r", self.vault, "backup", "."], check=True, env=environment,
                       cwd=os.path.join(self.work, "source"))
        (snapshot,) = set(os.listdir(f"{self.vault}/snapshots")) - set(os.listdir(f"{self.pristine}/snapshots"))
        text = self.check(6, "restore", self.vault, snapshot, self.target, *self.opened)
        self.assertIn("DAMAGED a (its SHA-256", text)
        self.assertIn("DAMAGED gone", text)

    def test_a_lost_log_object_is_a_gap_and_is_named(self):
        name = f"lifeboat/logs/wal/{log_name(10, 20)}"
        os.unlink(os.path.join(self.vault, name))
        text = self.check(6, "logs", self.vault, *self.opened)
        self.assertIn("GAP from 00000001-000000000000000a to 00000001-0000000000000014", text)
        self.assertIn(f"DAMAGED {name}", text)

    def test_files_that_do_not_belong_are_mentioned(self):
        put(self.vault, "data/.lifeboat-tmp-1", b"")
        put(self.vault, "lifeboat/notes.txt", b"")
        text = self.check(0, "verify", self.vault, *self.opened)
        self.assertIn("data/.lifeboat-tmp-1: the rest of an interrupted write", text)
        self.assertIn("lifeboat/notes.txt: does not belong", text)


class FakeRepository(kit.Repository):
    """Trees and blobs from a dictionary: what someone who holds the keys could have written."""

    def __init__(self, documents):
        self.documents, self._tree_cache = documents, {}

    def blob(self, blob_id):
        return self.documents[blob_id]


class HostileTreeTest(Base):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="lifeboat-kit-")
        self.addCleanup(shutil.rmtree, self.base)
        self.root = os.path.join(self.base, "root")
        os.mkdir(self.root)
        put(self.base, "outside", b"untouched")

    def restore(self, nodes, inner=()):
        """What the restorer called damaged."""
        documents = {b"\x00" * 32: compact({"nodes": nodes}), b"\x01" * 32: compact({"nodes": list(inner)}),
                     b"\x02" * 32: b"evil"}
        fd = os.open(self.root, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        restorer = kit.Restorer(FakeRepository(documents), fd)
        restorer.run(b"\x00" * 32, None)
        self.assertEqual(sorted(os.listdir(self.base)), ["outside", "root"])
        self.assertEqual(get(self.base, "outside"), b"untouched")
        return [why for _, why in restorer.damaged]

    @staticmethod
    def file(name):
        return {"name": name, "type": "file", "content": ["02" * 32], "size": 4}

    def test_the_same_tree_with_a_plain_name_is_restored(self):
        self.assertEqual(self.restore([self.file("plain")]), [])
        self.assertEqual(get(self.root, "plain"), b"evil")

    def test_names_that_leave_their_folder_are_refused(self):
        names = ["..", ".", "", "../outside", "/etc/x", "a/b", "\\x2e\\x2e", "\\u002e.", "a\\x00b", "\\x2e\\x2e\\x2foutside",
                 "bad\\escape", "\\777"]
        for name in names:
            with self.subTest(name=name):
                self.assertEqual(len(self.restore([self.file(name)])), 1)
                self.assertEqual(os.listdir(self.root), [])

    def test_a_link_cannot_be_written_through(self):
        link = {"name": "x", "type": "symlink", "linktarget": ".."}
        folder = {"name": "x", "type": "dir", "subtree": "01" * 32}
        self.assertEqual(len(self.restore([link, folder], [self.file("outside")])), 1)
        self.assertEqual(len(self.restore([link, self.file("x")])), 1)

    def test_unknown_types_and_sizes_that_lie_are_damage(self):
        self.assertEqual(len(self.restore([{"name": "x", "type": "door"}])), 1)
        self.assertEqual(len(self.restore([{**self.file("y"), "size": 5}])), 1)
        self.assertEqual(os.listdir(self.root), [])

    def test_depth_is_limited(self):
        loop = {"name": "d", "type": "dir", "subtree": "01" * 32}
        self.assertIn("deeper", self.restore([loop], [loop])[0])


class ParsingTest(unittest.TestCase):
    def test_times_keep_their_nanoseconds_and_zones(self):
        self.assertEqual(kit.nanoseconds("1970-01-01T00:00:01.000000002Z"), 1_000_000_002)
        self.assertEqual(kit.nanoseconds("1970-01-01T01:00:00.5+01:00"), 500_000_000)
        self.assertEqual(kit.nanoseconds("1969-12-31T23:59:59.25-00:30"), 1799_250_000_000)
        for text in [None, "", "yesterday", "2026-13-01T00:00:00Z"]:
            self.assertIsNone(kit.nanoseconds(text))

    def test_base64_has_one_spelling(self):
        self.assertEqual(kit.unbase64("x", "AA=="), b"\0")
        for text in ["AB==", "AA", "A A==", None]:
            with self.assertRaises(kit.Damaged):
                kit.unbase64("x", text)

    def test_a_key_file_cannot_ask_for_all_the_memory(self):
        for n, r, p in [(1 << 21, 8, 1), (1 << 20, 32, 1), (1000, 8, 1), (1024, 8, 99), (True, 8, 1), ("x", 8, 1)]:
            with self.assertRaises(kit.Damaged):
                kit.scrypt_key("x", b"p", b"s", n, r, p, 32)


if __name__ == "__main__":
    unittest.main()
