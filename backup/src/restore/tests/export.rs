//! What an archive leaves out.

use super::*;
use crate::archive::Tar;

#[test]
fn what_waits_or_has_no_place_is_left_out_under_all_its_names() {
    let grid = Grid::new();
    let mut backup = one_of_everything(&grid);
    for name in [&b"waiting 1"[..], b"waiting 2"] {
        let entry = backup.entry(name, EntryKind::File, 9, Content::Version(VersionId(99)));
        (entry.meta.links, entry.meta.inode) = (2, 5);
    }
    for name in [&b"socket 1"[..], b"socket 2"] {
        let entry = backup.entry(name, EntryKind::Socket, 0, Content::None);
        (entry.meta.links, entry.meta.inode) = (2, 6);
    }
    grid.post(&backup, 1);
    let mut archive = Vec::new();
    let exported = grid.recovered().export(1, None, &mut Tar::new(&mut archive)).unwrap();
    assert_eq!(exported.without_place, 3);
    assert_eq!(exported.waiting, [&b"src/waiting 1"[..], b"src/waiting 2"]);
    let names = |name: &[u8]| archive.windows(name.len()).filter(|part| *part == name).count();
    assert_eq!((names(b"waiting"), names(b"socket")), (0, 0));
    assert_eq!(names(b"src/big"), 2, "itself, and where its other name leads");
}
