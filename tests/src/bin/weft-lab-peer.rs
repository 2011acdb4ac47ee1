//! What runs in the containers of the lab, beside busybox: a server that says who it is and whom it
//! sees, and clients whose flows can be watched.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    process::ExitCode,
    thread::{sleep, spawn},
    time::Duration,
};

const USAGE: &str = "usage: weft-lab-peer serve PORT | tcp HOST PORT | udp HOST PORT COUNT | shout HOST PORT | flow HOST PORT";
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between the lines of a flow.
const STEP: Duration = Duration::from_millis(20);

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

fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    let mut found = (host, port).to_socket_addrs()?;
    found.next().ok_or_else(|| std::io::Error::other(format!("{host} has no address")))
}
