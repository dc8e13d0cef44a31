//! What a client's request becomes: the list of models, a pod's answer, a tunnel to a pod, or an error.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::account::Account;
use super::app::{App, Board, ModelBoard};
use super::ask::Ask;
use super::body;
use super::draw::part::{Part, unmark};
use super::envelope::{Envelope, upgrade};
use super::forward::{Detour, Exchange};
use super::models;
use super::pods::Pods;
use super::relay::{Looking, Outgoing, Relay};
use super::trouble::{Failure, Opened, Trouble};
use super::upgrade::tunnel;
use super::waiting::Comments;
use crate::http::ApiError;
use crate::http::headers::{REQUEST_ID, attempt, request_id};
use crate::lifecycle::Stage;
use crate::openai::{Complaint, Refusal};

/// A stream's first byte comes within a second, also while the request waits; until then an error can still be a
/// status.
const FIRST_BYTE_AFTER: Duration = Duration::from_millis(900);

/// When a gateway that has just started is worth another try.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// Routes that take POST only; what else is asked for there is told so.
const POST_ROUTES: [&str; 2] = ["/v1/chat/completions", "/v1/completions"];

/// What a connection's requests need.
#[derive(Clone)]
pub struct Desk {
    /// What all requests share.
    pub app: Arc<App>,
    /// Connections to pods.
    pub pods: Pods,
    /// Who asks.
    pub client: IpAddr,
}

/// What becomes of a request.
enum Step {
    /// We know the answer.
    Told(Value),
    /// A pod answers.
    Opened(Opened, Box<Exchange>),
    /// A pod agrees to speak something else than HTTP.
    Upgraded(Opened, OnUpgrade),
    /// The client reads comments until a pod answers.
    Waiting(Looking, Comments),
}

impl Desk {
    /// The response to a request; there always is one.
    pub async fn answer(&self, mut request: Request<Incoming>) -> Response<Outgoing> {
        let mut account = Account::open(&self.app);
        let id = HeaderValue::from_str(&request_id(request.headers())).expect("an id has visible characters");
        request.headers_mut().insert(REQUEST_ID, id.clone());
        let mut response = match self.step(request, &mut account).await {
            Ok(Step::Told(value)) => account.told(json_response(StatusCode::OK, &value)),
            Ok(Step::Opened(opened, exchange)) => Relay::response(opened, Some(exchange), account),
            Ok(Step::Upgraded(opened, client)) => tunnel(self.app.clone(), client, opened, account),
            Ok(Step::Waiting(looking, comments)) => Relay::waiting(looking, comments, account),
            Err(Failure::Pods(opened)) => Relay::response(*opened, None, account),
            Err(Failure::Ours(error)) => account.told(error_response(&error)),
        };
        let is_leaving = self.app.lifecycle.stage() >= Stage::Leaving;
        let is_http = response.status() != StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.entry(REQUEST_ID).or_insert(id);
        if is_leaving && is_http {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn step(&self, request: Request<Incoming>, account: &mut Account) -> Result<Step, Failure> {
        if self.app.lifecycle.stage() == Stage::Starting {
            return Err(starting().into());
        }
        let path = request.uri().path();
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        match path.strip_prefix("/v1/models") {
            Some("" | "/") if is_get => Ok(Step::Told(models::list(&self.app.board()))),
            Some(rest) if is_get && rest.starts_with('/') => {
                let name = percent_decode_str(&rest[1..]).decode_utf8_lossy();
                Ok(Step::Told(models::retrieve(&self.app.board(), &name)?))
            }
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Err(ApiError::MethodNotAllowed.into()),
            _ if path.starts_with("/v1/") => self.forward(request, account).await,
            _ => Err(ApiError::NoSuchRoute.into()),
        }
    }

    async fn forward(&self, mut request: Request<Incoming>, account: &mut Account) -> Result<Step, Failure> {
        let client = upgrade(request.headers()).is_some().then(|| hyper::upgrade::on(&mut request));
        if client.is_none() {
            check_method(&request)?;
        }
        let (mut head, body) = request.into_parts();
        unmark(&mut head.headers);
        let body = body::read(&head.headers, body, &self.app.bodies).await?;
        let ask = Ask::read(&head.headers, head.uri.path(), &body.bytes);
        let board = self.app.board();
        let model = model_of(&board, &ask, &head.uri)?;
        account.is_for(&model.view.name);
        let part = Part::of(model, &ask).filter(|_| client.is_none());
        let is_retry = part.is_some() && attempt(&head.headers) > 1;
        let envelope = Envelope::new(head.method, &head.uri, head.headers, body.bytes, self.client);
        let (envelope, detour) = match &part {
            Some(part) => ways(part, &board, model, &envelope),
            None => (envelope, None),
        };
        if let Some(part) = part {
            account.takes_part(part, ask.is_stream, is_retry);
        }
        let (with, at) = ((&self.app, &self.pods), (&*board, &**model));
        let mut exchange = Box::new(Exchange::new(with, at, ask, (envelope, body.room), account.arrived()));
        exchange.goes_by(detour);
        let first = match exchange.turn_at_once()? {
            Some(chosen) => exchange.attempt(chosen).await.map_err(Some),
            None => Err(None),
        };
        let (exchange, opened) = match first {
            Ok(opened) => (exchange, opened),
            Err(trouble) => match look_on(exchange, trouble, account.arrived().into()).await {
                Ok((exchange, found)) => (exchange, found?),
                Err((looking, comments)) => return Ok(Step::Waiting(looking, comments)),
            },
        };
        Ok(match client {
            Some(client) if opened.parts.status == StatusCode::SWITCHING_PROTOCOLS => {
                Step::Upgraded(opened, client)
            }
            _ => Step::Opened(opened, exchange),
        })
    }
}

/// A request that takes part, as its model is asked, and as the one is that a variant names.
fn ways(part: &Part, board: &Board, model: &ModelBoard, asked: &Envelope) -> (Envelope, Option<Detour>) {
    let other = part.other_model().and_then(|name| board.named(name)).map(|other| {
        let body = part.body_for(&other.view.served_name, asked.body());
        let name = other.view.name.clone();
        let envelope = asked.changed(body, |headers| part.mark_request(headers, &name));
        Detour { model: name, envelope }
    });
    let body = part.body(asked.body());
    (asked.changed(body, |headers| part.mark_request(headers, &model.view.name)), other)
}

/// Looks for a pod, at first quietly. `Err`: the client of a stream that waits gets comments from now on.
async fn look_on(
    mut exchange: Box<Exchange>,
    trouble: Option<Trouble>,
    arrived: Instant,
) -> Result<(Box<Exchange>, Result<Opened, Failure>), (Looking, Comments)> {
    let comments = exchange.streams().then(|| Comments::new(&mut exchange));
    let held = exchange.is_held();
    let mut looking: Looking = Box::pin(async move {
        let found = match trouble {
            Some(trouble) => exchange.open_after(trouble).await,
            None => exchange.open().await,
        };
        (exchange, found)
    });
    let Some(comments) = comments else { return Ok(looking.await) };
    tokio::select! {
        found = &mut looking => Ok(found),
        () = is_held_at(held, arrived + FIRST_BYTE_AFTER) => Err((looking, comments)),
    }
}

/// Completes when a request waits at this time or later.
async fn is_held_at(mut held: watch::Receiver<bool>, time: Instant) {
    sleep_until(time).await;
    if held.wait_for(|held| *held).await.is_err() {
        // The exchange has ended, and that is told elsewhere.
        std::future::pending::<()>().await;
    }
}

fn check_method(request: &Request<Incoming>) -> Result<(), ApiError> {
    if request.method() == Method::POST {
        return Ok(());
    }
    let is_route = POST_ROUTES.contains(&request.uri().path());
    Err(if is_route { ApiError::MethodNotAllowed } else { ApiError::NoSuchRoute })
}

/// The model that the body names, else the query, else the only one: what is wrong with such a body a pod says best.
fn model_of<'board>(board: &'board Board, ask: &Ask, uri: &Uri) -> Result<&'board Arc<ModelBoard>, ApiError> {
    let named = ask.model.clone().or_else(|| model_in_query(uri.query()?));
    if let Some(name) = named {
        return board.find(&name).ok_or(ApiError::ModelNotFound(name));
    }
    board.sole().ok_or_else(|| {
        let message = "the body must be a JSON object that names the model";
        Refusal::new(Complaint::MissingParameter, "model", message).into()
    })
}

fn model_in_query(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("model="))?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn starting() -> ApiError {
    ApiError::Unavailable {
        code: "gateway_starting",
        message: "this gateway does not know yet what it serves".to_owned(),
        retry_after: RETRY_SOON,
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::whole(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error_response(error: &ApiError) -> Response<Outgoing> {
    let mut response = json_response(error.status(), &error.body());
    error.add_headers(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_name_the_model() {
        assert_eq!(model_in_query("a=1&model=family%2Fsmall:1").as_deref(), Some("family/small:1"));
        assert_eq!(model_in_query("models=x"), None);
    }
}
