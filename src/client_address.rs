//! The address that a request comes from, as far as it can be known: that of the connection or, behind a proxy that the
//! operator trusts, the one that the proxy names in `X-Forwarded-For`. It is counted against limits and identifies nobody.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// De facto standard; RFC 7239's `Forwarded` is not read, since few proxies send it and a proxy that does not know it
/// passes on what a client wrote.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// How many clients a [site](ClientAddress::site) counts for: limits are so many times as high for it.
pub const CLIENTS_OF_A_SITE: u32 = 8;

/// Most addresses of `X-Forwarded-For` that are looked at, from the right.
const MAX_HOPS: usize = 32;

/// Whom the limits count a request for: an IPv4 address or, since a client usually has all of it, the /64 of an IPv6
/// address. An extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

/// The proxies that may say for whom they forward a request.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<TrustedProxy>);

/// A network of trusted proxies, such as `10.0.0.0/8` or `192.0.2.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trusted proxy is an IP address or a network in CIDR notation, such as 10.0.0.0/8 or fd00::/8")]
pub struct TrustedProxyError;

impl ClientAddress {
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            IpAddr::V4(address) => address.into(),
        })
    }

    /// Returns the /48 of an IPv6 address: a subscriber may have that many of the networks that count as one client.
    #[must_use]
    pub fn site(self) -> Option<Self> {
        match self.0 {
            IpAddr::V6(address) => Some(Self(Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into())),
            IpAddr::V4(_) => None,
        }
    }

    /// Returns the address in a request's extensions. Requests without one are counted together.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self(Ipv4Addr::UNSPECIFIED.into()))
    }

    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

impl TrustedProxies {
    /// Returns the proxies in these networks.
    #[must_use]
    pub fn new(networks: Vec<TrustedProxy>) -> Self {
        Self(networks)
    }

    /// Whether the address is that of a trusted proxy.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|TrustedProxy(network)| network.contains(&address))
    }

    /// Returns the client of a request that came over a connection from `peer`: the rightmost address of
    /// `X-Forwarded-For` that is not a trusted proxy's. What stands to the left of it, and the whole header on a
    /// connection from anybody else, may be the client's own invention.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer;
        let hops = headers.get_all(FORWARDED_FOR).into_iter().rev();
        let mut hops = hops.flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b',')).take(MAX_HOPS);
        while self.contain(client)
            && let Some(hop) = hops.next().and_then(address)
        {
            client = hop;
        }
        ClientAddress::new(client)
    }
}

/// Reads an address, with or without a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| TrustedProxyError)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (http::HeaderName::from_static(FORWARDED_FOR), value.parse().unwrap()))
            .collect()
    }

    fn client(proxies: &TrustedProxies, peer: &str, values: &[&str]) -> String {
        proxies.client(peer.parse().unwrap(), &headers(values)).ip().to_string()
    }

    // `X-Forwarded-For` from anyone (OWASP ASVS 5.0, 4.1.3).
    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        let proxies = proxies(&["10.0.0.0/8", "fd00::/8", "192.0.2.7"]);
        for (peer, values, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("192.0.2.8", &["198.51.100.1"], "192.0.2.8"),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("192.0.2.7", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &[], "10.1.2.3"),
            // The client wrote the left part itself.
            ("10.1.2.3", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["1.1.1.1, 198.51.100.1, 10.9.9.9", "fd00::1"], "198.51.100.1"),
            // All of them are proxies.
            ("10.1.2.3", &["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            // With ports, brackets and blanks, as some proxies write them.
            ("10.1.2.3", &[" 198.51.100.1:4711 "], "198.51.100.1"),
            ("10.1.2.3", &["[2001:db8:1:2:3:4:5:6]:443"], "2001:db8:1:2::"),
            ("10.1.2.3", &["[2001:db8:1:2:3:4:5:6]"], "2001:db8:1:2::"),
            ("10.1.2.3", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // What cannot be read ends the search: nothing to the left of it is believed.
            ("10.1.2.3", &["1.1.1.1, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["1.1.1.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            ("10.1.2.3", &["1.1.1.1, "], "10.1.2.3"),
        ] {
            assert_eq!(client(&proxies, peer, values), expected, "{peer} {values:?}");
        }
        let nobody = TrustedProxies::default();
        assert_eq!(client(&nobody, "127.0.0.1", &["198.51.100.1"]), "127.0.0.1");
    }

    #[test]
    fn a_header_of_proxies_or_of_bytes_is_not_followed_forever() {
        let proxies = proxies(&["10.0.0.0/8"]);
        let many = format!("1.1.1.1{}", ", 10.0.0.1".repeat(1000));
        assert_eq!(client(&proxies, "10.1.2.3", &[&many]), "10.0.0.1");
        let mut odd = HeaderMap::new();
        odd.insert(FORWARDED_FOR, HeaderValue::from_bytes(b"1.1.1.1, \xff").unwrap());
        assert_eq!(proxies.client([10, 1, 2, 3].into(), &odd).ip().to_string(), "10.1.2.3");
    }

    #[test]
    fn a_client_has_a_whole_network_of_ipv6() {
        let address = |text: &str| ClientAddress::new(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_ne!(address("198.51.100.1"), address("198.51.100.2"));
        assert_eq!(address("::ffff:198.51.100.1"), address("198.51.100.1"));
        assert_eq!(ClientAddress::of(&Extensions::new()), address("0.0.0.0"));
        assert_eq!(address("2001:db8:1:2::3").site(), address("2001:db8:1:ffff::").site());
        assert_ne!(address("2001:db8:1:2::3").site(), address("2001:db8:2:2::3").site());
        assert_eq!(address("198.51.100.1").site(), None);
    }

    #[test]
    fn a_trusted_proxy_is_an_address_or_a_network() {
        for good in ["10.0.0.0/8", "10.1.2.3/8", "192.0.2.7", "fd00::/8", "::1"] {
            assert!(good.parse::<TrustedProxy>().is_ok(), "{good}");
        }
        for wrong in ["", "10.0.0.0/33", "proxy.example", "10.0.0.0/8,192.0.2.7", "10.*", "*"] {
            assert_eq!(wrong.parse::<TrustedProxy>(), Err(TrustedProxyError), "{wrong}");
        }
    }
}
