//! Answers to READ and BLOCK_STATUS (proto.md, "`NBD_CMD_READ`", "`NBD_CMD_BLOCK_STATUS`").
//!
//! A read of what is here, and not too long, is put into bytes at once. Any other becomes a task that sends piece after piece, so that
//! no reply has to be held in memory whole.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::device::{Device, DeviceError, Extent, ExtentKind};
use crate::nbd::outbox::{Cut, Outbox, UNCUT_BYTES_MAX};
use crate::nbd::reply::{
    DATA_HEAD_BYTES, Failed, SIMPLE_HEAD_BYTES, data_head, put_block_status, put_done, put_end, put_failed, put_hole,
    simple_head,
};
use crate::nbd::request::{Errno, Request};
use crate::nbd::wire::STATE_HOLE_ZERO;

/// From this length on holes are looked up instead of read: looking up costs about as much as reading 64 KiB of zeros.
const LOOKED_UP_BYTES: u64 = 64 << 10;
/// Most parts that a read is answered in, so that small holes do not cost more than their zeros.
const PARTS_MAX: usize = 32;
/// Bytes whose extents are asked for at once, and most extents in a reply (proto.md allows 2^20): the client asks on from there.
const STATUS_BYTES: u64 = 256 << 20;
const STATUS_EXTENTS_MAX: usize = 1 << 16;

/// How a read is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// One head, then the bytes.
    Simple,
    /// One chunk of data (the flag DF).
    Whole,
    /// Chunks of data and holes.
    Chunks,
}

/// Part of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    offset: u64,
    length: usize,
    is_hole: bool,
}

/// Puts the reply to a read into `out`, or returns what sends it later.
pub fn read(
    outbox: &Arc<Outbox>,
    request: &Request,
    is_whole: bool,
    out: &mut Vec<u8>,
) -> Option<BoxFuture<'static, Result<(), Cut>>> {
    let form = match (outbox.terms.is_structured, is_whole) {
        (false, _) => Form::Simple,
        (true, true) => Form::Whole,
        (true, false) => Form::Chunks,
    };
    let (length, cookie) = (request.length as usize, request.cookie);
    if length == 0 {
        let put = if form == Form::Simple { put_done } else { put_end };
        put(out, cookie);
        return None;
    }
    if form == Form::Whole && length > UNCUT_BYTES_MAX {
        // "A server MAY reject a client's request with the error NBD_EOVERFLOW if the length is too large to send without
        // fragmentation".
        put_failed(out, cookie, &Failed::from(Errno::Overflow), true);
        return None;
    }
    let parts = match parts(&*outbox.device, request, form) {
        Ok(parts) => parts,
        Err(error) => {
            put_failed(out, cookie, &Failed::from(&error), form != Form::Simple);
            return None;
        }
    };
    let start = out.len();
    if length <= UNCUT_BYTES_MAX {
        match put_now(&*outbox.device, cookie, form, &parts, out) {
            Ok(true) => return None,
            Ok(false) => out.truncate(start),
            Err(error) => {
                out.truncate(start);
                put_failed(out, cookie, &Failed::from(&error), form != Form::Simple);
                return None;
            }
        }
    }
    Some(match form {
        Form::Simple => Box::pin(read_simple(outbox.clone(), *request, parts)),
        Form::Whole | Form::Chunks => Box::pin(read_chunks(outbox.clone(), *request, parts)),
    })
}

/// What a read is answered in: none longer than [`UNCUT_BYTES_MAX`].
fn parts(device: &dyn Device, request: &Request, form: Form) -> Result<Vec<Part>, DeviceError> {
    let length = u64::from(request.length);
    let mut kinds = vec![Extent {
        length,
        kind: ExtentKind::Data,
    }];
    if form == Form::Chunks && length >= LOOKED_UP_BYTES {
        let extents = device.extents(request.offset, length)?;
        if extents.len() <= PARTS_MAX {
            kinds = extents;
        }
    }
    let (mut parts, mut offset) = (Vec::with_capacity(kinds.len()), request.offset);
    for Extent { length, kind } in kinds {
        let is_hole = kind == ExtentKind::Zero;
        let end = offset + length;
        while offset < end {
            // A hole is as short as any other, whatever its length.
            let most = if is_hole {
                u64::from(u32::MAX)
            } else {
                UNCUT_BYTES_MAX as u64
            };
            let length = (end - offset).min(most) as usize;
            parts.push(Part {
                offset,
                length,
                is_hole,
            });
            offset += length as u64;
        }
    }
    Ok(parts)
}

/// Puts all parts; false if one of them has to be fetched.
fn put_now(
    device: &dyn Device,
    cookie: u64,
    form: Form,
    parts: &[Part],
    out: &mut Vec<u8>,
) -> Result<bool, DeviceError> {
    for (at, part) in parts.iter().enumerate() {
        let Part {
            offset,
            length,
            is_hole,
        } = *part;
        let is_last = at + 1 == parts.len();
        if is_hole {
            put_hole(out, cookie, offset, length as u32, is_last);
            continue;
        }
        let start = out.len();
        let head = match form {
            Form::Simple => SIMPLE_HEAD_BYTES,
            Form::Whole | Form::Chunks => DATA_HEAD_BYTES,
        };
        out.resize(start + head + length, 0);
        let (head, data) = out[start..].split_at_mut(head);
        if !device.read_now(offset, data)? {
            return Ok(false);
        }
        match form {
            Form::Simple => head.copy_from_slice(&simple_head(cookie, 0)),
            Form::Chunks if (data.len() as u64) < LOOKED_UP_BYTES && is_zero(data) => {
                out.truncate(start);
                put_hole(out, cookie, offset, length as u32, is_last);
            }
            Form::Whole | Form::Chunks => head.copy_from_slice(&data_head(cookie, offset, length, is_last)),
        }
    }
    Ok(true)
}

/// Sends chunk after chunk, waiting for what has to be fetched and for the client to take it. Other replies go out in between.
async fn read_chunks(outbox: Arc<Outbox>, request: Request, parts: Vec<Part>) -> Result<(), Cut> {
    let (cookie, count) = (request.cookie, parts.len());
    for (at, part) in parts.into_iter().enumerate() {
        let is_last = at + 1 == count;
        let Part {
            offset,
            length,
            is_hole,
        } = part;
        let mut out = Vec::new();
        if is_hole {
            put_hole(&mut out, cookie, offset, length as u32, is_last);
            outbox.send(&[&out]).await?;
            continue;
        }
        // Held until the client has the bytes. Never closed, and a part is no longer than all the room.
        let _room = outbox.reply_room.acquire_many(length as u32).await;
        match outbox.device.read(offset, length).await {
            Ok(data) if data.len() == length => {
                let head = data_head(cookie, offset, length, is_last);
                outbox.send(&[&head, &data]).await?;
            }
            Ok(_) => return Err(Cut),
            Err(error) => {
                put_failed(&mut out, cookie, &Failed::from(&error), true);
                return outbox.send(&[&out]).await;
            }
        }
    }
    Ok(())
}

/// Sends a simple reply, whose bytes nothing may come between: the other replies wait.
async fn read_simple(outbox: Arc<Outbox>, request: Request, parts: Vec<Part>) -> Result<(), Cut> {
    // Never closed, and no longer than all the room.
    let _room = outbox.reply_room.acquire_many(UNCUT_BYTES_MAX as u32).await;
    let mut turn = None;
    for part in parts {
        let data = match outbox.device.read(part.offset, part.length).await {
            Ok(data) if data.len() == part.length => data,
            Err(error) if turn.is_none() => {
                let mut out = Vec::new();
                put_failed(&mut out, request.cookie, &Failed::from(&error), false);
                return outbox.send(&[&out]).await;
            }
            // A simple reply that has begun cannot say that it failed: "the server MUST immediately initiate a hard disconnect".
            Ok(_) | Err(_) => return Err(Cut),
        };
        let turn = match &mut turn {
            Some(turn) => turn,
            None => {
                let turn = turn.insert(outbox.turn().await);
                turn.send(&[&simple_head(request.cookie, 0)]).await?;
                turn
            }
        };
        turn.send(&[&data]).await?;
    }
    Ok(())
}

fn is_zero(data: &[u8]) -> bool {
    // Most data end it at the first few bytes.
    let (first, rest) = data.split_at(data.len().min(64));
    first.iter().all(|byte| *byte == 0)
        && rest
            .chunks(256)
            .all(|chunk| chunk.iter().fold(0, |or, byte| or | byte) == 0)
}

/// Puts the reply to a block status into `out`.
pub fn block_status(
    device: &dyn Device,
    request: &Request,
    is_one: bool,
    out: &mut Vec<u8>,
) -> Result<(), DeviceError> {
    let (mut offset, end) = (request.offset, request.offset + u64::from(request.length));
    let mut told: Vec<(u32, u32)> = Vec::new();
    'all: while offset < end && told.len() < STATUS_EXTENTS_MAX {
        let window = (end - offset).min(STATUS_BYTES);
        let mut rest = window;
        for extent in device.extents(offset, window)? {
            // All lengths together are no more than the request's, which has 32 bits.
            let length = extent.length.min(rest) as u32;
            rest -= u64::from(length);
            let state = if extent.kind == ExtentKind::Zero {
                STATE_HOLE_ZERO
            } else {
                0
            };
            match told.last_mut() {
                Some(last) if last.1 == state => last.0 += length,
                Some(_) if is_one => break 'all,
                _ => told.push((length, state)),
            }
        }
        offset += window;
    }
    put_block_status(out, request.cookie, &told);
    Ok(())
}
