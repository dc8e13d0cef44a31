//! A gateway from start to end: listens, spreads connections over its threads, and leaves without cutting anybody.
//!
//! Each thread has a runtime of its own, and a connection stays on its thread together with those to the pods: an event
//! that passes wakes no other thread.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::admin;
use super::answer::Desk;
use super::app::App;
use super::pods::Pods;
use crate::lifecycle::Stage;

/// Connections at once. Each costs some 20 KiB and, with its pod's, two of the files that a process may open.
const CONNECTIONS_MAX: usize = 30_000;

/// Connections that wait for their thread.
const HANDED_MAX: usize = 1_024;

/// Load balancers keep connections idle for up to ten minutes; whoever closes first must not be us, or a request that is
/// on its way meets a closed door.
const IDLE_MAX: Duration = Duration::from_secs(620);

/// What is kept of a slow client's answer before its pod is held up, and the longest head of a request.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Pause after a connection that could not be accepted: the limit on open files is met.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// After the last answer: how long connections may take to close.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// A connection with its right to be there.
type Handed = (std::net::TcpStream, SocketAddr, OwnedSemaphorePermit);

/// A gateway that listens.
pub struct Gateway {
    /// Where clients are listened to.
    pub address: SocketAddr,
    /// Where the admin port is.
    pub admin_address: SocketAddr,
    /// What requests share.
    pub app: Arc<App>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Listens at once; requests are served from the first view on.
    pub async fn start(
        app: Arc<App>,
        listen: SocketAddr,
        admin_listen: SocketAddr,
        threads: usize,
    ) -> anyhow::Result<Self> {
        raise_file_limit();
        let listener = bind(listen).await?;
        let admin_listener = bind(admin_listen).await?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let workers = (0..threads_wanted(threads)).map(|number| worker(app.clone(), number));
        let workers: Vec<_> = workers.collect::<Result<_, _>>().context("a thread cannot be started")?;
        let router = admin::router(app.clone());
        let tasks = vec![
            tokio::spawn(accept(listener, workers)),
            tokio::spawn(async move {
                let ended = axum::serve(admin_listener, router).await;
                tracing::debug!(?ended, "the admin port is closed");
            }),
        ];
        tracing::info!(%address, %admin_address, "listening");
        Ok(Self { address, admin_address, app, tasks })
    }

    /// Announces the end, serves on until that is known everywhere, and then until nothing is in flight, at most for
    /// `drain_max` in all. What has not ended by then is cut.
    pub async fn drain(self, propagation: Duration, drain_max: Duration) {
        self.app.lifecycle.drain(propagation, drain_max, CLOSE_MAX).await;
        self.stop();
    }

    /// Stops to listen. Threads end when their last connection does, or with the process.
    pub fn stop(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened at"))
}

fn threads_wanted(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// The usual soft limit of 1,024 open files is for programs that use `select`; the hard limit is meant.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files stays low");
    }
}

async fn accept(listener: TcpListener, workers: Vec<mpsc::Sender<Handed>>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for worker in workers.iter().cycle() {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let handed = loop {
            match listener.accept().await.and_then(|(stream, client)| Ok((stream.into_std()?, client))) {
                Ok((stream, client)) => break (stream, client, permit),
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        };
        if worker.send(handed).await.is_err() {
            return;
        }
    }
}

/// A thread that serves the connections which it is handed.
fn worker(app: Arc<App>, number: usize) -> std::io::Result<mpsc::Sender<Handed>> {
    let (sender, mut handed) = mpsc::channel::<Handed>(HANDED_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
        runtime.block_on(async move {
            let pods = Pods::default();
            while let Some((stream, client, permit)) = handed.recv().await {
                let (app, pods) = (app.clone(), pods.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(app, pods, stream, client).await {
                        tracing::debug!(%client, %error, "connection ended");
                    }
                    drop(permit);
                });
            }
        });
    })?;
    Ok(sender)
}

async fn connection(
    app: Arc<App>,
    pods: Pods,
    stream: std::net::TcpStream,
    client: SocketAddr,
) -> anyhow::Result<()> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let lifecycle = app.lifecycle.clone();
    let mut stages = lifecycle.stages();
    let is_newcomer = lifecycle.stage() >= Stage::Draining;
    let desk = Arc::new(Desk { app, pods, client: client.ip() });
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    // A newcomer's first request is still served, and its answer closes the connection.
    let leaving = async {
        if is_newcomer || stages.wait_for(|stage| *stage >= Stage::Draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = serving.as_mut() => return Ok(ended?),
        () = leaving => serving.as_mut().graceful_shutdown(),
        () = lifecycle.is_cut() => return Ok(()),
    }
    tokio::select! {
        ended = serving => Ok(ended?),
        () = lifecycle.is_cut() => Ok(()),
    }
}
