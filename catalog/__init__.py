"""The catalog owns data sets, images, presets and what is asked of jobs; it answers every query."""
