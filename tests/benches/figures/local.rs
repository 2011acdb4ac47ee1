//! What the figures of one host ask of an engine that is in no cluster.

use std::{
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use weft_tests::{Output, eventually};

use crate::cluster::{Cluster, PATIENCE};

/// The port of the host that leads to a container, where one is published.
pub const PUBLISHED: &str = "8080";

/// `run -d` of a named container; `flags` stand before the image.
pub fn detached(engine: &dyn Cluster, name: &str, flags: &[&str], command: &[&str]) -> Command {
    let image = engine.image();
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.push(&image);
    args.extend(command);
    engine.client(&args)
}

/// The same, waited for.
pub fn start(engine: &dyn Cluster, name: &str, flags: &[&str], command: &[&str]) {
    Output::of(&mut detached(engine, name, flags, command), &[name]).ok();
}

/// A bridge of its own for the containers of a figure.
pub fn bridge(engine: &dyn Cluster, name: &str, subnet: &str) {
    let args = ["network", "create", "-d", "bridge", "--subnet", subnet, name];
    Output::of(&mut engine.client(&args), &args).ok();
}

/// Removes containers, whether they run or not.
pub fn remove(engine: &dyn Cluster, names: &[String]) {
    let mut args = vec!["rm", "-f"];
    args.extend(names.iter().map(String::as_str));
    Output::of(&mut engine.client(&args), &args).ok();
}

/// From the first start of these commands to the end of the last, all of which must succeed, with at
/// most `parallel` at a time.
pub fn timed(commands: Vec<Command>, parallel: usize) -> Duration {
    let clock = Instant::now();
    let left = Mutex::new(commands.into_iter());
    thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| {
                while let Some(mut command) = next(&left) {
                    let shown = format!("{command:?}");
                    Output::of(&mut command, &[&shown]).ok();
                }
            });
        }
    });
    clock.elapsed()
}

fn next(left: &Mutex<std::vec::IntoIter<Command>>) -> Option<Command> {
    left.lock().ok()?.next()
}

/// From where a container or a published port is reached.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// Another container, named `client`.
    Container,
    /// Another network namespace, on the switch of the lab.
    Outside,
    /// The host.
    Host,
}

/// What a client says that is run there, once it succeeds.
pub fn said<T>(
    engine: &dyn Cluster,
    from: From,
    argv: &[&str],
    read: impl Fn(&str) -> Result<T, String>,
) -> T {
    let (lab, host) = (engine.lab(), engine.lab().host(1));
    eventually("the client has its answer", PATIENCE, || {
        let output = match from {
            From::Container => {
                let args: Vec<&str> = ["exec", "client"].iter().chain(argv).copied().collect();
                Output::of(&mut engine.client(&args), &args)
            }
            From::Outside => lab.outside(&argv.join(" ")),
            From::Host => host.run(argv),
        };
        read(&output.text()?)
    })
}
