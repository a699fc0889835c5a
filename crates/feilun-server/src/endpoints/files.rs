//! `/v1/files`: examples to train on. A file belongs to the user or the key that brought it;
//! others are told that there is none. It is read line by line before it is taken.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH};
use axum::response::Response;
use feilun_store::files::{FileFilter, NewFile, StoredFile};
use feilun_store::id::FileId;
use feilun_store::{Page, StoreError, Timestamp};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{Asking, Shared};
use crate::error::{ApiError, ErrorKind};
use crate::http::query::Query;
use crate::http::stream;
use crate::http::upload;
use crate::jobs;
use crate::reply;
use crate::security::callers::Caller;
use crate::server::Server;
use crate::training::Trainer;
use crate::wire::file::{Deleted, FileList, FileObject, FilesQuery, OrderParameter};

const PURPOSE: &str = "fine-tune";
const PREFIX: &str = "file-";
/// Rows of a page, at most.
const ROWS_MAX: usize = 1000;
/// What is read from the disk at once.
const PIECE_BYTES: usize = 256 << 10;

/// Takes a file.
pub(crate) async fn create(
    State(server): Shared,
    Extension(caller): Asking,
    request: Request,
) -> Result<Response, ApiError> {
    let trainer = trainer(&server)?;
    let _place = server.uploads.try_acquire().map_err(|_| {
        let message = "too many files are being uploaded";
        ApiError::new(ErrorKind::Unavailable, message).retry_after(Duration::from_secs(5))
    })?;
    let used = check_quota(&server, &caller, 0).await?;
    let upload::Upload { purpose, name, blob } = upload::read(&server, request).await?;
    if purpose != PURPOSE {
        let message = "purpose: only fine-tune is supported";
        return Err(ApiError::new(ErrorKind::Unsupported, message).param("purpose"));
    }
    if used.saturating_add(blob.size_bytes()) > server.config.limits.files_bytes_max {
        return Err(quota(&server));
    }
    let examples = blob.open()?;
    let checked = move || trainer.check(examples, None).map_err(|reason| invalid_file(&reason));
    server.prepare(checked).await?;
    let id = FileId::new();
    let file = NewFile { id, purpose, name, user: caller.user, key: caller.key };
    server.store.add_file(file, blob).await.map_err(|error| match error {
        StoreError::Invalid { field: "name", .. } => {
            ApiError::new(ErrorKind::InvalidValue, format!("file {error}")).param("file")
        }
        error => error.into(),
    })?;
    Ok(reply::json(StatusCode::OK, &shown(server.store.file(id).await?)))
}

/// Lists files.
pub(crate) async fn list(
    State(server): Shared,
    Extension(caller): Asking,
    Query(query): Query<FilesQuery>,
) -> Result<Response, ApiError> {
    let mut filter = own(&caller);
    filter.purpose = query.purpose;
    let rows_max = query.limit.map_or(ROWS_MAX, |limit| limit.size().min(ROWS_MAX));
    // One more, to see whether there are more.
    let first = match query.order {
        Some(OrderParameter::Asc) => Page::oldest(rows_max as u32 + 1),
        Some(OrderParameter::Desc) | None => Page::newest(rows_max as u32 + 1),
    };
    let page = match &query.after {
        None => first,
        Some(id) => first.behind(parse_id(id).ok_or_else(|| {
            ApiError::new(ErrorKind::InvalidValue, "after: no id of a file").param("after")
        })?),
    };
    let mut found = server.store.files(&filter, page).await?;
    let has_more = found.len() > rows_max;
    found.truncate(rows_max);
    let data: Vec<FileObject> = found.into_iter().map(shown).collect();
    let (first_id, last_id) =
        (data.first().map(|file| file.id.clone()), data.last().map(|file| file.id.clone()));
    Ok(reply::json(StatusCode::OK, &FileList { object: "list", data, first_id, last_id, has_more }))
}

/// Shows one.
pub(crate) async fn show(
    State(server): Shared,
    Extension(caller): Asking,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let file = find(&server, &caller, &id).await?;
    Ok(reply::json(StatusCode::OK, &shown(file)))
}

/// Gives its bytes back.
pub(crate) async fn content(
    State(server): Shared,
    Extension(caller): Asking,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let file = find(&server, &caller, &id).await?;
    let mut bytes = server.store.open_blob(file.digest)?;
    let (sender, receiver) = mpsc::channel::<std::io::Result<Frame<_>>>(2);
    tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = bytes.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
            let next = match read {
                Ok(0) => return,
                Ok(_) => Ok(Frame::data(piece.into())),
                Err(error) => Err(error),
            };
            // Whoever left needs no more.
            if sender.blocking_send(next).is_err() {
                return;
            }
        }
    });
    let body = Body::new(stream::ChannelBody(receiver));
    let mut response = reply::typed(StatusCode::OK, "application/octet-stream", body);
    let headers = response.headers_mut();
    reply::set(headers, CONTENT_LENGTH, &file.size_bytes.to_string());
    // The name may hold anything: a browser takes it from nowhere else.
    reply::set(headers, CONTENT_DISPOSITION, "attachment; filename=\"examples.jsonl\"");
    Ok(response)
}

/// Deletes one that no job needs.
pub(crate) async fn delete(
    State(server): Shared,
    Extension(caller): Asking,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let file = find(&server, &caller, &id).await?;
    let _desk = server.jobs.desk.lock().await;
    if jobs::needs_file(&server, &id).await? {
        let message = "a fine-tuning job that has not ended needs this file";
        return Err(ApiError::new(ErrorKind::Conflict, message));
    }
    server.store.delete_file(file.recorded.id, caller.actor()).await?;
    Ok(reply::json(StatusCode::OK, &Deleted { id, object: "file", deleted: true }))
}

/// A file of this caller.
pub(super) async fn find(
    server: &Server,
    caller: &Caller,
    id: &str,
) -> Result<StoredFile, ApiError> {
    let none = || {
        let shown: String = id.chars().take(100).collect();
        ApiError::new(ErrorKind::NotFound, format!("there is no file `{shown}`"))
    };
    let file = server.store.file(parse_id(id).ok_or_else(none)?).await?;
    let is_own = caller.owns(file.recorded.user, file.recorded.key) || caller.sees_all();
    if is_own { Ok(file) } else { Err(none()) }
}

/// What trains, or that there is nothing that does.
pub(super) fn trainer(server: &Server) -> Result<Arc<dyn Trainer>, ApiError> {
    let message = "this server does not train";
    server.trainer.clone().ok_or_else(|| ApiError::new(ErrorKind::Unsupported, message))
}

pub(super) fn invalid_file(reason: &str) -> ApiError {
    ApiError::new(ErrorKind::InvalidValue, format!("file: {reason}")).param("file")
}

pub(super) fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros() / 1_000_000).unwrap_or(0)
}

/// The files that a caller sees.
fn own(caller: &Caller) -> FileFilter {
    if caller.sees_all() {
        return FileFilter::default();
    }
    let key = if caller.user.is_some() { None } else { caller.key };
    FileFilter { purpose: None, user: caller.user, key }
}

/// Bytes of the caller's files, if there may be another of so many bytes.
async fn check_quota(server: &Server, caller: &Caller, bytes: u64) -> Result<u64, ApiError> {
    let limits = &server.config.limits;
    let key = if caller.user.is_some() { None } else { caller.key };
    let filter = FileFilter { purpose: None, user: caller.user, key };
    let files = server.store.files(&filter, Page::newest(ROWS_MAX as u32)).await?;
    let used: u64 = files.iter().map(|file| file.size_bytes).sum();
    if files.len() >= limits.files_max || used.saturating_add(bytes) > limits.files_bytes_max {
        return Err(quota(server));
    }
    Ok(used)
}

fn quota(server: &Server) -> ApiError {
    let limits = &server.config.limits;
    let message = format!(
        "at most {} files of {} bytes together: delete some",
        limits.files_max, limits.files_bytes_max
    );
    ApiError::new(ErrorKind::TooLarge, message)
}

fn parse_id(text: &str) -> Option<FileId> {
    text.strip_prefix(PREFIX)?.parse().ok()
}

pub(super) fn shown_id(id: FileId) -> String {
    format!("{PREFIX}{id}")
}

fn shown(file: StoredFile) -> FileObject {
    FileObject {
        id: shown_id(file.recorded.id),
        object: "file",
        bytes: file.size_bytes,
        created_at: seconds(file.created_at),
        filename: file.recorded.name,
        purpose: file.recorded.purpose,
        status: "processed",
    }
}
