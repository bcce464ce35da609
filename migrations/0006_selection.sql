-- Which stages of a run were asked for, and whether those with a result were to run all the same: what `resume` asks again.
ALTER TABLE runs ADD COLUMN selection TEXT NOT NULL DEFAULT '{}';
