-- Looking back at a run of ten thousand stages reads the rows it shows and no others.

-- How many stages of a run failed, ran, were cached.
CREATE INDEX stages_by_status ON stages (run, status);
-- Who read what a stage gave, in this run or, by the artifact's digest, in any.
CREATE INDEX inputs_by_source ON inputs (run, from_stage);
-- The run before this one, of the same pipeline.
CREATE INDEX runs_by_pipeline ON runs (pipeline);
-- Runs whose process may have died: without reading past the text of every pipeline that ran.
CREATE INDEX runs_by_status ON runs (status);
-- The few events that say what no row says: why a stage was skipped or refused, and what was published.
CREATE INDEX events_that_tell ON events (run, json ->> '$.event', json ->> '$.stage')
    WHERE json ->> '$.event' IN ('refused', 'skipped', 'published', 'run_started');
-- Results, apart from the points of curves, which are many: those of a stage, and of a run by what they measure.
CREATE INDEX metrics_at_the_end ON metrics (run, stage) WHERE step IS NULL;
CREATE INDEX metrics_by_what ON metrics (run, name) WHERE step IS NULL;
