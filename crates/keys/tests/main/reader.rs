//! An envelope is opened by an independent reader: Python's standard library and its `cryptography` package,
//! written from the format page alone.

use std::io::Write as _;
use std::process::{Command, Stdio};

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::ids::{StoreName, VaultId};
use lifeboat_base::secret::Secret;
use lifeboat_keys::{Envelope, KeyFileRecipient, PassphraseRecipient, VaultSecrets, generate_key_file};

const READER: &str = r#"
import base64, hashlib, json, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey, Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
b64 = lambda text: base64.b64decode(text, validate=True)
text, passphrase, key_file = json.load(sys.stdin)
e = json.loads(text)
context = "".join(e[f] + "\n" for f in ("format", "vault_id", "store", "created", "public_key")).encode()
opened = []
for r in e["recipients"]:
    if r["kind"] == "passphrase":
        p = r["params"]
        key = hashlib.scrypt(passphrase.encode(), salt=b64(p["salt"]), n=p["n"], r=p["r"], p=p["p"],
                             maxmem=512 * 1024 * 1024, dklen=32)
    else:
        key = b64(key_file.strip().split(":")[1])
    aad = context + ("recipient\n%s\n%s\n" % (r["kind"], r["label"])).encode()
    dek = ChaCha20Poly1305(key).decrypt(b64(r["nonce"]), b64(r["wrapped"]), aad)
    s = e["sealed"]
    opened.append(ChaCha20Poly1305(dek).decrypt(b64(s["nonce"]), b64(s["ciphertext"]), context + b"sealed\n"))
assert len(opened) == 2 and opened[0] == opened[1]
secrets = json.loads(opened[0])
public = b64(e["public_key"].split(":")[1])
assert Ed25519PrivateKey.from_private_bytes(b64(secrets["signing_seed"])).public_key().public_bytes_raw() == public
kind = b"application/vnd.lifeboat.envelope+json"
payload = json.dumps({**e, "signature": ""}, separators=(",", ":"), ensure_ascii=False).encode()
signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
Ed25519PublicKey.from_public_bytes(public).verify(b64(e["signature"]), signed)
print(secrets["repository_password"], secrets["chunker_seed"])
"#;

#[test]
fn an_independent_reader_opens_an_envelope_from_its_description() {
    let imports = Command::new("python3").args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
    assert!(
        imports.is_ok_and(|status| status.success()),
        "python3 with the package `cryptography` is missing: run the tests with `make test`"
    );
    let secrets = VaultSecrets::generate(&OsEntropy);
    let file = generate_key_file(&OsEntropy);
    let pass = PassphraseRecipient::new(Secret::new("pässword".to_owned()), "env:PÄSS").unwrap();
    let key = KeyFileRecipient::parse(&file, "file:ops.key").unwrap();
    let vault = VaultId::generate(&OsEntropy);
    let store = StoreName::new("orders").unwrap();
    let created = "2026-11-21T02:00:00.123Z".parse().unwrap();
    let envelope = Envelope::seal(vault, &store, created, &secrets, &[&pass, &key], &OsEntropy).unwrap();
    let text = String::from_utf8(envelope.to_bytes()).unwrap();

    let mut python = Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(&(text, "pässword", file.expose())).unwrap();
    python.stdin.take().unwrap().write_all(&input).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected = format!("{} {:016x}\n", secrets.repository_password.expose(), secrets.chunker_seed);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
