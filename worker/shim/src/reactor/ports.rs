//! Published ports, as far as the proxy carries them.

use std::io;
use std::os::fd::OwnedFd;

use super::{Shim, text};
use crate::proxy::Proxy;
use crate::serve::Client;

impl Shim {
    /// Moves what has come to published ports.
    pub(super) fn pass_on(&mut self, listening: bool, moving: bool) {
        let Some(proxy) = &mut self.proxy else { return };
        if moving {
            proxy.turn();
        }
        if listening {
            proxy.accept();
        }
        proxy.sweep();
    }

    pub(super) fn ports(&mut self, client: &mut Client, from: Option<&Vec<u8>>) -> io::Result<()> {
        let from = from.and_then(|from| text(from).parse().ok()).unwrap_or(0);
        let page = self.proxy.as_ref().map(|proxy| proxy.page(from)).unwrap_or_default();
        let fields: Vec<&[u8]> =
            [b"ok".as_slice()].into_iter().chain(page.iter().map(String::as_bytes)).collect();
        client.answer(&fields, &[])
    }

    pub(super) fn publish(
        &mut self,
        client: &mut Client,
        ports: &[Vec<u8>],
        sockets: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let mut sockets: Vec<Option<OwnedFd>> = sockets.into_iter().map(Some).collect();
        if !sockets.is_empty() && sockets.len() != ports.len() {
            return client.error(libc::EINVAL, "not a socket for each port");
        }
        sockets.resize_with(ports.len(), || None);
        let done = match &mut self.proxy {
            Some(proxy) => Ok(proxy),
            none => Proxy::new().map(|proxy| none.insert(proxy)),
        };
        let done = done.and_then(|proxy| {
            ports.iter().zip(sockets).try_for_each(|(port, fd)| proxy.publish(&text(port), fd))
        });
        match done {
            Ok(()) => client.ok(""),
            Err(error) => {
                client.error(error.raw_os_error().unwrap_or(libc::EINVAL), &error.to_string())
            }
        }
    }

    pub(super) fn unpublish(&mut self, client: &mut Client, ports: &[Vec<u8>]) -> io::Result<()> {
        if let Some(proxy) = &mut self.proxy {
            ports.iter().for_each(|port| proxy.unpublish(&text(port)));
        }
        client.ok("")
    }
}
