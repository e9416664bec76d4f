//! The built-in embedder: fits, freezes, tells topics apart, and is read back only when it is whole.

use lifeboat_base::digest::Digest;
use lifeboat_probe::{Embedded, Embedder, Flaw, Lsa, ProbeError, RANDOM_PAIR_P5_MIN, Stress};

const TOPICS: [[&str; 8]; 6] = [
    ["vault", "copy", "replica", "region", "bucket", "mirror", "offsite", "healing"],
    ["key", "cipher", "signature", "recipient", "passphrase", "envelope", "wrap", "rotate"],
    ["schedule", "calendar", "hourly", "cron", "window", "midnight", "timezone", "due"],
    ["restore", "sandbox", "target", "recovery", "replay", "moment", "timeline", "drill"],
    ["chunk", "dedupe", "pack", "blob", "index", "prune", "compress", "repository"],
    ["alert", "page", "oncall", "incident", "escalate", "mail", "webhook", "notify"],
];

/// Texts of a topic each, with a few words from everywhere.
fn corpus() -> Vec<String> {
    let text = |at: usize| {
        let digest = Digest::of(&at.to_be_bytes());
        let topic = TOPICS[at % TOPICS.len()];
        let mut words: Vec<&str> =
            digest.as_bytes()[..10].iter().map(|byte| topic[usize::from(byte % 8)]).collect();
        let other = digest.as_bytes()[10];
        words.push(TOPICS[usize::from(other % 6)][usize::from(other / 32)]);
        words.join(" ")
    };
    (0..240).map(text).collect()
}

fn fitted() -> Lsa {
    let corpus = corpus();
    let texts: Vec<&str> = corpus.iter().map(String::as_str).collect();
    Lsa::fit(&texts, 6).unwrap()
}

fn distance(model: &Lsa, a: &str, b: &str) -> Stress {
    let vectors = model.embed(&[a, b]).unwrap();
    Stress::between(Embedded { text: a, vector: &vectors[0] }, Embedded { text: b, vector: &vectors[1] })
        .unwrap()
}

#[test]
fn the_same_corpus_gives_the_same_bytes_in_any_order() {
    let (one, two) = (fitted().to_bytes().unwrap(), fitted().to_bytes().unwrap());
    assert_eq!(one, two);
    let mut corpus = corpus();
    corpus.reverse();
    let texts: Vec<&str> = corpus.iter().map(String::as_str).collect();
    assert_eq!(Lsa::fit(&texts, 6).unwrap().to_bytes().unwrap(), one);
    corpus[0].push_str(" vault");
    let texts: Vec<&str> = corpus.iter().map(String::as_str).collect();
    assert_ne!(Lsa::fit(&texts, 6).unwrap().hash(), fitted().hash());
}

#[test]
fn words_of_one_topic_are_near_though_no_text_shares_them() {
    let model = fitted();
    assert_eq!((model.rank(), model.terms_count()), (6, 48));
    assert!(distance(&model, "restoring into sandboxes", "recovery drills").gated < 0.2);
    assert!(distance(&model, "restoring into sandboxes", "hourly cron").gated > 0.8);
    let corpus = corpus();
    let texts: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let pairs = model.random_pairs(&texts, 400, 1).unwrap();
    assert_eq!(pairs.count(), 400);
    assert!(pairs.median() >= RANDOM_PAIR_P5_MIN, "{}", pairs.median());
}

#[test]
fn vectors_have_length_one_and_unknown_words_have_none() {
    let model = fitted();
    for text in ["vault", "restoring a sandbox of keys", "the cron of the vault"] {
        let vector = model.vector(text);
        let length: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{text}");
    }
    assert!(model.vector("quetzalcoatl").iter().all(|value| *value == 0.0));
    assert_eq!(distance(&model, "vault", "quetzalcoatl").flaw, Some(Flaw::ZeroVector));
}

#[test]
fn a_corpus_that_cannot_be_fitted_is_refused() {
    for texts in [&[][..], &["vault"], &["the", "of"], &["vault", "vault", "vault"]] {
        assert!(Lsa::fit(texts, 4).is_err(), "{texts:?}");
    }
    assert!(matches!(Lsa::fit(&["vault key", "cron drill"], 0), Err(ProbeError::Empty { .. })));
    assert!(matches!(Lsa::fit(&["vault key", "cron drill"], 100_000), Err(ProbeError::TooMany { .. })));
}

#[test]
fn a_model_is_read_back_and_every_flipped_byte_is_found() {
    let model = fitted();
    let bytes = model.to_bytes().unwrap();
    assert_eq!(Lsa::from_bytes(&bytes).unwrap(), model);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Lsa::from_bytes(&damaged).is_err(), "byte {at}");
    }
    for len in [0, 1, 31, 32, 40, bytes.len() - 1] {
        assert!(Lsa::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_model_that_was_sealed_with_nonsense_is_refused() {
    let body = |change: &dyn Fn(String) -> String| {
        let bytes = fitted().to_bytes().unwrap();
        let len = usize::try_from(u64::from_le_bytes(bytes[7..15].try_into().unwrap())).unwrap();
        let header = change(String::from_utf8(bytes[15..15 + len].to_vec()).unwrap());
        let mut body = bytes[..7].to_vec();
        body.extend_from_slice(&(header.len() as u64).to_le_bytes());
        body.extend_from_slice(header.as_bytes());
        body.extend_from_slice(&bytes[15 + len..bytes.len() - 32]);
        body
    };
    let sealed = |body: Vec<u8>| {
        let digest = Digest::of(&body);
        Lsa::from_bytes(&[body.as_slice(), digest.as_bytes()].concat())
    };
    assert_eq!(sealed(body(&|header| header)).unwrap(), fitted());
    for (from, to) in [
        ("\"rank\":6", "\"rank\":7"),
        ("\"rank\":6", "\"rank\":0"),
        ("\"rank\":6", "\"rank\":18446744073709551615"),
        ("lifeboat.lsa/v1", "lifeboat.lsa/v2"),
        ("\"alert\",", "\"zzz\","),
        ("\"analyzer_fingerprint\":\"", "\"analyzer_fingerprint\":\"0000"),
        ("\"texts\":240", "\"more\":240"),
    ] {
        let changed = body(&|header| {
            let other = header.replacen(from, to, 1);
            assert_ne!(other, header, "{from}");
            other
        });
        assert!(sealed(changed).is_err(), "{to}");
    }
    let mut nan = body(&|header| header);
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(sealed(nan), Err(ProbeError::NotFinite { .. })));
}
