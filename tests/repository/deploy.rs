//! What `Dockerfile`, `compose.yaml` and `deploy/` say holds: their commands can be parsed, their files exist, the images
//! have tags, and nginx accepts its configuration. `tests/topology/run` runs the same topology.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use bondmcp_server::cli::Cli;
use clap::Parser as _;
use regex_lite::Regex;
use saphyr_parser::{Event, Parser};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The scalars of a YAML file in their order; the parser panics where the file is none.
fn scalars(path: &str) -> Vec<String> {
    let text = read(path);
    let events =
        Parser::new_from_str(&text).map(|event| event.unwrap_or_else(|error| panic!("{path}: {error}")).0);
    let values = events.filter_map(|event| match event {
        Event::Scalar(value, ..) => Some(value.into_owned()),
        _ => None,
    });
    values.collect()
}

fn manifests() -> Vec<String> {
    let files = fs::read_dir(root().join("deploy/kubernetes")).unwrap();
    files.map(|file| format!("deploy/kubernetes/{}", file.unwrap().file_name().to_str().unwrap())).collect()
}

/// The arguments of the server in a YAML file: from `--log=` to the last flag that follows.
fn server_arguments(path: &str) -> Vec<String> {
    scalars(path)
        .into_iter()
        .skip_while(|value| !value.starts_with("--log="))
        .take_while(|value| value.starts_with("--") || value == "http")
        .collect()
}

#[test]
fn the_commands_in_the_examples_can_be_parsed() {
    for file in ["compose.yaml", "deploy/kubernetes/deployment.yaml"] {
        let mut arguments = server_arguments(file);
        assert!(arguments.len() > 5, "{arguments:?}");
        // The examples have it in the environment.
        assert!(read(file).contains("BONDMCP_PUBLIC_URL"));
        arguments.push("--public-url=https://bond.example.com".to_owned());
        let parsed = Cli::try_parse_from(["bondmcp-server".to_owned()].into_iter().chain(arguments));
        assert!(parsed.is_ok(), "{file}: {}", parsed.unwrap_err());
    }
    let json = Regex::new(r"(?m)^(?:HEALTHCHECK .*CMD|CMD) (\[.+\])$").unwrap();
    let image = read("Dockerfile");
    let commands: Vec<_> = json.captures_iter(&image).map(|found| found[1].to_owned()).collect();
    assert_eq!(commands.len(), 2, "{image}");
    for command in commands {
        let words: Vec<String> = serde_json::from_str(&command).unwrap();
        let words = words.into_iter().filter(|word| word != "bondmcp-server");
        assert!(
            Cli::try_parse_from(["bondmcp-server".to_owned()].into_iter().chain(words)).is_ok(),
            "{command}"
        );
    }
}

#[test]
fn every_manifest_is_yaml_and_listed() {
    let listed = scalars("deploy/kubernetes/kustomization.yaml");
    for manifest in manifests() {
        assert!(!scalars(&manifest).is_empty());
        let name = Path::new(&manifest).file_name().unwrap().to_str().unwrap();
        assert!(name == "kustomization.yaml" || listed.iter().any(|value| value == name), "{name}");
    }
}

#[test]
fn containers_have_no_more_rights_than_they_need() {
    let pod = read("deploy/kubernetes/deployment.yaml");
    for setting in [
        "automountServiceAccountToken: false",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "capabilities: { drop: [ALL] }",
        "seccompProfile: { type: RuntimeDefault }",
    ] {
        assert!(pod.contains(setting), "{setting}");
    }
    let compose = read("compose.yaml");
    for setting in ["read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"] {
        assert!(compose.contains(setting), "{setting}");
    }
    // Every service has them.
    assert_eq!(compose.matches("<<: *hardened").count() + compose.matches("<<: *server").count(), 5);
    let image = read("Dockerfile");
    assert!(image.contains("\nUSER 65532:65532\n") && image.contains("cargo build --locked"));
}

// The servers trust what these addresses say of a client's address, so no container may be given them by chance.
#[test]
fn the_proxy_that_is_trusted_has_an_address_of_its_own() {
    let compose = read("compose.yaml");
    let fixed = Regex::new(r"ipv4_address: (\S+)").unwrap();
    let addresses: Vec<_> = fixed.captures_iter(&compose).map(|found| found[1].to_owned()).collect();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    let trusted = addresses.iter().filter(|address| compose.contains(&format!("--trusted-proxy={address}")));
    assert_eq!(trusted.count(), 1);
}

#[test]
fn every_image_has_a_tag() {
    let image = Regex::new(r"(?m)^(?:FROM| +image:) (\S+)").unwrap();
    let text = [read("Dockerfile"), read("compose.yaml")].concat();
    let images: Vec<_> = image.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    assert!(images.len() >= 5, "{images:?}");
    for image in images {
        let tag =
            image.rsplit_once('/').map_or(&*image, |(_, name)| name).split_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{image}");
    }
}

#[test]
fn the_image_is_built_from_files_that_exist_and_are_let_through() {
    let copied = Regex::new(r"(?m)^COPY ([^-\n]+)$").unwrap();
    let ignored = read(".dockerignore");
    let image = read("Dockerfile");
    for line in copied.captures_iter(&image) {
        let words: Vec<&str> = line[1].split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{source}");
            assert!(ignored.lines().any(|line| line.strip_prefix('!') == Some(source)), "{source}");
        }
    }
    // Cargo wants the files of the targets that Cargo.toml names.
    let targets = Regex::new(r#"\[\[(bench|test)\]\]\nname = "([a-z_]+)""#).unwrap();
    let manifest = read("Cargo.toml");
    for target in targets.captures_iter(&manifest) {
        let folder = if &target[1] == "bench" { "benches" } else { "tests" };
        let file = format!("{folder}/{}.rs", &target[2]);
        assert!(folder == "benches" || image.contains(&format!(" {file} ")), "{file}");
    }
    // What is compiled in is below `src`.
    let include = Regex::new(r#"include_(?:str|bytes)!\("([^"]+)"\)"#).unwrap();
    for file in rust_files(&root().join("src")) {
        let code = fs::read_to_string(&file).unwrap();
        for found in include.captures_iter(&code) {
            let included = file.parent().unwrap().join(&found[1]).canonicalize().unwrap();
            assert!(
                included.starts_with(root().join("src").canonicalize().unwrap()),
                "{}",
                included.display()
            );
        }
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| if path.is_dir() { rust_files(&path) } else { vec![path] };
    entries.flat_map(of).filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

/// Writes the configuration of compose.yaml as its image does, with names that resolve here.
fn nginx_configuration(directory: &Path) -> PathBuf {
    let certificate = rcgen::generate_simple_self_signed(["bond.example.com".to_owned()]).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    write("tls_certificate", &certificate.cert.pem());
    write("tls_key", &certificate.signing_key.serialize_pem());
    let here = directory.to_str().unwrap();
    let nginx = root().join("deploy/nginx");
    let site = read("deploy/nginx/compose.conf.template")
        .replace("${BONDMCP_HOST}", "bond.example.com")
        .replace("/etc/nginx/bondmcp", nginx.to_str().unwrap())
        .replace("/run/secrets", here)
        .replace("bondmcp-1:", "127.0.0.1:")
        .replace("bondmcp-2:", "127.0.0.2:")
        .replace("/dev/stdout", &format!("{here}/access.log"))
        .replace("/dev/stderr", &format!("{here}/error.log"));
    write("site.conf", &site);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
        .concat();
    let main = format!("pid {here}/pid;\nevents {{}}\nhttp {{\n{temporary}include {here}/site.conf;\n}}\n");
    write("nginx.conf", &main);
    directory.join("nginx.conf")
}

#[test]
fn nginx_accepts_its_configuration() {
    let Some(nginx) = ["/usr/sbin/nginx", "/usr/bin/nginx"].iter().find(|path| Path::new(path).exists())
    else {
        assert!(std::env::var_os("CI").is_none(), "nginx is not installed");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let configuration = nginx_configuration(directory.path());
    let error_log = directory.path().join("error.log");
    let output =
        Command::new(nginx).arg("-t").arg("-e").arg(error_log).arg("-c").arg(configuration).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("[warn]") || rustix::process::geteuid().is_root(), "{told}");
}

#[test]
fn the_log_of_nginx_has_neither_queries_nor_ids_of_pages() {
    let settings = [read("deploy/nginx/http.conf"), read("deploy/nginx/locations.conf")].concat();
    for leak in
        ["$request ", "$request_uri", "$args", "$query_string", "$http_", "$sent_http", "$request_body"]
    {
        let logged = settings.lines().filter(|line| !line.trim_start().starts_with(['#', 'p']));
        assert!(!logged.collect::<String>().contains(leak), "{leak}");
    }
    // A POST that was sent may have been billed.
    assert!(settings.contains("\nproxy_next_upstream error timeout;\n"));
}

#[test]
fn the_health_check_of_the_image_asks_whether_the_server_is_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let healthcheck = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bondmcp-server"));
        command.args(["healthcheck", &address]).env_clear().output().unwrap().status.code()
    };
    let server = std::thread::spawn(move || {
        for status in ["200 OK", "503 Service Unavailable"] {
            let (mut connection, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let length = connection.read(&mut head).unwrap();
            assert!(head[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            write!(connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    assert_eq!(healthcheck(), Some(0));
    assert_eq!(healthcheck(), Some(1));
    server.join().unwrap();
    // Nothing listens any more.
    assert_eq!(healthcheck(), Some(1));
}
