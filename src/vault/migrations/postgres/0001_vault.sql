-- Rows are found by a keyed hash of kind, owner and origin.
CREATE TABLE records (
    id      BYTEA       NOT NULL PRIMARY KEY,
    kind    TEXT        NOT NULL,
    version BIGINT      NOT NULL,
    sealed  BYTEA       NOT NULL,
    expires TIMESTAMPTZ -- From then on there is no record, and whoever comes by deletes the row.
);

CREATE INDEX records_expires ON records (expires) WHERE expires IS NOT NULL;

-- Apart from the records, so that taking a lease does not change a record's version.
CREATE TABLE leases (
    id      BYTEA       NOT NULL PRIMARY KEY,
    holder  TEXT        NOT NULL,
    expires TIMESTAMPTZ NOT NULL
);

CREATE INDEX leases_expires ON leases (expires);

CREATE TABLE meta (
    name  TEXT  NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

-- The processes hear at once when a record was changed or a lease was released.
CREATE FUNCTION tell_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('bondmcp_vault', encode(COALESCE(NEW.id, OLD.id), 'hex'));
    RETURN NULL;
END
$$;

CREATE TRIGGER records_tell AFTER INSERT OR UPDATE OR DELETE ON records FOR EACH ROW EXECUTE FUNCTION tell_change();

CREATE TRIGGER leases_tell AFTER DELETE ON leases FOR EACH ROW EXECUTE FUNCTION tell_change();

-- The known text in `meta` begins with its format and the id of the vault's current key. The database itself refuses a
-- record that another key encrypted, so that a process which has not noticed a change of keys loses nothing. A write
-- waits for a change of the known text that has begun, and a change for the writes that have.
CREATE FUNCTION refuse_other_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('bondmcp_vault'), 0);
    PERFORM FROM meta
    WHERE name = 'key_check' AND substring(value FROM 1 FOR 9) = substring(NEW.sealed FROM 1 FOR 9);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not the current sealing key' USING ERRCODE = 'BM001';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER records_current_key BEFORE INSERT OR UPDATE OF sealed ON records
FOR EACH ROW EXECUTE FUNCTION refuse_other_key();

CREATE FUNCTION wait_for_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('bondmcp_vault'), 0);
    RETURN NEW;
END
$$;

CREATE TRIGGER meta_change BEFORE UPDATE ON meta FOR EACH ROW EXECUTE FUNCTION wait_for_writes();
