"""The catalog owns data sets, images, presets and the requests for jobs; it answers every query."""
