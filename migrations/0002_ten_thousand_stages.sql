-- Why each stage was going to run, beside the stage: no reader has to load the plan of the whole run.
ALTER TABLE stages ADD COLUMN because TEXT;
-- The stages it waits for, data and `after`: a JSON list.
ALTER TABLE stages ADD COLUMN needs TEXT NOT NULL DEFAULT '[]';
-- Where and with what a run ran, and which run it went on with.
ALTER TABLE runs ADD COLUMN machine TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN resumes TEXT;
-- The last success of a stage is looked up by its name.
CREATE INDEX stages_by_name ON stages (stage);
