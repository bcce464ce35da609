-- What the remote sources of a run were found to hold, as `llmflow.lock` has it: what `resume` reads again.
ALTER TABLE runs ADD COLUMN locks TEXT NOT NULL DEFAULT '{}';
