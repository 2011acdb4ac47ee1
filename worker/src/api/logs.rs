//! A container's output on its way to a reader.

use std::{pin::Pin, time::SystemTime};

use futures::Stream;
use tonic::Status;
use weft_proto::v1::{self, ContainerLogsRequest};

use super::{Sources, refusal};
use crate::container::{ContainerId, LogQuery, LogRecord, LogStream, OutputStream};

/// Records in order. A reader that is slow holds the reading of the files back; one that goes away
/// ends it.
pub(super) type Records = Pin<Box<dyn Stream<Item = Result<v1::LogRecord, Status>> + Send>>;

/// Which part of a log a request asks for.
pub(super) fn query(request: &ContainerLogsRequest) -> Result<LogQuery, Status> {
    let since = match request.since {
        Some(stamp) => Some(SystemTime::try_from(stamp).map_err(|_| {
            Status::invalid_argument(format!("since: {stamp} is not a time this node can tell"))
        })?),
        None => None,
    };
    // More lines than there are addresses is all of them.
    let tail = request.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
    Ok(LogQuery { follow: request.follow, tail, since })
}

/// Starts reading.
pub(super) async fn read(
    sources: &Sources,
    id: &ContainerId,
    query: LogQuery,
) -> Result<Records, Status> {
    let records = sources.runtime.logs(id, query).await.map_err(refusal::status)?;
    Ok(Box::pin(futures::stream::unfold(records, next)))
}

async fn next(mut records: LogStream) -> Option<(Result<v1::LogRecord, Status>, LogStream)> {
    let item = match records.next().await? {
        Ok(record) => Ok(wire(record)),
        Err(error) => Err(Status::internal(format!("the output cannot be read: {error}"))),
    };
    Some((item, records))
}

fn wire(record: LogRecord) -> v1::LogRecord {
    let stream = match record.stream {
        OutputStream::Stdout => v1::LogStream::Stdout,
        OutputStream::Stderr => v1::LogStream::Stderr,
    };
    v1::LogRecord {
        time: Some(record.time.into()),
        stream: stream.into(),
        data: record.data.into(),
    }
}
