//! The list of models, and names that are not in it.

use serde_json::{Value, json};
use tests::client::{End, chat};
use tests::kubectl::{is, wait_until};
use tests::release::POOL;

use crate::scene::{READY_LIMIT, Scene, block_on, client, demo_spec};

#[test]
fn the_gateway_lists_a_model_at_zero_and_knows_what_it_does_not_know() {
    let mut spec = demo_spec();
    spec["replicas"] = json!(0);
    spec["aliases"] = json!(["folded-alias"]);
    let scene = Scene::beside_others("folded", &spec);
    let pool = wait_until("ipool", POOL, READY_LIMIT, "Ready", |pool| is(pool, "Ready", "True")).unwrap();
    assert_eq!(pool["status"]["url"], format!("http://{POOL}-gateway.default.svc"));
    scene.wait("observed", READY_LIMIT, |model| {
        model["status"]["observedGeneration"] == model["metadata"]["generation"]
    });

    let entry = block_on(async {
        let client = client();
        let limit = tokio::time::Instant::now() + READY_LIMIT;
        loop {
            let list: Value = serde_json::from_str(&client.get("/v1/models").await.unwrap()).unwrap();
            let found =
                list["data"].as_array().unwrap().iter().find(|entry| entry["id"] == "folded").cloned();
            if let Some(entry) = found {
                break entry;
            }
            assert!(tokio::time::Instant::now() < limit, "not listed: {list:#}");
        }
    });
    assert_eq!(entry["state"], "zero", "{entry:#}");
    assert_eq!(entry["owned_by"], "inferno", "{entry:#}");
    assert_eq!(entry["aliases"], json!(["folded-alias"]), "{entry:#}");
    let alone = block_on(client().get("/v1/models/folded-alias")).unwrap();
    assert!(alone.contains("\"folded-alias\""), "{alone}");

    for failure in [
        block_on(client().ask(&chat("nobody", "hello"))).unwrap_err(),
        block_on(client().stream(&chat("nobody", "hello"))).unwrap_err(),
    ] {
        assert_eq!(
            (failure.end, failure.code().as_str()),
            (End::Status(404), "model_not_found"),
            "{failure}"
        );
    }
}
