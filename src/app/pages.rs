//! What `listen.http` shows: `/healthz`, `/readyz`, `/metrics`, `/api/status` and the status page.
//!
//! Called by the small HTTP server for each request. It only reads the board and the store's counts; no page shows
//! an address or a subject.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::mail::{CustomerName, Domain, Timestamp};
use crate::net::http::{Page, Pages};
use crate::provider::Office;
use crate::store::{Count, Health, StoreError};

/// Domains that get metrics of their own; the others are summed up as `other`, since ten thousand label values
/// would drown the monitoring.
const DOMAINS_WITH_METRICS_MAX: usize = 200;
/// Domains on the status page.
const DOMAINS_ON_PAGE_MAX: usize = 500;

const STYLE: &str = ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;\
margin:2rem auto;max-width:70rem;padding:0 1rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .8rem;border-bottom:1px solid #8886}td.n,th.n{text-align:right;\
font-variant-numeric:tabular-nums}.bad{font-weight:bold}caption{text-align:left;font-weight:bold;\
padding:1rem 0 .3rem}";

/// The pages of this office.
#[must_use]
pub fn pages(office: Arc<Office>) -> Pages {
    Arc::new(move |path| {
        let office = office.clone();
        Box::pin(async move { page(&office, &path).await })
    })
}

async fn page(office: &Office, path: &str) -> Page {
    match path {
        "/healthz" => Page::text(200, "ok\n"),
        "/readyz" => ready(office).await,
        "/style.css" => Page { status: 200, kind: "text/css", body: STYLE.into() },
        "/" | "/metrics" => match Snapshot::take(office).await {
            Ok(snapshot) if path == "/" => {
                Page { status: 200, kind: "text/html; charset=utf-8", body: snapshot.html(office) }
            }
            Ok(snapshot) => Page {
                status: 200,
                kind: "text/plain; version=0.0.4; charset=utf-8",
                body: snapshot.metrics(office),
            },
            Err(error) => Page::text(503, format!("{error}\n")),
        },
        _ => Page::text(404, "there is /healthz, /readyz, /metrics and the page at /\n"),
    }
}

/// Whether mail can be taken: the store works and has room.
async fn ready(office: &Office) -> Page {
    let least = office.policy().disk_free_min;
    match office.health().await {
        Ok(Health { broken: Some(why), .. }) => Page::text(503, format!("store broken: {why}\n")),
        Ok(Health { free_bytes: Some(free), .. }) if free < least => {
            Page::text(503, format!("disk: {free} bytes free, disk_free_min is {least}\n"))
        }
        Ok(_) => Page::text(200, "ready\n"),
        Err(error) => Page::text(503, format!("{error}\n")),
    }
}

/// All that the pages show, taken at one moment.
struct Snapshot {
    now: Timestamp,
    queues: Vec<(Domain, CustomerName, Count)>,
    total: Count,
    health: Health,
}

impl Snapshot {
    async fn take(office: &Office) -> Result<Self, StoreError> {
        let mut queues = Vec::new();
        let mut after = None;
        loop {
            let part = office.store.queues(after, 1000).await?;
            after = part.last().map(|(domain, ..)| domain.clone());
            let is_last = part.len() < 1000;
            queues.extend(part);
            if is_last {
                break;
            }
        }
        let total = queues.iter().fold(Count::default(), |sum, (_, _, count)| add(sum, count));
        queues.sort_by_key(|(_, _, count)| std::cmp::Reverse(count.messages));
        Ok(Self { now: office.world.now(), queues, total, health: office.health().await? })
    }

    fn age(&self, count: &Count) -> u64 {
        count.oldest.map_or(0, |oldest| self.now.since(oldest).0)
    }

    fn metrics(&self, office: &Office) -> String {
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, rows: &[(String, u64)]| {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let _ = writeln!(text, "# HELP restante_{name} {help}\n# TYPE restante_{name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(text, "restante_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| vec![(String::new(), value)];
        gauge("queue_messages", "Messages waiting, all queues.", &plain(self.total.messages));
        gauge("queue_bytes", "Octets waiting, all queues.", &plain(self.total.bytes));
        gauge("queue_failed", "Messages refused for good, all queues.", &plain(self.total.failed));
        gauge("queue_oldest_seconds", "Age of the oldest message.", &plain(self.age(&self.total)));
        let (named, rest) = self.queues.split_at(self.queues.len().min(DOMAINS_WITH_METRICS_MAX));
        let other = rest.iter().fold(Count::default(), |sum, (_, _, count)| add(sum, count));
        let by_domain = |pick: &dyn Fn(&Count) -> u64| -> Vec<(String, u64)> {
            let own = named.iter().map(|(d, _, c)| (format!("{{domain=\"{d}\"}}"), pick(c)));
            own.chain([("{domain=\"other\"}".to_owned(), pick(&other))]).collect()
        };
        gauge("domain_messages", "Messages waiting by domain.", &by_domain(&|c| c.messages));
        gauge("domain_bytes", "Octets waiting by domain.", &by_domain(&|c| c.bytes));
        gauge(
            "domain_oldest_seconds",
            "Age of the oldest by domain.",
            &by_domain(&|c| self.age(c)),
        );
        let sessions = office.board.sessions();
        let kinds = [("mx", sessions.mx), ("odmr", sessions.odmr), ("drain", sessions.drains)];
        gauge("sessions", "Sessions now.", &kinds.map(|(k, n)| (format!("{{kind=\"{k}\"}}"), n)));
        for (name, help, value) in office.board.tally() {
            gauge(name, help, &plain(value));
        }
        gauge("store_live_bytes", "Octets of live mail.", &plain(self.health.live_bytes));
        gauge("store_disk_bytes", "Octets on disk.", &plain(self.health.disk_bytes));
        gauge("store_damage", "Damaged records found.", &plain(self.health.damage.len() as u64));
        gauge("store_sync_microseconds", "Last commit's syncs.", &plain(self.health.sync_micros));
        if let Some(free) = self.health.free_bytes {
            gauge("store_free_bytes", "Octets free on the disk.", &plain(free));
        }
        let version = vec![(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1)];
        gauge("build_info", "The program's version.", &version);
        text
    }

    fn html(&self, office: &Office) -> String {
        let policy = office.policy();
        let mut rows = String::new();
        for (domain, customer, count) in self.queues.iter().take(DOMAINS_ON_PAGE_MAX) {
            let _ = write!(
                rows,
                "<tr><td>{domain}<td>{customer}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
                count.messages,
                count.bytes,
                self.age(count),
                count.failed
            );
        }
        let mut drains = String::new();
        for drain in office.board.last_drains() {
            let _ = write!(
                drains,
                "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td>{}",
                drain.customer,
                drain.started.rfc3339(),
                drain.messages,
                drain.bytes,
                escape(&drain.ended)
            );
        }
        let sessions = office.board.sessions();
        let broken = self.health.broken.as_deref().map_or_else(String::new, |why| {
            format!("<p class=bad>The store is broken: {}", escape(why))
        });
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport \
             content=\"width=device-width\"><title>{host}: Restante</title><link rel=stylesheet \
             href=style.css><h1>{host}</h1>{broken}<p>{messages} messages, {bytes} octets waiting; \
             sessions: {mx} intake, {odmr} customers, {draining} drains.<table><caption>Queues</caption>\
             <tr><th>domain<th>customer<th class=n>messages<th class=n>octets<th class=n>oldest, s\
             <th class=n>failed{rows}</table><table><caption>Last drains</caption><tr><th>customer\
             <th>started<th class=n>messages<th class=n>octets<th>ended{drains}</table></html>",
            host = policy.hostname,
            messages = self.total.messages,
            bytes = self.total.bytes,
            mx = sessions.mx,
            odmr = sessions.odmr,
            draining = sessions.drains,
        )
    }
}

fn add(sum: Count, more: &Count) -> Count {
    let oldest = [sum.oldest, more.oldest].into_iter().flatten().min();
    Count {
        messages: sum.messages + more.messages,
        bytes: sum.bytes + more.bytes,
        ready: sum.ready + more.ready,
        failed: sum.failed + more.failed,
        oldest,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
