//! The harness itself: a fault that does not come, or a check that cannot fail, would make every
//! other test here worthless.

use serde_json::json;
use std::time::{Duration, Instant};
use vaulttmpfs_tests::{
    Authority, Fault, Node, OpenBao, Proxy, Role, Vault, eventually, mount_table, text,
};

fn vault_with_roles() -> OpenBao {
    let server = OpenBao::start();
    server.root().make_secrets();
    server.root().make_roles(&[Role::applications()]);
    server
}

/// A wrapped token for a pod, as the product makes it.
fn create(vault: &Vault) -> serde_json::Value {
    let meta = json!({"creator": "kubernetes-flexvolume-vault-plugin", "poduid": "a-pod"});
    vault.write(
        "auth/token/create/applications",
        &json!({"policies": ["app"], "meta": meta}),
    )
}

#[test]
fn openbao_serves_over_tls_and_counts_pod_tokens() {
    let mut server = vault_with_roles();
    assert_eq!(server.root().pod_tokens().len(), 0);
    let auth = create(server.root())["auth"].clone();
    let accessor = text(&auth["accessor"]);
    assert_eq!(server.root().accessors_of_pod("a-pod").concat(), accessor);
    let holder = server.root().with_token(&text(&auth["client_token"]));
    assert_eq!(holder.read("secret/app").status, 200);
    assert_eq!(holder.read("secret/other").status, 403);
    server
        .root()
        .write("auth/token/revoke-accessor", &json!({"accessor": accessor}));
    assert_eq!(server.root().pod_tokens().len(), 0);
    server.seal();
    assert_eq!(server.root().read("sys/health").status, 503);
    server.unseal();
    assert_eq!(server.root().read("sys/health").status, 200);
}

#[test]
fn a_generator_token_may_do_what_the_readme_says_and_no_more() {
    let server = vault_with_roles();
    let generator = server
        .root()
        .with_token(&server.root().make_generator_token());
    assert_eq!(generator.read("auth/token/roles/applications").status, 200);
    assert_eq!(generator.read("secret/app").status, 403);
    let unwrapped = generator.call(
        ureq::http::Method::POST,
        "auth/token/create/applications",
        Some(&json!({"policies": ["app"]})),
    );
    assert_eq!(unwrapped.unwrap().status, 403);
}

#[test]
fn the_audit_log_gives_every_secret_away() {
    let server = vault_with_roles();
    let token = text(&create(server.root())["auth"]["client_token"]);
    let secrets = server.secrets();
    assert!(secrets.line_with_one(&format!("x{token}y")).is_some());
    assert!(secrets.line_with_one("nothing").is_none());
}

#[test]
fn the_proxy_passes_everything_on_and_counts() {
    let server = vault_with_roles();
    let proxy = Proxy::start(&server);
    let vault = server.root().at(&proxy.address());
    create(&vault);
    create(&vault);
    assert_eq!(proxy.count("POST /v1/auth/token/create"), 2);
    assert_eq!(proxy.connections(), 1);
    assert_eq!(server.root().pod_tokens().len(), 2);
}

#[test]
fn the_proxy_has_every_fault() {
    let server = vault_with_roles();
    let proxy = Proxy::start(&server);
    let vault = server.root().at(&proxy.address());
    let read = || vault.call(ureq::http::Method::GET, "secret/app", None);

    proxy.order(
        1,
        "GET /v1/secret",
        Fault::error_with(429, "slow down", &[("Retry-After", "1")]),
    );
    let reply = read().unwrap();
    assert_eq!(
        (reply.status, reply.body["errors"][0].as_str()),
        (429, Some("slow down"))
    );
    assert_eq!(read().unwrap().status, 200, "one fault, one failure");

    proxy.order(1, "GET /v1/secret", Fault::page(503));
    assert_eq!(read().unwrap().status, 503);
    proxy.order(1, "GET /v1/secret", Fault::text("no json"));
    assert!(read().unwrap().body.is_null());
    proxy.order(
        1,
        "GET /v1/secret",
        Fault::redirect("https://elsewhere.test/"),
    );
    assert_eq!(read().unwrap().status, 307);

    proxy.order(1, "GET /v1/secret", Fault::Cut(100));
    assert!(read().is_err(), "a cut answer");
    proxy.always("GET /v1/secret", Fault::HangUp);
    assert!(read().is_err(), "no answer");
    proxy.heal();
    proxy.order(1, "GET /v1/secret", Fault::Flood(20_000_000));
    assert!(read().is_err(), "more than the client takes");
    proxy.order(1, "GET /v1/secret", Fault::Late(Duration::from_millis(300)));
    let begun = Instant::now();
    assert_eq!(read().unwrap().status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let before = proxy.count("GET /v1/secret");
    proxy.order(1, "GET /v1/secret", Fault::held());
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read().unwrap().status);
        eventually("the request", || {
            (proxy.count("GET /v1/secret") > before).then_some(())
        });
        assert!(!reading.is_finished(), "it is not released yet");
        proxy.release();
        assert_eq!(reading.join().unwrap(), 200);
    });

    // Last: the client may not yet have noticed that the connection is closed.
    proxy.order(1, "GET /v1/secret", Fault::CloseAfter);
    assert_eq!(read().unwrap().status, 200);
}

#[test]
fn a_proxy_of_another_authority_is_not_trusted() {
    let server = vault_with_roles();
    let proxy = Proxy::start_as(&server, &Authority::new());
    let vault = server.root().at(&proxy.address());
    let error = vault.call(ureq::http::Method::GET, "sys/health", None);
    assert!(error.unwrap_err().to_string().contains("certificate"));
}

#[test]
fn a_node_has_a_mount_namespace_of_its_own() {
    let node = std::thread::spawn(|| {
        let node = Node::new();
        let own = mount_table();
        let path = node.path("");
        assert!(
            own.iter()
                .any(|mount| path.starts_with(&mount.point) && mount.source == "node")
        );
        path
    });
    let path = node.join().unwrap();
    let mut mounts = mount_table().into_iter();
    let seen = mounts.find(|mount| mount.point.starts_with(&path));
    assert_eq!(seen, None, "nothing of it is seen outside");
    assert!(!path.exists(), "nothing of it is left");
}
