//! The order of the queues as it stood at an orderly end, in a file of its own, so that a large store need not read all
//! its messages to know it.
//!
//! Called at an orderly end and at the next start. What is read counts only if it is to the octet what STATE says was
//! written; without it the order is made again from the messages.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::mail::{CustomerName, Domain, QueueId, Timestamp};
use crate::store::kept::Place;
use crate::store::order::{CLASSES, Order};

use super::disk::{Disk, read_whole, replace};
use super::octets::{Garbled, In, Out};

/// The file beside STATE.
const NAME: &str = "ORDER";

/// Writes the order and makes it durable; answers its checksum.
pub(crate) fn write(disk: &dyn Disk, folder: &Path, order: &Order) -> io::Result<u32> {
    let octets = encoded(order);
    let path = folder.join(NAME);
    replace(disk, &path, &octets).inspect_err(|_| {
        // A half-written one takes room and says nothing.
        let _ = disk.remove(&path.with_extension("new"));
    })?;
    Ok(crc32c::crc32c(&octets))
}

/// Reads the order with this checksum; `None` if it is not there as it was written.
pub(crate) fn read(disk: &dyn Disk, folder: &Path, crc: u32) -> Option<Order> {
    let octets = read_whole(disk, &folder.join(NAME)).ok()??;
    (crc32c::crc32c(&octets) == crc).then(|| decoded(&octets).ok())?
}

fn encoded(order: &Order) -> Vec<u8> {
    let mut out = Out::default();
    out.u64(order.rows().count() as u64);
    for (domain, owner, class, ids) in order.rows() {
        out.text(domain.as_str());
        out.text(owner.as_str());
        out.u8(class as u8);
        out.u64(ids.len() as u64);
        ids.iter().for_each(|id| out.u128(id.to_bits()));
    }
    out.u64(order.deadlines().len() as u64);
    for (time, id) in order.deadlines() {
        out.u64(time.0);
        out.u128(id.to_bits());
    }
    out.0
}

fn decoded(octets: &[u8]) -> Result<Order, Garbled> {
    let mut from = In(octets);
    let mut order = Order::default();
    for _ in 0..from.u64()? {
        let domain = Domain::parse(from.text()?).map_err(|_| Garbled)?;
        let owner = CustomerName::parse(from.text()?).map_err(|_| Garbled)?;
        let class = *CLASSES.get(usize::from(from.u8()?)).ok_or(Garbled)?;
        let ids = (0..from.u64()?).map(|_| from.u128().map(QueueId::from_bits));
        let ids = ids.collect::<Result<BTreeSet<_>, _>>()?;
        order.set_row(&Place { domain, owner, class }, ids);
    }
    let deadlines = (0..from.u64()?)
        .map(|_| Ok((Timestamp(from.u64()?), QueueId::from_bits(from.u128()?))))
        .collect::<Result<BTreeSet<_>, _>>()?;
    order.set_deadlines(deadlines);
    from.end()?;
    Ok(order)
}
