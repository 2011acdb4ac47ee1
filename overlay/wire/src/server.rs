//! The process: one engine, and the socket by which the daemon speaks to it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        signal::{SigSet, Signal},
        socket::{getsockopt, sockopt},
        stat::{Mode, umask},
    },
};

use crate::{
    engine::Engine,
    message::{self, Call, Request, Response, VERSION},
    verifier::lock,
};

/// Name of the socket in the run directory.
pub const SOCKET: &str = "wire.sock";
/// Name of the file whose lock says that an engine runs.
const LOCK: &str = "wire.lock";
/// How long a message may take once it has begun; the daemon is on the same machine.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// Most connections at once; more are closed at once.
const CONNECTIONS: usize = 16;

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("an engine runs already in {0}")]
    Running(PathBuf),
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    let what = what.into();
    |source| RunError::Io { what, source }
}

/// Runs the engine of a run directory until it is told to stop or gets SIGTERM or SIGINT. It does
/// nothing until it is configured.
///
/// # Errors
/// Another one runs there, or the socket cannot be made.
pub fn run(run_dir: &Path) -> Result<(), RunError> {
    let (sender, ended) = mpsc::channel();
    // Before the first thread, so that all have them blocked and only the one below gets them.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().map_err(io::Error::from).map_err(failed("block signals"))?;
    let _lock = lock_directory(run_dir)?;
    let path = run_dir.join(SOCKET);
    let listener = listen(&path)?;
    let engine = Engine::new().map_err(failed("start the engine"))?;
    let engine = Arc::new(Mutex::new(engine));
    let on_signal = sender.clone();
    spawn("signals", move || {
        // Both ways to end are the same to the engine.
        let _ = signals.wait();
        let _ = on_signal.send(());
    })?;
    let theirs = Arc::clone(&engine);
    spawn("control", move || accept(&listener, &theirs, &sender))?;
    // All senders gone would mean the same.
    let _ = ended.recv();
    // Gone already when the directory was removed.
    let _ = fs::remove_file(path);
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), RunError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(failed("start a thread"))
}

fn lock_directory(run_dir: &Path) -> Result<Flock<File>, RunError> {
    let path = run_dir.join(LOCK);
    let file = File::options().create(true).write(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(failed(format!("open {}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| RunError::Running(run_dir.to_owned()))
}

/// The lock is ours, so a socket that is there was left by an engine that was killed.
fn listen(path: &Path) -> Result<UnixListener, RunError> {
    let _ = fs::remove_file(path);
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener.map_err(failed(format!("listen on {}", path.display())))?;
    let permissions = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, permissions).map_err(failed("protect the socket"))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, engine: &Arc<Mutex<Engine>>, ended: &mpsc::Sender<()>) {
    let open = Arc::new(());
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors: not again at once.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if Arc::strong_count(&open) > CONNECTIONS || !is_allowed(&stream) {
            continue;
        }
        let (engine, ended, held) = (Arc::clone(engine), ended.clone(), Arc::clone(&open));
        // A connection that gets no thread is closed, and its owner tries again.
        let _ = spawn("connection", move || {
            serve(stream, &engine, &ended);
            drop(held);
        });
    }
}

/// Only root, and who runs the engine, may speak to it: it is given private keys.
fn is_allowed(stream: &UnixStream) -> bool {
    getsockopt(stream, sockopt::PeerCredentials)
        .is_ok_and(|who| who.uid() == 0 || who.uid() == nix::unistd::geteuid().as_raw())
}

fn serve(mut stream: UnixStream, engine: &Mutex<Engine>, ended: &mpsc::Sender<()>) {
    if stream.set_write_timeout(Some(MESSAGE_WITHIN)).is_err() {
        return;
    }
    while let Ok(request) = message::read::<Request>(&mut stream) {
        let stops = request.call == Call::Stop && request.version == VERSION;
        let response = respond(request, engine);
        let written = message::write(&mut stream, &response);
        if stops {
            // It ends anyway when nobody waits for it.
            let _ = ended.send(());
        }
        if written.is_err() {
            return;
        }
    }
}

fn respond(request: Request, engine: &Mutex<Engine>) -> Response {
    if request.version != VERSION {
        let ours = env!("CARGO_PKG_VERSION");
        return Response::Refused(format!(
            "version {} of the protocol is not {VERSION}, which weft {ours} speaks",
            request.version
        ));
    }
    match request.call {
        Call::Set(config) => match lock(engine).set(config) {
            Ok(()) => Response::Done,
            Err(error) => Response::Refused(with_causes(&error)),
        },
        Call::Get => Response::Config(lock(engine).config()),
        Call::Status => Response::Status(lock(engine).status()),
        Call::Stop => Response::Done,
    }
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The process `weft wire --run-dir DIR`: takes the words after `wire`, and returns when the engine has
/// ended.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let result = match words.as_slice() {
        [flag, dir] if flag == "--run-dir" => run(Path::new(dir)).map_err(|it| with_causes(&it)),
        _ => Err("usage: weft wire --run-dir DIR".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads it when the daemon that started this is gone.
            let _ = writeln!(io::stderr(), "error: wire: {error}");
            ExitCode::FAILURE
        }
    }
}
