-- The known text in `meta` begins with its format and the id of the vault's current key. The database itself refuses a
-- record that another key encrypted, so that a process which has not noticed a change of keys loses nothing. The first
-- format, 1, names no key; a vault has it until its key is changed for the first time.
CREATE TRIGGER records_insert_current_key BEFORE INSERT ON records
WHEN (SELECT substr(value, 1, 1) <> x'01' AND substr(value, 1, 9) <> substr(NEW.sealed, 1, 9)
      FROM meta WHERE name = 'key_check')
BEGIN
    SELECT RAISE(ABORT, 'not the current sealing key');
END;

CREATE TRIGGER records_update_current_key BEFORE UPDATE OF sealed ON records
WHEN (SELECT substr(value, 1, 1) <> x'01' AND substr(value, 1, 9) <> substr(NEW.sealed, 1, 9)
      FROM meta WHERE name = 'key_check')
BEGIN
    SELECT RAISE(ABORT, 'not the current sealing key');
END;
