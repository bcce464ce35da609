-- The name an input goes by where the pipeline gives its port a map.
ALTER TABLE inputs ADD COLUMN label TEXT;
-- Why a stage was going to run although nothing of its key had changed: `--force`, `cache: false`.
ALTER TABLE stages ADD COLUMN asked TEXT;
-- What was read, where that need not be what the named stage gave in this run: by a frozen stage.
ALTER TABLE inputs ADD COLUMN digest TEXT;
