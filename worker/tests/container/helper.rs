//! Stands for the `weft` binary in the tests: the runtime's helper, the engine of encrypted networks,
//! and a daemon that can be killed.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use weft_worker::container::{
    ContainerConfig, ContainerId, Embedded, EmbeddedConfig, HostPort, Image, Protocol, Runtime,
    helper,
};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a.as_encoded_bytes().starts_with(b"__container")) {
        return helper::main(args);
    }
    if args.first().is_some_and(|word| word == "wire") {
        return weft_overlay::wire::main(args.into_iter().skip(1));
    }
    let words: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let [run, state, rootfs, id, upto, command @ ..] = words.as_slice() else {
        eprintln!("usage: RUN STATE ROOTFS ID create|start|publish|life COMMAND...");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let embedded = Embedded::new(EmbeddedConfig::new(run, state)).expect("embedded");
        let id = ContainerId::new(id.as_str()).expect("id");
        let image = Image::Rootfs(PathBuf::from(rootfs));
        let config = ContainerConfig::new(id.clone(), image, command.to_vec());
        embedded.create(config).await.expect("create");
        let port = HostPort {
            protocol: Protocol::Tcp,
            listen: ([0, 0, 0, 0], 8080).into(),
            target: ([127, 0, 0, 1], 80).into(),
        };
        if upto == "publish" || upto == "life" {
            embedded.publish(&id, &[port]).await.expect("publish");
        }
        if upto != "create" {
            embedded.start(&id).await.expect("start");
        }
        if upto == "life" {
            embedded.wait(&id).await.expect("wait");
            embedded.release(&id).await.expect("release");
            embedded.renew(&id).await.expect("renew");
            embedded.publish(&id, &[port]).await.expect("publish");
            embedded.publish(&id, &[]).await.expect("publish");
            embedded.start(&id).await.expect("start");
            embedded.remove(&id).await.expect("remove");
            return ExitCode::SUCCESS;
        }
        println!("done");
        std::io::stdout().flush().expect("flush");
        // Until the test kills us.
        std::future::pending().await
    })
}
