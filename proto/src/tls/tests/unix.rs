//! The local socket: who calls, and what is left behind.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tonic::service::interceptor::InterceptedService;

use super::*;
use crate::tls::unix::{
    BindError, SOCKET_MODE, UnixConnected, bind_unix, caller_of, unix_channel, unix_incoming,
};

fn serve_on(path: &Path) -> (JoinSet<()>, mpsc::UnboundedReceiver<Option<UnixConnected>>) {
    let incoming = unix_incoming(bind_unix(path).unwrap());
    let (sender, seen) = mpsc::unbounded_channel();
    let (_, health) = tonic_health::server::health_reporter();
    let health = InterceptedService::new(health, move |request: tonic::Request<()>| {
        sender.send(caller_of(&request).copied()).unwrap();
        Ok(request)
    });
    let mut serving = JoinSet::new();
    serving.spawn(async {
        serve::server().add_service(health).serve_with_incoming(incoming).await.unwrap();
    });
    (serving, seen)
}

#[tokio::test]
async fn the_kernel_says_who_calls() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weft.sock");
    let (_serving, mut seen) = serve_on(&path);
    call(&unix_channel(&path)).await.unwrap();
    let ours = std::fs::metadata("/proc/self").unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let expected = UnixConnected { uid: ours.uid(), gid: ours.gid(), pid: Some(pid) };
    assert_eq!(seen.recv().await, Some(Some(expected)));
}

#[tokio::test]
async fn the_socket_is_private_and_a_dead_one_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weft.sock");
    let (mut serving, _seen) = serve_on(&path);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, SOCKET_MODE);
    assert!(matches!(bind_unix(&path), Err(BindError::InUse { .. })));
    call(&unix_channel(&path)).await.expect("the refused bind left the socket alone");
    serving.shutdown().await;
    let (_serving, _seen) = serve_on(&path);
    call(&unix_channel(&path)).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}
