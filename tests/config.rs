//! The configuration, file by file: every file in `config/good` is taken, every one in `config/bad` is refused
//! with exactly the text beside it. `RESTANTE_BLESS=1` writes the texts anew, to be read before they are kept.

use std::path::{Path, PathBuf};

use restante::app::config::{self, keys};

/// A folder with the files that configurations name: two pairs of certificate and key, and a password.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode set");
    };
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (own, other) = (pair(), pair());
    write("cert.pem", &own.cert.pem());
    write("key.pem", &own.signing_key.serialize_pem());
    write("other_key.pem", &other.signing_key.serialize_pem());
    write("password", "secret\n");
    folder
}

fn files(kind: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(kind);
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Loads a copy of `file` from a folder of its own; the report names the file alone.
fn load(file: &Path) -> (Option<config::Config>, String) {
    let folder = folder();
    let name = file.file_name().expect("a name");
    let copy = folder.path().join(name);
    std::fs::copy(file, &copy).expect("copied");
    let loaded = config::load(&copy);
    let place = format!("{}/", folder.path().display());
    (loaded.config, loaded.report.to_string().replace(&place, ""))
}

fn compare(file: &Path, said: &str) -> Option<String> {
    let beside = file.with_extension("txt");
    if std::env::var_os("RESTANTE_BLESS").is_some() {
        std::fs::write(&beside, said).expect("written");
    }
    let wanted = std::fs::read_to_string(&beside).unwrap_or_default();
    (wanted != said).then(|| format!("{}:\n--- wanted\n{wanted}--- said\n{said}", file.display()))
}

#[test]
fn bad_files_are_refused_with_the_text_beside_them() {
    let mut differing = Vec::new();
    for file in files("bad") {
        let (config, said) = load(&file);
        assert!(config.is_none(), "{} was taken", file.display());
        assert!(said.contains("mend: "), "{}: {said}", file.display());
        differing.extend(compare(&file, &said));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn good_files_are_taken_with_the_warnings_beside_them() {
    let mut differing = Vec::new();
    for file in files("good") {
        let (config, said) = load(&file);
        assert!(config.is_some(), "{}: {said}", file.display());
        differing.extend(compare(&file, &said));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_fault_has_file_line_and_column() {
    for file in files("bad") {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let (_, said) = load(&file);
        for line in said.lines().filter(|line| !line.starts_with("  ")) {
            let place = line.strip_prefix(&format!("{name}:")).unwrap_or_else(|| panic!("{line}"));
            let mut numbers = place.split(':');
            for _ in 0..2 {
                let number = numbers.next().and_then(|n| n.parse::<usize>().ok());
                assert!(number.is_some_and(|n| n > 0), "{line}");
            }
        }
    }
}

#[test]
fn what_show_prints_is_a_configuration_with_the_same_settings() {
    for file in files("good") {
        let folder = folder();
        let copy = folder.path().join("restante.toml");
        std::fs::copy(&file, &copy).expect("copied");
        let first = config::load(&copy);
        let config = first.config.expect("good");
        std::fs::write(&copy, config.show(&first.report)).expect("written");
        let second = config::load(&copy);
        let report = second.report.to_string();
        let again = second.config.unwrap_or_else(|| panic!("{report}"));
        assert_eq!(again.policy(), config.policy(), "{}", file.display());
        assert_eq!(again.listen, config.listen, "{}", file.display());
        assert_eq!(again.tls, config.tls, "{}", file.display());
        assert_eq!(again.show_json(), config.show_json(), "{}", file.display());
    }
}

#[test]
fn values_reach_the_provider() {
    let folder = folder();
    let file = folder.path().join("restante.toml");
    let text = "hostname = \"mx.provider.example\"\ndata_dir = \"data\"\n\
                [tls]\ncertificate = \"cert.pem\"\nprivate_key = \"key.pem\"\n\
                [auth]\nrequire_tls = false\nmechanisms = [\"PLAIN\", \"CRAM-MD5\"]\nfailures_max = 5\n\
                [limits]\nmessage_bytes_max = \"1 MiB\"\nrecipients_max = 200\nsessions_max = 7\n\
                sessions_per_address = 3\nreceived_max = 150\ndisk_free_min = \"0 B\"\n\
                turns_per_minute = 9\n[listen]\nodmr_from = [\"192.0.2.0/24\"]\nproxy_from = [\"::1\"]\n\
                [drain]\nwait_for_mail = \"5m\"\nhold_open = \"1h\"\nwindow_messages = 1\n\
                window_bytes = \"1 MiB\"\n[queue]\nexpire_after = \"2d\"\n";
    std::fs::write(&file, text).expect("written");
    let loaded = config::load(&file);
    let report = loaded.report.to_string();
    let config = loaded.config.unwrap_or_else(|| panic!("{report}"));
    let policy = config.policy();
    assert_eq!(policy.hostname.as_str(), "mx.provider.example");
    assert!(!policy.auth_requires_tls && policy.tls_available);
    assert_eq!(policy.mechanisms, ["CRAM-MD5", "PLAIN"]);
    assert_eq!((policy.auth_failures_max, policy.received_max), (5, 150));
    assert_eq!((policy.message_bytes_max, policy.recipients_max), (1 << 20, 200));
    assert_eq!((policy.sessions_max, policy.sessions_per_address), (7, 3));
    assert_eq!(policy.turns_per_minute, 9);
    let inside = "192.0.2.7".parse().expect("an address");
    let outside = "192.0.3.7".parse().expect("an address");
    assert!(policy.admits(restante::smtp::Door::Odmr, inside));
    assert!(!policy.admits(restante::smtp::Door::Odmr, outside));
    assert!(policy.admits(restante::smtp::Door::Mx, outside));
    assert!(policy.is_balancer("::1".parse().expect("an address")));
    assert!(!policy.is_balancer(inside));
    assert_eq!((policy.disk_free_min, policy.expire_after.0), (0, 172_800));
    assert_eq!(policy.drain.wait_for_mail.expect("set").0, 300);
    assert_eq!(policy.drain.hold_open.expect("set").0, 3600);
    assert_eq!((policy.window.messages, policy.window.bytes), (1, 1 << 20));
    assert_eq!(config.data_dir, folder.path().join("data"));
}

#[test]
fn the_defaults_of_the_file_and_of_the_provider_are_the_same() {
    let (config, _) =
        load(&files("good").into_iter().find(|f| f.ends_with("minimal.toml")).expect("there"));
    let config = config.expect("good");
    let mut wanted = restante::provider::Policy::new(config.hostname.clone());
    wanted.tls_available = config.tls.is_some();
    assert_eq!(config.policy(), wanted);
}

// covers: O-01
#[test]
fn customers_call_at_port_366_unless_told_otherwise() {
    let minimal = files("good").into_iter().find(|f| f.ends_with("minimal.toml")).expect("there");
    let (config, _) = load(&minimal);
    let ours: Vec<String> =
        config.expect("good").listen.odmr.iter().map(ToString::to_string).collect();
    assert_eq!(ours, ["[::]:366"]);
}

#[test]
fn a_missing_file_says_where_to_start() {
    let loaded = config::load(Path::new("/nonexistent/restante.toml"));
    assert!(loaded.config.is_none());
    let said = loaded.report.to_string();
    assert!(said.contains("cannot be read") && said.contains("restante quickstart"), "{said}");
}

/// The tables of the operator's guide, as the program has them.
fn tables() -> Vec<(&'static str, String)> {
    let mut all = String::from("| key | default | meaning |\n| --- | --- | --- |\n");
    for key in keys::KEYS {
        let default =
            if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        all += &format!("| `{}` | {default} | {} |\n", key.path, key.about);
    }
    let mut settings = String::from("| setting | value |\n| --- | --- |\n");
    for (setting, form) in restante::app::admin::settings::KEYS {
        settings += &format!("| `{setting}` | {form} |\n");
    }
    let mut pending = String::from("| key or setting | what happens instead |\n| --- | --- |\n");
    for (key, instead, _) in keys::PENDING {
        pending += &format!("| `{key}` | {instead} |\n");
    }
    if keys::PENDING.is_empty() {
        pending = String::from("None.\n");
    }
    vec![("keys", all), ("settings", settings), ("pending", pending)]
}

#[test]
fn the_tables_in_the_operators_guide_are_those_of_the_program() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operator.md");
    let mut text = std::fs::read_to_string(&guide).expect("the guide is there");
    for (name, table) in tables() {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let start = text.find(&begin).unwrap_or_else(|| panic!("{name}: no mark")) + begin.len();
        let length = text[start..].find(&end).unwrap_or_else(|| panic!("{name}: no end"));
        if std::env::var_os("RESTANTE_BLESS").is_some() {
            text.replace_range(start..start + length, &table);
            std::fs::write(&guide, &text).expect("written");
        } else {
            assert_eq!(&text[start..start + length], table, "RESTANTE_BLESS=1 writes it anew");
        }
    }
}

/// Looks at everything that a report can say about `text`.
fn examine(text: &str) {
    let loaded = config::parse(Path::new("any.toml"), text);
    for finding in loaded.report.findings() {
        assert!(!loaded.report.show(finding).is_empty());
        let (line, column) =
            loaded.report.line_and_column(finding.span.as_ref().map_or(0, |span| span.start));
        assert!(line >= 1 && column >= 1);
    }
    assert_eq!(loaded.config.is_some(), loaded.report.faults() == 0);
    if let Some(config) = loaded.config {
        assert!(!config.show(&loaded.report).is_empty());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_breaks_the_reader(text in "(?s).{0,200}") {
        examine(&text);
    }

    #[test]
    fn no_change_to_a_good_file_breaks_the_reader(
        place in 0usize..2000, length in 0usize..12, with in "[\"\\[\\]=.,#a-z0-9é\\n -]{0,8}",
    ) {
        let full = files("good").into_iter().find(|f| f.ends_with("full.toml")).expect("there");
        let mut text = std::fs::read_to_string(full).expect("readable");
        let start = (0..=place % text.len()).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let wanted = (start + length).min(text.len());
        let end = (start..=wanted).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(start);
        text.replace_range(start..end, &with);
        examine(&text);
    }

    #[test]
    fn sizes_and_times_are_read_as_they_are_shown(number in 0u64..1 << 50) {
        use config::units::{show_size, show_time, size, time};
        assert_eq!(size(&show_size(number)), Ok(number));
        assert_eq!(time(&show_time(number)), Ok(number));
    }
}
