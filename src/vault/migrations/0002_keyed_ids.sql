-- An owner can be an e-mail address, so records and leases are found by a keyed hash of owner and origin. The code,
-- which has the key, moves the old records and drops their table.
ALTER TABLE records RENAME TO records_by_owner;

CREATE TABLE records (
    id      BLOB    NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed  BLOB    NOT NULL
) STRICT;

DROP TABLE leases;

CREATE TABLE leases (
    id     BLOB    NOT NULL PRIMARY KEY,
    holder TEXT    NOT NULL,
    until  INTEGER NOT NULL -- milliseconds since the epoch
) STRICT;
