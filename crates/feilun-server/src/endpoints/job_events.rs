//! `/v1/fine_tuning/jobs/{job}/events`: what happens in a job, as pages or as a stream that ends
//! with the job.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use feilun_store::id::{RunEventId, RunId};
use feilun_store::runs::RunEvent;
use feilun_store::{Page, StoreError};
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;

use super::files::seconds;
use super::fine_tuning::{find, no_cursor};
use super::{Asking, Shared};
use crate::error::{ApiError, ErrorKind};
use crate::http::query::Query;
use crate::http::stream::{self, ChannelBody};
use crate::reply;
use crate::server::Server;
use crate::wire::job::{EventsQuery, JobEvent, JobEventList};

const PREFIX: &str = "ftevent-";
const PAGE_ROWS_DEFAULT: usize = 20;
/// Between two looks at a job that is streamed.
const TICK: Duration = Duration::from_millis(500);
/// Events that are read at once.
const ROWS: u32 = 100;

/// Lists events, the newest first, or streams them, the oldest first.
pub(crate) async fn list(
    State(server): Shared,
    Extension(caller): Asking,
    Path(job): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let run = find(&server, &caller, &job).await?.recorded.id;
    let after = match &query.after {
        None => None,
        Some(text) => Some(parse_id(text).ok_or_else(|| no_cursor("an event"))?),
    };
    if query.stream == Some(true) {
        if query.limit.is_some() {
            let message = "limit: a stream ends with the job";
            return Err(ApiError::new(ErrorKind::InvalidValue, message).param("limit"));
        }
        return Ok(streamed(&server, run, after));
    }
    let rows_max = query.limit.map_or(PAGE_ROWS_DEFAULT, |limit| limit.size());
    let page = Page { after, ..Page::newest(rows_max as u32 + 1) };
    let mut events = server.store.run_events(run, page).await?;
    let has_more = events.len() > rows_max;
    events.truncate(rows_max);
    let data = events.into_iter().map(shown).collect();
    Ok(reply::json(StatusCode::OK, &JobEventList { object: "list", data, has_more }))
}

fn streamed(server: &Arc<Server>, run: RunId, after: Option<RunEventId>) -> Response {
    let (sender, receiver) = mpsc::channel(16);
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let last = match follow(&server, run, after, &sender).await {
            Ok(true) => Bytes::from_static(stream::DONE),
            // The caller has left, or the server stops: it may come back with `after`.
            Ok(false) => return,
            Err(error) => {
                let mut out = Vec::new();
                stream::event(&mut out, &ApiError::from(error).body());
                out.into()
            }
        };
        let _ = sender.send(Ok(Frame::data(last))).await;
    });
    let body = Body::new(ChannelBody::<Infallible>(receiver));
    reply::typed(StatusCode::OK, "text/event-stream; charset=utf-8", body)
}

type Pieces = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

/// Sends events until the job has ended; false if somebody left before.
async fn follow(
    server: &Server,
    run: RunId,
    mut after: Option<RunEventId>,
    pieces: &Pieces,
) -> Result<bool, StoreError> {
    let limits = &server.config.limits;
    let mut said = Instant::now();
    loop {
        // Looked at first: what it told before it ended is read below. Its last event comes
        // after the end is recorded, so one more look is due.
        let is_over = server.store.run(run).await?.status.is_final();
        if is_over {
            tokio::time::sleep(TICK).await;
        }
        loop {
            let page = Page { after, ..Page::oldest(ROWS) };
            let events = server.store.run_events(run, page).await?;
            let mut out = Vec::new();
            for event in events {
                after = Some(event.id);
                stream::event(&mut out, &shown(event));
            }
            if out.is_empty() {
                break;
            }
            said = Instant::now();
            if pieces.send_timeout(Ok(Frame::data(out.into())), limits.write_timeout).await.is_err()
            {
                return Ok(false);
            }
        }
        if is_over {
            return Ok(true);
        }
        if said.elapsed() >= limits.keep_alive {
            said = Instant::now();
            let comment = Bytes::from_static(stream::KEEP_ALIVE);
            if pieces.send_timeout(Ok(Frame::data(comment)), limits.write_timeout).await.is_err() {
                return Ok(false);
            }
        }
        tokio::select! {
            () = pieces.closed() => return Ok(false),
            () = tokio::time::sleep(TICK) => {}
        }
        if server.is_draining() {
            return Ok(false);
        }
    }
}

fn parse_id(text: &str) -> Option<RunEventId> {
    text.strip_prefix(PREFIX)?.parse().ok()
}

fn shown(event: RunEvent) -> JobEvent {
    JobEvent {
        id: format!("{PREFIX}{}", event.id),
        object: "fine_tuning.job.event",
        created_at: seconds(event.created_at),
        level: event.recorded.level,
        message: event.recorded.message,
        kind: if event.recorded.data.is_null() { "message" } else { "metrics" },
        data: event.recorded.data,
    }
}
