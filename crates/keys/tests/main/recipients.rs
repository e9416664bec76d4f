//! Passphrases and key files as a user meets them.

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::secret::Secret;
use lifeboat_keys::{KeyFileRecipient, KeysError, PassphraseRecipient, RecipientKey, generate_key_file};

#[test]
fn an_empty_passphrase_is_refused() {
    let error = PassphraseRecipient::new(Secret::new(String::new()), "env:EMPTY").unwrap_err();
    assert!(matches!(&error, KeysError::EmptyPassphrase { label } if label == "env:EMPTY"));
    assert_eq!(error.kind(), FailureKind::Usage);
}

#[test]
fn labels_that_could_break_a_line_are_refused() {
    for label in ["", "a\nb", "a\u{1b}b", &"x".repeat(257)] {
        let result = PassphraseRecipient::new(Secret::new("p".to_owned()), label);
        assert!(matches!(result, Err(KeysError::InvalidLabel { .. })), "{label:?}");
    }
}

#[test]
fn a_generated_key_file_wraps_and_unwraps_and_another_one_does_not() {
    let (file, other) = (generate_key_file(&OsEntropy), generate_key_file(&OsEntropy));
    let open = |file| KeyFileRecipient::parse(file, "file:a").unwrap();
    let wrapped = open(&file).wrap(&Secret::new([5; 32]), b"context", &OsEntropy).unwrap();
    assert_eq!(open(&file).unwrap(&wrapped, b"context").unwrap().expose(), &[5; 32]);
    assert!(matches!(open(&other).unwrap(&wrapped, b"context"), Err(KeysError::NotOpened { .. })));
    assert!(matches!(open(&file).unwrap(&wrapped, b"contexT"), Err(KeysError::NotOpened { .. })));
}

#[test]
fn what_is_not_a_key_file_is_refused() {
    let good = generate_key_file(&OsEntropy).expose().trim().to_owned();
    assert!(KeyFileRecipient::parse(&Secret::new(format!("{good}\r\n")), "a").is_ok());
    for text in [
        "",
        "lifeboat-key-1:",
        "lifeboat-key-1:AAAA",
        &good[1..],
        &format!("{good} x"),
        &format!("{good}\n{good}"),
    ] {
        let result = KeyFileRecipient::parse(&Secret::new(text.to_owned()), "a");
        assert!(matches!(result, Err(KeysError::InvalidKeyFile { .. })), "{}", text.len());
    }
}
