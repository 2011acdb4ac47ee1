//! Where a manager listens, as a user writes it: `HOST:PORT`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

/// Longest host name (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 253;

/// A host, as a name or an address, and a port. Which of both it is, is found out when dialling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostPortError {
    /// There is no colon.
    #[error("the port is missing: write HOST:PORT")]
    NoPort,
    /// Too many colons to tell the port.
    #[error("an IPv6 address must stand in brackets: write [ADDRESS]:PORT")]
    BareIpv6,
    /// What stands in brackets is no IPv6 address.
    #[error("there is no IPv6 address between the brackets")]
    Ipv6,
    /// The host is empty, too long, or has characters that no host has.
    #[error("the host must be a name or an address of 1 to {MAX_HOST} characters")]
    Host,
    /// The port is not a number that can be connected to.
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

impl HostPort {
    /// A host without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError::NoPort)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inner) => {
                inner.filter(|h| h.parse::<Ipv6Addr>().is_ok()).ok_or(HostPortError::Ipv6)?
            }
            None if host.contains(':') => return Err(HostPortError::BareIpv6),
            None => host_name(host)?,
        };
        // `parse` would also take a leading `+`.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0);
        Ok(Self { host: host.to_owned(), port: port.ok_or(HostPortError::Port)? })
    }
}

fn host_name(host: &str) -> Result<&str, HostPortError> {
    let fits = (1..=MAX_HOST).contains(&host.len());
    let known = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if fits && known { Ok(host) } else { Err(HostPortError::Host) }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_are_printed_as_written() {
        for text in ["10.0.0.1:2377", "[2001:db8::1]:2377", "m-1.example:1", "localhost:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_addresses() {
        let cases = [
            ("", HostPortError::NoPort),
            ("10.0.0.1", HostPortError::NoPort),
            ("fe80::1", HostPortError::BareIpv6),
            ("2001:db8::1:2377", HostPortError::BareIpv6),
            ("http://10.0.0.1:2377", HostPortError::BareIpv6),
            ("[10.0.0.1]:2377", HostPortError::Ipv6),
            ("[::1:2377", HostPortError::Ipv6),
            (":2377", HostPortError::Host),
            ("a/b:2377", HostPortError::Host),
            ("a b:2377", HostPortError::Host),
            ("h:0", HostPortError::Port),
            ("h:65536", HostPortError::Port),
            ("h:+1", HostPortError::Port),
            ("h:", HostPortError::Port),
            ("[::1]:", HostPortError::Port),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<HostPort>(), Err(expected), "{text}");
        }
    }
}
