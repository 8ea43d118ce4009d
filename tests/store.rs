//! Stored grants, and the file that keeps one: what comes back, and what is refused. What several programs do with
//! the same file is in `store_shared.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/stores.rs"]
mod stores;

use std::{
    fs::{self, File},
    path::Path,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_dpop::{DpopKey, Error, FileStore, GrantStore, StoredGrant, token::Storing};

use self::stores::{CANARY, Directory, SERVER, grant, no_secret, ours};

fn key() -> DpopKey {
    static KEY: OnceLock<DpopKey> = OnceLock::new();
    KEY.get_or_init(|| DpopKey::generate().unwrap()).clone()
}

fn written() -> String {
    grant(&key(), CANARY).to_json().unwrap().to_string()
}

/// The same with another member in the place of one of this name, or none.
fn with(name: &str, value: Option<Value>) -> String {
    let mut json: Value = serde_json::from_str(&written()).unwrap();
    let members = json.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
    json.to_string()
}

#[track_caller]
fn refused(json: impl AsRef<[u8]>) -> Error {
    let error = StoredGrant::from_json(json.as_ref()).unwrap_err();
    no_secret(&error);
    error
}

#[track_caller]
fn same(one: &StoredGrant, other: &StoredGrant) {
    assert_eq!(one.key(), other.key());
    assert_eq!(one.thumbprint(), other.thumbprint());
    assert_eq!(one.refresh_token(), other.refresh_token());
    assert_eq!(one.authorization_server(), other.authorization_server());
    assert_eq!(one.client_id(), other.client_id());
    assert_eq!(one.scope(), other.scope());
}

/// As somebody else would make it: for its owner alone.
fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    allow(path, 0o600);
}

#[cfg(unix)]
fn allow(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn allow(_: &Path, _: u32) {}

// The JSON.

#[test]
fn all_of_a_grant_comes_back() {
    let odd = "canary \"\\/\n\r\t\u{0}\u{7f}\u{e9}\u{1f600}\u{2028}";
    for scope in [None, Some(""), Some("a b"), Some(odd)] {
        let grant = StoredGrant::new(&key(), odd, SERVER, odd, scope);
        assert_eq!(grant.scope(), scope);
        assert_eq!(grant.refresh_token(), odd);
        assert_eq!(grant.client_id(), odd);
        assert_eq!(grant.authorization_server(), SERVER);
        assert_eq!(grant.thumbprint(), key().thumbprint());
        let json = grant.to_json().unwrap();
        assert_eq!(json.lines().count(), 1);
        let again = StoredGrant::from_json(json.as_bytes()).unwrap();
        same(&again, &grant);
        // The thumbprint says that it is the same one, and so does what it signs with.
        let pem = |grant: &StoredGrant| grant.key().unwrap().to_pkcs8_pem().unwrap();
        assert_eq!(*pem(&again), *pem(&grant));
    }
}

/// As another program would read it.
#[test]
fn the_json_is_what_its_description_says() {
    let json: Value = serde_json::from_str(&written()).unwrap();
    let expected = json!({
        "tower_dpop_grant": 1,
        "authorization_server": SERVER,
        "client_id": "app",
        "scope": "a b",
        "jkt": key().thumbprint(),
        "key": *key().to_pkcs8_pem().unwrap(),
        "refresh_token": CANARY,
    });
    assert_eq!(json, expected);
}

#[test]
fn it_may_be_written_by_others() {
    // The members in another order, escapes that we would not use, members of a later program.
    let json: Value = serde_json::from_str(&written()).unwrap();
    let pretty = serde_json::to_string_pretty(&json).unwrap();
    let escaped = pretty.replace('/', "\\/").replace("can", "\\u0063\\u0061n");
    assert!(escaped.contains("\\u0063"));
    let more = with("later", Some(json!({"a": [1, null]})));
    for text in [pretty, escaped, more] {
        let read = StoredGrant::from_json(text.as_bytes()).unwrap();
        same(&read, &grant(&key(), CANARY));
    }
    let read = StoredGrant::from_json(with("scope", Some(Value::Null)).as_bytes()).unwrap();
    assert_eq!(read.scope(), None);
}

#[test]
fn a_key_that_stays_in_its_place_is_known_by_its_thumbprint() {
    let json = with("key", None);
    let read = StoredGrant::from_json(json.as_bytes()).unwrap();
    assert_eq!((read.key(), read.thumbprint()), (None, key().thumbprint()));
    let again = read.to_json().unwrap();
    assert!(!again.contains("PRIVATE KEY"));
    same(&StoredGrant::from_json(again.as_bytes()).unwrap(), &read);
}

/// One of a program that signs otherwise. Its P-256 key is as good here; another is no reason to give the grant up.
#[test]
fn a_grant_of_a_program_with_more_signers_is_read_or_refused_but_not_called_damaged() {
    let read = StoredGrant::from_json(with("signer", Some(json!("of the future"))).as_bytes());
    same(&read.unwrap(), &grant(&key(), CANARY));

    let mut json: Value = serde_json::from_str(&written()).unwrap();
    json["key"] = include_str!("data/keys/ed25519/pkcs8.pem").into();
    json["jkt"] = include_str!("data/keys/ed25519/thumbprint").trim().into();
    json["alg"] = "Ed25519".into();
    json["signer"] = "of the future".into();
    let text = refused(json.to_string()).to_string();
    assert!(
        text.contains("another signer") && text.contains("feature"),
        "{text}"
    );
    assert!(
        !text.contains("damaged") && !text.contains("clear"),
        "{text}"
    );
}

#[test]
fn another_keys_thumbprint_is_refused_and_the_error_says_so() {
    let other = DpopKey::generate().unwrap();
    let error = refused(with("jkt", Some(other.thumbprint().into())));
    assert!(error.is_other_key() && !error.is_store(), "{error}");
    for thumbprint in [key().thumbprint(), other.thumbprint()] {
        assert!(error.to_string().contains(thumbprint), "{error}");
    }
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn a_damaged_key_of_another_signer_that_is_there_is_called_damaged() {
    let key = tower_dpop::AwsLcRs::generate().unwrap();
    let pem = key.to_pkcs8_pem().unwrap();
    let mut json: Value = serde_json::from_str(&written()).unwrap();
    json["jkt"] = key.thumbprint().into();
    json["signer"] = "aws-lc-rs".into();
    json["key"] = pem.as_str().into();
    StoredGrant::from_json(json.to_string().as_bytes()).unwrap();
    json["key"] = pem.replacen("MIG", "MI!", 1).into();
    let text = refused(json.to_string()).to_string();
    assert!(text.contains("damaged"), "{text}");
}

#[test]
fn what_is_damaged_says_where() {
    for (name, value, what) in [
        ("refresh_token", None, "has no `refresh_token`"),
        ("refresh_token", Some(Value::Null), "has no `refresh_token`"),
        ("refresh_token", Some(json!("")), "`refresh_token` is empty"),
        (
            "refresh_token",
            Some(json!(["canary"])),
            "`refresh_token` is no text",
        ),
        (
            "authorization_server",
            None,
            "has no `authorization_server`",
        ),
        ("client_id", None, "has no `client_id`"),
        ("client_id", Some(json!(7)), "`client_id` is no text"),
        ("scope", Some(json!(["a", "b"])), "`scope` is no text"),
        ("jkt", None, "has no `jkt`"),
        ("jkt", Some(json!("canary")), "`jkt` is no thumbprint"),
        (
            "jkt",
            Some(json!("canary-refresh/canary-refresh+canary-refresh")),
            "`jkt` is no",
        ),
        ("key", Some(json!("canary")), "`key` cannot be used"),
        ("key", Some(json!("")), "`key` cannot be used"),
        ("key", Some(json!({"kty": "EC"})), "`key` is no text"),
        ("tower_dpop_grant", Some(json!(0)), "no known format"),
        ("tower_dpop_grant", Some(json!(-1)), "no known format"),
        ("tower_dpop_grant", Some(json!(1.5)), "no known format"),
        ("tower_dpop_grant", Some(json!("1")), "no known format"),
        (
            "tower_dpop_grant",
            Some(json!(2)),
            "a stored grant of format 2",
        ),
        (
            "tower_dpop_grant",
            Some(json!(u64::MAX)),
            "a stored grant of format 184",
        ),
        ("tower_dpop_grant", None, "JSON, but no stored grant"),
    ] {
        let error = refused(with(name, value.clone()));
        assert!(error.is_store(), "{name} {value:?}: {error:?}");
        assert!(
            error.to_string().contains(what),
            "{name} {value:?}: {error}"
        );
    }
}

/// Whatever is no stored grant, by what the error says of it.
fn foreign() -> Vec<(Vec<u8>, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (text("\n"), "empty"),
        (text("{}"), "JSON, but no stored grant"),
        (
            text(r#"{"refresh_token":"canary"}"#),
            "JSON, but no stored grant",
        ),
        (text(r#"{"refresh_token":"cana"#), "something else"),
        (text(r#"["canary"]"#), "something else"),
        (text("null"), "something else"),
        (text("dear diary, canary"), "something else"),
        (vec![0xff; 1000], "something else"),
        (vec![0; 1000], "something else"),
        (vec![b'['; 200_000], "something else"),
        (
            text(&key().to_pkcs8_pem().unwrap()),
            "a PEM file, perhaps a key",
        ),
        (
            text(&with("tower_dpop_grant", Some(json!(2)))),
            "a stored grant of format 2",
        ),
        (vec![b' '; 256 * 1024 + 1], "longer than 256 KiB"),
    ]
}

#[test]
fn what_is_no_stored_grant_is_told_apart() {
    assert!(refused("").to_string().contains("empty"));
    for (bytes, what) in foreign() {
        let error = refused(&bytes);
        assert!(error.is_store(), "{error:?}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
    let deep = [r#"{"tower_dpop_grant":1,"a":"#, &"[".repeat(200_000)].concat();
    assert!(refused(deep).to_string().contains("cut off"));
}

#[test]
fn a_grant_that_could_not_be_read_again_is_not_written() {
    let empty = grant(&key(), "").to_json().unwrap_err();
    assert!(empty.is_store() && empty.to_string().contains("empty"));
    // The longest that there may be, and one byte more.
    let longest = 256 * 1024 - written().len() + CANARY.len();
    let json = grant(&key(), &"c".repeat(longest)).to_json().unwrap();
    assert_eq!(json.len(), 256 * 1024);
    StoredGrant::from_json(json.as_bytes()).unwrap();
    let error = grant(&key(), &"c".repeat(longest + 1))
        .to_json()
        .unwrap_err();
    assert!(
        error.is_store() && error.to_string().contains("256 KiB"),
        "{error}"
    );
}

#[test]
fn no_debug_shows_a_secret() {
    for (server, shown) in [
        (SERVER, SERVER),
        (
            "https://as.example.com/token?canary#canary",
            "https://as.example.com/token\"",
        ),
        ("https://app:canary@as.example.com/token", "…"),
    ] {
        let grant = StoredGrant::new(&key(), CANARY, server, "app", Some("orders"));
        let debug = format!("{grant:?} {grant:#?}");
        assert!(!debug.contains("canary"), "{debug}");
        assert!(!debug.contains("MIGHAgEA"), "{debug}");
        for told in [shown, key().thumbprint(), "app", "orders"] {
            assert!(debug.contains(told), "{told}: {debug}");
        }
    }
    let debug = format!("{:?}", FileStore::new("/a/grant.json"));
    assert!(debug.contains("grant.json"), "{debug}");
}

fn never_shows_what_it_reads(bytes: &[u8]) {
    match StoredGrant::from_json(bytes) {
        Ok(read) => {
            let again = StoredGrant::from_json(read.to_json().unwrap().as_bytes()).unwrap();
            same(&again, &read);
        }
        Err(error) => {
            assert!(error.is_store() || error.is_other_key(), "{error:?}");
            no_secret(&error);
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_read_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        never_shows_what_it_reads(&bytes);
        never_shows_what_it_reads(&[br#"{"tower_dpop_grant":1,"#, &*bytes].concat());
    }

    /// Bytes changed, put in and left out.
    #[test]
    fn nor_when_a_good_one_is_damaged(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
    ) {
        let mut bytes = written().into_bytes();
        for (place, byte, change) in changes {
            let place = place.index(bytes.len());
            match change {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        never_shows_what_it_reads(&bytes);
    }
}

// The file.

async fn load_error(path: &Path) -> Error {
    let error = FileStore::new(path).load().await.unwrap_err();
    let error = ours(error);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "{error}");
    error
}

/// A file that is not ours is neither replaced nor removed.
async fn left_alone(path: &Path) {
    let store = FileStore::new(path);
    for outcome in [store.save(grant(&key(), CANARY)).await, store.clear().await] {
        let error = ours(outcome.unwrap_err());
        assert!(error.is_store(), "{error:?}");
    }
}

#[tokio::test]
async fn the_last_one_that_was_saved_is_loaded_until_it_is_cleared() {
    let directory = Directory::new();
    let store = FileStore::new(directory.grant());
    assert!(store.load().await.unwrap().is_none());
    store.clear().await.expect("nothing to be cleared");
    assert!(directory.names().is_empty());
    for token in ["canary-1", "canary-2"] {
        let grant = grant(&key(), token);
        store.save(grant.clone()).await.unwrap();
        for store in [store.clone(), FileStore::new(directory.grant())] {
            same(&store.load().await.unwrap().unwrap(), &grant);
        }
        assert_eq!(directory.names(), ["grant.json"]);
    }
    store.clear().await.unwrap();
    assert!(store.load().await.unwrap().is_none());
    assert!(directory.names().is_empty());
    store.clear().await.unwrap();
    store.save(grant(&key(), CANARY)).await.unwrap();
    assert!(store.load().await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_torn_at_any_byte_is_refused_and_replaced() {
    let directory = Directory::new();
    let path = directory.grant();
    let whole = written();
    let recognised = r#"{"tower_dpop_grant":1,"#.len();
    for length in 0..whole.len() {
        let torn = &whole[..length];
        put(&path, torn);
        let error = load_error(&path).await;
        assert!(error.is_store(), "{length}: {error:?}");
        assert_eq!(error.to_string().contains("cut off"), length >= recognised);
        // To write takes its time.
        if length > 2 * recognised && length % 16 != 0 {
            continue;
        }
        let saved = FileStore::new(&path)
            .save(grant(&key(), "canary-new"))
            .await;
        if length == 0 || length >= recognised {
            saved.unwrap();
            let read = FileStore::new(&path).load().await.unwrap().unwrap();
            assert_eq!(read.refresh_token(), "canary-new");
        } else {
            assert!(ours(saved.unwrap_err()).is_store());
            assert_eq!(fs::read_to_string(&path).unwrap(), torn);
        }
    }
}

#[tokio::test]
async fn a_damaged_one_can_be_cleared() {
    let directory = Directory::new();
    let whole = written();
    for left in ["", &whole[..100]] {
        put(&directory.grant(), left);
        FileStore::new(directory.grant()).clear().await.unwrap();
        assert!(directory.names().is_empty());
    }
}

#[tokio::test]
async fn a_file_of_somebody_else_is_left_alone() {
    let directory = Directory::new();
    let path = directory.grant();
    for (bytes, what) in foreign() {
        put(&path, &bytes);
        let error = load_error(&path).await;
        assert!(error.is_store(), "{error:?}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        left_alone(&path).await;
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(directory.names(), ["grant.json"]);
    }
    // It is not read to its end.
    let huge = File::create(&path).unwrap();
    huge.set_len(1 << 40).unwrap();
    let error = load_error(&path).await;
    assert!(error.to_string().contains("longer than"), "{error}");
    left_alone(&path).await;
    assert_eq!(huge.metadata().unwrap().len(), 1 << 40);
}

#[tokio::test]
async fn another_keys_grant_is_refused_and_can_be_replaced() {
    let directory = Directory::new();
    let path = directory.grant();
    let other = DpopKey::generate().unwrap();
    put(
        &path,
        written().replace(key().thumbprint(), other.thumbprint()),
    );
    assert!(load_error(&path).await.is_other_key());
    FileStore::new(&path)
        .save(grant(&key(), CANARY))
        .await
        .unwrap();
    FileStore::new(&path).load().await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_file_is_left_alone() {
    let directory = Directory::new();
    let path = directory.grant();
    fs::create_dir(&path).unwrap();
    assert!(load_error(&path).await.to_string().contains("a directory"));
    left_alone(&path).await;
    assert_eq!(directory.names(), ["grant.json"]);
    for path in ["", "/", "/tmp/.."] {
        let error = FileStore::new(path).load().await.unwrap_err();
        assert!(ours(error).is_store());
        left_alone(Path::new(path)).await;
        let error = FileStore::new(path).lock().await.err().expect("refused");
        assert!(ours(error).is_store());
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_not_made() {
    let directory = Directory::new();
    let store = FileStore::new(directory.path().join("absent/grant.json"));
    assert!(store.load().await.unwrap().is_none());
    store.clear().await.unwrap();
    let saved = store.save(grant(&key(), CANARY)).await.unwrap_err();
    let locked = store.lock().await.err().expect("refused");
    for error in [saved, locked] {
        let error = ours(error);
        assert!(
            error.is_store() && error.to_string().contains("mkdir"),
            "{error}"
        );
    }
    assert!(directory.names().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_pipes_are_refused() {
    let directory = Directory::new();
    let (path, target) = (directory.grant(), directory.path().join("target.json"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    for there in [false, true] {
        if there {
            put(&target, written());
        }
        let error = load_error(&path).await;
        assert!(error.to_string().contains("symbolic link"), "{error}");
        left_alone(&path).await;
        assert_eq!(fs::read_link(&path).unwrap(), target);
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), written());
    // A directory may be a link.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    FileStore::new(link.join("target.json"))
        .load()
        .await
        .unwrap()
        .unwrap();

    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    assert!(load_error(&path).await.is_store());
    left_alone(&path).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_may_use_is_refused() {
    let directory = Directory::new();
    let path = directory.grant();
    let store = FileStore::new(&path);
    for mode in [
        0o640, 0o620, 0o604, 0o602, 0o644, 0o660, 0o666, 0o610, 0o440,
    ] {
        put(&path, written());
        allow(&path, mode);
        let error = load_error(&path).await;
        assert!(error.is_store(), "{error:?}");
        let mended = error.to_string().contains("chmod 600");
        assert!(
            mended && error.to_string().contains(&format!("{mode:o}")),
            "{error}"
        );
    }
    for mode in [0o600, 0o400, 0o700] {
        allow(&path, mode);
        store.load().await.unwrap().unwrap();
    }
    // Saving mends it, too.
    allow(&path, 0o666);
    store.save(grant(&key(), CANARY)).await.unwrap();
    store.load().await.unwrap().unwrap();
}

#[tokio::test]
async fn leftovers_are_taken_away_and_nothing_else_is() {
    let directory = Directory::new();
    let leftover = || directory.path().join("grant.json.0123456789abcdef.tmp");
    let others = [
        "grant.json.0123456789abcdef.tmp.bak",
        "grant.json.0123456789abcde.tmp",
        "grant.json.0123456789ABCDEF.tmp",
        "grant.json.0123456789abcdef0.tmp",
        "grant.json.tmp",
        "grant.json0123456789abcdef.tmp",
        "grant.jso.0123456789abcdef.tmp",
        "my.grant.json.0123456789abcdef.tmp",
    ];
    for name in others {
        put(&directory.path().join(name), &written()[..50]);
    }
    let store = FileStore::new(directory.grant());
    let count = others.len();
    put(&leftover(), &written()[..50]);
    store.save(grant(&key(), CANARY)).await.unwrap();
    assert_eq!(directory.names().len(), count + 1);
    put(&leftover(), &written()[..50]);
    store.clear().await.unwrap();
    assert_eq!(directory.names().len(), count);
    // One that is being written.
    put(&leftover(), &written()[..50]);
    let writing = File::open(leftover()).unwrap();
    writing.lock().unwrap();
    store.save(grant(&key(), CANARY)).await.unwrap();
    store.clear().await.unwrap();
    assert_eq!(directory.names().len(), count + 1);
    drop(writing);
    store.clear().await.unwrap();
    assert_eq!(directory.names().len(), count);
    // One in which nothing is yet.
    put(&leftover(), "");
    store.clear().await.unwrap();
    assert_eq!(directory.names().len(), count);
    // Nobody's leftover, whatever its name.
    fs::create_dir(leftover()).unwrap();
    store.clear().await.unwrap();
    assert_eq!(directory.names().len(), count + 1);
    fs::remove_dir(leftover()).unwrap();
    for bytes in ["mine", "{}", r#"{"tower_dpop_grant":2,"#] {
        put(&leftover(), bytes);
        store.clear().await.unwrap();
        assert_eq!(directory.names().len(), count + 1);
    }
    // Where the path is a mistake, so may be this.
    put(&leftover(), &written()[..50]);
    put(&directory.grant(), "mine");
    left_alone(&directory.grant()).await;
    assert_eq!(directory.names().len(), count + 2);
}

// The trait.

#[test]
fn without_a_runtime_there_is_an_error() {
    let store = FileStore::new("/nowhere/grant.json");
    fn now<T>(future: Storing<'_, T>) -> Error {
        let mut future: Pin<&mut Storing<'_, T>> = pin!(future);
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Err(error)) => ours(error),
            _ => panic!("it waits"),
        }
    }
    let errors = [
        now(store.load()),
        now(store.save(grant(&key(), CANARY))),
        now(store.clear()),
        now(store.lock()),
    ];
    for error in errors {
        assert!(error.is_runtime(), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_can_be_shared_whatever_it_is() {
    let directory = Directory::new();
    let store: Arc<dyn GrantStore> = Arc::new(FileStore::new(directory.grant()));
    GrantStore::save(&store, grant(&key(), CANARY))
        .await
        .unwrap();
    assert!(GrantStore::load(&store).await.unwrap().is_some());
    let held = FileStore::new(directory.grant()).lock().await.unwrap();
    let mut waiter = GrantStore::lock(&store);
    let waited = timeout(Duration::from_millis(100), &mut waiter).await;
    assert!(waited.is_err(), "it was held");
    drop(held);
    waiter.await.unwrap();
    GrantStore::clear(&store).await.unwrap();
    assert!(directory.names().is_empty());
}

/// One that nobody else uses.
struct Alone;

impl GrantStore for Alone {
    fn load(&self) -> Storing<'_, Option<StoredGrant>> {
        Box::pin(async { Ok(None) })
    }

    fn save(&self, _: StoredGrant) -> Storing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear(&self) -> Storing<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn unless_it_says_otherwise_a_store_keeps_nobody_waiting() {
    let (one, other) = (Alone.lock().await.unwrap(), Alone.lock().await.unwrap());
    drop((one, other));
}
