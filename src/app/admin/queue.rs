//! The queue as operators see it: listed, shown, held, released, removed.

use super::view::{Message, State};
use super::{Done, Item, Items, Refused, Select};
use crate::mail::QueueId;
use crate::provider::{Office, bounce};
use crate::store::{Filter, Head, QueueAction, StoreError};

/// Messages read at once.
const PAGE: usize = 500;

pub(super) async fn list(
    office: &Office,
    select: &Select,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    let mut pages = Pages::new(office, select);
    while let Some(page) = pages.next().await? {
        for head in &page {
            for row in Message::rows(head, &office.board, office.world.now()) {
                items.put(Item::Message(row)).await?;
            }
        }
    }
    Ok(Done::Listed)
}

/// Pages of what is meant. `draining` is no state of the store: the board knows it.
pub(super) struct Pages<'a> {
    office: &'a Office,
    filter: Filter,
    only_draining: bool,
    after: Option<QueueId>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(office: &'a Office, select: &Select) -> Self {
        let filter = select.filter(office.world.now());
        let only_draining = select.state == Some(State::Draining);
        Self { office, filter, only_draining, after: None }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<Head>>, Refused> {
        let mut page = self.office.store.query(self.filter.clone(), self.after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.id);
        page.retain(|head| !self.only_draining || self.office.board.is_on_the_way(head.id));
        Ok(Some(page))
    }
}

pub(super) async fn show(
    office: &Office,
    id: QueueId,
    body: bool,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    let only = Filter { ids: vec![id], ..Filter::default() };
    let heads = office.store.query(only, None, 1).await?;
    let shown = heads
        .first()
        .and_then(|head| Message::new(head, &head.recipients, &office.board, office.world.now()))
        .ok_or_else(|| missing(id))?;
    if body {
        let mut reader = office.store.open_body(id, 0).await.map_err(|error| match error {
            StoreError::Missing => missing(id),
            error => error.into(),
        })?;
        loop {
            let chunk = reader.read().await?;
            if chunk.is_empty() {
                break;
            }
            items.put(Item::Body(chunk.into())).await?;
        }
    }
    Ok(Done::Message(shown))
}

fn missing(id: QueueId) -> Refused {
    Refused::new(
        format!("there is no message {id}"),
        "it may have been collected meanwhile; see `restante queue list`",
    )
}

pub(super) async fn count(office: &Office, select: &Select) -> Result<Done, Refused> {
    let mut messages = 0;
    let mut pages = Pages::new(office, select);
    while let Some(page) = pages.next().await? {
        messages += page.len() as u64;
    }
    Ok(Done::Count { messages })
}

pub(super) async fn apply(
    office: &Office,
    select: &Select,
    action: QueueAction,
) -> Result<Done, Refused> {
    if select.state != Some(State::Draining) {
        let filter = select.filter(office.world.now());
        return Ok(Done::Count { messages: office.store.apply(filter, action).await? });
    }
    let mut messages = 0;
    let mut pages = Pages::new(office, select);
    while let Some(page) = pages.next().await? {
        if page.is_empty() {
            continue;
        }
        let ids = page.iter().map(|head| head.id).collect();
        messages += office.store.apply(Filter { ids, ..pages.filter.clone() }, action).await?;
    }
    Ok(Done::Count { messages })
}

pub(super) async fn bounce(office: &Office, select: &Select) -> Result<Done, Refused> {
    if select.state == Some(State::Draining) {
        let mend = "wait for its end, or end it by suspending the customer";
        return Err(Refused::new("what is on its way cannot be returned", mend));
    }
    let filter = select.filter(office.world.now());
    let bounce::Bounced { messages, busy, untold } = bounce::bounce(office, &filter).await?;
    Ok(Done::Bounced { messages, busy, untold })
}
