//! Answers to options (proto.md, "Fixed newstyle negotiation", "Option types"): what was agreed on so far, and the bytes of a reply.
//!
//! Knows no sockets. TLS would begin here: `NBD_OPT_STARTTLS` answered with an acknowledgement, everything agreed on forgotten, and
//! every other option refused until then ("FORCEDTLS mode"); until then it is an unknown option ("NOTLS mode").

use crate::nbd::exports::{EXPORT_BYTES_MAX, Export, Exports};
use crate::nbd::option::{About, Ask, Contexts, Unreadable};
use crate::nbd::request::Terms;
use crate::nbd::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, BLOCK_BYTES_MIN, BLOCK_BYTES_PREFERRED, FLAG_C_FIXED_NEWSTYLE,
    FLAG_C_NO_ZEROES, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, IHAVEOPT, INIT_PASSWD, PAYLOAD_BYTES_TOLD, REPLY_MAGIC,
    STRING_BYTES_MAX, can, info, opt, rep,
};

/// Zeros after the answer to `NBD_OPT_EXPORT_NAME`, unless the client does without.
const RESERVED_ZEROES: usize = 124;

/// What was agreed on with a client.
#[derive(Debug)]
pub struct Negotiation {
    knows_options: bool,
    wants_zeroes: bool,
    is_structured: bool,
    /// The name with which `base:allocation` was chosen last.
    allocation_of: Option<String>,
}

/// An export that a client wants to enter.
pub struct Choice {
    /// The export.
    pub export: Export,
    /// The name it was asked for by.
    name: String,
    /// What `NBD_OPT_GO` asks about it; nothing with `NBD_OPT_EXPORT_NAME`.
    infos: Option<Vec<u16>>,
}

/// What follows an option.
pub enum Next {
    /// The next one.
    Option,
    /// The transmission phase, if the export lets the client in: then [`Negotiation::enter`], else [`Negotiation::refuse`].
    Enter(Choice),
    /// The end.
    End,
}

/// The first bytes of the server ("Newstyle negotiation").
pub fn greeting() -> Vec<u8> {
    let flags = FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES;
    [
        &INIT_PASSWD.to_be_bytes()[..],
        &IHAVEOPT.to_be_bytes(),
        &flags.to_be_bytes(),
    ]
    .concat()
}

impl Negotiation {
    /// With what the client's flags say; `None` if they say what is not known: "the server MUST drop the TCP connection".
    pub fn new(client_flags: u32) -> Option<Self> {
        if client_flags & !(FLAG_C_FIXED_NEWSTYLE | FLAG_C_NO_ZEROES) != 0 {
            return None;
        }
        Some(Self {
            knows_options: client_flags & FLAG_C_FIXED_NEWSTYLE != 0,
            wants_zeroes: client_flags & FLAG_C_NO_ZEROES == 0,
            is_structured: false,
            allocation_of: None,
        })
    }

    /// Answers an option, into `out`.
    pub fn answer(
        &mut self,
        option: u32,
        ask: Result<Ask, Unreadable>,
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Next {
        if option == opt::SET_META_CONTEXT {
            // "Issuing this command replaces all previously-set metadata contexts (including when this command fails)".
            self.allocation_of = None;
        }
        // Before fixed newstyle there was this option alone, and none that could be answered with an error.
        if !self.knows_options && option != opt::EXPORT_NAME {
            return Next::End;
        }
        match ask {
            Ok(Ask::ExportName(name)) => match find(exports, &name) {
                Ok(export) => {
                    let infos = None;
                    return Next::Enter(Choice { export, name, infos });
                }
                Err(_) => return Next::End,
            },
            Err(_) if option == opt::EXPORT_NAME => return Next::End,
            Err(error) => put_error(out, option, error.into(), &error.to_string()),
            Ok(Ask::Abort) => {
                put(out, option, rep::ACK, &[]);
                return Next::End;
            }
            Ok(Ask::List) => {
                // Tools that look at each of them take one that is refused for a failure.
                let is_told = |name: &&String| name.len() <= STRING_BYTES_MAX && find(exports, name).is_ok();
                for name in exports.names().iter().filter(is_told) {
                    put(
                        out,
                        option,
                        rep::SERVER,
                        &[&(name.len() as u32).to_be_bytes(), name.as_bytes()],
                    );
                }
                put(out, option, rep::ACK, &[]);
            }
            Ok(Ask::Info(about)) => match find(exports, &about.name) {
                Ok(export) => self.put_infos(out, option, &export, &about.infos),
                Err((error, why)) => put_error(out, option, error, why),
            },
            Ok(Ask::Go(About { name, infos })) => match find(exports, &name) {
                Ok(export) => {
                    let infos = Some(infos);
                    return Next::Enter(Choice { export, name, infos });
                }
                Err((error, why)) => put_error(out, option, error, why),
            },
            Ok(Ask::StructuredReply) => {
                self.is_structured = true;
                put(out, option, rep::ACK, &[]);
            }
            Ok(Ask::ListMetaContext(contexts) | Ask::SetMetaContext(contexts)) => {
                self.answer_contexts(option, contexts, exports, out);
            }
        }
        Next::Option
    }

    fn answer_contexts(&mut self, option: u32, contexts: Contexts, exports: &dyn Exports, out: &mut Vec<u8>) {
        if !self.is_structured {
            return put_error(out, option, rep::ERR_INVALID, "Structured replies come first");
        }
        if let Err((error, why)) = find(exports, &contexts.name) {
            return put_error(out, option, error, why);
        }
        let has = |wanted: &str| contexts.queries.iter().any(|query| query == wanted.as_bytes());
        let is_set = option == opt::SET_META_CONTEXT;
        // "`base:` - the server MUST ignore this form during SET, and MUST support this as a wildcard during LIST".
        let is_listed = contexts.queries.is_empty() || has("base:");
        if has(BASE_ALLOCATION) || (!is_set && is_listed) {
            let id = if is_set { BASE_ALLOCATION_ID } else { 0 };
            put(
                out,
                option,
                rep::META_CONTEXT,
                &[&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()],
            );
            if is_set {
                self.allocation_of = Some(contexts.name);
            }
        }
        put(out, option, rep::ACK, &[]);
    }

    fn put_infos(&self, out: &mut Vec<u8>, option: u32, export: &Export, infos: &[u16]) {
        let device = &export.device;
        let flags = self.flags(device.is_read_only());
        let size = device.size().to_be_bytes();
        put(
            out,
            option,
            rep::INFO,
            &[&info::EXPORT.to_be_bytes(), &size, &flags.to_be_bytes()],
        );
        if infos.contains(&info::NAME) {
            put(
                out,
                option,
                rep::INFO,
                &[&info::NAME.to_be_bytes(), export.name.as_bytes()],
            );
        }
        if infos.contains(&info::DESCRIPTION) && !export.description.is_empty() {
            let text = export.description.as_bytes();
            put(out, option, rep::INFO, &[&info::DESCRIPTION.to_be_bytes(), text]);
        }
        if infos.contains(&info::BLOCK_SIZE) {
            let sizes = [BLOCK_BYTES_MIN, BLOCK_BYTES_PREFERRED, PAYLOAD_BYTES_TOLD].map(u32::to_be_bytes);
            put(
                out,
                option,
                rep::INFO,
                &[&info::BLOCK_SIZE.to_be_bytes(), sizes.as_flattened()],
            );
        }
        put(out, option, rep::ACK, &[]);
    }

    /// "Transmission flags".
    fn flags(&self, is_read_only: bool) -> u16 {
        let reads = can::HAS_FLAGS | can::SEND_FLUSH | can::MULTI_CONN | can::SEND_CACHE;
        let structured = if self.is_structured { can::SEND_DF } else { 0 };
        let writes = can::SEND_FUA | can::SEND_TRIM | can::SEND_WRITE_ZEROES | can::SEND_FAST_ZERO;
        reads | structured | if is_read_only { can::READ_ONLY } else { writes }
    }

    /// The bytes that let a client in, and what holds from then on.
    pub fn enter(&self, choice: &Choice, out: &mut Vec<u8>) -> Terms {
        let device = &choice.export.device;
        let terms = Terms {
            size: device.size(),
            is_read_only: device.is_read_only(),
            is_structured: self.is_structured,
            has_allocation: self.allocation_of.as_ref() == Some(&choice.name),
        };
        match &choice.infos {
            Some(infos) => self.put_infos(out, opt::GO, &choice.export, infos),
            None => {
                out.extend(terms.size.to_be_bytes());
                out.extend(self.flags(terms.is_read_only).to_be_bytes());
                let zeroes = if self.wants_zeroes { RESERVED_ZEROES } else { 0 };
                out.resize(out.len() + zeroes, 0);
            }
        }
        terms
    }

    /// The bytes that keep a client out, if there is a way to say so; without one the connection ends.
    pub fn refuse(&self, choice: &Choice, why: &str, out: &mut Vec<u8>) -> Next {
        if choice.infos.is_none() {
            return Next::End;
        }
        put_error(out, opt::GO, rep::ERR_POLICY, why);
        Next::Option
    }

    /// The bytes that say that no option is answered any more.
    pub fn shut_down(&self, option: u32, out: &mut Vec<u8>) {
        put_error(out, option, rep::ERR_SHUTDOWN, "The server stops");
    }
}

impl From<Unreadable> for u32 {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Unsupported => rep::ERR_UNSUP,
            Unreadable::Invalid => rep::ERR_INVALID,
            Unreadable::TooBig => rep::ERR_TOO_BIG,
        }
    }
}

/// The export of this name, or the type and the words of an error.
fn find(exports: &dyn Exports, name: &str) -> Result<Export, (u32, &'static str)> {
    let export = exports
        .find(name)
        .ok_or((rep::ERR_UNKNOWN, "There is no disk of this name"))?;
    if export.device.size() > EXPORT_BYTES_MAX {
        return Err((rep::ERR_POLICY, "The disk is too large for clients"));
    }
    Ok(export)
}

fn put(out: &mut Vec<u8>, option: u32, reply: u32, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend(REPLY_MAGIC.to_be_bytes());
    out.extend([option, reply, length as u32].map(u32::to_be_bytes).as_flattened());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn put_error(out: &mut Vec<u8>, option: u32, error: u32, why: &str) {
    put(out, option, error, &[why.as_bytes()]);
}
