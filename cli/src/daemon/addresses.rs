//! Addresses that the user names by value or by interface, or leaves to us.

use std::net::{IpAddr, SocketAddr};

use tonic::Status;
use weft_worker::facts;

use super::refusal::{failed, invalid};

/// Where others reach this node: `IP|IFACE[:PORT]`; empty is the machine's only address.
///
/// # Errors
/// An address that is not this machine's, or none or several to choose from.
pub fn advertised(text: &str, port: u16) -> Result<SocketAddr, Status> {
    if text.is_empty() {
        return Ok(SocketAddr::new(only_address()?, port));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        check_port(text, address.port())?;
        return Ok(SocketAddr::new(local("--advertise-addr", address.ip())?, address.port()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(local("--advertise-addr", ip)?, port));
    }
    let (link, port) = match text.rsplit_once(':') {
        Some((link, number)) => {
            let number = number.parse::<u16>().map_err(|_| {
                invalid(
                    format!("invalid --advertise-addr {text:?}: the port must be a number"),
                    "write it as IP, IP:PORT, INTERFACE or INTERFACE:PORT",
                )
            })?;
            (link, number)
        }
        None => (text, port),
    };
    check_port(text, port)?;
    Ok(SocketAddr::new(of_link("--advertise-addr", link)?, port))
}

/// Where the overlays' outer packets come from: `IP|IFACE`; empty is the advertised one.
///
/// # Errors
/// An address that is not this machine's.
pub fn data_path(text: &str, advertised: IpAddr) -> Result<IpAddr, Status> {
    if text.is_empty() {
        return Ok(advertised);
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => local("--data-path-addr", ip),
        Err(_) => of_link("--data-path-addr", text),
    }
}

fn check_port(text: &str, port: u16) -> Result<(), Status> {
    if port == 0 {
        return Err(invalid(
            format!("invalid --advertise-addr {text:?}: the port must be from 1 to 65535"),
            "leave the port out for 2377",
        ));
    }
    Ok(())
}

fn all() -> Result<Vec<(String, IpAddr)>, Status> {
    facts::addresses().map_err(|error| failed("the machine's addresses cannot be read", &error))
}

fn listed(addresses: &[(String, IpAddr)]) -> String {
    let list: Vec<_> = addresses.iter().map(|(link, ip)| format!("{ip} on {link}")).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn local(flag: &str, ip: IpAddr) -> Result<IpAddr, Status> {
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Err(invalid(
            format!("invalid {flag} {ip}: other nodes cannot reach it"),
            "give an address of this machine that other nodes can reach",
        ));
    }
    let addresses = all()?;
    if addresses.iter().any(|(_, own)| *own == ip) {
        return Ok(ip);
    }
    Err(invalid(
        format!("invalid {flag} {ip}: it is not an address of this machine"),
        &format!("its addresses: {}", listed(&addresses)),
    ))
}

fn of_link(flag: &str, link: &str) -> Result<IpAddr, Status> {
    let addresses = all()?;
    let own: Vec<_> = addresses.iter().filter(|(name, _)| name == link).collect();
    let v4 = own.iter().find(|(_, ip)| ip.is_ipv4());
    v4.or(own.first()).map(|(_, ip)| *ip).ok_or_else(|| {
        invalid(
            format!("invalid {flag} {link:?}: neither an address nor an interface with one"),
            &format!("this machine's addresses: {}", listed(&addresses)),
        )
    })
}

fn only_address() -> Result<IpAddr, Status> {
    let addresses = all()?;
    let v4: Vec<_> = addresses.iter().filter(|(_, ip)| ip.is_ipv4()).collect();
    let candidates = if v4.is_empty() { addresses.iter().collect() } else { v4 };
    match candidates.as_slice() {
        [(_, only)] => Ok(*only),
        [] => Err(invalid(
            "could not choose an address to advertise: this machine has none",
            "configure an address other nodes can reach, then give --advertise-addr",
        )),
        _ => Err(invalid(
            "could not choose an address to advertise: this machine has several",
            &format!("give one of them as --advertise-addr: {}", listed(&addresses)),
        )),
    }
}
