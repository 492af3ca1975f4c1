//! The PROXY protocol, version 2: a load balancer says who the client behind it is.
//!
//! Called by the listeners for connections from `listen.proxy_from`, and only for those; from anybody else the same octets
//! are an unknown command. Exactly the header is read, not an octet more. A header that cannot be understood ends
//! the connection: going on would mean to believe the wrong address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures::io::{AsyncRead, AsyncReadExt};

/// The first octets of every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Octets up to and with the length.
const HEAD_BYTES: usize = 16;
/// Longest rest that is read: addresses and the extensions behind them.
const REST_BYTES_MAX: usize = 4096;

/// Reads the header and gives the client's address, or `None` where the balancer speaks for itself.
///
/// # Errors
/// The connection's failure, or octets that are no such header.
pub async fn client(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if head[..12] != SIGNATURE || head[12] >> 4 != 2 || length > REST_BYTES_MAX {
        return Err(no_header());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (head[12] & 0x0f, head[13]) {
        // LOCAL: a health check of the balancer itself.
        (0, _) => Ok(None),
        (1, family) => address(family, &rest).map(Some).ok_or_else(no_header),
        _ => Err(no_header()),
    }
}

/// The source address; only TCP over IPv4 and IPv6 can be a client of ours.
fn address(family: u8, rest: &[u8]) -> Option<SocketAddr> {
    match family {
        0x11 => {
            let block: [u8; 12] = rest.get(..12)?.try_into().ok()?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = block;
            let ip = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
            Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
        }
        0x21 => {
            let source: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            let port: [u8; 2] = rest.get(32..34)?.try_into().ok()?;
            rest.get(34..36)?;
            let ip = IpAddr::V6(Ipv6Addr::from(source));
            Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
        }
        _ => None,
    }
}

fn no_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header of version 2")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, rest].concat()
    }

    fn read(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let mut stream = bytes;
        let outcome = futures::executor::block_on(client(&mut stream));
        (outcome, stream.to_vec())
    }

    #[test]
    fn the_client_is_who_the_header_says_and_nothing_behind_it_is_read() {
        let four = [203, 0, 113, 77, 192, 0, 2, 1, 0x30, 0x39, 0, 25];
        let (outcome, rest) = read(&[header(1, 0x11, &four), b"EHLO x\r\n".to_vec()].concat());
        assert_eq!(outcome.expect("a header"), Some("203.0.113.77:12345".parse().expect("valid")));
        assert_eq!(rest, b"EHLO x\r\n");
        let mut six = [0u8; 36 + 5];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().expect("valid").octets());
        six[33] = 80;
        let (outcome, _) = read(&header(1, 0x21, &six));
        assert_eq!(outcome.expect("a header"), Some("[2001:db8::7]:80".parse().expect("valid")));
        assert_eq!(read(&header(0, 0, &[])).0.expect("a header"), None);
    }

    #[test]
    fn anything_else_ends_the_connection() {
        let long = header(1, 0x11, &[0; REST_BYTES_MAX + 1]);
        for bytes in [
            &b"PROXY TCP4 203.0.113.77 192.0.2.1 1 25\r\n"[..],
            b"EHLO somebody.example\r\n",
            &header(1, 0x11, &[1; 11]),
            &header(1, 0x21, &[1; 35]),
            &header(1, 0x31, &[0; 216]),
            &header(1, 0x12, &[0; 12]),
            &header(2, 0x11, &[0; 12]),
            &long,
            &SIGNATURE,
        ] {
            assert!(read(bytes).0.is_err(), "{bytes:?}");
        }
    }
}
