//! What is written comes back as it was, in either form.

use proptest::prelude::*;

use super::*;

fn password(options: &ConnectOptions) -> Option<&str> {
    options.password.as_ref().map(|password| password.expose().as_str())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_encoded_password_comes_back(secret in "[^\0]{1,20}", user in "[^\0]{1,8}") {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let read =
            options(&format!("postgres://{}:{}@h/d", encode(&user), encode(&secret))).unwrap();
        prop_assert_eq!(password(&read), Some(secret.as_str()));
        prop_assert_eq!(&read.user, &user);
    }

    #[test]
    fn a_quoted_password_comes_back(secret in "[^\0]{1,20}") {
        let quoted = secret.replace('\\', r"\\").replace('\'', r"\'");
        let read = options(&format!("host=h password='{quoted}' user=u")).unwrap();
        prop_assert_eq!(password(&read), Some(secret.as_str()));
    }
}

#[test]
fn parameters_reach_their_place() {
    let read = options(
        "host=h user=u sslmode=verify-ca sslrootcert=/ca sslcert=/c sslkey=/k channel_binding=require \
         passfile=/p application_name=x connect_timeout=3 options='-c a=b'",
    )
    .unwrap();
    assert_eq!(read.ssl_mode, SslMode::VerifyCa);
    assert_eq!(read.roots, Some(Roots::File("/ca".into())));
    assert_eq!(read.client_certificate, Some(("/c".into(), "/k".into())));
    assert_eq!(read.channel_binding, ChannelBindingMode::Require);
    assert_eq!(read.pass_file, Some("/p".into()));
    assert_eq!(read.application_name, "x");
    assert_eq!(read.connect_timeout, Duration::from_secs(3));
    assert_eq!(read.server_options.as_deref(), Some("-c a=b"));
    let system = options("host=h user=u sslrootcert=system").unwrap();
    assert_eq!((system.ssl_mode, system.roots), (SslMode::VerifyFull, Some(Roots::System)));
    assert!(options("host=h user=u sslrootcert=system sslmode=require").is_err());
}
