//! The port of the sign-in page.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpListener;

use super::{Check, Fix};

pub(super) async fn examine(port: u16) -> Check {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(address).await {
        Ok(_) if port == 0 => Check::ok("sign-in port", "a free port on 127.0.0.1 is available"),
        Ok(_) => Check::ok("sign-in port", format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Check::fail(
            "sign-in port",
            format!("{address} is in use"),
            Fix::advice(
                "End the program that uses it (an open sign-in page does, too), or choose another --sign-in-port.",
            ),
        ),
        Err(error) => Check::fail(
            "sign-in port",
            format!("cannot listen on {address}: {}", error.kind()),
            Fix::advice("Choose a --sign-in-port of 1024 or above, or 0 for a free one."),
        ),
    }
}
