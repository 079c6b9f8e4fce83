//! POSIX ACLs as text, which is how tar keeps them: `user::rw-,user:12345:r--,group::r--,mask::r--,other::---`.

/// Version of the kernel's form (`POSIX_ACL_XATTR_VERSION` in linux/posix_acl_xattr.h), and bytes of one of its entries.
const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;

/// The text of an ACL as the kernel keeps it (`system.posix_acl_access`); `None` if it is none. Ids stay numbers: names
/// may mean somebody else where it is unpacked.
pub(super) fn text(kernel: &[u8]) -> Option<String> {
    let (version, entries) = kernel.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || !entries.len().is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    let lines: Option<Vec<String>> = entries.chunks_exact(ENTRY_BYTES).map(line).collect();
    lines.map(|lines| lines.join(","))
}

fn line(entry: &[u8]) -> Option<String> {
    let (tag, rest) = entry.split_first_chunk::<2>()?;
    let (bits, id) = rest.split_first_chunk::<2>()?;
    let id = u32::from_le_bytes(id.try_into().ok()?);
    let who = match u16::from_le_bytes(*tag) {
        0x01 => "user:".to_owned(),
        0x02 => format!("user:{id}"),
        0x04 => "group:".to_owned(),
        0x08 => format!("group:{id}"),
        0x10 => "mask:".to_owned(),
        0x20 => "other:".to_owned(),
        _ => return None,
    };
    let bits = u16::from_le_bytes(*bits);
    let letter = |bit, letter| if bits & bit == 0 { '-' } else { letter };
    Some(format!("{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_said_as_getfacl_says_it_and_nonsense_is_not() {
        let acl = b"\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x05\x00\x39\x30\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x08\x00\x07\x00\x05\x00\x00\x00\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff";
        let said = "user::rw-,user:12345:r-x,group::r--,group:5:rwx,mask::r--,other::---";
        assert_eq!(text(acl).as_deref(), Some(said));
        assert_eq!(text(&acl[..acl.len() - 1]), None);
        assert_eq!(text(b"\x03\x00\x00\x00"), None);
        assert_eq!(text(b"\x02\x00\x00\x00\x03\x00\x06\x00\xff\xff\xff\xff"), None);
        assert_eq!(text(b""), None);
    }
}
