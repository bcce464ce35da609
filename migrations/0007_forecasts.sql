-- How much there was to do and what it left, as JSON: later runs of the stage, or of its operator, are forecast by it.
ALTER TABLE stages ADD COLUMN effort TEXT;
