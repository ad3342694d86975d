CREATE TABLE records (
    owner   TEXT    NOT NULL,
    origin  TEXT    NOT NULL,
    version INTEGER NOT NULL,
    sealed  BLOB    NOT NULL,
    PRIMARY KEY (owner, origin)
) STRICT;

-- Apart from the records, so that taking a lease does not change a record's version.
CREATE TABLE leases (
    owner  TEXT    NOT NULL,
    origin TEXT    NOT NULL,
    holder TEXT    NOT NULL,
    until  INTEGER NOT NULL, -- milliseconds since the epoch
    PRIMARY KEY (owner, origin)
) STRICT;

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
