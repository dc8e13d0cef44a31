//! WebSocket upgrades: the gateway lets the bytes pass.

use crate::harness::{Front, Pod, model, tiny, view};

const WISH: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";

#[tokio::test]
async fn a_websocket_is_a_tunnel_to_a_pod() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod]), model("other", &[])])).await;
    let mut client = front.connect().await;
    let head = "GET /v1/realtime?model=family%2Fsmall:1 HTTP/1.1\r\nhost: x\r\n";
    client.write(format!("{head}{WISH}").as_bytes()).await;
    let mut asked = pod.asked().await;
    assert_eq!(asked.header("upgrade"), Some("websocket"));
    assert_eq!(asked.header("sec-websocket-key"), Some("k"));
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-accept: a\r\n\r\n";
    asked.say(agreed).await;
    let head = client.read_to("\r\n\r\n").await;
    assert!(head.contains("101") && head.contains("sec-websocket-accept: a"), "{head}");
    assert!(head.to_lowercase().contains("connection: upgrade"), "{head}");

    let mut inside = asked.into_line();
    client.write(b"ping").await;
    inside.read_to("ping").await;
    inside.write(b"pong").await;
    client.read_to("pong").await;
    assert_eq!(front.app().lifecycle.in_flight(), 1);
    drop(inside);
    assert_eq!(client.read_all().await, "");
    drop(client);
    front.is_idle().await;
}

#[tokio::test]
async fn a_pod_may_decline() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.connect().await;
    client.write(format!("GET /v1/realtime HTTP/1.1\r\nhost: x\r\n{WISH}").as_bytes()).await;
    pod.asked().await.refuses(404, "not_found").await;
    assert_eq!(client.reply().await.status, 404);
}
