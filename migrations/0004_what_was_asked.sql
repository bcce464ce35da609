-- Everything that was asked in place of what the file says, params files and profiles too: what `resume` repeats.
ALTER TABLE runs ADD COLUMN overrides TEXT NOT NULL DEFAULT '';
-- The store of a run that is not the home's own.
ALTER TABLE runs ADD COLUMN store TEXT;
