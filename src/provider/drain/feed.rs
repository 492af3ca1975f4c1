//! The feed: which message goes next, and its octets read ahead from the store.
//!
//! Called by the drain at each step. It pages through the leased queues in their order, splits a message's
//! recipients where the server wants fewer in a transaction, and opens bodies before they are needed, but for those that
//! are at hand. What it holds is bounded by [`AHEAD_BYTES_MAX`] whatever the size of messages and queues. It decides
//! nobody's fate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use super::body::{Body, begun};
use super::seven::{SevenBit, Trouble};
use super::shares::transactions;
use crate::mail::{BodyKind, Envelope, ForwardPath, Lease, QueueId, Timestamp};
use crate::provider::mime::Obstacle;
use crate::smtp::sender::{Extensions, Outgoing, Unfit};
use crate::store::{BodyReader, Head, HeldRecipient, Position, Store, StoreError};

/// Most octets of bodies read ahead, all together; one chunk of the store may come on top, and what lies beside them in the
/// store's block of memory (`store/sled/blocks.rs`) stays until the last of it is sent.
pub(super) const AHEAD_BYTES_MAX: u64 = 128 << 10;
/// The same while bodies are at hand: what comes without waiting is read when the wire has taken what was read before.
const AT_HAND_BYTES_MAX: u64 = 64 << 10;
/// The largest chunk that a store gives, in octets.
const CHUNK_BYTES_MAX: u64 = 64 << 10;
// Otherwise a large one would never be opened.
const _: () = assert!(CHUNK_BYTES_MAX <= AT_HAND_BYTES_MAX && AT_HAND_BYTES_MAX <= AHEAD_BYTES_MAX);
/// Bodies opened ahead, half of them at once: a visit to the store costs more than a small body.
const OPEN_MAX: usize = 32;
/// Messages asked for at once; with less than half of that left it asks again.
const PAGE: usize = 64;
/// The first page is one message, so that it does not wait for the others to be looked up.
const FIRST_PAGE: usize = 1;

/// One transaction's worth of a message.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) id: QueueId,
    pub(super) outgoing: Outgoing,
    /// The store's index and the address of each recipient in the envelope.
    pub(super) recipients: Vec<(u32, ForwardPath)>,
    pub(super) arrived: Timestamp,
    /// An earlier drain offered it to all of them, and all were deferred.
    pub(super) was_deferred: bool,
    /// Octets of reading ahead that were set aside for it.
    room: u64,
    /// How many parcels its message makes.
    pub(super) parts: u32,
}

/// A parcel whose body is at hand.
pub(super) struct Laden {
    pub(super) parcel: Parcel,
    pub(super) body: Body,
}

/// A parcel, and its body or why there is none.
type Opened = (Parcel, Result<Body, Fault>);

/// What [`Feed::poll`] came upon.
pub(super) enum News {
    /// Something moved.
    Moved,
    /// A page came; it may hold messages that the drain knows already.
    Page(Vec<Head>),
    /// The server cannot take this one; and why it could not be converted, if that was tried.
    Unfit(Parcel, Unfit, Option<Obstacle>),
    /// The body cannot be read now; the others can.
    Unreadable(Parcel, StoreError),
    /// The store refuses to go on.
    Trouble(StoreError),
}

/// See the module's head.
pub(super) struct Feed {
    store: Arc<dyn Store>,
    lease: Arc<Lease>,
    page: Option<BoxFuture<'static, Result<Vec<Head>, StoreError>>>,
    page_length: usize,
    cursor: Option<Position>,
    /// The queues have been seen to their end.
    is_dry: bool,
    /// A message was handed out since it began: until then only the first page is looked up, and one opened.
    has_begun: bool,
    heads: VecDeque<Head>,
    parcels: VecDeque<Parcel>,
    opening: FuturesOrdered<BoxFuture<'static, Vec<Opened>>>,
    opened: VecDeque<Opened>,
    laden: VecDeque<Laden>,
    /// Bodies came without waiting when some were last opened with no others under way, and none had to be converted.
    is_at_hand: bool,
    /// Parcels in `opening`, `opened` and `laden`, and octets of their first chunks.
    open: usize,
    ahead: u64,
    next_tag: u64,
}

impl Feed {
    pub(super) fn new(store: Arc<dyn Store>, lease: Arc<Lease>) -> Self {
        Self {
            store,
            lease,
            page: None,
            page_length: FIRST_PAGE,
            cursor: None,
            is_dry: false,
            has_begun: false,
            heads: VecDeque::new(),
            parcels: VecDeque::new(),
            opening: FuturesOrdered::new(),
            opened: VecDeque::new(),
            laden: VecDeque::new(),
            is_at_hand: false,
            open: 0,
            ahead: 0,
            next_tag: 0,
        }
    }

    /// Whether the queues were seen to their end and everything found was handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.is_dry && self.has_nothing()
    }

    fn has_nothing(&self) -> bool {
        self.heads.is_empty() && self.parcels.is_empty() && self.open == 0
    }

    /// Starts over from the beginning of the queues.
    pub(super) fn restart(&mut self) {
        self.cursor = None;
        self.page_length = FIRST_PAGE;
        self.is_dry = false;
        self.has_begun = false;
    }

    /// Gives back the room of what was handed out.
    pub(super) fn rest(&mut self) {
        self.heads.shrink_to_fit();
        self.parcels.shrink_to_fit();
        self.opened.shrink_to_fit();
        self.laden.shrink_to_fit();
    }

    /// Gives up: nothing more is read.
    pub(super) fn stop(&mut self) {
        self.page = None;
        self.is_dry = true;
        self.heads.clear();
        self.parcels.clear();
        self.opening = FuturesOrdered::new();
        self.opened.clear();
        self.laden.clear();
        self.open = 0;
        self.ahead = 0;
    }

    /// The heads of a page that are to be sent; true if there are any.
    pub(super) fn accept(&mut self, heads: impl Iterator<Item = Head>) -> bool {
        let before = self.heads.len();
        self.heads.extend(heads);
        self.heads.len() > before
    }

    /// The size of the next parcel at hand.
    pub(super) fn next_size(&self) -> Option<u64> {
        self.laden.front().map(|laden| laden.parcel.outgoing.size)
    }

    pub(super) fn take(&mut self) -> Option<Laden> {
        let laden = self.laden.pop_front()?;
        self.has_begun = true;
        self.forget(&laden.parcel);
        Some(laden)
    }

    /// One step: at most one piece of news. `offers` is known once EHLO is through; before that only the first
    /// page is fetched.
    pub(super) fn poll(
        &mut self,
        offers: Option<&Extensions>,
        is_outbox_empty: bool,
        context: &mut Context<'_>,
    ) -> Option<News> {
        if let Some(news) = self.poll_page(context) {
            return Some(news);
        }
        let offers = offers?;
        let before = self.opening.len();
        if let Some(news) = self.open_more(offers, is_outbox_empty) {
            return Some(news);
        }
        if self.opened.is_empty() {
            let new = if before == 0 { self.opening.len() } else { 0 };
            let opened = self.opening.poll_next_unpin(context);
            if new > 0 {
                self.is_at_hand = opened.is_ready() && new == 1;
            }
            if let Poll::Ready(Some(opened)) = opened {
                self.opened = opened.into();
            }
        }
        Some(match self.opened.pop_front()? {
            (parcel, Ok(body)) => {
                self.laden.push_back(Laden { parcel, body });
                News::Moved
            }
            (parcel, Err(fault)) => {
                self.forget(&parcel);
                match fault {
                    Fault::Store(error @ StoreError::Broken(_)) => News::Trouble(error),
                    Fault::Store(error) => News::Unreadable(parcel, error),
                    Fault::Unfit(unfit, obstacle) => News::Unfit(parcel, unfit, obstacle),
                }
            }
        })
    }

    /// It is not ahead any more.
    fn forget(&mut self, parcel: &Parcel) {
        self.open -= 1;
        self.ahead -= parcel.room;
    }

    fn poll_page(&mut self, context: &mut Context<'_>) -> Option<News> {
        let wants_more = self.heads.len() < PAGE / 2 && (self.has_begun || self.has_nothing());
        if self.page.is_none() && !self.is_dry && wants_more {
            let (store, lease, after) = (self.store.clone(), self.lease.clone(), self.cursor);
            let length = self.page_length;
            self.page_length = (length * 8).min(PAGE);
            self.page = Some(async move { store.next(&lease, after, length).await }.boxed());
        }
        let page = self.page.as_mut()?;
        let Poll::Ready(answer) = page.poll_unpin(context) else { return None };
        self.page = None;
        match answer {
            Err(error) => Some(News::Trouble(error)),
            Ok(heads) => {
                self.is_dry = heads.is_empty();
                self.cursor = heads.last().map(|head| head.position).or(self.cursor);
                Some(News::Page(heads))
            }
        }
    }

    /// Splits and opens as far as the room for reading ahead goes, once half of it is free; what is at hand only when
    /// nothing waits to be written.
    fn open_more(&mut self, offers: &Extensions, is_outbox_empty: bool) -> Option<News> {
        let (ahead_max, is_enough) = if self.is_at_hand {
            (AT_HAND_BYTES_MAX, !is_outbox_empty || self.open > 0)
        } else {
            let is_enough = self.open > OPEN_MAX / 2 || self.ahead > AHEAD_BYTES_MAX / 2;
            (AHEAD_BYTES_MAX, is_enough)
        };
        if is_enough {
            return None;
        }
        let most = if self.has_begun { OPEN_MAX } else { 1 };
        let mut together = Vec::new();
        let mut news = None;
        while news.is_none() && self.open < most {
            if self.parcels.is_empty() {
                let Some(head) = self.heads.pop_front() else { break };
                self.split(head, offers);
            }
            let Some(next) = self.parcels.front() else { continue };
            let room = first_chunk(next.outgoing.size);
            if self.ahead + room > ahead_max {
                break;
            }
            let Some(mut parcel) = self.parcels.pop_front() else { break };
            parcel.room = room;
            match parcel.outgoing.check(offers) {
                Ok(()) => together.push(parcel),
                Err(Unfit::EightBitBody) => {
                    self.open_all(std::mem::take(&mut together));
                    let (store, offers) = (self.store.clone(), offers.clone());
                    self.opening.push_back(open_converted(store, parcel, offers).boxed());
                }
                Err(unfit) => {
                    news = Some(News::Unfit(parcel, unfit, None));
                    continue;
                }
            }
            self.open += 1;
            self.ahead += room;
        }
        self.open_all(together);
        news
    }

    fn open_all(&mut self, parcels: Vec<Parcel>) {
        if !parcels.is_empty() {
            self.opening.push_back(open(self.store.clone(), parcels).boxed());
        }
    }

    fn split(&mut self, mut head: Head, offers: &Extensions) {
        let shares = transactions(std::mem::take(&mut head.recipients), offers);
        let parts = u32::try_from(shares.len()).unwrap_or(u32::MAX);
        for some in shares {
            self.load(head.clone(), some, parts);
        }
    }

    /// Makes one of `parts` parcels of a message, for some of its recipients.
    fn load(&mut self, head: Head, some: Vec<HeldRecipient>, parts: u32) {
        let path = |held: &HeldRecipient| (held.index, held.recipient.forward_path.clone());
        let paths = some.iter().map(path).collect();
        let was_deferred = some.iter().all(|held| held.state.is_deferred());
        let recipients = some.into_iter().map(|held| held.recipient).collect();
        let envelope = Envelope { recipients, ..head.envelope };
        self.next_tag += 1;
        let (tag, size, facts) = (self.next_tag, head.facts.size, head.facts);
        self.parcels.push_back(Parcel {
            id: head.id,
            outgoing: Outgoing { tag, envelope, facts, size },
            recipients: paths,
            arrived: head.arrived,
            was_deferred,
            room: 0,
            parts,
        });
    }
}

const fn first_chunk(size: u64) -> u64 {
    if size < CHUNK_BYTES_MAX { size } else { CHUNK_BYTES_MAX }
}

/// Opens the bodies and reads the first chunk of each. A small message is thereby read and checked as a whole
/// before its transaction begins.
async fn open(store: Arc<dyn Store>, parcels: Vec<Parcel>) -> Vec<Opened> {
    let ids = parcels.iter().map(|parcel| parcel.id).collect();
    let mut readers = store.open_bodies(ids).await.into_iter();
    let mut opened = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        let body = match readers.next().unwrap_or(Err(StoreError::Missing)) {
            Ok(reader) => begun(reader, parcel.id, parcel.outgoing.size).await,
            Err(error) => Err(error),
        };
        opened.push((parcel, body.map_err(Fault::Store)));
    }
    opened
}

/// The same for a body that has to become 7-bit first.
async fn open_converted(
    store: Arc<dyn Store>,
    mut parcel: Parcel,
    offers: Extensions,
) -> Vec<Opened> {
    let opened = converted(&store, &mut parcel, &offers).await;
    vec![(parcel, opened)]
}

async fn converted(
    store: &Arc<dyn Store>,
    parcel: &mut Parcel,
    offers: &Extensions,
) -> Result<Body, Fault> {
    let reader = SevenBit::open(store, parcel.id).await.map_err(|trouble| match trouble {
        Trouble::Store(error) => Fault::Store(error),
        Trouble::Obstacle(obstacle) => Fault::Unfit(Unfit::EightBitBody, Some(obstacle)),
    })?;
    let size = reader.size();
    parcel.outgoing.size = size;
    parcel.outgoing.facts.has_8bit_body = false;
    parcel.outgoing.envelope.body = BodyKind::SevenBit;
    parcel.outgoing.check(offers).map_err(|unfit| Fault::Unfit(unfit, None))?;
    super::lines::converted(parcel.id);
    begun(Box::new(reader), parcel.id, size).await.map_err(Fault::Store)
}

/// Why a parcel cannot be sent.
enum Fault {
    Store(StoreError),
    Unfit(Unfit, Option<Obstacle>),
}
