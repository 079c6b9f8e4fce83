//! Where data and holes begin: `SEEK_DATA` and `SEEK_HOLE` (lseek(2)).

use disk::{Device, DeviceError, ExtentKind};

/// Bytes that are looked at first, and at most at once: near ones are cheap, and a map of many small extents is not in memory whole.
const WINDOW_BYTES_MIN: u64 = 1 << 20;
const WINDOW_BYTES_MAX: u64 = 1 << 30;

/// Where the first byte of a kind is from `offset` on; none up to the end.
pub(super) fn find(device: &dyn Device, offset: u64, kind: ExtentKind) -> Result<Option<u64>, DeviceError> {
    let (mut at, mut window) = (offset, WINDOW_BYTES_MIN);
    while at < device.size() {
        let end = device.size().min(at + window);
        for extent in device.extents(at, end - at)? {
            if extent.kind == kind {
                return Ok(Some(at));
            }
            at += extent.length;
        }
        // A device that tells less than all must not keep us here.
        at = at.max(end);
        window = WINDOW_BYTES_MAX.min(window * 2);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use disk::Change;
    use disk::testing::MemoryDevice;

    use super::*;

    #[test]
    fn data_and_holes_are_found_however_far_they_are() {
        const TIB: u64 = 1 << 40;
        let device = MemoryDevice::new(TIB);
        let find = |offset, kind| find(&device, offset, kind).unwrap();
        assert_eq!(find(0, ExtentKind::Data), None);
        assert_eq!(find(7, ExtentKind::Zero), Some(7));
        let (near, far) = (5 << 20, TIB - 8192);
        for (offset, length) in [(near, 3 << 20), (far, 4096)] {
            let data = vec![1; length];
            device.apply(&[Change::Write { offset, data: &data }]).unwrap();
        }
        assert_eq!(find(0, ExtentKind::Data), Some(near));
        assert_eq!(find(near + 1, ExtentKind::Data), Some(near + 1));
        assert_eq!(find(near, ExtentKind::Zero), Some(near + (3 << 20)));
        assert_eq!(find(near + (3 << 20), ExtentKind::Data), Some(far));
        assert_eq!(find(far, ExtentKind::Zero), Some(far + 4096));
        assert_eq!(find(far + 4096, ExtentKind::Data), None);
        assert_eq!(find(TIB, ExtentKind::Zero), None);
    }
}
