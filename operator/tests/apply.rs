//! What goes over the wire to the API server, for the few cases in which the order or the absence of a write matters.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use crds::model::InferenceModel;
use http::{Request, Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use operator::apply;
use operator::gateway::gateway;
use operator::objects::Installation;
use operator::plan::{Observed, Plan, plan};
use operator::problem::Reason;
use serde_json::{Value, json};
use tower_test::mock::{self, Handle};

type Server = Handle<Request<Body>, Response<Body>>;

fn client() -> (Client, Server) {
    let (service, server) = mock::pair::<Request<Body>, Response<Body>>();
    (Client::new(service, "default"), server)
}

fn model() -> InferenceModel {
    serde_json::from_value(json!({
        "apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel",
        "metadata": {"name": "tiny", "namespace": "default", "uid": "u", "generation": 1},
        "spec": {"poolRef": {"name": "cpu"}, "source": {"http": {"url": "http://a/b.gguf"}}},
    }))
    .unwrap()
}

fn installation() -> Installation {
    Installation {
        sidecar_image: "sidecar:dev".into(),
        sidecar_pull_policy: crds::pool::ImagePullPolicy::Never,
        report_url: None,
    }
}

fn planned(model: &InferenceModel) -> Plan {
    let observed = Observed {
        pool: serde_json::from_value(json!({"metadata": {"name": "cpu"}, "spec": {}})).unwrap(),
        ..Default::default()
    };
    plan(model, &observed, &installation(), Timestamp::from_second(1_800_000_000).unwrap())
}

/// Answers the requests one by one and returns what each asked for.
async fn answer(server: &mut Server, answers: Vec<(StatusCode, Value)>) -> Vec<String> {
    let mut asked = Vec::new();
    for (status, body) in answers {
        let (request, respond) = server.next_request().await.expect("a request");
        asked.push(format!("{} {}", request.method(), request.uri().path()));
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        respond.send_response(Response::builder().status(status).body(body).unwrap());
    }
    asked
}

fn refusal(code: u16, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": "Invalid",
           "message": message})
}

#[tokio::test]
async fn the_service_is_there_before_the_pods() {
    let (client, mut server) = client();
    let (model, found) = (model(), json!({"metadata": {"name": "x"}}));
    let plan = planned(&model);
    let apply = apply::apply(&client, &model, &plan);
    let answers = vec![(StatusCode::OK, found.clone()), (StatusCode::OK, found)];
    let (applied, asked) = futures::join!(apply, answer(&mut server, answers));
    assert_eq!(applied.unwrap(), None);
    let revision = plan.status.target_revision.unwrap();
    let expected = [
        format!("PATCH /api/v1/namespaces/default/services/{revision}"),
        format!("PATCH /apis/apps/v1/namespaces/default/deployments/{revision}"),
    ];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_refused_object_is_a_problem_of_the_spec_and_no_error() {
    let (client, mut server) = client();
    let model = model();
    let plan = planned(&model);
    let apply = apply::apply(&client, &model, &plan);
    let answers = vec![(StatusCode::UNPROCESSABLE_ENTITY, refusal(422, "spec.tolerations is invalid"))];
    let (applied, _) = futures::join!(apply, answer(&mut server, answers));
    let problem = applied.unwrap().unwrap();
    assert_eq!(problem.reason, Reason::Rejected);
    assert!(problem.message.contains("spec.tolerations is invalid"));
}

#[tokio::test]
async fn a_conflict_or_an_outage_is_an_error() {
    let (client, mut server) = client();
    let model = model();
    let plan = planned(&model);
    let apply = apply::apply(&client, &model, &plan);
    let answers = vec![(StatusCode::INTERNAL_SERVER_ERROR, refusal(500, "etcd is away"))];
    let (applied, _) = futures::join!(apply, answer(&mut server, answers));
    assert!(applied.is_err());
}

#[tokio::test]
async fn a_status_is_written_only_when_it_differs() {
    let (client, mut server) = client();
    let mut model = model();
    let plan = planned(&model);
    let write = apply::write_status(&client, &model, &plan);
    let (written, asked) = futures::join!(write, answer(&mut server, vec![(StatusCode::OK, json!(model))]));
    assert!(written.unwrap());
    assert_eq!(asked, ["PATCH /apis/inferno.ai/v1alpha1/namespaces/default/inferencemodels/tiny/status"]);

    model.status = Some(plan.status.clone());
    assert!(!apply::write_status(&client, &model, &plan).await.unwrap());
}

#[tokio::test]
async fn what_is_gone_already_need_not_be_deleted() {
    let (client, mut server) = client();
    let model = model();
    let old = vec!["tiny-old".to_owned()];
    let plan = Plan { prune: old.clone(), prune_services: old, ..planned(&model) };
    let prune = apply::prune(&client, &model, &plan);
    let gone = (StatusCode::NOT_FOUND, refusal(404, "not found"));
    let (pruned, asked) = futures::join!(prune, answer(&mut server, vec![gone.clone(), gone]));
    pruned.unwrap();
    let expected = [
        "DELETE /apis/apps/v1/namespaces/default/deployments/tiny-old",
        "DELETE /api/v1/namespaces/default/services/tiny-old",
    ];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_gateway_gets_its_rights_before_its_pods() {
    let (client, mut server) = client();
    let pool =
        serde_json::from_value(json!({"metadata": {"name": "cpu", "namespace": "default"}, "spec": {}}));
    let gateway = gateway(&pool.unwrap(), &installation());
    let apply = apply::apply_gateway(&client, "default", &gateway, None);
    let answers = vec![
        (
            StatusCode::OK,
            json!({"metadata": {"name": "x"}, "roleRef": {"apiGroup": "", "kind": "", "name": ""}})
        );
        6
    ];
    let (applied, asked) = futures::join!(apply, answer(&mut server, answers));
    assert_eq!(applied.unwrap(), None);
    let kinds: Vec<&str> =
        asked.iter().map(|line| line.split("/namespaces/default/").nth(1).unwrap()).collect();
    let expected = [
        "serviceaccounts/cpu-gateway",
        "roles/cpu-gateway",
        "rolebindings/cpu-gateway",
        "services/cpu-gateway",
        "deployments/cpu-gateway",
        "poddisruptionbudgets/cpu-gateway",
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn rights_that_may_not_be_granted_stop_the_gateway_and_are_told() {
    let (client, mut server) = client();
    let pool =
        serde_json::from_value(json!({"metadata": {"name": "cpu", "namespace": "default"}, "spec": {}}));
    let gateway = gateway(&pool.unwrap(), &installation());
    let apply = apply::apply_gateway(&client, "default", &gateway, None);
    let message =
        "roles \"cpu-gateway\" is forbidden: attempting to grant RBAC permissions not currently held";
    let answers = vec![
        (StatusCode::OK, json!({"metadata": {"name": "x"}})),
        (StatusCode::FORBIDDEN, refusal(403, message)),
    ];
    let (applied, _) = futures::join!(apply, answer(&mut server, answers));
    let problem = applied.unwrap().unwrap();
    assert_eq!(problem.reason, Reason::Rejected);
    assert!(problem.message.contains("not currently held"));
}
