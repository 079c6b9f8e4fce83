-- Packs that cannot be read any more: peers and the spool together have fewer than k of their shares. What nothing wants
-- (dead_pack) is no loss. The one definition: everything that asks whether a pack is lost asks this view.
CREATE VIEW lost_pack AS
SELECT pack.id AS pack, pack.purpose AS purpose
FROM pack
WHERE pack.held < pack.k
  AND pack.held + (
      SELECT count(*) FROM share WHERE share.pack = pack.id AND share.spooled = 1 AND share.holder IS NULL
  ) < pack.k
  AND NOT EXISTS (SELECT 1 FROM dead_pack WHERE dead_pack.pack = pack.id);
