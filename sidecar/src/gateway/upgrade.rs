//! A client and a pod that speak something else than HTTP over their connections, such as WebSocket: bytes go both ways
//! until either side ends.

use std::sync::Arc;

use anyhow::Context;
use hyper::Response;
use hyper::header::{self, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::account::Account;
use super::app::App;
use super::envelope::strip;
use super::relay::Outgoing;
use super::trouble::Opened;

/// The pod has agreed: tells the client, and then lets bytes pass.
pub fn tunnel(app: Arc<App>, client: OnUpgrade, opened: Opened, mut account: Account) -> Response<Outgoing> {
    let Opened { mut parts, arm, lease, sent, .. } = opened;
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    let pod = parts.extensions.remove::<OnUpgrade>();
    strip(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    let status = parts.status;
    tokio::spawn(async move {
        let passing = async {
            let pod = pod.context("the pod's connection cannot be taken over")?;
            let (client, pod) = tokio::try_join!(client, pod)?;
            let (mut client, mut pod) = (TokioIo::new(client), TokioIo::new(pod));
            copy_bidirectional(&mut client, &mut pod).await?;
            anyhow::Ok(())
        };
        account.is_answered_by(arm, lease, sent, status);
        let lifecycle = app.lifecycle.clone();
        let ended = tokio::select! {
            ended = passing => ended,
            () = lifecycle.is_cut() => Err(anyhow::anyhow!("the gateway ends")),
        };
        match ended {
            Ok(()) => account.completed(),
            Err(error) => {
                tracing::debug!(%error, "tunnel broken");
                account.broke();
            }
        }
    });
    Response::from_parts(parts, Outgoing::Whole(None))
}
