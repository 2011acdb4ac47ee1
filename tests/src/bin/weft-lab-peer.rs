//! What runs in the containers of the lab, beside busybox: a server that says who it is and whom it
//! sees, and clients whose flows can be watched.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    process::ExitCode,
    thread::{sleep, spawn},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::Linger},
};

const USAGE: &str = "usage: weft-lab-peer serve PORT | tcp HOST PORT | udp HOST PORT COUNT | shout HOST PORT | flow HOST PORT
       weft-lab-peer stamp | greet PORT | dial HOST PORT CLIENTS SECONDS";
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between the lines of a flow.
const STEP: Duration = Duration::from_millis(20);
/// Threads that accept, of the server whose connections are counted.
const GREETERS: usize = 4;
/// More than a container's life.
const DAY: Duration = Duration::from_secs(86_400);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve", port] => serve(port.parse().expect(USAGE)),
        ["tcp", host, port] => tcp(host, port.parse().expect(USAGE)),
        ["udp", host, port, count] => {
            udp(host, port.parse().expect(USAGE), count.parse().expect(USAGE))
        }
        ["shout", host, port] => shout(host, port.parse().expect(USAGE)),
        ["flow", host, port] => flow(host, port.parse().expect(USAGE)),
        ["stamp"] => stamp(),
        ["greet", port] => greet(port.parse().expect(USAGE)),
        ["dial", host, port, clients, seconds] => dial(
            host,
            port.parse().expect(USAGE),
            clients.parse().expect(USAGE),
            Duration::from_secs(seconds.parse().expect(USAGE)),
        ),
        _ => Err(std::io::Error::other(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn own_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Answers "NAME PEER" to each TCP connection and UDP packet; a connection's lines are answered too.
fn serve(port: u16) -> std::io::Result<()> {
    let any = [
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    ];
    let tcp = TcpListener::bind(&any[..])?;
    let packets = UdpSocket::bind(&any[..])?;
    let name = own_name();
    let said = name.clone();
    spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((_, peer)) = packets.recv_from(&mut buffer) {
            let text = format!("{said} {}", peer.ip().to_canonical());
            let _ = packets.send_to(text.as_bytes(), peer);
        }
    });
    for stream in tcp.incoming() {
        let (mut stream, name) = (stream?, name.clone());
        spawn(move || -> std::io::Result<()> {
            writeln!(stream, "{name} {}", stream.peer_addr()?.ip().to_canonical())?;
            let mut lines = BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            while lines.read_line(&mut line)? > 0 {
                stream.write_all(line.as_bytes())?;
                line.clear();
            }
            Ok(())
        });
    }
    Ok(())
}

/// Prints the first line that the server says.
fn tcp(host: &str, port: u16) -> std::io::Result<()> {
    let stream = TcpStream::connect_timeout(&resolve(host, port)?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(std::io::Error::other("the server closed without a word"));
    }
    print!("{line}");
    Ok(())
}

/// Sends `count` packets from one port and prints each answer, or "none".
fn udp(host: &str, port: u16, count: usize) -> std::io::Result<()> {
    let target = resolve(host, port)?;
    let local: SocketAddr = if target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 1500];
    for _ in 0..count {
        let answer = socket.send(b"?").and_then(|_| socket.recv(&mut buffer));
        let text = answer.map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        println!("{}", text.unwrap_or_else(|error| format!("none: {error}")));
        std::io::stdout().flush()?;
        sleep(STEP);
    }
    Ok(())
}

/// Sends one packet to all of a network and prints each answer that comes in time.
fn shout(host: &str, port: u16) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"?", resolve(host, port)?)?;
    let mut buffer = [0; 1500];
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        println!("{}", String::from_utf8_lossy(&buffer[..length]));
    }
    Ok(())
}

/// Keeps one TCP connection busy; prints how many lines came back after each, and why it ended.
fn flow(host: &str, port: u16) -> std::io::Result<()> {
    let stream = TcpStream::connect_timeout(&resolve(host, port)?, PATIENCE)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut line = String::new();
    lines.read_line(&mut line)?;
    for number in 0_u64.. {
        writeln!(writer, "{number}")?;
        line.clear();
        if lines.read_line(&mut line)? == 0 || line.trim() != number.to_string() {
            return Err(std::io::Error::other(format!("after {number}: {line:?}")));
        }
        println!("{number}");
        std::io::stdout().flush()?;
        sleep(STEP);
    }
    lines.read_to_string(&mut line).map(drop)
}

/// Writes the time in microseconds since 1970, before anything else, and stays.
fn stamp() -> std::io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(std::io::Error::other)?;
    println!("{}", now.as_micros());
    std::io::stdout().flush()?;
    sleep(DAY);
    Ok(())
}

/// Says one byte on each connection and reads until it ends, without a thread for each.
fn greet(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let accept = |listener: TcpListener| {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // The client resets it: that is its end.
            let _ = stream.write_all(b"!").and_then(|()| stream.read(&mut [0]));
        }
    };
    let others = (1..GREETERS).map(|_| listener.try_clone());
    for listener in others.collect::<Result<Vec<_>, _>>()? {
        spawn(move || accept(listener));
    }
    accept(listener);
    Ok(())
}

/// Makes connections to `greet`, each of so many clients one at a time, and prints how many a second
/// were greeted.
fn dial(host: &str, port: u16, clients: usize, time: Duration) -> std::io::Result<()> {
    let (target, start) = (resolve(host, port)?, Instant::now());
    let clients = (0..clients).map(|_| {
        spawn(move || -> std::io::Result<u32> {
            let mut done = 0;
            while start.elapsed() < time {
                greeted(&target)?;
                done += 1;
            }
            Ok(done)
        })
    });
    let mut done = 0;
    for client in clients.collect::<Vec<_>>() {
        done += client.join().map_err(|_| std::io::Error::other("a client panicked"))??;
    }
    println!("{:.0}", f64::from(done) / start.elapsed().as_secs_f64());
    Ok(())
}

/// One connection, ended by a reset: neither side keeps its port for a minute.
fn greeted(target: &SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0])?;
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, Linger, &at_once)?;
    Ok(())
}

fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    let mut found = (host, port).to_socket_addrs()?;
    found.next().ok_or_else(|| std::io::Error::other(format!("{host} has no address")))
}
