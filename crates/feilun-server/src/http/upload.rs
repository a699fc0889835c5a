//! Uploads: a form whose file goes to the disk as it comes, bounded in size and time.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use feilun_store::StoreError;
use feilun_store::blobs::{BlobWriter, StagedBlob};
use futures_util::StreamExt as _;
use multer::{Field, Multipart, SizeLimit};
use tokio::sync::mpsc;

use crate::error::{ApiError, ErrorKind};
use crate::server::Server;

/// Pieces that wait for the disk.
const PIECES_MAX: usize = 8;
/// Longest field that is no file.
const FIELD_BYTES_MAX: u64 = 1 << 10;
/// What the form takes besides the file.
const FRAME_BYTES_MAX: u64 = 64 << 10;

/// A form that was sent.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) purpose: String,
    pub(crate) name: String,
    pub(crate) blob: StagedBlob,
}

/// Reads a form with a `file` and a `purpose`.
pub(crate) async fn read(server: &Server, request: Request) -> Result<Upload, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(|_| {
        let message = "the body must be declared as multipart/form-data with a boundary";
        ApiError::new(ErrorKind::WrongMediaType, message)
    })?;
    let limits = &server.config.limits;
    let sizes = SizeLimit::new()
        .whole_stream(limits.file_bytes_max.saturating_add(FRAME_BYTES_MAX))
        .per_field(FIELD_BYTES_MAX)
        .for_field("file", limits.file_bytes_max);
    let constraints = multer::Constraints::new().size_limit(sizes);
    let idle = limits.body_timeout;
    // A body that comes to a halt is an error of the stream.
    let body = request.into_body().into_data_stream();
    let patient = futures_util::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(idle, body.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(Some(Err(error))) => Some((Err(std::io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    });
    let mut form = Multipart::with_constraints(patient, boundary, constraints);
    let whole = read_form(server, &mut form);
    let too_slow = || ApiError::new(ErrorKind::RequestTimeout, "the file did not arrive in time");
    tokio::time::timeout(limits.upload_timeout, whole).await.map_err(|_| too_slow())?
}

async fn read_form(server: &Server, form: &mut Multipart<'_>) -> Result<Upload, ApiError> {
    let (mut purpose, mut file) = (None, None);
    while let Some(field) = form.next_field().await.map_err(refused)? {
        match field.name() {
            Some("purpose") if purpose.is_none() => {
                purpose = Some(field.text().await.map_err(refused)?);
            }
            Some("file") if file.is_none() => file = Some(read_file(server, field).await?),
            name => {
                let shown: String = name.unwrap_or("(nameless)").chars().take(100).collect();
                if matches!(name, Some("purpose" | "file")) {
                    let message = format!("the field `{shown}` is there twice");
                    return Err(ApiError::new(ErrorKind::InvalidValue, message).param(shown));
                }
                let message = format!("unknown field `{shown}`");
                return Err(ApiError::new(ErrorKind::UnknownField, message).param(shown));
            }
        }
    }
    let missing = |name: &str| {
        let message = format!("the form has no `{name}`");
        ApiError::new(ErrorKind::InvalidValue, message).param(name)
    };
    let (name, blob) = file.ok_or_else(|| missing("file"))?;
    Ok(Upload { purpose: purpose.ok_or_else(|| missing("purpose"))?, name, blob })
}

async fn read_file(
    server: &Server,
    mut field: Field<'_>,
) -> Result<(String, StagedBlob), ApiError> {
    let name = field.file_name().unwrap_or_default().to_owned();
    let writer = server.store.blob_writer(server.config.limits.file_bytes_max)?;
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let writing = tokio::task::spawn_blocking(move || write(writer, pieces));
    let mut fault = None;
    loop {
        match field.chunk().await {
            Ok(Some(piece)) => {
                // The writer has gone because of an error, which it tells itself.
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                fault = Some(refused(error));
                break;
            }
        }
    }
    drop(sender);
    let written = writing.await.map_err(|error| ApiError::internal(&error))?;
    match fault {
        Some(fault) => Err(fault),
        None => Ok((name, written?)),
    }
}

fn write(
    mut writer: BlobWriter,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<StagedBlob, StoreError> {
    while let Some(piece) = pieces.blocking_recv() {
        writer.write(&piece)?;
    }
    writer.finish()
}

fn refused(error: multer::Error) -> ApiError {
    let timed_out = |source: &(dyn std::error::Error + 'static)| {
        let io = source.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
    };
    match error {
        multer::Error::FieldSizeExceeded { limit, .. }
        | multer::Error::StreamSizeExceeded { limit } => {
            let message = format!("a part of the form has more than {limit} bytes");
            ApiError::new(ErrorKind::TooLarge, message)
        }
        multer::Error::StreamReadFailed(source) if timed_out(&*source) => {
            ApiError::new(ErrorKind::RequestTimeout, "the file did not arrive in time")
        }
        error => {
            let message = format!("the form cannot be read: {error}");
            ApiError::new(ErrorKind::InvalidValue, message)
        }
    }
}
