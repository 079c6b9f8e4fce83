-- Machines of the account that are gone for good: what only their heads lead to may be given up.
CREATE TABLE released_device (
    id BLOB PRIMARY KEY                 -- DeviceId
) STRICT, WITHOUT ROWID;
