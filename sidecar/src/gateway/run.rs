//! The gateway's process: wires the parts, follows the view's source, drains on SIGTERM.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::app::App;
use super::file;
use super::kubernetes::Cluster;
use super::report::{Identity, PATH, report};
use super::serve::Gateway;
use super::settings::Settings;
use crate::push::Push;
use crate::serve::told_to_end;

/// Serves until SIGTERM, then drains.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let end = told_to_end()?;
    let app = Arc::new(App::new()?);
    let gateway =
        Gateway::start(app.clone(), settings.listen, settings.admin_listen, settings.threads).await?;
    let propagation = Duration::from_secs(settings.endpoint_propagation_seconds.into());
    let drain_max = Duration::from_secs(settings.drain_seconds.into());
    let following = follow(settings, app);
    tokio::pin!(following);
    let mut end = std::pin::pin!(end);
    let ended = tokio::select! {
        ended = &mut following => ended,
        () = &mut end => Ok(()),
    };
    // Views are followed to the last request.
    tokio::select! {
        () = gateway.drain(propagation, drain_max) => {}
        _ = following, if ended.is_ok() => {}
    }
    ended
}

/// Publishes views and sends reports, for ever.
async fn follow(settings: Settings, app: Arc<App>) -> anyhow::Result<()> {
    let publish = {
        let app = app.clone();
        move |view| app.take(view)
    };
    let Some(pool) = settings.pool else {
        let path = settings.view_file.context("--pool or --view-file must be given")?;
        // A wrong file is told at once; later ones leave the last good view in place.
        app.take(file::read(&path)?);
        file::follow(path, publish).await;
        return Ok(());
    };
    let cluster = Cluster::find(settings.namespace, pool.clone()).await?;
    let identity = Identity::from_environment(cluster.namespace(), &pool);
    if let Some(url) = settings.report_url {
        let push = Push::new(&url, PATH).context("no client for reports")?;
        tokio::spawn(report(push, identity, app.clone()));
    }
    cluster.follow(publish, move || app.lost_source(Instant::now())).await;
    anyhow::bail!("the cluster is not watched any more")
}
