#!/usr/bin/env python3
"""Reads a Lifeboat vault without Lifeboat.

Needs Python 3.11 and two packages (requirements.txt), no network, and writes nothing but the restored files. The
format it follows is docs/format.md. It shares no code with Lifeboat, so that one of the two can catch the other.

Exit codes: 0 done and whole, 1 internal failure, 2 wrong usage, 3 refused and nothing changed, 4 the vault or a
key could not be read, 5 done but something less important was not (see the warnings), 6 data damaged or the key is wrong.
"""

import argparse
import base64
import binascii
import calendar
import contextlib
import getpass
import hashlib
import io
import json
import os
import re
import stat
import struct
import sys
import time
from collections import Counter

try:
    import zstandard
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    from cryptography.hazmat.primitives.poly1305 import Poly1305
except ImportError as missing:
    sys.exit(f"missing package: {missing}. Run: python3 -m pip install -r requirements.txt")

MAX_DOCUMENT_BYTES = 1 << 30  # an index, snapshot or tree after decompression
MAX_SMALL_FILE_BYTES = 16 << 20  # envelope, key files, manifests
MAX_RECORD_BYTES = 64 << 20  # what one run of retention took out
MAX_LOG_BYTES = 64 << 20  # plain content of one log object
MAX_LOG_FILE_BYTES = MAX_LOG_BYTES + (2 << 20)
MAX_TREE_DEPTH = 800  # one open directory per level
HASH_STEP_BYTES = 1 << 20
TREE_CACHE_COUNT = 256
FILE_TYPES = ("keys", "snapshots", "index", "data", "locks")


# ---------------------------------------------------------------------------------------------------------------
# Problems and their exit codes


class Problem(Exception):
    """Stops the command; `code` becomes the exit code."""

    code = 1


class Usage(Problem):
    code = 2


class Refused(Problem):
    code = 3


class Unreachable(Problem):
    code = 4


class Damaged(Problem):
    """Stored bytes are missing, altered or not decryptable; `item` names the file in the vault."""

    code = 6

    def __init__(self, item, why):
        super().__init__(f"{printable(item)}: {why}")
        self.item = item
        self.why = why


def printable(text):
    """Masks control characters: a hostile file name must not drive the terminal."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def say(text=""):
    print(text, flush=True)


def warn(text):
    print(f"warning: {text}", file=sys.stderr, flush=True)


def human_bytes(count):
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


class Progress:
    """A line on stderr every few seconds, so that a long run is seen to be alive."""

    def __init__(self, verb):
        self.verb, self.items, self.bytes, self.last = verb, 0, 0, time.monotonic()

    def add(self, items, count):
        self.items += items
        self.bytes += count
        if time.monotonic() - self.last > 5:
            self.last = time.monotonic()
            print(f"... {self.verb} {self.items:,} items, {human_bytes(self.bytes)}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------
# Bytes: the vault's directory, JSON, zstd, AES-256-CTR with Poly1305-AES


class Files:
    """Read access to the vault directory. Nothing here writes."""

    def __init__(self, root):
        self.root = root
        try:
            os.listdir(root)
        except OSError as error:
            raise Unreachable(f"cannot read the vault {printable(root)}: {error.strerror}") from None

    def path(self, name):
        return os.path.join(self.root, *name.split("/"))

    def open(self, name):
        try:
            handle = open(self.path(name), "rb")
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                handle.close()
                raise Damaged(name, "is not a regular file")
            return handle
        except FileNotFoundError:
            raise Damaged(name, "the file is missing") from None
        except OSError as error:
            raise Unreachable(f"cannot read {printable(name)}: {error.strerror}") from None

    def read(self, name, limit):
        with self.open(name) as handle:
            try:
                data = handle.read(limit + 1)
            except OSError as error:
                raise Damaged(name, f"cannot be read: {error.strerror}") from None
        if len(data) > limit:
            raise Damaged(name, f"is larger than {human_bytes(limit)}, which no valid file of this kind is")
        return data

    def exists(self, name):
        return os.path.lexists(self.path(name))

    def size(self, name):
        try:
            return os.stat(self.path(name)).st_size
        except OSError:
            raise Damaged(name, "the file is missing") from None

    def sha256(self, name):
        digest = hashlib.sha256()
        with self.open(name) as handle:
            try:
                while piece := handle.read(HASH_STEP_BYTES):
                    digest.update(piece)
            except OSError as error:
                raise Damaged(name, f"cannot be read: {error.strerror}") from None
        return digest.hexdigest()

    def walk(self, folder):
        """Every file below `folder`, sorted; names are relative to the vault."""
        base = self.path(folder)
        if not os.path.isdir(base):
            return
        failed = []
        found = []
        for where, folders, names in os.walk(base, onerror=failed.append):
            folders.sort()
            for name in names:
                found.append(os.path.relpath(os.path.join(where, name), self.root).replace(os.sep, "/"))
        if failed:
            raise Unreachable(f"cannot list {printable(folder)}: {failed[0].strerror}")
        yield from sorted(found)


def parse_json(name, data):
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged(name, "is not valid JSON") from None


def field(item, document, key, kind):
    """A field that must be there and be of that type."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise Damaged(item, f"has no valid field `{key}`")
    return value


def unbase64(item, text):
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raw = None
    # Compared with its only spelling, because decoders ignore stray bits at the end.
    if raw is None or base64.b64encode(raw).decode() != text:
        raise Damaged(item, "holds text that is not base64")
    return raw


def unhex(item, text, length):
    try:
        raw = bytes.fromhex(text)
    except (ValueError, TypeError):
        raw = b""
    if len(raw) != length or text != raw.hex():
        raise Damaged(item, f"holds an id that is not {length * 2} hexadecimal digits")
    return raw


def unzstd(name, data, limit):
    """Decompresses at most `limit` bytes; more than that is damage."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            out = io.BytesIO()
            while piece := reader.read(min(HASH_STEP_BYTES, limit + 1 - out.tell())):
                out.write(piece)
                if out.tell() > limit:
                    raise Damaged(name, "decompresses to more bytes than it says")
            return out.getvalue()
    except zstandard.ZstdError:
        raise Damaged(name, "does not decompress") from None


class SealKey:
    """AES-256-CTR with Poly1305-AES as the restic design defines it: nonce (16), ciphertext, tag (16)."""

    def __init__(self, encrypt, mac_k, mac_r):
        self.encrypt, self.mac_k, self.mac_r = encrypt, mac_k, mac_r

    def open(self, name, sealed):
        if len(sealed) < 32:
            raise Damaged(name, "is too short to be an encrypted file")
        nonce, body, tag = sealed[:16], sealed[16:-16], sealed[-16:]
        block = Cipher(algorithms.AES(self.mac_k), modes.ECB()).encryptor()
        s = block.update(nonce) + block.finalize()
        try:
            # The one-time key is r followed by s; r is masked ("clamped") by the Poly1305 function itself.
            Poly1305.verify_tag(self.mac_r + s, body, tag)
        except InvalidSignature:
            raise Damaged(name, "the content does not match its seal (altered, cut short, or another key)") from None
        stream = Cipher(algorithms.AES(self.encrypt), modes.CTR(nonce)).decryptor()
        return stream.update(body) + stream.finalize()


def scrypt_key(item, password, salt, n, r, p, length):
    """scrypt with limits, because the parameters come from a file that someone may have altered."""
    bounded = all(type(v) is int for v in (n, r, p)) and 2 <= n <= 1 << 20 and 1 <= r <= 32 and 1 <= p <= 16
    if not bounded or n & (n - 1) or 128 * n * r > 1 << 30:
        raise Damaged(item, "asks for scrypt parameters outside the allowed range")
    return Scrypt(salt=salt, length=length, n=n, r=r, p=p).derive(password)


# ---------------------------------------------------------------------------------------------------------------
# The repository: restic format, versions 1 and 2


class Repository:
    """A restic repository: keys, index, blobs. The index is kept in memory, about 200 bytes per blob."""

    def __init__(self, files, password):
        self.files = files
        self.problems = []
        self.key = self._open_key(password.encode("utf-8"))
        self._check_config()
        self.packs = []
        self.numbers = {}
        self.unindexed = set()
        self.blobs = {}
        self.more = {}
        self._tree_cache = {}
        self._pack_handle = (None, None)

    def _check_config(self):
        """Nothing in `config` is needed to read, so that damage to it is only remembered."""
        try:
            config = parse_json("config", self.key.open("config", self.files.read("config", MAX_SMALL_FILE_BYTES)))
        except Damaged as damage:
            self.problems.append(damage)
            return
        if config.get("version") not in (1, 2):
            raise Damaged("config", "is of a repository version this kit does not know")

    def _open_key(self, password):
        names = list(self.files.walk("keys"))
        if not names:
            raise Damaged("keys", "there is no key file, so nothing in the repository can be decrypted")
        for name in names:
            try:
                raw = self.files.read(name, MAX_SMALL_FILE_BYTES)
                if hashlib.sha256(raw).hexdigest() != name.rsplit("/", 1)[-1]:
                    raise Damaged(name, "the content does not have the SHA-256 that is its name")
                return self._key_from(name, raw, password)
            except Damaged as damage:
                self.problems.append(damage)
        raise Damaged(self.problems[0].item, f"no key file opens with this password ({self.problems[0].why})")

    @staticmethod
    def _key_from(name, raw, password):
        slot = parse_json(name, raw)
        if field(name, slot, "kdf", str) != "scrypt":
            raise Damaged(name, "uses an unknown key derivation")
        salt = unbase64(name, field(name, slot, "salt", str))
        user = scrypt_key(name, password, salt, slot.get("N"), slot.get("r"), slot.get("p"), 64)
        sealed = unbase64(name, field(name, slot, "data", str))
        master = parse_json(name, SealKey(user[:32], user[32:48], user[48:]).open(name, sealed))
        mac = field(name, master, "mac", dict)
        parts = [unbase64(name, field(name, master, "encrypt", str))]
        parts += [unbase64(name, field(name, mac, part, str)) for part in ("k", "r")]
        if [len(part) for part in parts] != [32, 16, 16]:
            raise Damaged(name, "holds keys of the wrong length")
        return SealKey(*parts)

    def document(self, name):
        """An encrypted JSON file whose name is the SHA-256 of its bytes."""
        raw = self.files.read(name, MAX_DOCUMENT_BYTES)
        if hashlib.sha256(raw).hexdigest() != name.rsplit("/", 1)[-1]:
            raise Damaged(name, "the content does not have the SHA-256 that is its name")
        plain = self.key.open(name, raw)
        if plain[:1] == b"\x02":
            plain = unzstd(name, plain[1:], MAX_DOCUMENT_BYTES)
        elif plain[:1] not in (b"{", b"["):
            raise Damaged(name, "is neither JSON nor compressed JSON")
        return parse_json(name, plain)

    def load_index(self):
        """Reads every index file; packs that none of them lists are asked themselves."""
        for name in self.files.walk("index"):
            try:
                index = self.document(name)
                for listing in ("packs", "packs_to_delete"):
                    for pack in index.get(listing) or []:
                        pack_id = unhex(name, field(name, pack, "id", str), 32)
                        self._add_pack(name, pack_id, self._index_blobs(name, pack))
            except Damaged as damage:
                self.problems.append(damage)
        indexed = len(self.packs)
        for name in self.files.walk("data"):
            digits = name.rsplit("/", 1)[-1]
            if re.fullmatch("[0-9a-f]{64}", digits) and bytes.fromhex(digits) not in self.numbers:
                try:
                    self._add_pack(name, bytes.fromhex(digits), self.pack_header(name))
                except Damaged:
                    continue  # nothing says that anything needs this pack; `verify` names it
        self.unindexed = set(range(indexed, len(self.packs)))

    def close(self):
        if self._pack_handle[1]:
            self._pack_handle[1].close()

    @staticmethod
    def _index_blobs(name, pack):
        for blob in field(name, pack, "blobs", list):
            yield (
                unhex(name, field(name, blob, "id", str), 32),
                field(name, blob, "type", str) == "tree",
                field(name, blob, "offset", int),
                field(name, blob, "length", int),
                blob.get("uncompressed_length") or 0,
            )

    def _add_pack(self, name, pack_id, blobs):
        number = self.numbers.setdefault(pack_id, len(self.packs))
        if number == len(self.packs):
            self.packs.append(pack_id)
        for blob_id, is_tree, offset, length, plain in blobs:
            if offset < 0 or length < 32 or not isinstance(plain, int) or not 0 <= plain < 1 << 32:
                raise Damaged(name, "describes a blob that cannot exist")
            place = (number, offset, length, plain, is_tree)
            if self.blobs.setdefault(blob_id, place) != place and place not in self.more.get(blob_id, []):
                self.more.setdefault(blob_id, []).append(place)

    def pack_header(self, name):
        """The blobs a pack itself says it holds."""
        size = self.files.size(name)
        with self.files.open(name) as handle:
            handle.seek(max(0, size - 4))
            tail = handle.read(4)
            length = struct.unpack("<I", tail)[0] if len(tail) == 4 else 0
            if not 32 <= length <= size - 4:
                raise Damaged(name, "its header length is impossible")
            handle.seek(size - 4 - length)
            header = self.key.open(name, handle.read(length))
        found, at, offset = [], 0, 0
        while at < len(header):
            kind = header[at]
            entry = 41 if kind in (2, 3) else 37
            if kind > 3 or at + entry > len(header):
                raise Damaged(name, "its header has an unknown entry")
            stored = struct.unpack_from("<I", header, at + 1)[0]
            plain = struct.unpack_from("<I", header, at + 5)[0] if kind in (2, 3) else 0
            found.append((header[at + entry - 32 : at + entry], kind in (1, 3), offset, stored, plain))
            offset += stored
            at += entry
        if offset != size - 4 - length:
            raise Damaged(name, "its header does not account for every byte")
        return found

    def pack_name(self, number):
        text = self.packs[number].hex()
        flat = f"data/{text}"
        return flat if self.files.exists(flat) else f"data/{text[:2]}/{text}"

    def _pack(self, name):
        if self._pack_handle[0] != name:
            if self._pack_handle[1]:
                self._pack_handle[1].close()
            self._pack_handle = (None, None)
            self._pack_handle = (name, self.files.open(name))
        return self._pack_handle[1]

    def read_place(self, blob_id, place):
        number, offset, length, plain, _ = place
        name = self.pack_name(number)
        try:
            sealed = os.pread(self._pack(name).fileno(), length, offset)
        except OSError as error:
            raise Damaged(name, f"cannot be read: {error.strerror}") from None
        if len(sealed) != length:
            raise Damaged(name, "is cut short")
        content = self.key.open(name, sealed)
        if plain:
            content = unzstd(name, content, plain)
            if len(content) != plain:
                raise Damaged(name, "a blob decompresses to the wrong length")
        if hashlib.sha256(content).digest() != blob_id:
            raise Damaged(name, f"blob {blob_id.hex()} does not have the content it is named after")
        return content

    def blob(self, blob_id):
        """The verified content of a blob; other places of the same blob are tried before giving up."""
        place = self.blobs.get(blob_id)
        if place is None:
            raise Damaged(f"blob {blob_id.hex()}", "no index and no pack knows this blob")
        first = None
        for candidate in [place, *self.more.get(blob_id, [])]:
            try:
                return self.read_place(blob_id, candidate)
            except Damaged as damage:
                first = first or damage
        raise first

    def tree(self, tree_id):
        """The checked nodes of a directory."""
        if tree_id in self._tree_cache:
            return self._tree_cache[tree_id]
        item = f"tree {tree_id.hex()}"
        document = parse_json(item, self.blob(tree_id))
        nodes = document.get("nodes") or []
        seen = set()
        for node in nodes:
            node["name"] = unquote_name(item, field(item, node, "name", str))
            if node["name"] in seen:
                raise Damaged(item, f"has the name `{printable(node['name'])}` twice")
            seen.add(node["name"])
        if len(self._tree_cache) >= TREE_CACHE_COUNT:
            self._tree_cache.clear()
        self._tree_cache[tree_id] = nodes
        return nodes

    def snapshots(self):
        """(id, snapshot or Damaged) for every snapshot file."""
        for name in self.files.walk("snapshots"):
            try:
                snapshot = self.document(name)
                snapshot["tree"] = unhex(name, field(name, snapshot, "tree", str), 32)
                yield name.rsplit("/", 1)[-1], snapshot
            except Damaged as damage:
                yield name.rsplit("/", 1)[-1], damage


ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"'`])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))|(\\)", re.S)
PLAIN_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def unquote_name(item, text):
    """Undoes the quoting of a node name (Go's strconv.Quote) and refuses names that could leave their folder."""
    out, at = bytearray(), 0
    try:
        for match in ESCAPE.finditer(text):
            out += text[at : match.start()].encode("utf-8")
            at = match.end()
            plain, hexa, octal, short, long, broken = match.groups()
            if broken:
                raise ValueError
            if plain:
                out.append(PLAIN_ESCAPES.get(plain, ord(plain)))
            elif hexa or octal:
                out.append(int(hexa, 16) if hexa else int(octal, 8))
            else:
                out += chr(int(short or long, 16)).encode("utf-8")
        out += text[at:].encode("utf-8")
    except (ValueError, OverflowError):
        raise Damaged(item, f"has a name that cannot be decoded: `{printable(text)}`") from None
    name = bytes(out)
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Damaged(item, f"has a name that would leave its folder: `{printable(name)}`")
    return name


TIME = re.compile(r"^([+-]?\d{4,6})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:(Z)|([+-])(\d\d):(\d\d))")


def nanoseconds(text):
    """RFC 3339 to nanoseconds since 1970; None if it is not a time."""
    match = TIME.match(text) if isinstance(text, str) else None
    if not match:
        return None
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    try:
        seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    except (ValueError, IndexError):
        return None
    if match[9]:
        offset = int(match[10]) * 3600 + int(match[11]) * 60
        seconds -= offset if match[9] == "+" else -offset
    return seconds * 10**9 + int((match[7] or "0").ljust(9, "0"))


# ---------------------------------------------------------------------------------------------------------------
# Lifeboat's own files: envelope, signatures, recovery points

ENVELOPE = "lifeboat/envelope.json"
ENVELOPE_FORMAT = "lifeboat.envelope/v1"
ENVELOPE_TYPE = "application/vnd.lifeboat.envelope+json"
VAULT_FILE = "lifeboat/vault.json"
VAULT_TYPE = "application/vnd.lifeboat.vault+json"
POINTS = "lifeboat/points"
POINT_FORMAT = "lifeboat.recovery-point/v1"
POINT_TYPE = "application/vnd.lifeboat.recovery-point+json"
HOLDS = "lifeboat/holds"
HOLD_TYPE = "application/vnd.lifeboat.hold+json"
RELEASE_TYPE = "application/vnd.lifeboat.hold-release+json"
RETIRED = "lifeboat/retired"
RETIRED_FORMAT = "lifeboat.retirement/v1"
RETIRED_TYPE = "application/vnd.lifeboat.retirement+json"


def compact(document):
    """The one JSON text Lifeboat writes for a document: no white space, fields in their order, a final newline."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def signed_text(payload_type, payload):
    """What an ed25519 signature covers: the DSSE pre-authentication encoding."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


class PublicKey:
    def __init__(self, item, text):
        if not isinstance(text, str) or not text.startswith("ed25519:"):
            raise Damaged(item, "holds no valid public key")
        self.text = text
        self.raw = unbase64(item, text.removeprefix("ed25519:"))
        if len(self.raw) != 32:
            raise Damaged(item, "holds no valid public key")
        self.key_id = hashlib.sha256(self.raw).hexdigest()[:16]

    def signed(self, payload_type, payload, signature):
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, signed_text(payload_type, payload))
            return True
        except (InvalidSignature, ValueError):
            return False

    def open(self, name, raw, payload_type):
        """The payload of a DSSE document, if this key signed it and no byte of the file differs."""
        document = parse_json(name, raw)
        payload = unbase64(name, field(name, document, "payload", str))
        signatures = field(name, document, "signatures", list)
        if compact(document) != raw or len(signatures) != 1:
            raise Damaged(name, "is not written as Lifeboat writes it (altered?)")
        if document.get("payloadType") != payload_type:
            raise Damaged(name, "is a signed document of another type")
        signature = unbase64(name, field(name, signatures[0], "sig", str))
        if signatures[0].get("keyid") != self.key_id or not self.signed(payload_type, payload, signature):
            raise Damaged(name, "its signature does not fit: altered, or signed by another key")
        return payload


class Envelope:
    """The vault's secrets, wrapped for its recipients. docs/format.md, "The envelope"."""

    def __init__(self, files):
        self.raw = files.read(ENVELOPE, 1 << 20)
        self.document = parse_json(ENVELOPE, self.raw)
        if field(ENVELOPE, self.document, "format", str) != ENVELOPE_FORMAT:
            raise Damaged(ENVELOPE, f"has the unknown format `{printable(self.document['format'])}`")
        public = [field(ENVELOPE, self.document, key, str) for key in ("vault_id", "store", "created", "public_key")]
        self.vault_id, self.store, self.created, public_key = public
        self.public_key = PublicKey(ENVELOPE, public_key)
        self.context = "".join(f"{line}\n" for line in [ENVELOPE_FORMAT, *public]).encode("utf-8")
        self.recipients = field(ENVELOPE, self.document, "recipients", list)

    def check(self):
        """Every byte, the entries of other recipients included; opening alone does not look at those."""
        unsigned = compact({**self.document, "signature": ""})[:-1]
        signature = unbase64(ENVELOPE, field(ENVELOPE, self.document, "signature", str))
        if compact(self.document) != self.raw or not self.public_key.signed(ENVELOPE_TYPE, unsigned, signature):
            raise Damaged(ENVELOPE, "its signature does not fit: some byte of it was altered")

    def open(self, keys):
        """The vault's secrets, by the first recipient that one of `keys` fits."""
        for entry in self.recipients:
            kind, label = (field(ENVELOPE, entry, key, str) for key in ("kind", "label"))
            for key in keys.wrapping_keys(kind, entry):
                aad = self.context + f"recipient\n{kind}\n{label}\n".encode("utf-8")
                data_key = self._decrypt(key, entry, "wrapped", aad)
                sealed = field(ENVELOPE, self.document, "sealed", dict)
                plain = data_key and self._decrypt(data_key, sealed, "ciphertext", self.context + b"sealed\n")
                if plain:
                    return self._secrets(plain)
        named = ", ".join(f"{r.get('kind')} `{r.get('label')}`" for r in self.recipients)
        raise Damaged(ENVELOPE, f"no key given opens it (it names: {printable(named)}): wrong key, or it was altered")

    @staticmethod
    def _decrypt(key, part, content, aad):
        nonce = unbase64(ENVELOPE, field(ENVELOPE, part, "nonce", str))
        sealed = unbase64(ENVELOPE, field(ENVELOPE, part, content, str))
        try:
            return ChaCha20Poly1305(key).decrypt(nonce, sealed, aad)
        except (InvalidTag, ValueError):
            return None

    def _secrets(self, plain):
        document = parse_json(ENVELOPE, plain)
        if field(ENVELOPE, document, "format", str) != "lifeboat.vault-secrets/v1":
            raise Damaged(ENVELOPE, "holds secrets of an unknown format")
        seed = unbase64(ENVELOPE, field(ENVELOPE, document, "signing_seed", str))
        if Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() != self.public_key.raw:
            raise Damaged(ENVELOPE, "the signing key in it is not the one it names")
        return field(ENVELOPE, document, "repository_password", str)


class Keys:
    """What the person has: a passphrase, a key file, or the repository password itself."""

    def __init__(self, options):
        self.passphrase = self.key = self.repository_password = None
        if options.passphrase_file:
            self.passphrase = self._line(options.passphrase_file)
        elif options.passphrase_env:
            self.passphrase = os.environ.get(options.passphrase_env)
            if not self.passphrase:
                raise Unreachable(f"the environment variable {options.passphrase_env} is not set")
        elif options.key_file:
            text = self._line(options.key_file).strip()
            try:
                self.key = base64.b64decode(text.removeprefix("lifeboat-key-1:"), validate=True)
            except ValueError:
                self.key = b""
            if len(self.key) != 32 or not text.startswith("lifeboat-key-1:"):
                raise Usage(f"{options.key_file} is not a key file: one line `lifeboat-key-1:...`")
        elif options.repository_password_file:
            self.repository_password = self._line(options.repository_password_file)
        elif os.environ.get("LIFEBOAT_PASSPHRASE"):
            self.passphrase = os.environ["LIFEBOAT_PASSPHRASE"]
        elif sys.stdin.isatty():
            self.passphrase = getpass.getpass("passphrase of the vault: ")
        else:
            raise Usage("no key given: use --passphrase-file, --passphrase-env, --key-file or --repository-password-file")

    @staticmethod
    def _line(path):
        try:
            with open(path, encoding="utf-8", newline="") as handle:
                text = handle.read(1 << 16)
        except (OSError, UnicodeDecodeError) as error:
            raise Unreachable(f"cannot read {path}: {error}") from None
        text = text[:-1] if text.endswith("\n") else text
        if not text:
            raise Unreachable(f"{path} is empty")
        return text

    def wrapping_keys(self, kind, entry):
        """The keys that could have wrapped this entry of an envelope."""
        if kind == "keyfile" and self.key:
            yield self.key
        if kind == "passphrase" and self.passphrase:
            params = field(ENVELOPE, entry, "params", dict)
            salt = unbase64(ENVELOPE, field(ENVELOPE, params, "salt", str))
            cost = [params.get(name) for name in ("n", "r", "p")]
            yield scrypt_key(ENVELOPE, self.passphrase.encode("utf-8"), salt, *cost, 32)


class Vault:
    """An opened vault. With only the repository password, signatures cannot be checked."""

    def __init__(self, root, keys):
        self.files = Files(root)
        self.envelope = None
        if not self.files.exists("config") and not self.files.exists(ENVELOPE):
            raise Unreachable(f"{printable(root)} is not a vault: it has neither `config` nor `{ENVELOPE}`")
        password = keys.repository_password
        if password is None:
            self.envelope = Envelope(self.files)
            password = self.envelope.open(keys)
        elif self.files.exists(ENVELOPE):
            warn("opened with the repository password: signatures are not checked")
        self.password = password
        self.repository = Repository(self.files, password)
        self._retired = None

    def hold(self, name):
        """A legal hold, or its release; nothing here removes anything, so it is only checked."""
        kind = RELEASE_TYPE if name.endswith(".released.json") else HOLD_TYPE
        return parse_json(name, self.payload(name, MAX_SMALL_FILE_BYTES, kind))

    def payload(self, name, most_bytes, kind):
        """What a signed document holds; its signature is checked where the envelope says by which key."""
        raw = self.files.read(name, most_bytes)
        if self.envelope:
            return self.envelope.public_key.open(name, raw, kind)
        return unbase64(name, field(name, parse_json(name, raw), "payload", str))

    def retired_names(self):
        return [name for name in self.files.walk(RETIRED) if name.endswith(".json")]

    def retirement(self, name):
        """One record of what was taken out for good."""
        payload = self.payload(name, MAX_RECORD_BYTES, RETIRED_TYPE)
        record = parse_json(name, payload)
        if field(name, record, "format", str) != RETIRED_FORMAT:
            raise Damaged(name, f"has the unknown format `{printable(record['format'])}`")
        tail = hashlib.sha256(payload).hexdigest()[:16]
        if name != f"{RETIRED}/{field(name, record, 'seq', int):010}-{tail}.json":
            raise Damaged(name, "is another record than its name says")
        if self.envelope and field(name, record, "vault", str) != self.envelope.vault_id:
            raise Damaged(name, "belongs to another vault")
        return record

    def retired(self):
        """(when each dropped point was dropped, packs that are to be gone), by every record that can be read."""
        if self._retired is None:
            records = []
            for name in self.retired_names():
                try:
                    record = self.retirement(name)
                    records.append((record["seq"], name, record))
                except Damaged:
                    continue  # a verification names it
            points, packs = {}, {}
            for seq, _, record in sorted(records, key=lambda entry: entry[:2]):
                for point in record.get("points") or []:
                    points.setdefault(point["id"], record.get("at"))
                for pack in record.get("mark") or []:
                    packs[pack["id"]] = (seq, False)
                for pack in record.get("remove") or []:
                    packs[pack] = (seq, True)
                for pack in record.get("spare") or []:
                    if pack not in packs or packs[pack][0] < seq:
                        packs[pack] = (seq, False)
            self._retired = points, {pack for pack, (_, gone) in packs.items() if gone}
        return self._retired

    def check_vault_file(self):
        """lifeboat/vault.json says whose vault this is; it must agree with the envelope."""
        if not self.envelope:
            return
        raw = self.files.read(VAULT_FILE, MAX_SMALL_FILE_BYTES)
        document = parse_json(VAULT_FILE, self.envelope.public_key.open(VAULT_FILE, raw, VAULT_TYPE))
        for key, value in (("vault", self.envelope.vault_id), ("store", self.envelope.store)):
            if document.get(key) != value:
                raise Damaged(VAULT_FILE, "belongs to another vault")

    def point_names(self):
        return [name for name in self.files.walk(POINTS) if name.endswith(".json")]

    def point(self, name):
        payload = self.payload(name, MAX_SMALL_FILE_BYTES, POINT_TYPE)
        manifest = parse_json(name, payload)
        if field(name, manifest, "format", str) != POINT_FORMAT:
            raise Damaged(name, f"has the unknown format `{printable(manifest['format'])}`")
        if f"{POINTS}/{field(name, manifest, 'id', str)}.json" != name:
            raise Damaged(name, "is the manifest of another recovery point")
        if self.envelope and field(name, manifest, "vault", str) != self.envelope.vault_id:
            raise Damaged(name, "belongs to another vault")
        unhex(name, field(name, manifest, "snapshot", str), 32)
        return manifest

    def points(self):
        """(name, manifest or Damaged) for every recovery point that was not dropped, oldest first."""
        dropped = self.retired()[0]
        for name in self.point_names():
            if name[len(POINTS) + 1:-len(".json")] in dropped:
                continue
            try:
                yield name, self.point(name)
            except Damaged as damage:
                yield name, damage

    def snapshot_of(self, wanted):
        """(title, snapshot, manifest or None) of a recovery point, `latest`, or a snapshot id of 8 digits or more."""
        if wanted == "latest":
            whole = [point for _, point in self.points() if not isinstance(point, Damaged)]
            if whole:
                wanted = max(whole, key=lambda point: (str(point.get("started")), point["id"]))["id"]
        name = f"{POINTS}/{wanted}.json"
        if "/" not in wanted and self.files.exists(name):
            manifest = self.point(name)
            if wanted in self.retired()[0]:
                warn(f"{printable(wanted)} was dropped by retention on {self.retired()[0][wanted]}: its content may be gone")
            return manifest["id"], self._snapshot(manifest["snapshot"]), manifest
        ids = sorted(os.path.basename(name) for name in self.files.walk("snapshots"))
        if wanted == "latest" and ids:
            found = [(str(s.get("time")), i) for i, s in self.repository.snapshots() if not isinstance(s, Damaged)]
            ids, wanted = [max(found)[1]] if found else [], ""
        elif not re.fullmatch("[0-9a-f]{8,64}", wanted):
            ids = []
        matches = [snapshot for snapshot in ids if snapshot.startswith(wanted)]
        if len(matches) != 1:
            raise Usage(f"there is no recovery point `{printable(wanted)}`; the command `points` lists them")
        return f"snapshot {matches[0][:8]}", self._snapshot(matches[0]), None

    def _snapshot(self, snapshot_id):
        name = f"snapshots/{snapshot_id}"
        snapshot = self.repository.document(name)
        snapshot["tree"] = unhex(name, field(name, snapshot, "tree", str), 32)
        return snapshot

    def root_nodes(self, snapshot):
        return {node["name"]: node for node in self.repository.tree(snapshot["tree"])}


# ---------------------------------------------------------------------------------------------------------------
# Restore


class Restorer:
    """Writes a tree into a fresh directory that nobody else can enter, one open directory per level.

    Every file is created new and never through a link, so nothing in the vault can make it write elsewhere.
    """

    def __init__(self, repository, root_fd):
        self.repository, self.root_fd = repository, root_fd
        self.damaged, self.findings, self.links, self.digests = [], [], {}, {}
        self.progress = Progress("restored")
        self.files_count = self.bytes_count = self.others_count = 0
        self.is_root = os.geteuid() == 0

    def run(self, tree_id, own):
        """Walks with a stack instead of recursion: (directory fd, nodes still to do, node of the directory, path)."""
        stack = [(os.dup(self.root_fd), iter(self._nodes(tree_id, b"")), own, b"")]
        while stack:
            folder, nodes, own, path = stack[-1]
            node = next(nodes, None)
            if node is None:
                stack.pop()
                try:
                    if own:
                        self._metadata(folder, own, path)
                finally:
                    os.close(folder)
                continue
            inner = path + b"/" + node["name"] if path else node["name"]
            try:
                if node.get("type") == "dir":
                    if len(stack) >= MAX_TREE_DEPTH:
                        raise Damaged(inner, f"is deeper than {MAX_TREE_DEPTH} levels")
                    os.mkdir(node["name"], 0o700, dir_fd=folder)
                    fd = os.open(node["name"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                    self.others_count += 1
                    tree = unhex(inner, field(inner, node, "subtree", str), 32)
                    stack.append((fd, iter(self._nodes(tree, inner)), node, inner))
                else:
                    self._leaf(folder, node, inner)
            except Damaged as damage:
                self.damaged.append((inner, str(damage)))

    def _nodes(self, tree_id, path):
        try:
            return self.repository.tree(tree_id)
        except Damaged as damage:
            self.damaged.append((path + b"/*", str(damage)))
            return []

    def _leaf(self, folder, node, path):
        kind, name = node.get("type"), node["name"]
        if kind == "file":
            self._file(folder, node, path)
            return
        self.others_count += 1
        if kind == "symlink":
            raw = node.get("linktarget_raw")
            target = unbase64(path, raw) if raw else field(path, node, "linktarget", str).encode("utf-8")
            if not target or b"\0" in target:
                raise Damaged(path, "is a link without a valid target")
            os.symlink(target, name, dir_fd=folder)
        elif kind == "fifo":
            os.mkfifo(name, 0o600, dir_fd=folder)
        elif kind in ("dev", "chardev"):
            mode = stat.S_IFCHR if kind == "chardev" else stat.S_IFBLK
            try:
                os.mknod(name, mode | 0o600, device=node.get("device", 0), dir_fd=folder)
            except PermissionError:
                self._finding(path, "a device node needs root and was left out")
                return
        elif kind == "socket":
            return  # a socket exists only while a program holds it
        else:
            raise Damaged(path, f"is of the unknown type `{printable(str(kind))}`")
        self._name_metadata(folder, node, path)

    def _file(self, folder, node, path):
        content = [unhex(path, blob, 32) for blob in node.get("content") or []]
        link = (node.get("device_id", 0), node.get("inode", 0)) if node.get("links", 0) > 1 else None
        if link in self.links and self.links[link][1] == content:
            os.link(self.links[link][0], node["name"], src_dir_fd=self.root_fd, dst_dir_fd=folder, follow_symlinks=False)
            self.files_count += 1
            self.digests[path] = self.digests[self.links[link][0]]
            return
        fd = os.open(node["name"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            size, digest = 0, hashlib.sha256()
            for blob_id in content:
                piece = self.repository.blob(blob_id)
                digest.update(piece)
                if piece.count(0) == len(piece):
                    os.lseek(fd, len(piece), os.SEEK_CUR)
                else:
                    write_all(fd, piece)
                size += len(piece)
            os.ftruncate(fd, size)
            if size != node.get("size", 0):
                raise Damaged(path, f"has {size} bytes instead of {node.get('size', 0)}")
            self._metadata(fd, node, path)
        except Damaged:
            os.unlink(node["name"], dir_fd=folder)
            raise
        finally:
            os.close(fd)
        if link:
            self.links[link] = (path, content)
        self.digests[path] = digest.digest()
        self.files_count += 1
        self.bytes_count += size
        self.progress.add(1, size)

    def _metadata(self, fd, node, path):
        """Of an open file or directory. The owner comes first, because changing it clears setuid."""
        if self.is_root:
            os.fchown(fd, node.get("uid", -1), node.get("gid", -1))
        self._xattrs(fd, node, path, True)
        if "mode" in node:
            os.fchmod(fd, self._mode(node))
        times = self._times(node)
        if times:
            os.utime(fd, ns=times)

    def _name_metadata(self, folder, node, path):
        """Of a link, pipe or device, which cannot be opened."""
        name = node["name"]
        if self.is_root:
            os.chown(name, node.get("uid", -1), node.get("gid", -1), dir_fd=folder, follow_symlinks=False)
        self._xattrs(b"/proc/self/fd/%d/%s" % (folder, name), node, path, False)
        if node["type"] != "symlink" and "mode" in node:
            os.chmod(name, self._mode(node), dir_fd=folder)
        times = self._times(node)
        if times:
            os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

    def _mode(self, node):
        """Without its owner a file must not become setuid of whoever restores it."""
        mode = permissions(node["mode"])
        return mode if self.is_root else mode & ~(stat.S_ISUID | stat.S_ISGID)

    @staticmethod
    def _times(node):
        changed = nanoseconds(node.get("mtime"))
        read = nanoseconds(node.get("atime"))
        return None if changed is None else (changed if read is None else read, changed)

    def _xattrs(self, target, node, path, follow):
        for attribute in node.get("extended_attributes") or []:
            try:
                value = unbase64(path, attribute.get("value") or "")
                if isinstance(target, int):
                    os.setxattr(target, attribute["name"], value)
                else:
                    os.setxattr(target, attribute["name"], value, follow_symlinks=follow)
            except OSError as error:
                self._finding(path, f"attribute {printable(str(attribute.get('name')))} not set: {error.strerror}")

    def _finding(self, path, why):
        self.findings.append((path, why))


def permissions(mode):
    """Permission bits from the mode as the restic format stores it (that of Go)."""
    extra = [(1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX)]
    return mode & 0o777 | sum(bit for flag, bit in extra if mode & flag)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def choose_tree(vault, snapshot, with_meta):
    """What to restore: (tree, the node of its root, the node of the inventory). A point keeps the store in `data/`."""
    roots = vault.root_nodes(snapshot)
    data, meta = roots.get(b"data"), roots.get(b"meta")
    if with_meta or not data or data.get("type") != "dir":
        return snapshot["tree"], None, None
    inventory = None
    if meta and meta.get("type") == "dir":
        nodes = vault.repository.tree(unhex("meta", field("meta", meta, "subtree", str), 32))
        inventory = next((node for node in nodes if node["name"] == b"inventory.jsonl"), None)
    return unhex("data", field("data", data, "subtree", str), 32), data, inventory


def inventory_lines(repository, node):
    """The lines of meta/inventory.jsonl, without holding more than one blob."""
    rest = b""
    for blob_id in node.get("content") or []:
        *lines, rest = (rest + repository.blob(unhex("meta/inventory.jsonl", blob_id, 32))).split(b"\n")
        yield from lines
    if rest:
        raise Damaged("meta/inventory.jsonl", "does not end with a whole line")


def compare_inventory(restorer, node):
    """Compares what was written with the list the capture made of what it read, in both directions."""
    if node is None:
        return ""
    left = dict(restorer.digests)
    broken = {path for path, _ in restorer.damaged}
    folders = tuple(path[:-1] for path in broken if path.endswith(b"/*"))
    compared = 0
    try:
        for line in inventory_lines(restorer.repository, node):
            entry = parse_json("meta/inventory.jsonl", line)
            if entry.get("type") != "file" or "sha256" not in entry:
                continue
            name = field("meta/inventory.jsonl", entry, "path", dict)
            text = name.get("text")
            path = text.encode("utf-8") if text is not None else unbase64("meta/inventory.jsonl", name.get("base64"))
            found = left.pop(path, None)
            if found is None and path not in broken and not path.startswith(folders or b"\0"):
                restorer.damaged.append((path, "the inventory lists it and the recovery point does not hold it"))
            elif found is not None and found.hex() != entry["sha256"]:
                restorer.damaged.append((path, "its SHA-256 is not the one the inventory lists"))
            compared += found is not None
    except Damaged as damage:
        restorer.damaged.append((b"meta/inventory.jsonl", str(damage)))
        return ""
    for path in left:
        restorer.findings.append((path, "is not in the inventory of the recovery point"))
    return f", {compared:,} files compared with the inventory"


def restore(vault, options):
    repository = vault.repository
    target = os.path.abspath(options.target)
    partial = target + ".incomplete"
    for path in (target, partial):
        if os.path.lexists(path):
            raise Refused(f"{printable(path)} exists already; nothing was changed. Choose another target or move it away")
    if not os.path.isdir(os.path.dirname(target)):
        raise Refused(f"the directory {printable(os.path.dirname(target))} does not exist")
    repository.load_index()
    title, snapshot, manifest = vault.snapshot_of(options.point)
    tree_id, own, inventory = choose_tree(vault, snapshot, options.with_meta)
    say(f"restoring {title} to {target}")
    os.mkdir(partial, 0o700)
    root_fd = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    restorer = Restorer(repository, root_fd)
    restorer.run(tree_id, own)
    compared = compare_inventory(restorer, inventory)
    os.sync()
    os.close(root_fd)
    if not restorer.is_root:
        warn("not run as root: files belong to you now, and setuid bits were left out")
    for path, why in restorer.findings[:20]:
        warn(f"{printable(path)}: {why}")
    if restorer.damaged:
        say(f"{restorer.files_count:,} files are whole; {len(restorer.damaged)} items are NOT there:")
        for path, why in restorer.damaged:
            say(f"DAMAGED {printable(path)} ({why})")
        raise Damaged(title, f"not complete; what is whole was left in {partial}")
    os.rename(partial, target)
    summary = f"{restorer.files_count:,} files, {restorer.others_count:,} directories and others"
    say(f"restored {summary}, {human_bytes(restorer.bytes_count)}; every byte was checked{compared}")
    for item in (manifest or {}).get("facts", {}).get("unreadable", [])[:20]:
        warn(f"was not captured, so it is not in this recovery point: {printable(str(item))}")
    for problem in repository.problems:
        warn(f"the vault has damage that this restore could work around: {problem}")
    return 5 if restorer.findings else 0


# ---------------------------------------------------------------------------------------------------------------
# Log objects

LOGS = "lifeboat/logs"
ROLLUP_TYPE = "application/vnd.lifeboat.log-rollup+json"
SPAN = re.compile(r"^([0-9a-f]{8})-([0-9a-f]{16})-([0-9a-f]{16})$")
POSITION = re.compile(r"^([0-9a-f]{8})-([0-9a-f]{16})$")
ROLLUP = re.compile(r"^[0-9]{8}T[0-9]{2}(-([2-9]|[1-9][0-9]+))?[.]json$")


class Logs:
    """The log objects of a vault. An object's name is TIMELINE-FIRST-LAST, the half-open span it holds."""

    def __init__(self, vault):
        self.vault, self.files, self.key = vault, vault.files, vault.repository.key

    def streams(self):
        """stream -> (object names, roll-up names, files that do not belong)."""
        streams = {}
        for path in self.files.walk(LOGS):
            stream, _, rest = path.removeprefix(f"{LOGS}/").partition("/")
            objects, rollups, foreign = streams.setdefault(stream, ([], [], []))
            if SPAN.match(rest):
                objects.append(rest)
            elif rest.startswith("rollup/") and ROLLUP.match(rest.removeprefix("rollup/")):
                rollups.append(rest)
            else:
                foreign.append(path)
        return streams

    def read(self, stream, name):
        """(header, content, SHA-256 of the stored bytes) of one object, every byte checked."""
        path = f"{LOGS}/{stream}/{name}"
        raw = self.files.read(path, MAX_LOG_FILE_BYTES)
        if raw[:6] != b"LBLOG1" or raw[6:8] != b"\x01\x00":
            raise Damaged(path, "does not start as a log object of version 1 does")
        plain = self.key.open(path, raw[8:])
        length = struct.unpack_from("<I", plain)[0] if len(plain) >= 4 else 0
        header = parse_json(path, plain[4 : 4 + length])
        timeline, first, last = SPAN.match(name).groups()
        claims = [("format", "lifeboat.log/v1"), ("stream", stream), ("name", name)]
        claims += [("first", f"{timeline}-{first}"), ("last", f"{timeline}-{last}")]
        if self.vault.envelope:
            claims.append(("vault", self.vault.envelope.vault_id))
        for key, value in claims:
            if field(path, header, key, str) != value:
                raise Damaged(path, f"is another object than its name says (`{key}` differs)")
        size = field(path, header, "plain_bytes", int)
        content = unzstd(path, plain[4 + length :], min(size, MAX_LOG_BYTES))
        if len(content) != size or hashlib.sha256(content).hexdigest() != field(path, header, "plain_sha256", str):
            raise Damaged(path, "its content is not what its header says")
        return header, content, hashlib.sha256(raw).hexdigest()

    def rollup(self, stream, name):
        """The objects a roll-up lists, its signature checked."""
        path = f"{LOGS}/{stream}/{name}"
        raw = self.files.read(path, MAX_DOCUMENT_BYTES)
        if self.vault.envelope:
            payload = self.vault.envelope.public_key.open(path, raw, ROLLUP_TYPE)
        else:
            payload = unbase64(path, field(path, parse_json(path, raw), "payload", str))
        document = parse_json(path, payload)
        hour, _, part = name.removeprefix("rollup/").removesuffix(".json").partition("-")
        claims = [("format", "lifeboat.log-rollup/v1"), ("stream", stream), ("hour", hour), ("part", int(part or 1))]
        if self.vault.envelope:
            claims.append(("vault", self.vault.envelope.vault_id))
        for key, value in claims:
            if document.get(key) != value:
                raise Damaged(path, f"is another roll-up than its name says (`{key}` differs)")
        return field(path, document, "objects", list)

    def survey(self, stream, found, each=None):
        """(spans that are whole, damage) of one stream; `each` is called with every whole object."""
        objects, rollups, foreign = found
        damage = [Damaged(path, "is not part of the format") for path in foreign]
        listed, spans, digests, links, gone = {}, [], {}, {}, {}
        for name in rollups:
            try:
                listed.update({entry["name"]: entry for entry in self.rollup(stream, name)})
            except Damaged as problem:
                damage.append(problem)
        for name in sorted(set(objects) | set(listed)):
            path = f"{LOGS}/{stream}/{name}"
            try:
                header, content, digest = self.read(stream, name)
                if name in listed and listed[name].get("sha256") != digest:
                    raise Damaged(path, "its bytes are not the ones its roll-up lists")
                digests[name] = digest
                if header.get("previous"):
                    links[header["previous"].get("name")] = header["previous"].get("sha256")
                spans.append((name, header))
                if each:
                    each(name, header, content)
            except Damaged as problem:
                damage.append(problem)
                if name not in objects:
                    gone[name] = problem
        for name, problem in gone.items():
            if self.held_by_others(listed[name], spans):
                damage.remove(problem)
        for name, digest in links.items():
            if digests.get(name, digest) != digest:
                damage.append(Damaged(f"{LOGS}/{stream}/{name}", "is not the object its successor was written after"))
        return spans, damage

    @staticmethod
    def held_by_others(entry, spans):
        """Whether sound objects cover the span of one that is gone: it was damaged, stored again beside it, and removed."""
        timeline, first, last = SPAN.match(entry["name"]).groups()
        entered = not entry.get("follows")
        for name, header in sorted(spans, key=lambda span: span[0]):
            its_timeline, its_first, its_last = SPAN.match(name).groups()
            if its_timeline == timeline and its_first <= first < its_last:
                entered = entered or bool(header.get("follows"))
                first = its_last
        return entered and first >= last

    @staticmethod
    def ranges(spans):
        """Contiguous stretches per timeline: [timeline, first, last, started, ended, follows]."""
        ranges = []
        for name, header in sorted(spans, key=lambda span: span[0]):
            timeline, first, last = SPAN.match(name).groups()
            open_range = ranges[-1] if ranges else None
            if open_range and open_range[0] == timeline and first <= open_range[2] and not header.get("follows"):
                if last > open_range[2]:
                    open_range[2], open_range[4] = last, header.get("ended")
            else:
                ranges.append([timeline, first, last, header.get("started"), header.get("ended"), header.get("follows")])
        return ranges


def show_logs(vault, options):
    logs = Logs(vault)
    streams = logs.streams()
    if options.to and not options.stream:
        raise Usage("--to needs --stream")
    if options.stream and options.stream not in streams:
        raise Usage(f"there is no log stream `{printable(options.stream)}`")
    if options.to and os.path.lexists(options.to):
        raise Refused(f"{printable(options.to)} exists already; nothing was changed")
    if options.to:
        os.mkdir(options.to, 0o700)
    worst = None
    for stream, found in sorted(streams.items()):
        if options.stream not in (None, stream):
            continue

        def write(name, _header, content):
            with open(os.path.join(options.to, name), "xb") as handle:
                handle.write(content)

        spans, damage = logs.survey(stream, found, write if options.to else None)
        say(f"stream {printable(stream)}: {len(spans):,} objects whole")
        before = None
        for timeline, first, last, started, ended, follows in logs.ranges(spans):
            if before and before[0] == timeline:
                say(f"  GAP from {timeline}-{before[1]} to {timeline}-{first}")
            joined = f", continues {printable(str(follows))}" if follows else ""
            say(f"  from {timeline}-{first} to {timeline}-{last} ({started} to {ended}{joined})")
            before = (timeline, last)
        for problem in damage:
            say(f"  DAMAGED {problem}")
            worst = problem
    if options.to:
        os.sync()
        say(f"wrote the content of every whole object to {printable(options.to)}, named and sorted by position")
    if worst:
        raise Damaged(worst.item, worst.why)
    if not streams:
        say("this vault has no log streams")
    return 0


# ---------------------------------------------------------------------------------------------------------------
# Verification: every byte of every file


class Verifier:
    """Reads the whole vault, names everything that is wrong, and says which recovery points it touches."""

    def __init__(self, vault):
        self.vault, self.files, self.repository = vault, vault.files, vault.repository
        self.damage, self.notes, self.suspects, self.good_trees = [], [], set(), set()
        self.counts = None
        self.progress = Progress("verified")

    def attempt(self, action, *arguments):
        try:
            return action(*arguments)
        except Damaged as damage:
            self.damage.append(damage)
            return None

    def run(self):
        self.files_count = 0
        if self.vault.envelope:
            self.attempt(self.vault.envelope.check)
            if not self.files.exists(VAULT_FILE):
                self.damage.append(Damaged(VAULT_FILE, "the file is missing"))
        self.repository.load_index()
        self.damage += self.repository.problems
        for name in self.files.walk(""):
            self.files_count += 1
            self._file(name)
            self.progress.add(1, self.files.size(name) if self.files.exists(name) else 0)
        self._missing_packs()
        points = [(name, self._point(name, point)) for name, point in self.vault.points()]
        self._snapshots_without_point()
        logs = Logs(self.vault)
        for stream, found in sorted(logs.streams().items()):
            self.damage += logs.survey(stream, found)[1]
        return points

    def _file(self, name):
        folder, _, rest = name.partition("/")
        if folder in FILE_TYPES and rest:
            digits = name.rsplit("/", 1)[-1]
            well_named = re.fullmatch("[0-9a-f]{64}", digits)
            if os.path.basename(name).startswith(".lifeboat-tmp-"):
                self.notes.append(f"{name}: the rest of an interrupted write; may be removed")
            elif not well_named or (folder == "data" and rest not in (digits, f"{digits[:2]}/{digits}")):
                self.notes.append(f"{printable(name)}: does not belong to the format")
            elif self.attempt(self._named_after_content, name, digits) and folder in ("snapshots", "locks"):
                self.attempt(self.repository.document, name)
            if folder == "data" and well_named:
                self.attempt(self._pack, name, bytes.fromhex(digits))
        elif name == "config" or name == ENVELOPE or name.startswith((POINTS + "/", LOGS + "/")):
            pass  # opened with its seal or signature elsewhere
        elif name.startswith(RETIRED + "/") and not os.path.basename(name).startswith(".lifeboat-tmp-"):
            self.attempt(self.vault.retirement, name)
        elif name.startswith(HOLDS + "/") and not os.path.basename(name).startswith(".lifeboat-tmp-"):
            self.attempt(self.vault.hold, name)
        elif name == VAULT_FILE:
            self.attempt(self.vault.check_vault_file)
        else:
            self.notes.append(f"{printable(name)}: does not belong to the format")

    def _named_after_content(self, name, digits):
        if self.files.sha256(name) != digits:
            raise Damaged(name, "the content does not have the SHA-256 that is its name")
        return True

    def _pack(self, name, pack_id):
        """Every blob of a pack, and that header and index agree."""
        try:
            header = self.repository.pack_header(name)
        except Damaged:
            self._suspect(pack_id)
            raise
        number = self.repository.numbers[pack_id]
        if number in self.repository.unindexed:
            self.notes.append(f"{name}: no index knows this pack (an interrupted backup?)")
            return
        if len(header) != self._counts()[number]:
            self.damage.append(Damaged(name, "index and pack differ about how many blobs it holds"))
        for blob_id, is_tree, offset, length, plain in header:
            place = (number, offset, length, plain, is_tree)
            known = self.repository.blobs.get(blob_id) == place or place in self.repository.more.get(blob_id, [])
            if not known:
                self.damage.append(Damaged(name, f"index and pack differ about blob {blob_id.hex()}"))
            try:
                self.repository.read_place(blob_id, place)
            except Damaged as damage:
                self.suspects.add(blob_id)
                if not self.damage or self.damage[-1].item != name:
                    self.damage.append(damage)

    def _counts(self):
        """How many blobs the index lists per pack."""
        if self.counts is None:
            self.counts = Counter(place[0] for place in self.repository.blobs.values())
            self.counts.update(place[0] for places in self.repository.more.values() for place in places)
        return self.counts

    def _suspect(self, pack_id):
        number = self.repository.numbers.get(pack_id)
        places = ((blob_id, place) for blob_id, place in self.repository.blobs.items())
        self.suspects.update(blob_id for blob_id, place in places if place[0] == number)

    def _missing_packs(self):
        for number, pack_id in enumerate(self.repository.packs):
            name = self.repository.pack_name(number)
            if pack_id.hex() in self.vault.retired()[1]:
                continue
            if not self.files.exists(name) and any(place[0] == number for place in self.repository.blobs.values()):
                self.damage.append(Damaged(name, "the file is missing, an index lists it"))
                self._suspect(pack_id)

    def _point(self, name, point):
        """None if the point is whole, else why not."""
        if isinstance(point, Damaged):
            self.damage.append(point)
            return str(point)
        try:
            snapshot = self.vault._snapshot(point["snapshot"])
        except Damaged as damage:
            if not any(known.item == damage.item for known in self.damage):
                self.damage.append(damage)
            return f"its snapshot is damaged: {damage}"
        bad = []
        self._tree(snapshot["tree"], b"", bad)
        if not bad:
            return None
        shown = ", ".join(printable(path) for path in bad[:5])
        return f"{len(bad)} files or directories cannot be restored: {shown}{', ...' if len(bad) > 5 else ''}"

    def _readable(self, blob_id):
        place = self.repository.blobs.get(blob_id)
        if place and place[0] in self.repository.unindexed and not self.repository.problems:
            name = self.repository.pack_name(place[0])
            if not any(known.item == name for known in self.damage):
                self.damage.append(Damaged(name, "no index lists it, and a recovery point needs it"))
            return True
        if blob_id not in self.suspects and place:
            return True
        try:
            self.repository.blob(blob_id)
            return True
        except Damaged:
            return False

    def _tree(self, tree_id, path, bad):
        """Collects what cannot be restored; whole trees are remembered, so points that share them cost nothing."""
        stack = [(tree_id, path, None)]
        while stack:
            tree, path, mark = stack.pop()
            if mark is not None:
                if len(bad) == mark:
                    self.good_trees.add(tree)
                continue
            if tree in self.good_trees:
                continue
            try:
                nodes = self.repository.tree(tree)
                self._readable(tree)
                stack.append((tree, path, len(bad)))
                for node in nodes:
                    inner = path + b"/" + node["name"] if path else node["name"]
                    if node.get("type") == "dir":
                        stack.append((unhex(inner, field(inner, node, "subtree", str), 32), inner, None))
                    elif not all(self._readable(unhex(inner, blob, 32)) for blob in node.get("content") or []):
                        bad.append(inner)
            except Damaged:
                bad.append(path + b"/*")

    def _snapshots_without_point(self):
        sealed = {p["snapshot"] for _, p in self.vault.points() if not isinstance(p, Damaged)}
        for snapshot_id, snapshot in self.repository.snapshots():
            if snapshot_id not in sealed and not isinstance(snapshot, Damaged) and self.vault.envelope:
                self.notes.append(f"snapshots/{snapshot_id}: no recovery point names it (an interrupted backup?)")


def verify(vault, _options):
    verifier = Verifier(vault)
    points = verifier.run()
    seen = set()
    for damage in verifier.damage:
        if str(damage) not in seen:
            seen.add(str(damage))
            say(f"DAMAGED {damage}")
    for note in verifier.notes:
        say(f"note: {note}")
    for name, why in points:
        title = name.removeprefix(POINTS + "/").removesuffix(".json")
        say(f"recovery point {printable(title)}: {'whole' if why is None else 'DAMAGED: ' + why}")
    say(f"{verifier.files_count:,} files read, {len(seen)} problems")
    broken = [why for _, why in points if why]
    if verifier.damage or broken:
        raise Damaged("this vault", f"{len(seen)} damaged items, {len(broken)} of {len(points)} recovery points affected")
    return 0


# ---------------------------------------------------------------------------------------------------------------
# Commands


def info(files, options):
    """Needs no key: says whose vault this is and which keys open it."""
    say(f"vault      {options.vault}")
    if files.exists(ENVELOPE):
        envelope = Envelope(files)
        say(f"store      {printable(envelope.store)}")
        say(f"vault id   {printable(envelope.vault_id)}")
        say(f"created    {printable(envelope.created)}")
        say(f"public key {envelope.public_key.text}")
        for entry in envelope.recipients:
            say(f"opened by  {printable(str(entry.get('kind')))} ({printable(str(entry.get('label')))})")
    else:
        say("there is no lifeboat/envelope.json: a plain restic repository, or the envelope is lost")
    count = {folder: sum(1 for _ in files.walk(folder)) for folder in (*FILE_TYPES, POINTS, LOGS, RETIRED)}
    say("files      " + ", ".join(f"{folder} {number:,}" for folder, number in count.items()))
    return 0


def points(vault, _options):
    worst = None
    for name, point in vault.points():
        if isinstance(point, Damaged):
            say(f"DAMAGED {point}")
            worst = point
            continue
        facts = point.get("facts") if isinstance(point.get("facts"), dict) else {}
        consistency = facts.get("consistency") if isinstance(facts.get("consistency"), dict) else {}
        size = human_bytes(facts["logical_bytes"]) if isinstance(facts.get("logical_bytes"), int) else "?"
        gaps = f", {len(facts['unreadable'])} items were not captured" if facts.get("unreadable") else ""
        say(f"{point['id']}  shows {consistency.get('moment', point.get('started'))}  {size}  "
            f"{consistency.get('level', '')}{gaps}")
    for point, at in sorted(vault.retired()[0].items()):
        if vault.files.exists(f"{POINTS}/{point}.json"):
            say(f"{printable(point)}  was dropped by retention on {at}; this copy has not followed yet")
    sealed = {point["snapshot"] for _, point in vault.points() if not isinstance(point, Damaged)}
    for snapshot_id, snapshot in vault.repository.snapshots():
        if isinstance(snapshot, Damaged):
            say(f"DAMAGED {snapshot}")
            worst = snapshot
        elif snapshot_id not in sealed:
            say(f"{snapshot_id[:12]}  a snapshot of {snapshot.get('time')} without a recovery point")
    if worst:
        raise Damaged(worst.item, worst.why)
    return 0


def password(vault, _options):
    print(vault.password)
    return 0


def arguments():
    keys = argparse.ArgumentParser(add_help=False)
    group = keys.add_argument_group("what opens the vault (default: $LIFEBOAT_PASSPHRASE, else you are asked)")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--passphrase-file", metavar="FILE", help="a file that holds the passphrase")
    one.add_argument("--passphrase-env", metavar="NAME", help="an environment variable that holds it")
    one.add_argument("--key-file", metavar="FILE", help="a Lifeboat key file (one line, lifeboat-key-1:...)")
    one.add_argument("--repository-password-file", metavar="FILE", help="the restic password itself, if you kept it")
    parser = argparse.ArgumentParser(
        prog="lifeboat_recover.py",
        description="Reads a Lifeboat vault without Lifeboat. VAULT is a directory COPY/STORE that holds `config`.",
        epilog="exit codes: 0 done and whole, 1 internal, 2 usage, 3 refused, 4 unreachable, 5 findings, 6 damaged or wrong key",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, text, with_keys=True):
        command = commands.add_parser(name, help=text, description=text, parents=[keys] if with_keys else [])
        command.add_argument("vault", metavar="VAULT")
        return command

    add("info", "whose vault this is and which keys open it; needs no key", with_keys=False)
    add("points", "list what can be restored")
    add("verify", "read every byte and name everything that is damaged")
    one_restore = add("restore", "restore a recovery point into a new directory")
    one_restore.add_argument("point", metavar="POINT", help="a name from `points`, `latest`, or a snapshot id")
    one_restore.add_argument("target", metavar="TARGET", help="a directory that does not exist yet")
    one_restore.add_argument("--with-meta", action="store_true", help="restore `meta/` beside `data/` too")
    logs = add("logs", "list log streams, their ranges and gaps; or write their content out")
    logs.add_argument("--stream", metavar="STREAM", help="only this stream")
    logs.add_argument("--to", metavar="DIR", help="write the content of its objects into this new directory")
    add("password", "print the repository password, for stock restic")
    return parser


def main(argv=None):
    options = arguments().parse_args(argv)
    with contextlib.ExitStack() as stack:
        return run(options, stack)


def run(options, stack):
    try:
        files = Files(options.vault)
        if options.command == "info":
            return info(files, options)
        vault = Vault(options.vault, Keys(options))
        stack.callback(vault.repository.close)
        commands = {"points": points, "verify": verify, "restore": restore, "logs": show_logs, "password": password}
        return commands[options.command](vault, options)
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.code
    except KeyboardInterrupt:
        print("error: interrupted; a started restore is left as TARGET.incomplete", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; a started restore is left as TARGET.incomplete", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
