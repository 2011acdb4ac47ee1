//! `weft logs` and `weft service logs`: what containers wrote, each stream to the same stream
//! here.

use std::collections::HashMap;

use jiff::Timestamp;
use weft_proto::v1;

use super::Context;
use crate::{
    args::{
        container::{LogFlags, LogsArgs, Since, Tail},
        service::ServiceLogsArgs,
    },
    client::Client,
    docker::{SHORT_ID, Trunc},
    error::{CliError, what},
    output::{escape::one_line, time},
    wire::{WireTimestamp, timestamp},
};

fn since(flags: &LogFlags, now: Timestamp) -> Option<WireTimestamp> {
    match flags.since? {
        Since::At(time) => Some(timestamp(time)),
        // A span longer than time itself begins at its beginning.
        Since::Ago(span) => {
            let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
            let at = now.as_second().saturating_sub(seconds);
            Some(timestamp(Timestamp::from_second(at).unwrap_or(Timestamp::MIN)))
        }
    }
}

fn tail(flags: &LogFlags) -> Option<u64> {
    match flags.tail {
        Tail::All => None,
        Tail::Lines(lines) => Some(lines),
    }
}

/// `weft logs`
pub async fn container(
    client: &Client,
    args: &LogsArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let refused = |status: tonic::Status| client.refused(&what("logs", &args.container), &status);
    let request = v1::ContainerLogsRequest {
        container: args.container.clone(),
        follow: args.flags.follow,
        tail: tail(&args.flags),
        since: since(&args.flags, (context.now)()),
    };
    let mut stream = client.containers().logs(request).await.map_err(refused)?.into_inner();
    while let Some(record) = stream.message().await.map_err(refused)? {
        write(&record, "", args.flags.timestamps, context)?;
    }
    Ok(())
}

/// `weft service logs`
pub async fn service(
    client: &Client,
    args: &ServiceLogsArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let refused =
        |status: tonic::Status| client.refused(&what("service logs", &args.target), &status);
    let request = v1::ServiceLogsRequest {
        target: args.target.clone(),
        follow: args.flags.follow,
        tail: tail(&args.flags),
        since: since(&args.flags, (context.now)()),
    };
    let mut stream = client.services().logs(request).await.map_err(refused)?.into_inner();
    let mut prefixes = Prefixes::default();
    while let Some(message) = stream.message().await.map_err(refused)? {
        let prefix = if args.raw { String::new() } else { prefixes.of(&message, args) };
        let Some(record) = &message.record else { continue };
        write(record, &prefix, args.flags.timestamps, context)?;
    }
    Ok(())
}

/// The names before the lines, as wide as the widest so far.
#[derive(Default)]
struct Prefixes {
    known: HashMap<String, String>,
    width: usize,
}

impl Prefixes {
    /// `web.1.0123456789ab@node1    | `
    fn of(&mut self, message: &v1::ServiceLogsResponse, args: &ServiceLogsArgs) -> String {
        let name = self.known.entry(message.task_id.clone()).or_insert_with(|| {
            let trunc = if args.no_trunc { Trunc::No } else { Trunc::Yes };
            let node = match (args.no_resolve, message.node_hostname.as_str()) {
                (false, name) if !name.is_empty() => name.to_owned(),
                _ => message.node_id.chars().take(SHORT_ID).collect(),
            };
            let task = if args.no_task_ids {
                message.task_name.clone()
            } else {
                format!("{}.{}", message.task_name, trunc.id(&message.task_id))
            };
            one_line(&format!("{task}@{node}"))
        });
        self.width = self.width.max(name.chars().count());
        format!("{name:<width$}    | ", width = self.width)
    }
}

/// One record: a line, or a part of one, that ends as the container ended it.
fn write(
    record: &v1::LogRecord,
    prefix: &str,
    timestamps: bool,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let mut line = Vec::with_capacity(record.data.len() + prefix.len() + 1);
    if timestamps {
        let time = time::rfc3339(record.time.as_ref());
        if prefix.is_empty() {
            line.extend_from_slice(format!("{time} ").as_bytes());
        } else {
            line.extend_from_slice(format!("{time} {prefix}").as_bytes());
        }
    } else {
        line.extend_from_slice(prefix.as_bytes());
    }
    line.extend_from_slice(&record.data);
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    let out: &mut (dyn std::io::Write + Send) = match record.stream() {
        v1::LogStream::Stderr => &mut *context.err,
        v1::LogStream::Stdout | v1::LogStream::Unspecified => &mut *context.out,
    };
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}
