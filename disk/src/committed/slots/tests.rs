use super::*;

/// Packs of small blocks that compress have long lists of slots, which were counted, not measured.
#[test]
fn lists_of_slots_are_bounded_in_bytes() {
    let slots_max = 100_000_u32;
    let mut bytes = b"GBDISK\0\0\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&slots_max.to_le_bytes());
    bytes.resize(crate::commit::contents::HEAD_BYTES + slots_max as usize * 4, 0);
    let cache = SlotCache::new(1 << 20);
    for pack in 0..100 {
        cache.put_list(pack, Slots::decode(&bytes).unwrap());
        assert!(cache.list(pack).is_some());
    }
    let kept = (0..100).filter(|pack| cache.list(*pack).is_some()).count();
    assert!((10..40).contains(&kept), "{kept} lists of 800 kB");
}
