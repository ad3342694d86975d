-- Every record so far is an account's, or the notice of a sign-in, which is replaced by one of a kind of its own.
ALTER TABLE records ADD COLUMN kind TEXT NOT NULL DEFAULT 'account';

-- Milliseconds since the epoch. From then on there is no record, and whoever comes by deletes the row.
ALTER TABLE records ADD COLUMN expires INTEGER;

CREATE INDEX records_expires ON records (expires) WHERE expires IS NOT NULL;
