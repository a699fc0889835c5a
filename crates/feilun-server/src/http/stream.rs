//! Answers as a stream of server-sent events (the HTML standard, section 9.2).

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::generation::Progress;
use crate::reply;

/// Turns progress into events; the last call is for `Done` or `Failed`.
pub(crate) type Writer = Box<dyn FnMut(Progress) -> Bytes + Send>;

/// An answer that is written as it comes about.
pub(crate) fn respond(receiver: mpsc::Receiver<Progress>, writer: Writer) -> Response {
    let body = Body::new(EventBody { receiver, writer, ended: false });
    reply::typed(StatusCode::OK, "text/event-stream; charset=utf-8", body)
}

/// One event with JSON data.
pub(crate) fn event(out: &mut Vec<u8>, data: &impl Serialize) {
    let start = out.len();
    out.extend(b"data: ");
    match serde_json::to_writer(&mut *out, data) {
        Ok(()) => out.extend(b"\n\n"),
        Err(error) => {
            tracing::error!(%error, "an event cannot be written as JSON");
            out.truncate(start);
        }
    }
}

/// OpenAI's last event.
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";
/// A comment: clients pass over it.
pub(crate) const KEEP_ALIVE: &[u8] = b": still here\n\n";

/// Dropping it, when the connection ends, is how the task behind it learns that the caller left.
struct EventBody {
    receiver: mpsc::Receiver<Progress>,
    writer: Writer,
    ended: bool,
}

impl HttpBody for EventBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let progress = match self.receiver.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(progress)) => progress,
                // The task is gone without a last word: it panicked.
                Poll::Ready(None) => Progress::Failed(crate::generation::broken_off()),
            };
            self.ended = matches!(progress, Progress::Done(_) | Progress::Failed(_));
            let bytes = (self.writer)(progress);
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}

/// A body that comes through a channel, and ends when the other side lets go of it.
pub(crate) struct ChannelBody<E>(pub(crate) mpsc::Receiver<Result<Frame<Bytes>, E>>);

impl<E> HttpBody for ChannelBody<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        self.0.poll_recv(context)
    }
}
