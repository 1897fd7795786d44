//! A real LDAP server (OpenLDAP's slapd) with a few people in it.

use crate::child::RunAs;
use crate::{Child, binaries, eventually, free_port};
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Where the people are.
pub const LDAP_SUFFIX: &str = "dc=example,dc=org";

/// A running server. It ends with the calling thread.
pub struct Ldap {
    address: String,
    _process: Child,
    _directory: TempDir,
}

impl Ldap {
    /// Starts one that knows these people, by name and password.
    #[must_use]
    pub fn start(people: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("vaulttmpfs-ldap-")
            .tempdir()
            .expect("a directory for the LDAP server");
        let root = binaries::slapd();
        let configuration = configure(&root, directory.path());
        fill(&root, &configuration, people);
        let port = free_port();
        let address = format!("ldap://127.0.0.1:{port}");
        let log = File::create(directory.path().join("log")).expect("a log");
        let mut command = Child::command(root.join("usr/sbin/slapd").as_os_str(), RunAs::Root);
        // In the foreground, and quiet.
        command
            .args(["-d", "0", "-h", &address, "-f"])
            .arg(&configuration)
            .env("LD_LIBRARY_PATH", libraries(&root))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let mut process = Child::spawn(&mut command, "slapd");
        eventually("the LDAP server to listen", || {
            let log = || fs::read_to_string(directory.path().join("log"));
            assert!(process.ended().is_none(), "slapd ended: {:?}", log());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            address,
            _process: process,
            _directory: directory,
        }
    }

    /// `ldap://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn configure(root: &Path, directory: &Path) -> PathBuf {
    let data = directory.join("data");
    fs::create_dir(&data).expect("a directory for data");
    let path = directory.join("slapd.conf");
    let (root, data) = (root.display(), data.display());
    let text = format!(
        "include {root}/etc/ldap/schema/core.schema
modulepath {root}/usr/lib/ldap
moduleload back_mdb
database mdb
suffix \"{LDAP_SUFFIX}\"
directory {data}
maxsize 10485760
"
    );
    fs::write(&path, text).expect("slapd's configuration");
    path
}

fn fill(root: &Path, configuration: &Path, people: &[(&str, &str)]) {
    let suffix = format!(
        "dn: {LDAP_SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n"
    );
    let person = |(name, password): &(&str, &str)| {
        format!(
            "dn: cn={name},{LDAP_SUFFIX}\nobjectClass: person\ncn: {name}\nsn: {name}\nuserPassword: {password}\n"
        )
    };
    let people = people.iter().map(person);
    let entries: Vec<String> = std::iter::once(suffix).chain(people).collect();
    let file = configuration.with_file_name("people.ldif");
    fs::write(&file, entries.join("\n")).expect("the people");
    let filled = Command::new(root.join("usr/sbin/slapadd"))
        .arg("-f")
        .arg(configuration)
        .arg("-l")
        .arg(&file)
        .env("LD_LIBRARY_PATH", libraries(root))
        .output()
        .expect("slapadd runs");
    assert!(filled.status.success(), "{filled:?}");
}

/// The directories of the libraries that came with it, for its own architecture.
fn libraries(root: &Path) -> OsString {
    let entries = fs::read_dir(root.join("usr/lib")).expect("its libraries");
    let paths = entries.flatten().map(|entry| entry.path());
    let found = paths.filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    std::env::join_paths(found).expect("paths")
}
