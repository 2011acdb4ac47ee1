//! Starting a container's shim and talking to it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::layout::Layout;
use super::status::Told;
use super::wire::{Connection, Fields};
use super::{ContainerConfig, ContainerId, DnsSockets, Error, HostPort, NetNamespace, WindowSize};

/// The shim's program, built by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(env!("WEFT_SHIM"));
/// The first word of its command line.
pub(super) const NAME: &str = "weft-shim";
/// How long a shim may take to answer what it can answer at once.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The shim's program in memory: a run directory is often mounted `noexec`.
pub(super) fn program() -> Result<OwnedFd, Error> {
    let make = || -> io::Result<OwnedFd> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create(c"weft-shim", flags)?);
        file.write_all(PROGRAM)?;
        // A container whose first process it is can name it, and must not be able to change it.
        let seals =
            libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        let seals = nix::fcntl::SealFlag::from_bits_truncate(seals);
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_ADD_SEALS(seals))?;
        // Opened anew for reading: a program open for writing cannot be executed.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(std::fs::File::open(path)?.into())
    };
    make().map_err(Error::os("cannot hold the shim's program in memory"))
}

/// Starts the shim of a container whose directories are ready; comes back when its namespace is up
/// and its socket bound. Blocks for some milliseconds.
pub(super) fn start(
    program: &OwnedFd,
    config: &ContainerConfig,
    layout: &Layout,
) -> Result<(), Error> {
    let net = match &config.network {
        NetNamespace::Own => "own".into(),
        NetNamespace::Host => "host".into(),
        NetNamespace::Join(path) => path.clone().into_os_string(),
    };
    start_in(program, &config.id, layout, &net)
}

/// Starts a shim in the namespace that `net` names in its own words.
pub(super) fn start_in(
    program: &OwnedFd,
    id: &ContainerId,
    layout: &Layout,
    net: &OsStr,
) -> Result<(), Error> {
    let output = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0(NAME)
        .arg(id.as_str())
        .args([layout.run.as_os_str(), layout.state.as_os_str(), net])
        .stdin(Stdio::null())
        .env_clear()
        .output()
        .map_err(Error::os("cannot run the shim"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.starts_with("ok ") {
        return Ok(());
    }
    let mut reason = said.trim().trim_start_matches("error ").to_owned();
    if reason.is_empty() {
        reason = format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Err(Error::ShimNotStarted { id: id.clone(), reason })
}

/// A connection to one shim.
pub(super) struct Shim {
    id: ContainerId,
    connection: Connection,
}

impl Shim {
    /// # Errors
    /// `ShimGone` if nobody listens.
    pub(super) async fn connect(id: &ContainerId, layout: &Layout) -> Result<Self, Error> {
        match Connection::open(&layout.run, "shim.sock").await {
            Ok(connection) => Ok(Self { id: id.clone(), connection }),
            Err(_) => Err(Error::ShimGone { id: id.clone() }),
        }
    }

    pub(super) async fn state(&mut self) -> Result<Told, Error> {
        let (fields, _) = self.quick("state", &[b"state"], &[]).await?;
        self.told(&fields)
    }

    /// Waits for the container's end.
    pub(super) async fn wait(&mut self) -> Result<Told, Error> {
        let (fields, _) = self.ask("wait", &[b"wait"], &[]).await?;
        self.told(&fields)
    }

    pub(super) async fn kill(&mut self, signal: i32) -> Result<(), Error> {
        let number = signal.to_string();
        match self.quick("kill", &[b"kill", number.as_bytes()], &[]).await {
            Err(Error::ShimRefused { reason, .. }) if reason == "not running" => {
                Err(Error::NotRunning { id: self.id.clone() })
            }
            other => other.map(drop),
        }
    }

    /// Ends the container and the shim; comes back when both are gone.
    pub(super) async fn shutdown(&mut self) -> Result<(), Error> {
        self.quick("shutdown", &[b"shutdown"], &[]).await.map(drop)
    }

    pub(super) async fn dns(&mut self) -> Result<DnsSockets, Error> {
        let id = self.id.clone();
        let none = move || Error::NoDns { id: id.clone() };
        let answer = self.quick("dns", &[b"dns"], &[]).await;
        let (_, fds) = match answer {
            Err(Error::ShimRefused { .. }) => return Err(none()),
            other => other?,
        };
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| none())?;
        let udp = std::net::UdpSocket::from(udp);
        let port = udp.local_addr().map_err(Error::os("DNS socket has no address"))?.port();
        Ok(DnsSockets { udp, tcp: tcp.into(), port })
    }

    /// Gives the shim its end of an attached client's socket pair.
    pub(super) async fn attach(
        &mut self,
        socket: BorrowedFd<'_>,
        feeding: bool,
    ) -> Result<(), Error> {
        let feeding: &[u8] = if feeding { b"1" } else { b"0" };
        match self.quick("attach", &[b"attach", feeding], &[socket]).await {
            Err(Error::ShimRefused { reason, .. }) if reason == "not running" => {
                Err(Error::NotRunning { id: self.id.clone() })
            }
            other => other.map(drop),
        }
    }

    /// The main process's terminal; the size is kept if there is none yet.
    pub(super) async fn resize(&mut self, size: WindowSize) -> Result<(), Error> {
        let (rows, columns) = (size.rows.to_string(), size.columns.to_string());
        let request: [&[u8]; 3] = [b"resize", rows.as_bytes(), columns.as_bytes()];
        self.quick("resize", &request, &[]).await.map(drop)
    }

    /// The ports it has.
    pub(super) async fn ports(&mut self) -> Result<Vec<HostPort>, Error> {
        let mut ports = Vec::new();
        loop {
            let from = ports.len().to_string();
            let (fields, _) = self.quick("ports", &[b"ports", from.as_bytes()], &[]).await?;
            let said = text(&fields);
            let page: Vec<_> = said.iter().filter_map(|words| HostPort::parse(words)).collect();
            if page.is_empty() {
                return Ok(ports);
            }
            ports.extend(page);
        }
    }

    /// Gives it ports with a socket each, or without any: new targets for ports it has.
    pub(super) async fn publish(
        &mut self,
        ports: &[HostPort],
        sockets: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        self.about("publish", ports, sockets).await
    }

    pub(super) async fn unpublish(&mut self, ports: &[HostPort]) -> Result<(), Error> {
        self.about("unpublish", ports, &[]).await
    }

    async fn about(
        &mut self,
        verb: &'static str,
        ports: &[HostPort],
        sockets: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = ports.iter().map(HostPort::words).collect();
        let mut request = vec![verb.as_bytes()];
        request.extend(words.iter().map(String::as_bytes));
        self.quick(verb, &request, sockets).await.map(drop)
    }

    /// Runs the helper; comes back when the command runs, with its pid, or did not.
    pub(super) async fn start(
        &mut self,
        helper: BorrowedFd<'_>,
        wants: &[u8],
        oom_file: &[u8],
        argv: &[Vec<u8>],
    ) -> Result<i32, Error> {
        let mut request: Vec<&[u8]> = vec![b"start", wants, oom_file];
        request.extend(argv.iter().map(Vec::as_slice));
        let failed =
            |exit_code, reason| Error::NotStarted { id: self.id.clone(), exit_code, reason };
        self.connection
            .send(&request, &[helper.as_fd()])
            .await
            .map_err(|_| Error::ShimGone { id: self.id.clone() })?;
        let (fields, _) =
            self.connection.receive().await.map_err(|_| Error::ShimGone { id: self.id.clone() })?;
        match text(&fields).as_slice() {
            [ok, pid] if ok == "ok" => pid
                .parse()
                .map_err(|_| failed(super::EXIT_NOT_STARTED, format!("shim said pid {pid:?}"))),
            [_, code, reason]
                if code == &libc::EALREADY.to_string() && reason == "already started" =>
            {
                Err(Error::AlreadyStarted { id: self.id.clone() })
            }
            [_, code, reason] => {
                Err(failed(code.parse().unwrap_or(super::EXIT_NOT_STARTED), reason.clone()))
            }
            other => Err(failed(super::EXIT_NOT_STARTED, format!("shim said {other:?}"))),
        }
    }

    async fn quick(
        &mut self,
        verb: &'static str,
        request: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Fields, Vec<OwnedFd>), Error> {
        let id = self.id.clone();
        tokio::time::timeout(ANSWER_DEADLINE, self.ask(verb, request, fds)).await.unwrap_or_else(
            |_| {
                let reason = format!("no answer in {} s", ANSWER_DEADLINE.as_secs());
                Err(Error::ShimRefused { id, request: verb, reason })
            },
        )
    }

    async fn ask(
        &mut self,
        verb: &'static str,
        request: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Fields, Vec<OwnedFd>), Error> {
        let gone = |_| Error::ShimGone { id: self.id.clone() };
        self.connection.send(request, fds).await.map_err(gone)?;
        let (fields, fds) = self.connection.receive().await.map_err(gone)?;
        if fields.first().is_some_and(|f| f == b"ok") {
            return Ok((fields, fds));
        }
        let reason = text(&fields).pop().unwrap_or_default();
        Err(Error::ShimRefused { id: self.id.clone(), request: verb, reason })
    }

    fn told(&self, fields: &Fields) -> Result<Told, Error> {
        let said = text(fields).pop().unwrap_or_default();
        Told::parse(&said).ok_or_else(|| Error::ShimRefused {
            id: self.id.clone(),
            request: "state",
            reason: format!("unreadable answer {said:?}"),
        })
    }
}

fn text(fields: &Fields) -> Vec<String> {
    fields.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect()
}
