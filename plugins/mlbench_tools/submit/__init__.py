"""Results as packs: one file a run, to submit and to verify."""
