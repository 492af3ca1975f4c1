//! A small HTTP server for health, metrics and the status page: GET and HEAD, one answer a connection.
//!
//! Started by the program on `listen.http`, which is loopback unless the operator says otherwise. It never
//! changes anything and never shows mail. What is at a path is the program's business; it comes in as a function.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_std::net::TcpListener;
use futures::future::{BoxFuture, Either, select};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::stop::Stop;

/// Longest request head in octets.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How long a whole exchange may take.
const EXCHANGE_SECONDS_MAX: u64 = 10;
/// Exchanges at once; more wait in the system's queue.
const EXCHANGES_MAX: usize = 32;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// Content-Type.
    pub kind: &'static str,
    /// The content.
    pub body: String,
}

/// What is at a path (without query).
pub type Pages = Arc<dyn Fn(String) -> BoxFuture<'static, Page> + Send + Sync>;

impl Page {
    /// A page of plain text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Accepts until the order to stop.
pub async fn serve(listener: TcpListener, pages: Pages, stop: Stop) {
    let places = Arc::new(());
    loop {
        if Arc::strong_count(&places) > EXCHANGES_MAX {
            async_std::task::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let accepted = match select(Box::pin(listener.accept()), Box::pin(stop.given())).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        let Ok((stream, _)) = accepted else {
            async_std::task::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (pages, place) = (pages.clone(), places.clone());
        async_std::task::spawn(async move {
            let limit = Duration::from_secs(EXCHANGE_SECONDS_MAX);
            let outcome = async_std::future::timeout(limit, exchange(stream, &pages)).await;
            if let Ok(Err(error)) = outcome {
                log::debug!("http: {error}");
            }
            drop(place);
        });
    }
}

/// One request, one answer.
///
/// # Errors
/// The connection's failure.
pub async fn exchange<S>(mut stream: S, pages: &Pages) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    let request = loop {
        let mut chunk = [0u8; 1024];
        let count = stream.read(&mut chunk).await?;
        head.extend_from_slice(&chunk[..count]);
        match parse(&head) {
            Parsed::Whole { is_head, path } => break Ok((is_head, path)),
            Parsed::Refused(status) => break Err(status),
            Parsed::Partial if count == 0 => return Ok(()),
            Parsed::Partial if head.len() > HEAD_BYTES_MAX => break Err(431),
            Parsed::Partial => {}
        }
    };
    let (is_head, page) = match request {
        Ok((is_head, path)) => (is_head, pages(path).await),
        Err(status) => (false, Page::text(status, "not served here\n")),
    };
    stream.write_all(render(&page, is_head).as_bytes()).await?;
    stream.close().await
}

enum Parsed {
    Partial,
    Whole { is_head: bool, path: String },
    Refused(u16),
}

fn parse(head: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(_) => Parsed::Refused(400),
        Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
            (Some(method @ ("GET" | "HEAD")), Some(target)) => {
                let path = target.split(['?', '#']).next().unwrap_or_default().to_owned();
                Parsed::Whole { is_head: method == "HEAD", path }
            }
            _ => Parsed::Refused(405),
        },
    }
}

fn render(page: &Page, is_head: bool) -> String {
    let reason = match page.status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        _ => "Error",
    };
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'self'\r\n\r\n{}",
        page.status,
        page.kind,
        page.body.len(),
        if is_head { "" } else { &page.body },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that gives `input` in small pieces and keeps what is written.
    struct Script {
        input: futures::io::Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
            place: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            let most = place.len().min(7);
            std::pin::Pin::new(&mut self.input).poll_read(context, &mut place[..most])
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            self.output.extend_from_slice(bytes);
            std::task::Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_close(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    fn ask(request: &str) -> String {
        let pages: Pages = Arc::new(|path| {
            Box::pin(async move {
                if path == "/healthz" { Page::text(200, "ok\n") } else { Page::text(404, "no\n") }
            })
        });
        let input = futures::io::Cursor::new(request.as_bytes().to_vec());
        let mut script = Script { input, output: Vec::new() };
        futures::executor::block_on(exchange(&mut script, &pages)).expect("a stream in memory");
        String::from_utf8(script.output).expect("text")
    }

    #[test]
    fn answers_by_path_and_method() {
        let good = ask("GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\r\n\r\nok\n"));
        assert!(ask("HEAD /healthz HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(ask("GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask("POST /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask("rubbish\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(ask(&format!("GET /{}", "a".repeat(9000))).starts_with("HTTP/1.1 431"));
        assert_eq!(ask("GET /healthz HTT"), "");
    }
}
