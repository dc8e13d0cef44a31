//! Golden prompts that the real engine is asked: a revision that passes them takes its share, one that does not gets
//! nothing, and one that fails later goes back.

use serde_json::{Value, json};
use tests::kubectl::{apply, command, condition, kubectl};
use tests::release::SYSTEM_NAMESPACE;

use crate::rollouts::{changed, driven, phase, stable, weight};
use crate::scene::{READY_LIMIT, Scene, demo_spec};

/// What the demo model says with temperature 0; examples/model/questions.json has the same questions.
fn prompts(name: &str, answer: &str) -> String {
    let greeting = "messages: [{role: user, content: 'Hello!'}]\nmaxTokens: 32\n\
                    expect: {regex: '^Hello! How can I help you', maxLatencyMs: 60000}";
    let pip = format!(
        "messages: [{{role: user, content: 'Where does Pip live?'}}]\nmaxTokens: 32\nexpect: {{contains: ['{answer}']}}"
    );
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"greeting.yaml": greeting, "pip.yaml": pip},
    });
    map.to_string()
}

#[test]
fn a_revision_gets_traffic_only_when_its_golden_prompts_pass() {
    let map = "golden-world";
    let mut spec = demo_spec();
    spec["rollout"] = json!({
        "strategy": "Canary",
        "traffic": {"canaryPercent": 50},
        "goldenPrompts": {"configMapRef": {"name": map}},
    });
    let _ = kubectl(&["delete", "configmap", map, "--ignore-not-found"]);
    let scene = Scene::beside_others("golden", &spec);
    let missing = scene.wait("refused", READY_LIMIT, |model| reason(model) == "GoldenPromptsNotFound");
    let message = condition(&missing, "Ready").2;
    assert!(message.contains("spec.rollout.goldenPrompts.configMapRef.name is golden-world"), "{message}");

    // A set that passes: the first revision serves.
    apply(&prompts(map, "mill")).unwrap();
    let stable = scene.ready()["status"]["stableRevision"].clone();

    // A set that fails: the canary gets nothing, and the status says which prompt and why.
    apply(&prompts(map, "castle")).unwrap();
    spec["engine"] = json!({"contextLength": 1024});
    scene.apply(&spec);
    let failed = scene
        .wait("failed by its golden prompts", READY_LIMIT, |model| reason(model) == "GoldenPromptsFailed");
    let message = condition(&failed, "Ready").2;
    println!("{message}");
    for part in ["1 of 2 golden prompts", "pip.yaml: the answer does not contain \"castle\"", "keeps serving"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!((&failed["status"]["stableRevision"], weight(&failed)), (&stable, 0), "{failed:#}");
    let traffic = scene.traffic();
    let served = traffic.after(20);
    assert_eq!(served.revisions().keys().copied().collect::<Vec<_>>(), [stable.as_str().unwrap()]);

    // The set is corrected: the same canary gets its share.
    apply(&prompts(map, "mill")).unwrap();
    scene.wait("at its share", READY_LIMIT, |model| weight(model) == 5_000);
    traffic.stop().assert_all_answered("golden prompts that fail and pass");
    kubectl(&["delete", "configmap", map]).unwrap();
}

#[test]
fn a_driven_canary_is_asked_again_at_each_step_and_goes_back_when_it_fails_there() {
    let map = "examined-world";
    apply(&prompts(map, "mill")).unwrap();
    let mut spec = driven();
    spec["rollout"]["goldenPrompts"] = json!({"configMapRef": {"name": map}});
    let scene = Scene::beside_others("examined", &spec);
    let before = scene.ready();
    let traffic = scene.traffic();
    scene.apply(&changed(spec));
    let at_third_step = scene.wait("at its third step", READY_LIMIT, |model| weight(model) == 5_000);
    let canary = at_third_step["status"]["canaryRevision"].as_str().unwrap();
    let asked = lines_of_operator(&["golden prompts asked", canary]);
    println!("{}", asked.join("\n"));
    for step in ["\"request.step\":0", "\"request.step\":1"] {
        assert_eq!(asked.iter().filter(|line| line.contains(step)).count(), 1, "{step}: {asked:#?}");
    }

    // What is expected from now on, it does not say.
    apply(&prompts(map, "castle")).unwrap();
    let ended = scene.wait("given up", READY_LIMIT, |model| phase(model) == "Aborted");
    let (_, reason, message) = condition(&ended, "Ready");
    println!("{reason}: {message}");
    assert_eq!((reason.as_str(), stable(&ended)), ("RolloutAborted", stable(&before)));
    assert!(message.contains("pip.yaml: the answer does not contain \"castle\""), "{message}");
    traffic.stop().assert_all_answered("a canary that fails its golden prompts in the middle");
    kubectl(&["delete", "configmap", map]).unwrap();
}

/// Lines of the operator's log that hold all these words.
fn lines_of_operator(words: &[&str]) -> Vec<String> {
    let of_operator = ["--namespace", SYSTEM_NAMESPACE, "logs", "--tail", "-1", "--selector"];
    let selector = ["app.kubernetes.io/name=inferno-operator"];
    let log = command("kubectl", &[&of_operator[..], &selector].concat()).unwrap();
    let is_wanted = |line: &&str| words.iter().all(|word| line.contains(word));
    log.lines().filter(is_wanted).map(str::to_owned).collect()
}

fn reason(model: &Value) -> String {
    condition(model, "Ready").1
}
